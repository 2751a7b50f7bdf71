//! Searches in virtual time: a world that answers, agents that take their time, a policy that
//! asks. The policy `kulprit` is the engine itself.
//!
//! `world` and `graph` read what a person gives, `scenario` makes worlds, `trial` lets time
//! pass, `engine` and `baseline` are the policies.

mod baseline;
mod dice;
mod engine;
mod graph;
mod scenario;
mod terrain;
mod trial;
mod world;

pub use baseline::Baseline;
pub use dice::Dice;
pub use engine::Engine;
pub use graph::{Graph, InvalidGraph, Node};
pub use scenario::{Family, Scenario};
pub use terrain::Terrain;
pub use trial::{Conclusion, Ending, Kernel, Outcome, Policy, Setting, Suspected, run};
pub use world::{Answer, InvalidWorld, Request, Said, Source, World};

use crate::bisect::Costs;
use crate::crash::Target;
use crate::job::Mode;
use serde::Serialize;
use std::num::NonZeroUsize;

/// Whose rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Kulprit,
    /// The reference's: ten runs a revision, any crash is bad, one after the other.
    Syzkaller,
    /// Plain bisection: one run a revision, any crash is bad.
    Git,
    /// The reference's verdicts on even sections, one for each agent.
    NthSection,
}

/// One search to be run.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    pub graph: &'a Graph,
    pub mode: Mode,
    pub bad: u32,
    pub good: Option<u32>,
    pub crash: Target,
    pub costs: Costs,
    pub agents: NonZeroUsize,
    pub rules: Rules,
}

/// A case that cannot be searched; it names the field of the world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCase {
    #[error("{field}: there is no commit {index}; the last one is {last}")]
    NoCommit { field: &'static str, index: u32, last: u32 },
    #[error("good: the range between {good:?} and {bad} is empty")]
    EmptyRange { good: Option<u32>, bad: u32 },
}

impl Case<'_> {
    /// Runs the search against a kernel; `clock_ms` is real time, for what a choice takes.
    pub fn run<K: Kernel>(
        &self,
        kernel: &mut K,
        clock_ms: &dyn Fn() -> f64,
    ) -> Result<Result<Outcome, K::Error>, InvalidCase> {
        let last = self.graph.tip();
        for (field, index) in [("bad", Some(self.bad)), ("good", self.good)] {
            if let Some(index) = index.filter(|&index| index > last) {
                return Err(InvalidCase::NoCommit { field, index, last });
            }
        }
        let (old, new) = match (self.mode, self.good) {
            (Mode::Cause, good) => (good, self.bad),
            (Mode::Fix, good) => (Some(self.bad), good.unwrap_or(last)),
        };
        if self.graph.range(old, new).is_empty() {
            return Err(InvalidCase::EmptyRange { good: self.good, bad: self.bad });
        }
        let setting = Setting { bad: self.bad, costs: self.costs, agents: self.agents };
        let mut policy: Box<dyn Policy + '_> = match self.rules {
            Rules::Kulprit => Box::new(Engine::new(self)),
            Rules::Syzkaller | Rules::Git | Rules::NthSection => Box::new(Baseline::new(self, old, new)),
        };
        Ok(trial::run(&setting, policy.as_mut(), kernel, clock_ms))
    }
}

/// A trial as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub trial: u32,
    pub ending: Ending,
    pub culprit: Option<u32>,
    pub probability: Option<f64>,
    pub suspects: Vec<Suspected>,
    pub builds: u32,
    pub visits: u32,
    pub runs: u32,
    pub wall_s: f64,
    pub choose_ms_max: f64,
    pub choose_ms_mean: f64,
    pub picks: Vec<Vec<u32>>,
    /// Of a built-in scenario: the answer, and whether revisions alone can tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolvable: Option<bool>,
}

impl Report {
    pub fn new(trial: u32, outcome: Outcome) -> Self {
        let Conclusion { ending, suspects } = outcome.conclusion;
        let culprit = suspects.first().filter(|_| ending == Ending::Culprit);
        Report {
            trial,
            ending,
            culprit: culprit.map(|culprit| culprit.index),
            probability: culprit.map(|culprit| culprit.probability),
            suspects,
            builds: outcome.builds,
            visits: outcome.visits,
            runs: outcome.runs,
            wall_s: outcome.wall_s,
            choose_ms_max: outcome.choose_ms_max,
            choose_ms_mean: outcome.choose_ms_sum / outcome.choices.max(1) as f64,
            picks: outcome.picks,
            truth: None,
            resolvable: None,
        }
    }
}
