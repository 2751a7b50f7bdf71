//! Agents: who is there, what they say they hold, when they count as lost.

use super::action::{Action, Answer};
use super::census::Loss;
use super::event::{AgentInfo, Holding, Sync};
use super::fact::Fact;
use super::item::{Item, ItemKey, Lease, State, WorkSource};
use super::quarantine::Rest;
use super::{Config, Farm};
use crate::access::{Member, Role};
use crate::id::{AgentId, Attempt, Digest, Session};
use crate::time::Timestamp;
use crate::version::Version;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub(super) struct AgentState {
    pub session: Session,
    pub sequence: u64,
    pub info: AgentInfo,
    pub have: BTreeSet<Digest>,
    pub draining: bool,
    /// Too old to be given more; says what to do.
    pub outdated: Option<String>,
    pub last_sync: Timestamp,
    /// Items that failed on it one after the other, without a success between.
    pub failing: BTreeSet<ItemKey>,
    pub rest: Option<Rest>,
    /// How often it was set aside.
    pub rests: u32,
    /// Whether it counts as there; changes are what jobs need to know of.
    pub present: bool,
}

impl AgentState {
    /// When something about the agent changes unless it speaks.
    pub fn deadline(&self, config: &Config) -> Option<Timestamp> {
        let lost = self.present.then(|| self.last_sync + config.lease_ttl + config.lease_slack);
        let rested = self.rest.as_ref().and_then(|rest| rest.until);
        [lost, rested].into_iter().flatten().min()
    }

    /// Whether it may be given new items.
    pub fn takes_work(&self) -> bool {
        self.present && !self.draining && self.outdated.is_none() && self.rest.is_none()
    }
}

impl Farm {
    pub(super) fn synced(&mut self, now: Timestamp, sync: Sync, actions: &mut Vec<Action>) {
        if let Some(known) = self.agents.get(&sync.agent) {
            let (session, sequence, present) = (known.session, known.sequence, known.present);
            // One that is not there any more supersedes nobody: after a wall clock was set back,
            // later lives have lesser numbers.
            if sync.session < session && present {
                return actions.push(Action::Answer(Answer::Superseded));
            }
            // A late message says nothing that a later one has not said better.
            if sync.session == session && sync.sequence <= sequence {
                return;
            }
            if sync.session != session {
                self.forget_leases(now, &sync.agent, actions);
            }
        }
        self.hear(now, &sync, actions);
        // What it holds it may bring to an end.
        if sync.holding.is_empty()
            && let Some(why) = self.agents.get(&sync.agent).and_then(|agent| agent.outdated.clone())
        {
            actions.push(Action::Answer(Answer::Refused(why)));
        }
        self.drop_unheld(now, &sync, actions);
        self.renew(now, &sync.agent);
        // The latest first: an earlier attempt in the same slot is over, and only being reported.
        let mut holding: Vec<&Holding> = sync.holding.iter().collect();
        holding.sort_by_key(|it| std::cmp::Reverse(it.attempt));
        for holding in holding {
            self.hold(now, &sync.agent, sync.session, holding);
        }
        // Once all have spoken, nothing is held that is not known.
        self.awaited.remove(&sync.agent);
        if self.awaited.is_empty() {
            self.grace_until = None;
        }
    }

    /// Takes in what the agent says of itself.
    fn hear(&mut self, now: Timestamp, sync: &Sync, actions: &mut Vec<Action>) {
        let slots = sync.info.slots.len();
        let revoked = self.access.is_denied(&Member { role: Role::Agent, name: sync.agent.clone() });
        if !self.agents.get(&sync.agent).is_some_and(|agent| agent.present) {
            actions.push(Action::Record(Fact::AgentCame { agent: sync.agent.clone(), at: now }));
        }
        let outdated = outdated(self.config.version, &sync.info.version);
        let before = self.agents.get(&sync.agent).map(|agent| (agent.takes_work(), agent.info.slots.len()));
        let agent = self.agents.entry(sync.agent.clone()).or_insert_with(|| AgentState {
            session: sync.session,
            sequence: 0,
            info: AgentInfo::default(),
            have: BTreeSet::new(),
            draining: false,
            outdated: None,
            last_sync: now,
            failing: BTreeSet::new(),
            rest: self.aside.get(&sync.agent).cloned(),
            rests: 0,
            present: true,
        });
        if agent.session != sync.session {
            agent.failing.clear();
        }
        agent.session = sync.session;
        agent.sequence = sync.sequence;
        agent.info = sync.info.clone();
        agent.have = sync.have.iter().copied().collect();
        // A sync that was under way when the agent was revoked must not make it one of us again.
        agent.draining = sync.draining || revoked;
        agent.outdated = outdated;
        agent.last_sync = now;
        agent.present = true;
        if before != Some((agent.takes_work(), slots)) {
            self.touch_open_jobs();
        }
    }

