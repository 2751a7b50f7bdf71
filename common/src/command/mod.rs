//! A search whose runs are those of a command, as `git bisect run` has them: no farm, no kernel.
//!
//! `search` decides what is run next and when it is over, with the engine of `bisect`, which
//! `engine` tells of the runs; `told` says it in git's words, `explain` says why. Who checks out, runs and waits is not known here.

mod engine;
mod explain;
mod search;
mod told;

pub use search::Search;

use crate::bisect::Suspect;
use crate::id::RevisionId;
use std::num::{NonZeroU32, NonZeroUsize};

/// What an exit code of the command says, by the rules of `git bisect run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Good,
    Bad,
    /// This revision cannot be tested.
    Skip,
    /// The search must not go on.
    Abort,
}

impl Exit {
    /// Takes the code as the shell has it; a command that a signal killed has none of these.
    pub fn of_code(code: i32) -> Exit {
        match code {
            0 => Exit::Good,
            125 => Exit::Skip,
            1..=127 => Exit::Bad,
            _ => Exit::Abort,
        }
    }
}

/// How often a revision is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Once as long as that does, then as often as certainty asks.
    Auto,
    /// A revision that never failed counts as good after this many.
    Exactly(NonZeroU32),
}

/// What the user wants of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub jobs: NonZeroUsize,
    pub repetition: Repetition,
    /// Go on until the answer is this likely.
    pub confidence: Option<f64>,
}

/// Beyond this the engine certifies, and needs no further number.
pub const CONFIDENCE_MAX: f64 = 0.99;

impl Plan {
    /// The probability at which the search may stop; none where the runs that `git bisect run`
    /// would make are all there shall be. One job is held to what git spends; several have
    /// room to make sure.
    pub fn wanted(&self) -> Option<f64> {
        let default = match self.repetition {
            Repetition::Auto if self.jobs.get() > 1 => Some(CONFIDENCE_MAX),
            Repetition::Exactly(runs) if runs.get() > 1 => Some(CONFIDENCE_MAX),
            Repetition::Auto | Repetition::Exactly(_) => None,
        };
        self.confidence.or(default)
    }
}

/// The runs of a revision by what they said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub good: u32,
    pub bad: u32,
    pub skip: u32,
}

impl Tally {
    pub fn total(&self) -> u32 {
        self.good + self.bad + self.skip
    }
}

/// A revision to be run until it has been run `runs` times in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub revision: RevisionId,
    pub runs: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Run these; whatever else is running is no longer wanted.
    Run(Vec<Want>),
    Done(Ending),
}

/// How a search ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Culprit {
        revision: RevisionId,
        /// That it is the first bad commit, if the command may be flaky.
        probability: f64,
    },
    /// It is one of these; `reason` says why no more can be said.
    Suspects {
        suspects: Vec<Suspect>,
        reason: String,
    },
    /// The command never failed at the bad end.
    BadEndPasses {
        tally: Tally,
    },
    BadEndSkipped,
    GoodEndFails {
        revision: RevisionId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_git_bisect_run() {
        for (code, exit) in [
            (0, Exit::Good),
            (1, Exit::Bad),
            (124, Exit::Bad),
            (125, Exit::Skip),
            (126, Exit::Bad),
            (127, Exit::Bad),
            (128, Exit::Abort),
            (255, Exit::Abort),
            (-1, Exit::Abort),
        ] {
            assert_eq!(Exit::of_code(code), exit, "{code}");
        }
    }

    #[test]
    fn one_job_is_held_to_what_git_spends_unless_more_is_asked_for() {
        let plan = |jobs, runs: u32, confidence| {
            let jobs = NonZeroUsize::new(jobs).expect("some");
            let repetition = NonZeroU32::new(runs).map_or(Repetition::Auto, Repetition::Exactly);
            Plan { jobs, repetition, confidence }.wanted()
        };
        assert_eq!(plan(1, 0, None), None);
        assert_eq!(plan(1, 1, None), None);
        assert_eq!(plan(4, 1, None), None);
        assert_eq!(plan(1, 0, Some(0.9)), Some(0.9));
        assert_eq!(plan(2, 0, None), Some(CONFIDENCE_MAX));
        assert_eq!(plan(1, 5, None), Some(CONFIDENCE_MAX));
    }
}
