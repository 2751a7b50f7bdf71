//! Grants: which ready item goes to which free slot.

use super::Farm;
use super::item::{Item, ItemKey, Lease, State, Work};
use super::noise;
use crate::id::{AgentId, Attempt, JobId};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Wait before the same agent is given an item it failed, doubled with every failure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Item {
    /// When the agent that failed it may have it again; at once for others.
    fn retry_at(&self, agent: &AgentId) -> Option<Timestamp> {
        let failed = self.failures.iter().filter(|failure| failure.agent == *agent);
        let (count, last) = failed.fold((0u32, None), |(n, _), failure| (n + 1, Some(failure.retry_from)));
        let wait = RETRY_FIRST.saturating_mul(1 << count.saturating_sub(1).min(6)).min(RETRY_MAX);
        last.map(|at| at + wait)
    }

    /// The next moment after `now` at which an agent that failed it may have it again.
    pub(super) fn next_retry(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Ready => {
                let retries = self.failures.iter().filter_map(|failure| self.retry_at(&failure.agent));
                retries.filter(|at| *at > now).min()
            }
            State::Leased(_) | State::Quarantined(_) => None,
        }
    }
}

impl Farm {
    /// Gives ready items to free slots, most pressing first.
    pub(super) fn grant(&mut self, now: Timestamp) {
        if self.grace_until.is_some() {
            return;
        }
        let mut free = self.free_slots();
        if free.is_empty() {
            return;
        }
        for key in self.ready_in_order() {
            let item = &self.items[&key];
            let Some(agent) = self.best_agent(now, &key, item, &free) else { continue };
            let slots = free.get_mut(&agent).expect("the best agent has a free slot");
            let slot = slots.remove(0);
            if slots.is_empty() {
                free.remove(&agent);
            }
            self.lease(now, &key, agent, slot);
            if free.is_empty() {
                return;
            }
        }
    }

    fn free_slots(&self) -> BTreeMap<AgentId, Vec<u32>> {
        let mut free: BTreeMap<AgentId, Vec<u32>> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.takes_work())
            .map(|(id, agent)| (id.clone(), (0u32..).take(agent.info.slots.len()).collect()))
            .collect();
        let leased = self.items.values().filter_map(|item| match &item.state {
            State::Leased(lease) => Some(lease),
            State::Ready | State::Quarantined(_) => None,
        });
        for lease in leased.chain(self.claims.values()) {
            if let Some(slots) = free.get_mut(&lease.agent) {
                slots.retain(|slot| *slot != lease.slot);
            }
        }
        free.retain(|_, slots| !slots.is_empty());
        free
    }

    /// By kind, then the job with the least in hand, then age.
    fn ready_in_order(&self) -> Vec<ItemKey> {
        let mut in_hand: BTreeMap<&JobId, usize> = BTreeMap::new();
        for item in self.items.values() {
            if matches!(item.state, State::Leased(_)) {
                for job in &item.wanted_by {
                    *in_hand.entry(job).or_default() += 1;
                }
            }
        }
        let least = |item: &Item| {
            item.wanted_by.iter().map(|job| in_hand.get(job).copied().unwrap_or(0)).min().unwrap_or(0)
        };
        let kind = |key: &ItemKey| match key {
            ItemKey::Toolchain(_) => 0,
            ItemKey::Reproducer(_) => 1,
            ItemKey::Maintainers(_) => 2,
            // Few, and of use only before their job is over.
            ItemKey::Run(..) if noise::first_of(key).is_some() => 3,
            ItemKey::Run(..) => 4,
            ItemKey::Build(_) => 5,
        };
        let mut ready: Vec<_> = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item.state, State::Ready) && !item.wanted_by.is_empty())
            .map(|(key, item)| ((kind(key), least(item), item.number), key.clone()))
            .collect();
        ready.sort();
        ready.into_iter().map(|(_, key)| key).collect()
    }

    /// An agent that can do it: has what it needs, has not failed it, has most room.
    fn best_agent(
        &self,
        now: Timestamp,
        key: &ItemKey,
        item: &Item,
        free: &BTreeMap<AgentId, Vec<u32>>,
    ) -> Option<AgentId> {
        let first = noise::first_of(key);
        let fits = |id: &&AgentId| {
            let info = &self.agents[*id].info;
            let able = match &item.work {
                Work::Run(work) => {
                    info.can_boot
                        && info.slots.iter().any(|slot| slot.memory_mib >= u64::from(work.machine.memory_mib))
                }
                other @ (Work::Toolchain { .. }
                | Work::Reproducer { .. }
                | Work::Maintainers(_)
                | Work::Build(_)) => {
                    let has = |image: &str| info.images.iter().any(|id| id == image);
                    info.can_build && other.image_id().is_none_or(has)
                }
            };
            let may = first.as_ref().is_none_or(|first| self.may_look_again(id, first));
            able && may && item.retry_at(id).is_none_or(|at| at <= now)
        };
        let has_kernel = |id: &AgentId| match &item.work {
            Work::Run(work) if !item.spread => self.agents[id].have.contains(&work.kernel.digest),
            _ => false,
        };
        free.keys()
            .filter(fits)
            .min_by_key(|id| {
                let failed = item.failures.iter().filter(|failure| failure.agent == **id).count();
                (failed, !has_kernel(id), usize::MAX - free[*id].len(), (*id).clone())
            })
            .cloned()
    }

    fn lease(&mut self, now: Timestamp, key: &ItemKey, agent: AgentId, slot: u32) {
        self.granted += 1;
        let attempt = Attempt(u64::from(self.epoch) << 32 | u64::from(self.granted));
        let lease = Lease {
            attempt,
            session: self.agents[&agent].session,
            agent,
            slot,
            granted: now,
            until: now + self.config.lease_ttl + self.config.lease_slack,
            activity: "granted".into(),
        };
        let item = self.items.get_mut(key).expect("a ready item is known");
        item.state = State::Leased(lease);
    }
}
