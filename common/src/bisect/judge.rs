//! From the runs at one revision to its verdict, and to the runs still wanted.

use super::Counts;
use super::rate::Rate;
use crate::verdict::Verdict;

/// This many runs that all say nothing end a revision.
const SILENT_RUNS_MAX: u32 = 3;
/// Asked of the bad end at least, since its rate decides how many runs all others get; what
/// more it needs to show the crash, it gets by doubling.
const START_RUNS: u32 = 4;
/// Where some of them stay quiet, the rate is worth more of them.
const START_RUNS_FLAKY: u32 = 10;
const START_SHOWN_FLAKY: u32 = 3;

impl Counts {
    /// Runs that say whether the bug is there.
    pub fn informative(&self) -> u32 {
        self.target + self.ok
    }

    /// Runs that ran into something else.
    pub fn silent(&self) -> u32 {
        self.other + self.failed
    }

    pub fn total(&self) -> u32 {
        self.informative() + self.silent()
    }
}

/// The measure that verdicts are made by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    pub rate: Rate,
    /// Most runs that count at one revision.
    pub max: u32,
}

impl Measure {
    /// The verdict of these runs; none as long as more runs may change it.
    pub fn verdict(&self, counts: &Counts) -> Option<Verdict> {
        let spent = counts.total() >= self.budget(counts);
        if counts.target >= 2 || counts.target == 1 && spent {
            Some(Verdict::Bad)
        } else if counts.target == 0 && counts.ok >= self.rate.runs_for_good(self.max) {
            Some(Verdict::Good)
        } else if spent || counts.informative() == 0 && counts.silent() >= SILENT_RUNS_MAX {
            Some(Verdict::Skip)
        } else {
            None
        }
    }

    /// The total of runs wanted at a revision without a verdict.
    pub fn wanted(&self, counts: &Counts) -> u32 {
        let more = if counts.target == 0 {
            self.rate.runs_for_good(self.max).saturating_sub(counts.ok)
        } else {
            (1.0 / self.rate.mean()).ceil() as u32
        };
        let first_silent = counts.informative() == 0 && counts.silent() > 0;
        let more = if first_silent { SILENT_RUNS_MAX.saturating_sub(counts.silent()) } else { more };
        (counts.total() + more.max(1)).min(self.budget(counts))
    }

    /// A few silent runs are replaced, so that noise alone does not make a skip.
    fn budget(&self, counts: &Counts) -> u32 {
        self.max + counts.silent().min(self.max / 2)
    }
}

/// What the runs at the bad end say, while its rate is not yet known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// This many runs in all are wanted.
    Wants(u32),
    Shows,
    /// Every run failed before the reproducer could do anything.
    Broken,
    Quiet,
}

/// Judges the bad end: it must show the crash within `max` runs.
pub(super) fn judge_start(counts: &Counts, max: u32) -> Start {
    let spent = counts.total() >= max;
    let (shown, runs) = if counts.ok == 0 { (2, START_RUNS) } else { (START_SHOWN_FLAKY, START_RUNS_FLAKY) };
    let clear = counts.target >= shown && counts.total() >= runs.min(max);
    if clear || counts.target >= 2 && counts.total() >= 2 * START_RUNS_FLAKY || counts.target >= 1 && spent {
        Start::Shows
    } else if counts.total() > 0 && counts.failed == counts.total() && counts.total() >= max.div_ceil(2) {
        Start::Broken
    } else if spent {
        Start::Quiet
    } else {
        Start::Wants((counts.total() * 2).clamp(START_RUNS.min(max), max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(target: u32, ok: u32, other: u32, failed: u32) -> Counts {
        Counts { target, ok, other, failed }
    }

    #[test]
    fn verdicts_fall_as_early_as_they_may() {
        let always = Rate::pooled([counts(20, 0, 0, 0)]);
        let rarely = Rate::pooled([counts(20, 80, 0, 0)]);
        let table = [
            (always, counts(0, 0, 0, 0), None, 2),
            (always, counts(2, 0, 0, 0), Some(Verdict::Bad), 0),
            (always, counts(0, 2, 0, 0), Some(Verdict::Good), 0),
            (always, counts(1, 1, 0, 0), None, 4),
            (always, counts(1, 9, 0, 0), Some(Verdict::Bad), 0),
            (always, counts(0, 0, 1, 0), None, 3),
            (always, counts(0, 0, 1, 2), Some(Verdict::Skip), 0),
            (always, counts(0, 1, 9, 0), None, 11),
            (always, counts(0, 1, 14, 0), Some(Verdict::Skip), 0),
            (rarely, counts(0, 9, 0, 0), None, 10),
            (rarely, counts(0, 9, 0, 1), None, 11),
            (rarely, counts(0, 10, 0, 0), Some(Verdict::Good), 0),
        ];
        for (rate, counts, verdict, wanted) in table {
            let measure = Measure { rate, max: 10 };
            assert_eq!(measure.verdict(&counts), verdict, "{counts:?}");
            if verdict.is_none() {
                assert_eq!(measure.wanted(&counts), wanted, "{counts:?}");
            }
        }
    }

    #[test]
    fn the_bad_end_gets_all_its_runs_before_it_is_given_up() {
        for (seen, expected) in [
            (counts(0, 0, 0, 0), Start::Wants(4)),
            (counts(1, 2, 0, 0), Start::Wants(6)),
            (counts(2, 1, 0, 0), Start::Wants(6)),
            (counts(2, 2, 0, 0), Start::Wants(8)),
            (counts(4, 0, 0, 0), Start::Shows),
            (counts(3, 7, 0, 0), Start::Shows),
            (counts(0, 19, 0, 0), Start::Wants(20)),
            (counts(0, 20, 0, 0), Start::Quiet),
            (counts(1, 19, 0, 0), Start::Shows),
            (counts(0, 0, 0, 9), Start::Wants(18)),
            (counts(0, 0, 0, 10), Start::Broken),
            (counts(0, 1, 0, 19), Start::Quiet),
        ] {
            assert_eq!(judge_start(&seen, 20), expected, "{seen:?}");
        }
    }
}
