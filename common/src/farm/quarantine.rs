//! Quarantine: agents that get nothing and items that nobody is given, why and since when, and how
//! an operator lets them go on. What an operator does is a fact; what failures bring about follows
//! from them.

use super::Farm;
use super::action::{Action, Answer};
use super::complete::state_after;
use super::fact::{Fact, Judged, QuarantineFact};
use super::item::{Failure, ItemKey, State};
use super::jobs::{JobState, Stage};
use crate::access::Principal;
use crate::id::{AgentId, JobId, RevisionId};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A commit is not named by fewer digits.
const DIGITS_MIN: usize = 7;

/// An agent is given nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    pub since: Timestamp,
    /// Without it, until an operator releases the agent.
    pub until: Option<Timestamp>,
    pub reason: String,
}

/// An item that a job gave up, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub item: String,
    /// What cannot be judged without it; absent where the whole job stands or falls with it.
    pub revision: Option<RevisionId>,
    pub reason: String,
    /// When it failed last; not known any more once its job has ended.
    pub since: Option<Timestamp>,
    pub failures: u32,
    pub agents: Vec<AgentId>,
}

impl Farm {
    /// Sets an agent aside by hand. Said again with the same reason, it changes nothing.
    pub(super) fn quarantine(
        &mut self,
        now: Timestamp,
        agent: AgentId,
        reason: String,
        by: Principal,
        actions: &mut Vec<Action>,
    ) {
        if !self.knows(&agent) {
            return actions.push(Action::Answer(Answer::UnknownAgent));
        }
        if self.aside.get(&agent).is_none_or(|rest| rest.reason != reason) {
            self.record(
                QuarantineFact::AgentSetAside { agent, at: now, reason, by, disowns: false },
                actions,
            );
        }
        actions.push(Action::Answer(Answer::AgentQuarantined));
    }

    /// Sets agents aside whose runs are beyond doubt not to be believed.
    pub(super) fn check_noise(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some((agent, reason)) = self.noise.guilty() {
            let by = Principal::Local;
            self.record(QuarantineFact::AgentSetAside { agent, at: now, reason, by, disowns: true }, actions);
        }
    }

    fn record(&mut self, fact: QuarantineFact, actions: &mut Vec<Action>) {
        actions.push(Action::Record(Fact::Quarantine(fact.clone())));
        for job in self.take_quarantine(fact) {
            self.recall_evidence(&job);
        }
    }

    /// The jobs that search anew with it.
    pub(super) fn take_quarantine(&mut self, fact: QuarantineFact) -> Vec<JobId> {
        match fact {
            QuarantineFact::AgentSetAside { agent, at, reason, disowns, .. } => {
                self.take_aside(agent.clone(), at, reason);
                match disowns {
                    true => self.disown(&agent),
                    false => Vec::new(),
                }
            }
            QuarantineFact::AgentReleased { agent, .. } => {
                self.take_agent_release(&agent);
                Vec::new()
            }
            QuarantineFact::ItemsReleased { id, at, items, .. } => self.take_release(at, &id, &items),
        }
    }

    /// Nothing that the agent saw is evidence. Every open search begins anew with what the others
    /// saw, so that it comes to what it would have come to without the agent.
    fn disown(&mut self, agent: &AgentId) -> Vec<JobId> {
        self.noise.distrust(agent);
        let open: Vec<JobId> =
            self.jobs.values().filter(|state| state.is_open()).map(|state| state.id.clone()).collect();
        self.search_anew(&open);
        open
    }

    fn search_anew(&mut self, jobs: &[JobId]) {
        for id in jobs {
            let Some(mut state) = self.jobs.remove(id) else { continue };
            self.begin_anew(&mut state);
            self.jobs.insert(id.clone(), state);
            self.dirty.insert(id.clone());
        }
    }

    fn take_aside(&mut self, agent: AgentId, since: Timestamp, reason: String) {
        let rest = Rest { since, until: None, reason };
        if let Some(state) = self.agents.get_mut(&agent) {
            state.rest = Some(rest.clone());
        }
        self.aside.insert(agent, rest);
        self.touch_open_jobs();
    }

    pub(super) fn release_agent(
        &mut self,
        now: Timestamp,
        agent: AgentId,
        by: Principal,
        actions: &mut Vec<Action>,
    ) {
        let rests = self.agents.get(&agent).is_some_and(|state| state.rest.is_some());
        let answer = if rests || self.aside.contains_key(&agent) {
            self.record(QuarantineFact::AgentReleased { agent, at: now, by }, actions);
            Answer::AgentReleased
        } else if self.knows(&agent) {
            Answer::Refused(format!("agent {agent} is not in quarantine"))
        } else {
            Answer::UnknownAgent
        };
        actions.push(Action::Answer(answer));
    }

    /// Its failures count from nothing, and it need not wait before it tries again what it failed.
    fn take_agent_release(&mut self, agent: &AgentId) {
        self.aside.remove(agent);
        self.noise.forgive(agent);
        if let Some(state) = self.agents.get_mut(agent) {
            state.rest = None;
            state.rests = 0;
            state.failing.clear();
        }
        let queued = self.items.failures_mut();
        let known = self.failures.values_mut().flatten();
        for failure in queued.chain(known).filter(|failure| failure.agent == *agent) {
            failure.retry_from = Timestamp(0);
        }
        self.touch_open_jobs();
    }

    /// Why an item is in quarantine, if it is.
    pub(super) fn given_up_reason(&self, key: &ItemKey) -> Option<String> {
        match state_after(self.failures.get(key)?, &self.config) {
            State::Quarantined(reason) => Some(reason),
            State::Ready | State::Leased(_) => None,
        }
    }

