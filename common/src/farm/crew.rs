//! Who is of the farm, heard since the coordinator started or not, as people see it.

use super::Farm;
use super::agents::AgentState;
use super::view::{AgentView, SlotView, SlotWork};
use crate::access::{Member, Role};
use crate::id::AgentId;
use std::collections::BTreeSet;

impl Farm {
    /// Every agent that was ever heard of, has joined, or is set aside, by name; those that were shut
    /// out since among them.
    pub fn agents(&self) -> Vec<AgentView> {
        let heard = self.agents.iter().map(|(id, agent)| self.heard_view(id, agent));
        let unheard = self.unheard().into_iter().map(|id| self.unheard_view(id));
        let mut views: Vec<AgentView> = heard.chain(unheard).collect();
        views.sort_by(|one, other| one.id.cmp(&other.id));
        views
    }

    /// The same, each with what its state is called.
    pub(super) fn crew(&self) -> impl Iterator<Item = (&AgentId, &'static str)> {
        let heard = self.agents.iter().map(|(id, agent)| (id, self.standing(id, agent).0));
        heard.chain(self.unheard().into_iter().map(|id| (id, self.absence(id))))
    }

    /// Whether `agents` has it.
    pub(super) fn knows(&self, agent: &AgentId) -> bool {
        self.agents.contains_key(agent)
            || self.came.contains(agent)
            || self.aside.contains_key(agent)
            || self.access.has_joined(&member(agent))
    }

    /// Those that are of the farm by what the journal tells, and were not heard since the start.
    fn unheard(&self) -> BTreeSet<&AgentId> {
        let all = self.access.joined(Role::Agent).chain(&self.came).chain(self.aside.keys());
        all.filter(|id| !self.agents.contains_key(*id)).collect()
    }

    fn heard_view(&self, id: &AgentId, agent: &AgentState) -> AgentView {
        let (state, reason) = self.standing(id, agent);
        let rest = agent.rest.as_ref().filter(|_| !reason.is_empty());
        AgentView {
            id: id.clone(),
            host: agent.info.host.clone(),
            version: agent.info.version.clone(),
            accelerator: agent.info.accelerator.clone(),
            state,
            since: rest.map(|rest| rest.since),
            until: rest.and_then(|rest| rest.until),
            reason,
            last_sync: Some(agent.last_sync),
            awaited: false,
            slots: self.slot_views(id),
            problems: agent.info.problems.clone(),
            labels: self.access.labels(id).to_vec(),
            can_build: agent.info.can_build,
            can_boot: agent.info.can_boot,
        }
    }

    fn unheard_view(&self, id: &AgentId) -> AgentView {
        let state = self.absence(id);
        // As for those that were heard, what a person said of it stands while it is away.
        let rest = self.aside.get(id).filter(|_| state != REVOKED);
        AgentView {
            id: id.clone(),
            host: String::new(),
            version: String::new(),
            accelerator: String::new(),
            state,
            reason: rest.map(|rest| rest.reason.clone()).unwrap_or_default(),
            since: rest.map(|rest| rest.since),
            until: rest.and_then(|rest| rest.until),
            last_sync: None,
            awaited: self.grace_until.is_some() && self.awaited.contains(id),
            slots: Vec::new(),
            problems: Vec::new(),
            labels: self.access.labels(id).to_vec(),
            can_build: false,
            can_boot: false,
        }
    }

    /// What the state of an agent is called that was not heard since the start.
    fn absence(&self, id: &AgentId) -> &'static str {
        if self.access.is_denied(&member(id)) { REVOKED } else { LOST }
    }

    /// What an agent's state is called, and why it is in it.
    fn standing(&self, id: &AgentId, agent: &AgentState) -> (&'static str, String) {
        let revoked = self.access.is_denied(&member(id));
        match (&agent.rest, agent.present, agent.draining) {
            _ if revoked => (REVOKED, String::new()),
            // What a person said of it stands while it is away.
            (Some(rest), false, _) if rest.until.is_none() => (LOST, rest.reason.clone()),
            (_, false, _) => (LOST, String::new()),
            (Some(rest), true, _) => ("quarantined", rest.reason.clone()),
            (None, true, _) if agent.outdated.is_some() => {
                ("draining", agent.outdated.clone().unwrap_or_default())
            }
            (None, true, true) => ("draining", String::new()),
            (None, true, false) => ("online", String::new()),
        }
    }

    fn slot_views(&self, id: &AgentId) -> Vec<SlotView> {
        let Some(agent) = self.agents.get(id) else { return Vec::new() };
        let leases = self.items.held_by(id).map(|(key, item, lease)| (key, lease, item.title.as_str()));
        let claims = self.claims.iter().filter(|(_, claim)| claim.agent == *id);
        let claims = claims.map(|(key, claim)| (key, claim, "from before the restart"));
        let held: Vec<_> = leases.chain(claims).collect();
        let work_in = |slot: u32| {
            let (key, lease, title) = held.iter().find(|(_, lease, _)| lease.slot == slot)?;
            Some(SlotWork {
                attempt: lease.attempt,
                item: key.to_string(),
                title: (*title).to_owned(),
                activity: lease.activity.clone(),
                since: lease.granted,
            })
        };
        (0u32..)
            .zip(&agent.info.slots)
            .map(|(slot, size)| SlotView {
                cores: size.cores,
                memory_mib: size.memory_mib,
                work: work_in(slot),
            })
            .collect()
    }
}

const LOST: &str = "lost";
const REVOKED: &str = "revoked";

fn member(agent: &AgentId) -> Member {
    Member { role: Role::Agent, name: agent.clone() }
}
