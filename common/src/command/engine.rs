//! The engine of `bisect`, told of a command's runs as if they were those of a kernel.

use super::Exit;
use crate::bisect::{self, Bisection, Evidence, Question};
use crate::crash::Crash;
use crate::history::History;
use crate::id::{Digest, RevisionId};
use crate::job::{Mode, Runs};
use crate::outcome::{Outcome, Phase, SeenCrash};
use std::num::NonZeroUsize;

/// The engine's name for a run that fails.
const TARGET: &str = "the command fails";

pub(super) fn question(good: RevisionId, bad: RevisionId, max: u32, first_max: u32) -> Question {
    let target = Some(TARGET.to_string());
    Question {
        mode: Mode::Cause,
        target,
        runs: Runs { max, first_max },
        bad,
        good: Some(good),
        releases: vec![],
    }
}

/// The engine's next step, its range loaded.
pub(super) fn step(engine: &mut Bisection, history: &History, width: NonZeroUsize) -> bisect::Step {
    match engine.next_step(width) {
        bisect::Step::LoadHistory { .. } => {
            engine.set_history(history.clone());
            engine.next_step(width)
        }
        step @ (bisect::Step::Evaluate(_) | bisect::Step::Certify(_) | bisect::Step::Done(_)) => step,
    }
}

/// A revision whose first run skips cannot be tested; later on, one run said nothing.
pub(super) fn tell(engine: &mut Bisection, revision: RevisionId, index: u32, exit: Exit, untested: bool) {
    let outcome = match exit {
        Exit::Good => Outcome::Ok,
        Exit::Bad => Outcome::Crashed(vec![SeenCrash { phase: Phase::Reproducer, crash: Crash::titled(TARGET) }]),
        Exit::Skip if untested => {
            let message = "the command skipped it".to_string();
            return engine.record(Evidence::BuildFailed { revision, message });
        }
        Exit::Skip => Outcome::NoReproducerStart { reason: "the command skipped it".into() },
        Exit::Abort => return,
    };
    // Commits are never held to be equal: a command may look at more than the tree.
    engine.record(Evidence::Built { revision, fingerprint: Digest::of(revision.as_bytes()) });
    engine.record(Evidence::Run { revision, index, outcome });
}
