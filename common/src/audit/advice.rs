//! What should have come next, and what was spent for nothing.

use super::log::{Kind, Role, Word};
use super::opinion::{Advice, StepOpinion, Waste, weigh};
use super::render::rounded;
use super::view::View;

/// Suspects less likely than this are not worth a kernel of their own.
const LIKELY: f64 = 0.05;
const KERNELS_MAX: usize = 3;
/// Runs that are enough: of the start, of a revision that shows it, of one that says nothing.
const START_RUNS: u32 = 4;
const SHOWN_RUNS: u32 = 2;
const SILENT_RUNS: u32 = 3;

impl View<'_> {
    /// What the search would have tried after the step that is doubted, or for a certificate.
    pub(super) fn next(&self, doubted: Option<usize>) -> Vec<Advice> {
        let mut advice = Vec::new();
        let (Some(scale), Some(target)) = (self.scale, self.target) else { return advice };
        let upto = doubted.map_or(self.log.tests.len(), |at| at + 1);
        let weights = weigh(self.log, scale, target, upto);
        let suspects = self.suspects(&weights);
        let Some(first) = suspects.first() else { return advice };
        if first.revision.is_none() && first.commits > 1 {
            let text =
                format!("a revision amid {} (probability {})", first.place, rounded(first.probability));
            advice.push(Advice { action: "halve", revision: None, text });
        }
        let Some((newer, older)) = self.log.range else { return advice };
        for suspect in suspects.iter().filter(|it| it.probability >= LIKELY).take(KERNELS_MAX) {
            let Some(revision) = suspect.revision else { continue };
            let (own, sure) = (revision.short(), rounded(suspect.probability));
            let (action, text) = match self.log.kind {
                Kind::Cause => ("revert", format!("the bad end {} with {own} reverted", newer.short())),
                Kind::Fix => {
                    ("pick", format!("the crashing end {} with {own} picked onto it", older.short()))
                }
            };
            let text = format!("{text} (probability {sure})");
            advice.push(Advice { action, revision: Some(revision), text });
        }
        let built = self.log.tests.iter().find(|test| test.role == Role::Parent && test.total() == 0);
        if let Some(parent) = self.log.untested_parent.or(built.map(|test| test.revision)) {
            let text = format!("{}, the blamed commit's parent, which was never run", parent.short());
            advice.push(Advice { action: "run", revision: Some(parent), text });
        }
        advice
    }

    pub(super) fn waste(&self, steps: &[StepOpinion], doubted: Option<usize>) -> Waste {
        let log = self.log;
        let mut waste = Waste { hours: log.total_s.map(|total_s| total_s / 3600.0), ..Waste::default() };
        let after = |at: usize| doubted.is_some_and(|doubted| at > doubted);
        for (at, (test, step)) in log.tests.iter().zip(steps).enumerate() {
            let total = test.total();
            let enough = match (&test.role, step.shows) {
                (Role::Start, _) => START_RUNS,
                (_, Some(true)) => SHOWN_RUNS,
                (_, Some(false)) => self.quiet_runs(),
                (_, None) if test.ok() > 0 => total,
                (_, None) => SILENT_RUNS,
            };
            waste.runs += total;
            waste.runs_enough += if after(at) { 0 } else { enough.min(total) };
            waste.skipped_steps += usize::from(test.role == Role::Step && test.word == Some(Word::Skip));
            waste.steps_after_doubt += usize::from(after(at) && test.role == Role::Step);
            let before = log.tests[..at].iter().any(|earlier| earlier.revision == test.revision);
            waste.tested_again += usize::from(before);
        }
        let share = 1.0 - f64::from(waste.runs_enough) / f64::from(waste.runs.max(1));
        waste.hours_wasted = log.test_s.map(|test_s| test_s / 3600.0 * share);
        waste
    }
}