    /// What a job gave up, or ended with.
    pub(super) fn given_up(&self, state: &JobState) -> BTreeMap<ItemKey, GivenUp> {
        let mut all = BTreeMap::new();
        if let Stage::Ended(ended) = &state.stage {
            for judged in &state.judged {
                let lost = judged.given_up.iter().filter(|key| !self.products.contains_key(key));
                all.extend(lost.map(|key| (key.clone(), from_verdict(key, judged))));
            }
            let blocking = self.blocking(state).into_iter().filter_map(|key| {
                let reason = ended.end.message.strip_prefix(&format!("{key}: "))?.to_owned();
                Some((key.clone(), self.view_of(&key, None, reason)))
            });
            all.extend(blocking);
            return all;
        }
        let recorded = state.recorded.iter().map(|(revision, key)| (key, Some(*revision)));
        for (key, revision) in recorded.chain(state.wants.iter().map(|key| (key, None))) {
            if let Some(reason) = self.given_up_reason(key) {
                all.entry(key.clone()).or_insert_with(|| self.view_of(key, revision, reason));
            }
        }
        all
    }

    /// Items that a job ends as blocked without.
    fn blocking(&self, state: &JobState) -> Vec<ItemKey> {
        let image = state.resolution.as_ref().and_then(|it| self.image(it, &state.job).ok());
        image.map(ItemKey::Toolchain).into_iter().chain(self.reproducer_key(state)).collect()
    }

    fn view_of(&self, key: &ItemKey, revision: Option<RevisionId>, reason: String) -> GivenUp {
        let failures: &[Failure] = self.failures.get(key).map_or(&[], Vec::as_slice);
        let agents: BTreeSet<&AgentId> = failures.iter().map(|failure| &failure.agent).collect();
        GivenUp {
            item: key.to_string(),
            revision,
            reason,
            since: failures.last().map(|failure| failure.at),
            failures: u32::try_from(failures.len()).unwrap_or(u32::MAX),
            agents: agents.into_iter().cloned().collect(),
        }
    }

    /// Has what a job gave up tried again: an item, or all that a revision lacks. A job that ended
    /// goes on.
    pub(super) fn release(
        &mut self,
        now: Timestamp,
        id: &JobId,
        what: &str,
        by: Principal,
        actions: &mut Vec<Action>,
    ) {
        let answer = match self.jobs.get(id).map(|state| self.to_release(state, what)) {
            None => Answer::UnknownJob,
            Some(Err(why)) => Answer::Refused(why),
            Some(Ok(items)) => {
                let names = items.iter().map(ItemKey::to_string).collect();
                self.record(QuarantineFact::ItemsReleased { id: id.clone(), at: now, items, by }, actions);
                Answer::Released { items: names }
            }
        };
        actions.push(Action::Answer(answer));
    }

    fn to_release(&self, state: &JobState, what: &str) -> Result<Vec<ItemKey>, String> {
        let given_up = self.given_up(state);
        if given_up.is_empty() {
            return Err(format!("job {} has nothing in quarantine", state.id));
        }
        let named = revision_named(state, what);
        let is_meant = |it: &GivenUp| {
            it.item == what
                || it.revision.is_some_and(|revision| {
                    Some(revision) == named
                        || (what.len() >= DIGITS_MIN
                            && revision.to_string().starts_with(&what.to_ascii_lowercase()))
                })
        };
        let meant: Vec<&GivenUp> = given_up.values().filter(|it| is_meant(it)).collect();
        let revisions: BTreeSet<_> = meant.iter().filter_map(|it| it.revision).collect();
        if revisions.len() > 1 && named.is_none() && !meant.iter().any(|it| it.item == what) {
            return Err(format!("what: several revisions in quarantine begin with {what}; give more digits"));
        }
        let items: Vec<ItemKey> =
            given_up.iter().filter(|(_, it)| is_meant(it)).map(|(key, _)| key.clone()).collect();
        if items.is_empty() {
            let there: Vec<&str> = given_up.values().map(|it| it.item.as_str()).collect();
            return Err(format!(
                "what: {what:?} is not in quarantine; of job {} there are: {}",
                state.id,
                there.join(", ")
            ));
        }
        Ok(items)
    }

    fn take_release(&mut self, now: Timestamp, id: &JobId, items: &[ItemKey]) -> Vec<JobId> {
        for key in items {
            self.failures.remove(key);
            self.items.change(key, |item| {
                item.failures.clear();
                if matches!(item.state, State::Quarantined(_)) {
                    item.free(now);
                }
            });
        }
        let gave_up =
            |state: &JobState| state.is_open() && state.recorded.iter().any(|(_, key)| items.contains(key));
        let concerned = self.jobs.values().filter(|state| state.id == *id || gave_up(state));
        let concerned: Vec<JobId> = concerned.map(|state| state.id.clone()).collect();
        self.search_anew(&concerned);
        concerned
    }
}

/// By a name that the job itself has for it.
fn revision_named(state: &JobState, name: &str) -> Option<RevisionId> {
    let resolution = state.resolution.as_ref()?;
    let release = resolution.releases.iter().find(|release| release.tag == name);
    let good = resolution.good.as_ref().filter(|_| state.job.good.as_deref() == Some(name));
    let bad = (state.job.bad == name).then_some(&resolution.bad);
    release.map(|release| &release.revision).or(good).or(bad).map(|revision| revision.id)
}

fn from_verdict(key: &ItemKey, judged: &Judged) -> GivenUp {
    GivenUp {
        item: key.to_string(),
        revision: Some(judged.judgement.revision),
        reason: judged.unavailable.clone().unwrap_or_default(),
        since: None,
        failures: 0,
        agents: Vec::new(),
    }
}
