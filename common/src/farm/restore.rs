//! The way back: a farm from the facts of its journal.

use super::Farm;
use super::action::Action;
use super::fact::Fact;
use super::item::{Failure, ItemKey};
use super::items::Items;
use super::jobs::Stage;
use super::noise;
use super::view::EndedJob;
use super::{Config, jobs::JobState};
use crate::bisect::{Bisection, Evidence};
use crate::id::Attempt;
use crate::outcome::{InfraClass, Product};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl Farm {
    /// Takes the facts in the order they were recorded. The actions start a new epoch and
    /// take up the jobs that had not ended.
    pub fn restore(
        config: Config,
        facts: impl IntoIterator<Item = Fact>,
        now: Timestamp,
    ) -> (Farm, Vec<Action>) {
        let mut farm = Farm {
            config,
            epoch: 0,
            granted: 0,
            grace_until: None,
            awaited: BTreeSet::new(),
            jobs: BTreeMap::new(),
            submissions: 0,
            requests: HashMap::new(),
            items: Items::default(),
            items_made: 0,
            products: HashMap::new(),
            yielded: HashMap::new(),
            finished: BTreeSet::new(),
            agents: BTreeMap::new(),
            came: BTreeSet::new(),
            access: crate::access::Ledger::default(),
            aside: BTreeMap::new(),
            claims: BTreeMap::new(),
            failures: BTreeMap::new(),
            noise: noise::Noise::default(),
            breakage: Vec::new(),
            handled: now,
            dirty: BTreeSet::new(),
            advanced: None,
        };
        for fact in facts {
            farm.take(fact);
        }
        farm.epoch += 1;
        farm.grace_until = (!farm.awaited.is_empty()).then(|| now + farm.config.grace);
        let mut actions = vec![Action::Record(Fact::EpochStarted { epoch: farm.epoch })];
        let open: Vec<_> = farm.jobs.values().filter(|job| job.is_open()).map(|job| job.id.clone()).collect();
        for id in open {
            if farm.jobs[&id].resolution.is_none() {
                actions.extend(farm.ask_to_resolve(&id));
            } else {
                farm.recall_evidence(&id);
                farm.dirty.insert(id);
            }
        }
        while !farm.dirty.is_empty() {
            farm.advance(now, &mut actions);
        }
        (farm, actions)
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::EpochStarted { epoch } => self.epoch = epoch,
            Fact::JobSubmitted { id, request, at, job, reproducer, by: _ } => {
                self.add_job(id, request, at, *job, reproducer);
            }
            // Its ending is a fact of its own.
            Fact::CancelRequested { .. } => {}
            Fact::Access(fact) => self.access.take(fact),
            Fact::JobResolved { id, resolution } => self.set_resolution(&id, *resolution),
            Fact::ItemFinished { item, attempt, agent, product, .. } => {
                self.remember(attempt);
                self.keep(item, *product, &agent);
            }
            Fact::AttemptFailed { item, attempt, agent, at, infra } => {
                self.remember(attempt);
                if infra.class != InfraClass::Disk {
                    // The clock may have been set back since.
                    let failure = Failure { agent, at, retry_from: self.handled, infra };
                    self.failures.entry(item).or_default().push(failure);
                }
            }
            Fact::AgentCame { agent, .. } => {
                self.came.insert(agent.clone());
                self.awaited.insert(agent);
            }
            Fact::AgentWent { agent, .. } => {
                self.awaited.remove(&agent);
            }
            Fact::Quarantine(fact) => _ = self.take_quarantine(fact),
            Fact::Judged { id, judged } => {
                if let Some(mut state) = self.jobs.remove(&id) {
                    self.note_breakage(&state, &judged);
                    state.judged.push(*judged);
                    self.jobs.insert(id, state);
                }
            }
            Fact::Overruled { id, revision, word, .. } => self.take_word(&id, revision, word),
            Fact::Explained { id, round } => {
                if let Some(state) = self.jobs.get_mut(&id) {
                    state.rounds.push(round);
                }
            }
            Fact::Configured { id, configured } => self.take_configured(&id, configured),
            Fact::ProductsForgotten { items, .. } => self.forget_products(&items),
            Fact::JobEnded { id, at, end, rendered } => {
                if let Some(state) = self.jobs.get_mut(&id) {
                    let ended = EndedJob { at, end, rendered: *rendered };
                    state.stage = Stage::Ended(Box::new(ended));
                    state.bisection = None;
                }
                self.dirty.remove(&id);
                // Nobody knows whether it was this job that wanted what failed.
                self.failures.clear();
            }
        }
    }

    /// Gives a restored bisection the evidence its verdicts rest on; what was seen at
    /// revisions without a verdict is found again under its key when the search asks.
    pub(super) fn recall_evidence(&mut self, id: &crate::id::JobId) {
        let Some(mut state) = self.jobs.remove(id) else { return };
        self.recall(&mut state);
        self.jobs.insert(id.clone(), state);
    }

    /// The same. What was seen of kernels in another configuration is left where it is.
    pub(super) fn recall(&self, state: &mut JobState) {
        if let Some(bisection) = &mut state.bisection {
            bisection.recall_rounds(state.rounds.clone());
        }
        let own = state.judged[state.settled_since()..].to_vec();
        for judged in own {
            let revision = judged.judgement.revision;
            for key in judged.build.iter().chain(&judged.runs) {
                let symptom = state.job.symptom;
                let evidence = match (self.products.get(key), key) {
                    (Some(Product::Build(build)), ItemKey::Build(digest)) => {
                        symptom.of_build(revision, digest, &build.outcome, 1)
                    }
                    (Some(Product::Run(run)), ItemKey::Run(_, index)) if !self.noise.is_disowned(key) => {
                        let (outcome, index) = (symptom.of_run(&run.outcome), noise::number(*index));
                        vec![Evidence::Run { revision, index, outcome }]
                    }
                    (Some(_) | None, _) => continue,
                };
                recall(state, revision, key, evidence);
            }
        }
    }

    /// The attempt that was granted last, for tests and for the record.
    pub fn last_attempt(&self) -> Attempt {
        Attempt(u64::from(self.epoch) << 32 | u64::from(self.granted))
    }
}

fn recall(state: &mut JobState, revision: crate::id::RevisionId, key: &ItemKey, evidence: Vec<Evidence>) {
    if state.recorded.insert((revision, key.clone())) {
        let record = |bisection: &mut Bisection| evidence.into_iter().for_each(|it| bisection.record(it));
        state.bisection.as_mut().map(record);
    }
}
