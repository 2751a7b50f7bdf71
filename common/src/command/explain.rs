//! Why each revision was run, in the engine's own reasons.

use super::Search;
use crate::bisect::{Picked, Round};
use crate::report::explain::{self, Subject};
use crate::report::json;
use serde_json::Value;

impl Search {
    /// A line for each round, and one for each revision that it chose.
    pub fn explained(&self) -> Vec<String> {
        let rounds = self.rounds();
        (0..rounds.len()).flat_map(|at| explain::lines(&rounds, at, Subject::Command)).collect()
    }

    pub fn explained_json(&self) -> Value {
        json::rounds(&self.rounds())
    }

    /// The engine's rounds, without what it asked for in vain: the runs are believed, or the
    /// search was stopped.
    fn rounds(&self) -> Vec<Round> {
        let mut rounds = self.engine.rounds().to_vec();
        let ran = |pick: &Picked| self.tally(&pick.revision).total() > 0;
        rounds.iter_mut().for_each(|round| round.picks.retain(ran));
        let last = rounds.len().saturating_sub(1);
        let mut at = 0..;
        rounds.retain(|round| at.next() == Some(last) || !round.picks.is_empty());
        rounds
    }
}
