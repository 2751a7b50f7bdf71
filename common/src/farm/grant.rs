//! Grants: which ready item goes to which free slot.

use super::Farm;
use super::event::Slot;
use super::item::{Item, ItemKey, Lease, State, Work};
use super::items::{Need, Place};
use super::noise;
use crate::id::{AgentId, Attempt, JobId};
use crate::time::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;
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

/// Free slots of agents that take work, and who is able to take what.
struct Free {
    slots: BTreeMap<AgentId, Vec<u32>>,
    /// Those with most room first.
    able: BTreeMap<Place, BTreeSet<(Reverse<usize>, AgentId)>>,
}

impl Free {
    /// Takes the first free slot of an agent.
    fn take(&mut self, agent: &AgentId) -> Option<u32> {
        let slots = self.slots.get_mut(agent)?;
        let (before, slot) = (slots.len(), slots.remove(0));
        let left = slots.len();
        if left == 0 {
            self.slots.remove(agent);
        }
        for able in self.able.values_mut() {
            let was_able = able.remove(&(Reverse(before), agent.clone()));
            if was_able && left > 0 {
                able.insert((Reverse(left), agent.clone()));
            }
        }
        Some(slot)
    }
}

/// A job's turn: its items in hand, then the age of its next item.
type Turn = Reverse<(usize, u64, ItemKey, JobId)>;

impl Farm {
    /// Gives ready items to free slots: by kind, then to the job with the least in hand, then by age.
    pub(super) fn grant(&mut self, now: Timestamp) {
        if self.grace_until.is_some() || self.items.ready().is_empty() {
            return;
        }
        let mut free = Free { slots: self.free_slots(), able: BTreeMap::new() };
        let needs: Vec<Need> = self.items.ready().keys().cloned().collect();
        for needs in needs.chunk_by(|one, next| one.kind() == next.kind()) {
            if free.slots.is_empty() {
                return;
            }
            self.grant_kind(now, needs, &mut free);
        }
    }

    /// The same, for needs of one kind.
    fn grant_kind(&mut self, now: Timestamp, needs: &[Need], free: &mut Free) {
        for place in needs.iter().map(Need::place) {
            if !free.able.contains_key(place) {
                free.able.insert(place.clone(), self.able(place, &free.slots));
            }
        }
        let mut turns: BinaryHeap<Turn> = needs
            .iter()
            .filter(|need| !free.able[need.place()].is_empty())
            .flat_map(|need| self.turns(need))
            .collect();
        while let Some(Reverse((in_hand, number, key, job))) = turns.pop() {
            let Some(item) = self.items.get(&key) else { continue };
            let need = Need::of(&key, &item.work);
            if free.able[need.place()].is_empty() {
                continue;
            }
            let is_ready = matches!(item.state, State::Ready);
            // It was given something since it was put in line: others come first.
            let by_now = self.items.in_hand(&job);
            if is_ready && by_now > in_hand {
                turns.push(Reverse((by_now, number, key, job)));
                continue;
            }
            let agent = is_ready.then(|| self.best_agent(now, &key, item, free)).flatten();
            if let Some(agent) = agent
                && let Some(slot) = free.take(&agent)
            {
                self.lease(now, &key, agent, slot);
            }
            turns.extend(self.turn_after(&need, job, (number, key)));
        }
    }

    /// Each job's turn for a need, if it has any.
    fn turns(&self, need: &Need) -> impl Iterator<Item = Turn> {
        self.items.ready()[need].iter().filter_map(|(job, queue)| {
            let (number, key) = queue.first()?.clone();
            Some(Reverse((self.items.in_hand(job), number, key, job.clone())))
        })
    }

    fn turn_after(&self, need: &Need, job: JobId, last: (u64, ItemKey)) -> Option<Turn> {
        let queue = self.items.ready().get(need)?.get(&job)?;
        let (number, key) = queue.range((Bound::Excluded(last), Bound::Unbounded)).next()?.clone();
        Some(Reverse((self.items.in_hand(&job), number, key, job)))
    }

    fn free_slots(&self) -> BTreeMap<AgentId, Vec<u32>> {
        let mut claimed: BTreeMap<&AgentId, Vec<u32>> = BTreeMap::new();
        for claim in self.claims.values() {
            claimed.entry(&claim.agent).or_default().push(claim.slot);
        }
        let takers = self.agents.iter().filter(|(_, agent)| agent.takes_work());
        let free = takers.filter_map(|(id, agent)| {
            let mut used = claimed.get(id).cloned().unwrap_or_default();
            used.extend(self.items.held_by(id).map(|(_, _, lease)| lease.slot));
            let all = (0u32..).take(agent.info.slots.len());
            let free: Vec<u32> = all.filter(|slot| !used.contains(slot)).collect();
            (!free.is_empty()).then(|| (id.clone(), free))
        });
        free.collect()
    }

    fn able(&self, place: &Place, free: &BTreeMap<AgentId, Vec<u32>>) -> BTreeSet<(Reverse<usize>, AgentId)> {
        let able = free.iter().filter(|(id, _)| {
            let info = &self.agents[*id].info;
            match place {
                Place::Builder => info.can_build,
                Place::Image(image) => info.can_build && info.images.contains(image),
                Place::Guest(memory_mib) => {
                    let has_room = |slot: &Slot| slot.memory_mib >= u64::from(*memory_mib);
                    info.can_boot && info.slots.iter().any(has_room)
                }
            }
        });
        able.map(|(id, slots)| (Reverse(slots.len()), id.clone())).collect()
    }

    /// Of the able: one that has not failed it, has its kernel, has most room.
    fn best_agent(&self, now: Timestamp, key: &ItemKey, item: &Item, free: &Free) -> Option<AgentId> {
        let first = noise::first_of(key);
        let may = |id: &AgentId| {
            first.as_ref().is_none_or(|first| self.may_look_again(id, first))
                && item.retry_at(id).is_none_or(|at| at <= now)
        };
        let lacks_kernel = |id: &AgentId| match &item.work {
            Work::Run(work) if !item.spread => !self.agents[id].have.contains(&work.kernel.digest),
            _ => false,
        };
        let failed = |id: &AgentId| item.failures.iter().filter(|failure| failure.agent == *id).count();
        let able = free.able[Need::of(key, &item.work).place()].iter().map(|(_, id)| id);
        let mut best: Option<((usize, bool), &AgentId)> = None;
        // Of equals the first, which has most room.
        for id in able.filter(|id| may(id)) {
            let rank = (failed(id), lacks_kernel(id));
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, id));
            }
            if rank == (0, false) {
                break;
            }
        }
        best.map(|(_, id)| id.clone())
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
        self.items.set_state(key, State::Leased(lease));
    }
}
