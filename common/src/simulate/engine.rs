//! The policy `kulprit`: the engine of `bisect`, with indices for revisions.

use super::trial::{Ask, Conclusion, Ending, Next, Policy, Query, Suspected, fingerprint};
use super::world::{Answer, Said, crash};
use super::{Case, Graph};
use crate::bisect::{Bisection, Candidate, Evidence, Finding, Question, Role, Step};
use crate::crash::Crash;
use crate::id::RevisionId;
use crate::job::{Mode, Runs};
use crate::outcome::{Outcome, Phase, SeenCrash};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

/// Runs at the bad end before the crash counts as not reproduced: a bug that shows once in
/// ten runs is missed by 40 in 1.5 % of searches, by 20 in 12 %.
const FIRST_RUNS_MAX: u32 = 40;

pub struct Engine<'a> {
    graph: &'a Graph,
    search: Bisection,
    /// What the search calls each query, and the other way round.
    names: BTreeMap<Query, RevisionId>,
    built: BTreeSet<Query>,
}

impl<'a> Engine<'a> {
    pub fn new(case: &Case<'a>) -> Self {
        let graph = case.graph;
        let question = Question {
            mode: case.mode,
            target: Some(case.crash.title.clone()),
            runs: Runs { first_max: FIRST_RUNS_MAX, ..Runs::default() },
            bad: graph.node(case.bad).id,
            good: case.good.map(|good| graph.node(good).id),
            releases: vec![],
        };
        let mut search =
            Bisection::new(question).with_target(case.crash.clone()).with_costs(case.costs).allow_reverts();
        if case.mode == Mode::Cause && case.good.is_none() {
            search = search.trusting_outside();
            if let Some(history) = graph.history(None, case.bad) {
                search.set_history(history);
            }
        }
        Engine { graph, search, names: BTreeMap::new(), built: BTreeSet::new() }
    }

    fn ask(&mut self, candidate: &Candidate) -> Option<Ask> {
        let query = match &candidate.role {
            Role::Revert(commit) => Query::Revert(self.graph.find(commit)?),
            Role::Start
            | Role::GoodEnd
            | Role::Release(_)
            | Role::Search
            | Role::Certify
            | Role::Overruled => Query::Revision(self.graph.find(&candidate.revision)?),
        };
        self.names.insert(query, candidate.revision);
        Some(Ask { query, runs: candidate.runs })
    }

    fn conclude(&mut self, finding: Finding) -> Conclusion {
        let beliefs = self.search.beliefs();
        let believed = |revision: &RevisionId| {
            beliefs.iter().find(|it| it.revision == *revision).map_or(1.0, |it| it.probability)
        };
        let suspected = |revision: &RevisionId, probability| {
            self.graph.find(revision).map(|index| Suspected { index, probability })
        };
        let (ending, suspects) = match finding {
            Finding::Culprit { revision, .. } => {
                (Ending::Culprit, suspected(&revision, believed(&revision)).into_iter().collect())
            }
            Finding::Suspects { suspects, .. } => {
                let all = suspects.iter().filter_map(|it| suspected(&it.revision, it.probability));
                (Ending::Suspects, all.collect())
            }
            Finding::NotReproduced { .. } => (Ending::NotReproduced, vec![]),
            Finding::GoodEndIsBad { .. } | Finding::NotFixed { .. } | Finding::OldestReleaseHasBug { .. } => {
                (Ending::GoodEndIsBad, vec![])
            }
            Finding::BadEndBroken { .. } | Finding::Blocked { .. } => (Ending::Blocked, vec![]),
        };
        Conclusion { ending, suspects }
    }
}

impl Policy for Engine<'_> {
    fn next(&mut self, width: NonZeroUsize) -> Next {
        loop {
            match self.search.next_step(width) {
                Step::Evaluate(candidates) | Step::Certify(candidates) => {
                    return Next::Ask(
                        candidates.iter().filter_map(|candidate| self.ask(candidate)).collect(),
                    );
                }
                Step::LoadHistory { good, bad } => {
                    let ends = self.graph.find(&good).zip(self.graph.find(&bad));
                    match ends.and_then(|(good, bad)| self.graph.history(Some(good), bad)) {
                        Some(history) => self.search.set_history(history),
                        None => return Next::Done(Conclusion { ending: Ending::Blocked, suspects: vec![] }),
                    }
                }
                Step::Done(finding) => return Next::Done(self.conclude(finding)),
            }
        }
    }

    fn saw(&mut self, query: Query, run: u32, answer: &Answer) {
        let Some(&revision) = self.names.get(&query) else { return };
        if let Said::BuildFailed { message } = &answer.said {
            let message = message.clone().unwrap_or_default();
            return self.search.record(Evidence::BuildFailed { revision, message });
        }
        if self.built.insert(query) {
            let fingerprint = fingerprint(query, answer);
            self.search.record(Evidence::Built { revision, fingerprint });
        }
        if let Some(outcome) = outcome(&answer.said) {
            self.search.record(Evidence::Run { revision, index: run, outcome });
        }
    }

    fn unavailable(&mut self, query: Query, reason: &str) {
        let Some(&revision) = self.names.get(&query) else { return };
        self.search.record(Evidence::Unavailable { revision, reason: reason.into() });
    }

    fn enough(&mut self, query: Query) -> bool {
        self.names.get(&query).is_none_or(|revision| self.search.enough(revision))
    }
}

/// Nothing for what says nothing about the kernel.
fn outcome(said: &Said) -> Option<Outcome> {
    let seen = |phase, crash| SeenCrash { phase, crash };
    match said {
        Said::Ok => Some(Outcome::Ok),
        Said::Crashed(told) => Some(Outcome::Crashed(vec![seen(Phase::Reproducer, crash(told))])),
        Said::BootFailed { title } => {
            let title = title.as_ref().filter(|title| !title.is_empty());
            let crashes = title.map(|title| seen(Phase::Boot, Crash::titled(title)));
            Some(Outcome::BootFailed { crashes: crashes.into_iter().collect(), reason: "boot failed".into() })
        }
        Said::BuildFailed { .. } | Said::Infra { .. } | Said::RevertConflict => None,
    }
}
