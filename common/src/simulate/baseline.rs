//! What others do: bisection by verdicts, with the reference's rules (DOMAIN.md §1) or git's.

use super::trial::{Ask, Conclusion, Ending, Next, Policy, Query, Suspected};
use super::world::{Answer, Said};
use super::{Case, Graph, Rules};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Runs of the reference: at the start, and at every other revision.
const START_RUNS: u32 = 20;
const RUNS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    Skip,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    crashed: u32,
    ok: u32,
    boot_failed: u32,
    dead: bool,
}

pub struct Baseline<'a> {
    graph: &'a Graph,
    rules: Rules,
    good: Option<u32>,
    /// The tip of the range, and the end that must crash.
    tip: u32,
    bad: u32,
    /// Crashes before the change, and not behind it.
    fix: bool,
    suspects: Vec<u32>,
    /// How many suspects each suspect has among its ancestors; empty until it is asked for.
    weights: Vec<usize>,
    seen: BTreeMap<u32, Seen>,
    verdicts: BTreeMap<u32, Verdict>,
    /// Which commits have a verdict: every choice asks this of all suspects.
    judged: Vec<bool>,
}

impl<'a> Baseline<'a> {
    pub fn new(case: &Case<'a>, old: Option<u32>, new: u32) -> Self {
        let fix = case.mode == crate::job::Mode::Fix;
        Baseline {
            graph: case.graph,
            rules: case.rules,
            good: case.good,
            tip: new,
            bad: case.bad,
            fix,
            suspects: case.graph.range(old, new),
            weights: Vec::new(),
            seen: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            judged: vec![false; case.graph.len()],
        }
    }

    fn runs(&self, at: u32) -> u32 {
        match self.rules {
            Rules::Git => 1,
            Rules::Syzkaller | Rules::NthSection | Rules::Kulprit if at == self.bad => START_RUNS,
            Rules::Syzkaller | Rules::NthSection | Rules::Kulprit => RUNS,
        }
    }

    /// The verdict, once all runs are in.
    fn judge(&self, at: u32) -> Option<Verdict> {
        let Seen { crashed, ok, boot_failed, dead } = self.seen.get(&at).copied().unwrap_or_default();
        let total = self.runs(at);
        if !dead && crashed + ok + boot_failed < total {
            return None;
        }
        Some(match (self.rules, crashed, ok) {
            (_, 0, 0) => Verdict::Skip,
            (Rules::Git, 1.., _) => Verdict::Bad,
            (Rules::Git, 0, _) => Verdict::Good,
            (_, 0, ok) if 2 * ok >= total => Verdict::Good,
            (_, crashed, ok) if crashed >= 2.max(total / 6) && 2 * (crashed + ok) >= total => Verdict::Bad,
            (_, _, _) => Verdict::Skip,
        })
    }

    /// Narrows the suspects by a verdict inside the range.
    fn narrow(&mut self, at: u32, verdict: Verdict) {
        let changed = match verdict {
            Verdict::Bad => !self.fix,
            Verdict::Good => self.fix,
            Verdict::Skip => return,
        };
        let below = self.graph.ancestors(at);
        let left: Vec<u32> =
            self.suspects.iter().copied().filter(|&suspect| below[suspect as usize] == changed).collect();
        // A verdict that contradicts those before is dropped, as git would refuse it.
        if !left.is_empty() {
            (self.suspects, self.weights) = (left, Vec::new());
        }
    }

    /// Suspects that cut the rest into `sections` even parts, untried ones only.
    fn sections(&mut self, sections: usize) -> Vec<u32> {
        if self.weights.is_empty() {
            self.weights = self.graph.weights(&self.suspects);
        }
        let weighed = self.suspects.iter().copied().zip(self.weights.iter().copied());
        let open: Vec<(u32, usize)> =
            weighed.filter(|(at, _)| !self.judged[*at as usize] && *at != self.tip).collect();
        let len = self.suspects.len();
        let mut picks: Vec<u32> = Vec::new();
        for section in 1..=sections {
            let ideal = len * section / (sections + 1);
            let left = open.iter().filter(|(at, _)| !picks.contains(at));
            let best = left.min_by_key(|(at, weight)| (weight.abs_diff(ideal), *at));
            picks.extend(best.map(|(at, _)| *at));
        }
        picks
    }

    fn settle(&mut self) {
        let tried: Vec<u32> =
            self.seen.keys().copied().filter(|at| !self.verdicts.contains_key(at)).collect();
        for at in tried {
            if let Some(verdict) = self.judge(at) {
                self.verdicts.insert(at, verdict);
                self.judged[at as usize] = true;
                if at != self.bad && Some(at) != self.good {
                    self.narrow(at, verdict);
                }
            }
        }
    }

    fn conclude(&self) -> Conclusion {
        let probability = 1.0 / self.suspects.len() as f64;
        let suspects = self.suspects.iter().map(|&index| Suspected { index, probability }).collect();
        let ending = if self.suspects.len() == 1 { Ending::Culprit } else { Ending::Suspects };
        Conclusion { ending, suspects }
    }
}

impl Policy for Baseline<'_> {
    fn next(&mut self, width: NonZeroUsize) -> Next {
        self.settle();
        let done = |ending| Next::Done(Conclusion { ending, suspects: vec![] });
        let ask = |at: u32, runs| Next::Ask(vec![Ask { query: Query::Revision(at), runs }]);
        match self.verdicts.get(&self.bad) {
            None => return ask(self.bad, self.runs(self.bad)),
            Some(Verdict::Bad) => {}
            Some(Verdict::Good | Verdict::Skip) => return done(Ending::NotReproduced),
        }
        if let Some(good) = self.good {
            match self.verdicts.get(&good) {
                None => return ask(good, self.runs(good)),
                Some(Verdict::Bad) => return done(Ending::GoodEndIsBad),
                Some(Verdict::Good | Verdict::Skip) => {}
            }
        }
        if self.suspects.len() == 1 {
            return Next::Done(self.conclude());
        }
        let in_flight: Vec<u32> =
            self.seen.keys().copied().filter(|at| !self.verdicts.contains_key(at)).collect();
        let sections = if self.rules == Rules::NthSection { width.get() } else { 1 };
        let picks = if in_flight.is_empty() { self.sections(sections) } else { in_flight };
        if picks.is_empty() {
            return Next::Done(self.conclude());
        }
        for &at in &picks {
            self.seen.entry(at).or_default();
        }
        let asks = picks.iter().map(|&at| Ask { query: Query::Revision(at), runs: self.runs(at) });
        Next::Ask(asks.collect())
    }

    fn saw(&mut self, query: Query, _run: u32, answer: &Answer) {
        let (Query::Revision(at) | Query::Revert(at)) = query;
        let seen = self.seen.entry(at).or_default();
        match answer.said {
            Said::Ok => seen.ok += 1,
            Said::Crashed(_) => seen.crashed += 1,
            Said::BootFailed { .. } => seen.boot_failed += 1,
            Said::BuildFailed { .. } => seen.dead = true,
            Said::Infra { .. } | Said::RevertConflict => {}
        }
    }

    fn unavailable(&mut self, query: Query, _reason: &str) {
        let (Query::Revision(at) | Query::Revert(at)) = query;
        self.seen.entry(at).or_default().dead = true;
    }

    fn enough(&mut self, _query: Query) -> bool {
        false
    }
}
