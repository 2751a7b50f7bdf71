//! What all of a log says of one step, and of the answer.

use super::likeness;
use super::log::{Log, Role, Test, Word};
use super::opinion::{Belief, Met, Standing, StepOpinion, Suspicion};
use super::reasons;
use super::scale::Scale;
use super::weigh::{Part, Weights, is_target};
use crate::crash::Target;
use crate::id::RevisionId;

/// An answer, or a verdict, below the first is doubted; below the second an answer is rejected.
const TRUSTED: f64 = 0.8;
const REJECTED: f64 = 0.3;
/// Quiet runs that a verdict rests on may miss the bug this often.
const MISS: f64 = 0.003;

/// A log with what was made of it.
pub(super) struct View<'a> {
    pub log: &'a Log,
    pub target: Option<&'a Target>,
    pub scale: Option<&'a Scale>,
    pub weights: Option<&'a Weights>,
}

impl View<'_> {
    pub(super) fn step(&self, at: usize) -> StepOpinion {
        let test = &self.log.tests[at];
        let met = self.met(test);
        let claim = || {
            let (scale, weights) = (self.scale?, self.weights?);
            let place = scale.places[at].filter(|_| test.role == Role::Step)?;
            match test.word? {
                Word::Bad => Some(weights.claim(place, true)),
                Word::Good => Some(weights.claim(place, false)),
                Word::Skip => None,
            }
        };
        let probability = claim();
        let hits: u32 =
            met.iter().filter(|met| met.same_bug > 0.99 && !met.at_boot).map(|met| met.runs).sum();
        let skipped_hits = test.role == Role::Step && test.word == Some(Word::Skip) && hits > 0;
        let reason = match (self.target, self.weights) {
            (Some(target), Some(weights)) => reasons::of_step(self.log, test, target, weights),
            (_, _) => String::new(),
        };
        StepOpinion {
            number: at + 1,
            line: test.line,
            role: test.role.clone(),
            revision: test.revision,
            subject: test.subject.clone(),
            verdict: test.word,
            shows: shows(&met, self.quiet_runs()),
            doubtful: probability.is_some_and(|probability| probability < TRUSTED) || skipped_hits,
            probability,
            reason,
            decided_by: met,
        }
    }

    fn met(&self, test: &Test) -> Vec<Met> {
        let same = |title: &str| match (self.target, self.weights) {
            (Some(target), _) if is_target(target, title) => 1.0,
            (_, Some(weights)) => weights.same_bug(title).unwrap_or(0.0),
            (_, None) => 0.0,
        };
        let crash = |(title, runs): (&str, u32)| Met {
            what: title.into(),
            at_boot: false,
            runs,
            same_bug: same(title),
        };
        let boot =
            |(title, runs): (&str, u32)| Met { what: title.into(), at_boot: true, runs, same_bug: 0.0 };
        let mut met: Vec<Met> = test.crashes().into_iter().map(crash).collect();
        met.extend(test.boot_crashes().into_iter().map(boot));
        if test.ok() > 0 {
            met.push(Met { what: "OK".into(), at_boot: false, runs: test.ok(), same_bug: 0.0 });
        }
        met.sort_by_key(|met| std::cmp::Reverse(met.runs));
        met
    }

    pub(super) fn belief(&self) -> Belief {
        let published = &self.log.published;
        let blank = Belief {
            standing: Standing::None,
            revision: published.revision,
            subject: published.subject.clone(),
            probability: None,
            reasons: vec![],
        };
        let Some(revision) = published.revision else { return blank };
        let (Some(scale), Some(weights), Some(target)) = (self.scale, self.weights, self.target) else {
            let why = "the log holds too little of the search to judge by".to_string();
            return Belief { standing: Standing::Doubtful, reasons: vec![why], ..blank };
        };
        let probability = self.of_revision(weights, scale, &revision);
        let standing = match probability {
            probability if probability >= TRUSTED => Standing::Upheld,
            probability if probability < REJECTED => Standing::Rejected,
            _ => Standing::Doubtful,
        };
        let reasons = reasons::of_culprit(self.log, target).into_iter().map(|(_, reason)| reason).collect();
        Belief { standing, probability: Some(probability), reasons, ..blank }
    }

    fn of_revision(&self, weights: &Weights, scale: &Scale, revision: &RevisionId) -> f64 {
        let own = |part: &&Part| part.test.is_some_and(|at| self.log.tests[at].revision == *revision);
        if let Some(part) = weights.parts.iter().find(own) {
            return part.probability;
        }
        // It was never tested: one of those that the verdicts leave.
        let (low, high) = scale.left;
        let parts = weights.parts.iter().filter(|part| part.to > low && part.to <= high);
        let commits = (high - low).max(1) as f64;
        parts.map(|part| part.probability).sum::<f64>() / commits
    }

    pub(super) fn suspects(&self, weights: &Weights) -> Vec<Suspicion> {
        let mut suspects: Vec<Suspicion> = weights.parts.iter().map(|part| self.suspicion(part)).collect();
        suspects.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        suspects
    }

    fn suspicion(&self, part: &Part) -> Suspicion {
        let test = part.test.map(|at| &self.log.tests[at]);
        let commits = part.to - part.from;
        let place = match (test, part.to) {
            (Some(test), _) => test.revision.short(),
            (None, 0) => "none of the range".into(),
            (None, _) => {
                let name =
                    |at: Option<&Test>| at.map_or("the older end".into(), |test| test.revision.short());
                let (after, before) = (self.at_place(part.from), self.at_place(part.to + 1));
                let before = before.map_or("the newer end".into(), |test| test.revision.short());
                format!("about {commits} commits between {} and {before}", name(after))
            }
        };
        Suspicion {
            revision: test.map(|test| test.revision),
            subject: test.and_then(|test| test.subject.clone()),
            commits,
            probability: part.probability,
            place,
        }
    }

    fn at_place(&self, place: u64) -> Option<&Test> {
        let scale = self.scale?;
        let at = scale.places.iter().position(|known| *known == Some(place))?;
        Some(&self.log.tests[at])
    }

    /// Quiet runs that make a revision good at the rate of this bug.
    pub(super) fn quiet_runs(&self) -> u32 {
        let rate = self.weights.map_or(0.9, |weights| weights.rate).clamp(0.01, 0.999);
        ((MISS.ln() / (1.0 - rate).ln()).ceil() as u32).max(2)
    }
}

fn shows(met: &[Met], quiet_runs: u32) -> Option<bool> {
    let after_start = || met.iter().filter(|met| !met.at_boot);
    let ok: u32 = met.iter().filter(|met| met.what == "OK").map(|met| met.runs).sum();
    if after_start().any(|met| met.same_bug >= TRUSTED) {
        return Some(true);
    }
    let unclear =
        after_start().any(|met| met.what != "OK" && !likeness::is_harness(&met.what) && met.same_bug > 0.2);
    (ok >= quiet_runs && !unclear).then_some(false)
}