    /// Frees what the agent was given, was told to drop, and no longer holds; and what it held from
    /// before a restart, and has let go of since.
    fn drop_unheld(&mut self, now: Timestamp, sync: &Sync, actions: &mut Vec<Action>) {
        let held: BTreeSet<Attempt> = sync.holding.iter().map(|holding| holding.attempt).collect();
        self.claims.retain(|_, claim| claim.agent != sync.agent || held.contains(&claim.attempt));
        let is_over = |item: &Item, lease: &Lease| !item.is_wanted() && !held.contains(&lease.attempt);
        let lost = self.items.free_of(&sync.agent, now, Loss::Unwanted, is_over);
        actions.extend(lost.into_iter().map(Action::Lost));
    }

    /// Renews all that the answer will tell the agent to hold. That includes a grant it does not
    /// know of yet: it counts its lease from this sync, however old the grant is.
    fn renew(&mut self, now: Timestamp, agent: &AgentId) {
        self.items.renew(agent, now + self.config.lease_ttl + self.config.lease_slack);
    }

    /// Takes in what an agent does, or adopts an attempt granted by an earlier life of the coordinator.
    fn hold(&mut self, now: Timestamp, agent: &AgentId, session: Session, holding: &Holding) {
        let until = now + self.config.lease_ttl + self.config.lease_slack;
        let lease = |activity: &str| Lease {
            attempt: holding.attempt,
            agent: agent.clone(),
            session,
            slot: holding.slot,
            granted: now,
            until,
            activity: activity.to_owned(),
        };
        // A completion may overtake the sync that was sent before it.
        let ended = self.finished.contains(&holding.attempt);
        let adoptable = self.is_from_earlier_life(holding.attempt)
            && self.grace_until.is_some()
            && !ended
            && !self.has_in_slot(agent, holding);
        match self.items.get(&holding.item).map(|item| &item.state) {
            Some(State::Leased(current)) if current.attempt == holding.attempt && current.agent == *agent => {
                self.items.hear(&holding.item, until, &holding.activity);
            }
            Some(State::Ready) if adoptable => {
                self.items.set_state(&holding.item, State::Leased(lease(&holding.activity)));
            }
            Some(_) => {}
            None => {
                let done = self.products.contains_key(&holding.item);
                let claimed =
                    self.claims.get(&holding.item).is_some_and(|claim| claim.attempt != holding.attempt);
                if adoptable && !done && !claimed {
                    self.claims.insert(holding.item.clone(), lease(&holding.activity));
                } else if let Some(claim) = self.claims.get_mut(&holding.item)
                    && claim.attempt == holding.attempt
                    && claim.agent == *agent
                {
                    claim.until = until;
                }
            }
        }
    }

    /// Whether the agent's slot is taken by another attempt.
    fn has_in_slot(&self, agent: &AgentId, holding: &Holding) -> bool {
        self.leases_of(agent).any(|lease| lease.slot == holding.slot && lease.attempt != holding.attempt)
    }

    /// All that an agent has in hand, whether its job was heard of since a restart or not.
    pub(super) fn leases_of(&self, agent: &AgentId) -> impl Iterator<Item = &Lease> {
        let claims = self.claims.values().filter(move |claim| claim.agent == *agent);
        self.items.held_by(agent).map(|(_, _, lease)| lease).chain(claims)
    }

    pub(super) fn is_from_earlier_life(&self, attempt: Attempt) -> bool {
        (attempt.0 >> 32) < u64::from(self.epoch)
    }

