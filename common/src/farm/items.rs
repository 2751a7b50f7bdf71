//! The queue: every item that somebody wants or holds, with indexes for each question that is asked
//! of all of them. A farm of a thousand agents asks them at every call.

use super::census::{Loss, Lost};
use super::item::{Failure, Item, ItemKey, Lease, State, Work};
use super::noise;
use crate::id::{AgentId, JobId};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What an agent must be able to do for an item. The order is the order of service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    kind: Kind,
    place: Place,
}

/// What unblocks most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Toolchain,
    Reproducer,
    Maintainers,
    /// Few, and of use only before their job is over.
    SecondLook,
    Run,
    Build,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Any that builds.
    Builder,
    /// One that builds and has this image.
    Image(String),
    /// One that boots and has a slot of so many MiB.
    Guest(u32),
}

impl Need {
    pub fn of(key: &ItemKey, work: &Work) -> Need {
        let kind = match key {
            ItemKey::Toolchain(_) => Kind::Toolchain,
            ItemKey::Reproducer(_) => Kind::Reproducer,
            ItemKey::Maintainers(_) => Kind::Maintainers,
            ItemKey::Run(..) if noise::first_of(key).is_some() => Kind::SecondLook,
            ItemKey::Run(..) => Kind::Run,
            ItemKey::Build(_) => Kind::Build,
        };
        let place = match (work, work.image_id()) {
            (Work::Run(work), _) => Place::Guest(work.machine.memory_mib),
            (_, Some(image)) => Place::Image(image.to_owned()),
            (_, None) => Place::Builder,
        };
        Need { kind, place }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// Those in the queue of one job for one need, oldest first.
pub(super) type Queue = BTreeSet<(u64, ItemKey)>;

#[derive(Default)]
pub(super) struct Items {
    all: HashMap<ItemKey, Item>,
    /// By who holds them.
    held: BTreeMap<AgentId, BTreeSet<ItemKey>>,
    /// Leases, the first to run out first.
    until: BTreeSet<(Timestamp, ItemKey)>,
    /// What may be granted; an item stands in the queue of each job that wants it.
    ready: BTreeMap<Need, BTreeMap<JobId, Queue>>,
    /// How many items of a job are in anybody's hands.
    in_hand: BTreeMap<JobId, usize>,
    /// Ready, and failed before.
    failed: BTreeSet<ItemKey>,
    /// Agents for whom something may be other than they were told.
    news: BTreeSet<AgentId>,
}

impl Items {
    /// Each of them, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&ItemKey, &Item)> {
        self.all.iter()
    }

    pub fn get(&self, key: &ItemKey) -> Option<&Item> {
        self.all.get(key)
    }

    /// Adds an item, or changes one; without anybody who wants or holds it, it is forgotten.
    pub fn put(&mut self, key: ItemKey, item: Item) {
        self.remove(&key);
        self.index(&key, &item);
        if item.is_of_use() {
            self.all.insert(key, item);
        }
    }

    pub fn remove(&mut self, key: &ItemKey) -> Option<Item> {
        let item = self.all.remove(key)?;
        self.unindex(key, &item);
        Some(item)
    }

    /// Changes an item if it is there; without anybody who wants or holds it, it is forgotten.
    pub fn change(&mut self, key: &ItemKey, change: impl FnOnce(&mut Item)) {
        if let Some(mut item) = self.remove(key) {
            change(&mut item);
            self.put(key.clone(), item);
        }
    }

    pub fn set_state(&mut self, key: &ItemKey, state: State) {
        self.change(key, |item| item.state = state);
    }

    /// What an agent holds, in the order of the keys.
    pub fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = (&ItemKey, &Item, &Lease)> {
        let keys = self.held.get(agent).into_iter().flatten();
        keys.filter_map(|key| {
            let item = self.all.get(key)?;
            Some((key, item, item.lease()?))
        })
    }

    /// May be granted again, from now on.
    pub fn free(&mut self, key: &ItemKey, now: Timestamp) {
        self.change(key, |item| item.free(now));
    }

    /// Frees what an agent holds, where `is_over` says so; says which attempts that ends.
    pub fn free_of(
        &mut self,
        agent: &AgentId,
        now: Timestamp,
        how: Loss,
        is_over: impl Fn(&Item, &Lease) -> bool,
    ) -> Vec<Lost> {
        let over = self.held_by(agent).filter(|(_, item, lease)| is_over(item, lease));
        let over: Vec<ItemKey> = over.map(|(key, ..)| key.clone()).collect();
        over.into_iter().filter_map(|key| self.lose(key, now, how)).collect()
    }

    /// Frees what was not renewed in time; says which attempts that ends.
    pub fn free_due(&mut self, now: Timestamp) -> Vec<Lost> {
        let mut lost = Vec::new();
        while let Some((until, key)) = self.until.first().cloned()
            && until <= now
        {
            lost.extend(self.lose(key, now, Loss::RanOut));
        }
        lost
    }

    fn lose(&mut self, item: ItemKey, at: Timestamp, how: Loss) -> Option<Lost> {
        let attempt = self.get(&item)?.lease()?.attempt;
        self.free(&item, at);
        Some(Lost { item, attempt, at, how })
    }

    /// Renews the leases of an agent on what is wanted.
    pub fn renew(&mut self, agent: &AgentId, until: Timestamp) {
        for key in self.held.get(agent).into_iter().flatten() {
            let Some(item) = self.all.get_mut(key).filter(|item| item.is_wanted()) else { continue };
            let State::Leased(lease) = &mut item.state else { continue };
            move_deadline(&mut self.until, key, lease, until);
        }
    }

    /// Renews one lease, and notes what the agent says it does.
    pub fn hear(&mut self, key: &ItemKey, until: Timestamp, activity: &str) {
        if let Some(Item { state: State::Leased(lease), .. }) = self.all.get_mut(key) {
            activity.clone_into(&mut lease.activity);
            move_deadline(&mut self.until, key, lease, until);
        }
    }

    /// Failures of all items, for changing when they may be tried again.
    pub fn failures_mut(&mut self) -> impl Iterator<Item = &mut Failure> {
        self.all.values_mut().flat_map(|item| &mut item.failures)
    }

    pub fn in_hand(&self, job: &JobId) -> usize {
        self.in_hand.get(job).copied().unwrap_or(0)
    }

    /// What may be granted, by need in the order of service.
    pub fn ready(&self) -> &BTreeMap<Need, BTreeMap<JobId, Queue>> {
        &self.ready
    }

    /// When the first lease runs out.
    pub fn first_due(&self) -> Option<Timestamp> {
        self.until.first().map(|(until, _)| *until)
    }

    /// When one that failed may be tried again by whom it failed with.
    pub fn next_retry(&self, now: Timestamp) -> Option<Timestamp> {
        self.failed.iter().filter_map(|key| self.all.get(key)?.next_retry(now)).min()
    }

    /// Notes that something else has changed for an agent.
    pub fn note(&mut self, agent: &AgentId) {
        self.news.insert(agent.clone());
    }

    /// Agents to look at again since this was asked last.
    pub fn take_news(&mut self) -> BTreeSet<AgentId> {
        std::mem::take(&mut self.news)
    }

    fn index(&mut self, key: &ItemKey, item: &Item) {
        match &item.state {
            State::Leased(lease) => {
                self.held.entry(lease.agent.clone()).or_default().insert(key.clone());
                self.until.insert((lease.until, key.clone()));
                for job in &item.wanted_by {
                    *self.in_hand.entry(job.clone()).or_default() += 1;
                }
                self.note(&lease.agent);
            }
            State::Ready if item.is_wanted() => {
                let queues = self.ready.entry(Need::of(key, &item.work)).or_default();
                for job in &item.wanted_by {
                    queues.entry(job.clone()).or_default().insert((item.number, key.clone()));
                }
                if !item.failures.is_empty() {
                    self.failed.insert(key.clone());
                }
            }
            State::Ready | State::Quarantined(_) => {}
        }
    }

    fn unindex(&mut self, key: &ItemKey, item: &Item) {
        match &item.state {
            State::Leased(lease) => {
                self.until.remove(&(lease.until, key.clone()));
                if let Some(held) = self.held.get_mut(&lease.agent) {
                    held.remove(key);
                    if held.is_empty() {
                        self.held.remove(&lease.agent);
                    }
                }
                for job in &item.wanted_by {
                    match self.in_hand(job) {
                        0 | 1 => _ = self.in_hand.remove(job),
                        count => _ = self.in_hand.insert(job.clone(), count - 1),
                    }
                }
                self.note(&lease.agent);
            }
            State::Ready if item.is_wanted() => self.unqueue(key, item),
            State::Ready | State::Quarantined(_) => {}
        }
    }

    fn unqueue(&mut self, key: &ItemKey, item: &Item) {
        let need = Need::of(key, &item.work);
        let place = (item.number, key.clone());
        if let Some(queues) = self.ready.get_mut(&need) {
            for job in &item.wanted_by {
                if let Some(queue) = queues.get_mut(job) {
                    queue.remove(&place);
                    if queue.is_empty() {
                        queues.remove(job);
                    }
                }
            }
            if queues.is_empty() {
                self.ready.remove(&need);
            }
        }
        self.failed.remove(key);
    }
}

fn move_deadline(
    deadlines: &mut BTreeSet<(Timestamp, ItemKey)>,
    key: &ItemKey,
    lease: &mut Lease,
    until: Timestamp,
) {
    if lease.until != until {
        deadlines.remove(&(lease.until, key.clone()));
        deadlines.insert((until, key.clone()));
        lease.until = until;
    }
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