    /// The attempts among `held` that the agent should drop.
    pub fn revoked(&self, agent: &AgentId, held: &[Attempt]) -> Vec<Attempt> {
        let wanted = |attempt: &Attempt| {
            let mut wanted = self.items.held_by(agent).filter(|(_, item, _)| item.is_wanted());
            wanted.any(|(_, _, lease)| lease.attempt == *attempt)
                || self.claims.values().any(|claim| claim.attempt == *attempt && claim.agent == *agent)
        };
        held.iter().filter(|attempt| !wanted(attempt)).copied().collect()
    }

    /// Whether an agent holds this attempt, wanted or not.
    pub fn is_held_by(&self, agent: &AgentId, attempt: Attempt) -> bool {
        self.leases_of(agent).any(|lease| lease.attempt == attempt)
    }

    /// Whether an attempt is held of which nothing more is known: its job was not heard of since a
    /// restart.
    pub fn is_claimed_by(&self, agent: &AgentId, attempt: Attempt) -> bool {
        self.claims.values().any(|claim| claim.attempt == attempt && claim.agent == *agent)
    }

    /// What the work of an attempt that the agent holds is made from; `None` where that is nothing,
    /// or where the job was not heard of since a restart.
    pub fn source_of(&self, agent: &AgentId, attempt: Attempt) -> Option<WorkSource> {
        let mut held = self.items.held_by(agent);
        held.find(|(_, _, lease)| lease.attempt == attempt).and_then(|(_, item, _)| item.work.source())
    }

    /// A new life of an agent holds nothing of the old one.
    fn forget_leases(&mut self, now: Timestamp, agent: &AgentId, actions: &mut Vec<Action>) {
        self.claims.retain(|_, claim| claim.agent != *agent);
        let lost = self.items.free_of(agent, now, Loss::NewLife, |_, _| true);
        actions.extend(lost.into_iter().map(Action::Lost));
    }

    /// Whatever is due: leases that ran out, agents not heard of, rests that are over.
    pub(super) fn expire(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.grace_until.is_some_and(|until| until <= now) {
            self.grace_until = None;
            for agent in std::mem::take(&mut self.awaited) {
                actions.push(Action::Record(Fact::AgentWent { agent, at: now }));
            }
        }
        actions.extend(self.items.free_due(now).into_iter().map(Action::Lost));
        let due = self.claims.extract_if(.., |_, claim| claim.until <= now);
        due.for_each(|(_, claim)| self.items.note(&claim.agent));
        let mut changed = false;
        for (id, agent) in &mut self.agents {
            let before = agent.takes_work();
            let present = agent.last_sync + self.config.lease_ttl + self.config.lease_slack > now;
            if agent.present && !present {
                actions.push(Action::Record(Fact::AgentWent { agent: id.clone(), at: now }));
                // Whatever waits for it waits in vain.
                self.items.note(id);
            }
            agent.present = present;
            if agent.rest.as_ref().and_then(|rest| rest.until).is_some_and(|until| until <= now) {
                agent.rest = None;
            }
            changed |= before != agent.takes_work();
        }
        if changed {
            self.touch_open_jobs();
        }
    }

    pub(super) fn touch_open_jobs(&mut self) {
        let open = self.jobs.iter().filter(|(_, job)| job.is_open()).map(|(id, _)| id.clone());
        self.dirty.extend(open);
    }

    /// Slots that may be given work.
    pub(super) fn slots(&self) -> usize {
        self.agents.values().filter(|agent| agent.takes_work()).map(|agent| agent.info.slots.len()).sum()
    }
}

/// Why an agent of this version gets no more work, if it does not. What cannot be read is not
/// held against it.
fn outdated(own: Option<Version>, agent: &str) -> Option<String> {
    let (own, agent): (Version, Version) = (own?, agent.parse().ok()?);
    (!own.serves(agent)).then(|| {
        format!("the agent is kulprit {agent}, too old for this coordinator's {own}; upgrade the agent")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_too_old_is_refused() {
        let own = Some("0.3.0".parse().unwrap());
        let why = outdated(own, "0.1.7").expect("it is two minor versions behind");
        assert!(
            why.contains("0.1.7") && why.contains("0.3.0") && why.ends_with("upgrade the agent"),
            "{why}"
        );
        for served in ["0.2.0", "0.3.1", "1.0.0", "", "nightly"] {
            assert_eq!(outdated(own, served), None, "{served}");
        }
        assert_eq!(outdated(None, "0.0.1"), None);
    }
}
