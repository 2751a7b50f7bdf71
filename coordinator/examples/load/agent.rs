//! Agents as the coordinator sees them: they sync as it paces them, take work and end it.

use crate::history::History;
use crate::kernels::{self, IMAGE};
use crate::place::Place;
use anyhow::{Context as _, ensure};
use kulprit_common::access::{Member, Role};
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::Attempt;
use kulprit_proto::tls::{Link, Trust, Wallet};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two tries while the coordinator is away.
const AGAIN: Duration = Duration::from_millis(200);

/// What all agents share.
pub struct Shared {
    history: Arc<History>,
    slots: AtomicU32,
    work_ms: AtomicU64,
    /// Agents that were answered once.
    here: AtomicU32,
    completed: AtomicU64,
    seen: Mutex<Seen>,
}

/// What was seen since it was looked at last.
#[derive(Default)]
pub struct Seen {
    /// From when a slot's work ended, before that was told, to when the next was there.
    pub to_next: Vec<Duration>,
    /// Of completing calls, until what they tell is durable.
    pub complete: Vec<Duration>,
    pub granted: u64,
    pub completed: u64,
    pub syncs: u64,
    pub first_grant: Option<Instant>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Crowd {
    shared: Arc<Shared>,
    agents: Vec<Agent>,
    count: u32,
}

impl Crowd {
    pub fn new(history: Arc<History>) -> Crowd {
        let shared = Shared {
            history,
            slots: AtomicU32::new(1),
            work_ms: AtomicU64::new(0),
            here: AtomicU32::new(0),
            completed: AtomicU64::new(0),
            seen: Mutex::default(),
        };
        Crowd { shared: Arc::new(shared), agents: Vec::new(), count: 0 }
    }

    pub fn add(&mut self, agent: Agent) {
        self.agents.push(agent);
        self.count += 1;
    }

    /// How many slots an agent has from its next sync on, and what work takes from now on.
    pub fn set(&self, slots: u32, work: Duration) {
        self.shared.slots.store(slots, Ordering::Relaxed);
        self.shared.work_ms.store(u64::try_from(work.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn start(&mut self) {
        for agent in self.agents.drain(..) {
            tokio::spawn(agent.work(self.shared.clone()));
        }
    }

    pub async fn wait_until_here(&self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.shared.here.load(Ordering::Relaxed) < self.count {
            let here = self.shared.here.load(Ordering::Relaxed);
            ensure!(start.elapsed() < limit, "{here} of {} agents are there after {limit:?}", self.count);
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    pub fn forget(&self) {
        self.take();
    }

    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.shared.seen())
    }

    pub fn completed_in_all(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// When the first work was given since all was forgotten.
    pub async fn first_grant(&self, limit: Duration) -> anyhow::Result<Instant> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.shared.seen().first_grant {
                return Ok(at);
            }
            ensure!(start.elapsed() < limit, "nothing was granted within {limit:?}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// One agent; its certificate is its own.
pub struct Agent {
    name: String,
    client: AgentsClient<Link>,
}

struct Held {
    item: ItemKey,
    slot: u32,
    /// Over, and only being told.
    ended: Option<Instant>,
}

type Hands = Arc<Mutex<BTreeMap<Attempt, Held>>>;

impl Agent {
    pub fn new(place: &Place, index: u32) -> anyhow::Result<Agent> {
        let name = format!("agent-{index}");
        let member = Member { role: Role::Agent, name: name.parse().map_err(anyhow::Error::msg)? };
        let wallet = Wallet::open(&place.enrol(&member)?).context("use the agent's certificate")?;
        let link = Link::secure(&place.url(), Trust::Wallet(wallet))?;
        Ok(Agent { name, client: AgentsClient::new(link) })
    }

    async fn work(mut self, shared: Arc<Shared>) {
        let (hands, mut is_here) = (Hands::default(), false);
        // When each slot was free last; the first work of a slot was waited for by nobody.
        let freed: Arc<Mutex<BTreeMap<u32, Instant>>> = Arc::default();
        for sequence in 1.. {
            let request = self.request(&shared, &hands, sequence);
            let Ok(response) = self.client.sync(request).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let response = response.into_inner();
            if !std::mem::replace(&mut is_here, true) {
                shared.here.fetch_add(1, Ordering::Relaxed);
            }
            shared.seen().syncs += 1;
            lock(&hands)
                .retain(|attempt, held| held.ended.is_some() || !response.revoke.contains(&attempt.0));
            for message in response.assignments {
                let attempt = Attempt(message.attempt);
                if message.work.is_none() || lock(&hands).contains_key(&attempt) {
                    continue;
                }
                let assignment = Assignment::try_from(message).expect("the coordinator's words can be read");
                let now = Instant::now();
                let waited = lock(&freed).remove(&assignment.slot).map(|at| now - at);
                {
                    let mut seen = shared.seen();
                    seen.granted += 1;
                    seen.first_grant.get_or_insert(now);
                    seen.to_next.extend(waited);
                }
                let held = Held { item: assignment.item.clone(), slot: assignment.slot, ended: None };
                lock(&hands).insert(attempt, held);
                tokio::spawn(self.clone_for(&shared, &hands, &freed).finish(assignment));
            }
            tokio::time::sleep(Duration::from_millis(response.next_sync_ms)).await;
        }
    }

    fn clone_for(&self, shared: &Arc<Shared>, hands: &Hands, freed: &Freed) -> Slot {
        Slot {
            name: self.name.clone(),
            client: self.client.clone(),
            shared: shared.clone(),
            hands: hands.clone(),
            freed: freed.clone(),
        }
    }

    fn request(&self, shared: &Shared, hands: &Hands, sequence: u64) -> v1::SyncRequest {
        let holding = lock(hands)
            .iter()
            .map(|(attempt, held)| v1::Holding {
                attempt: attempt.0,
                item: Some(held.item.clone().into()),
                slot: held.slot,
                activity: "at it".into(),
            })
            .collect();
        let slots = shared.slots.load(Ordering::Relaxed) as usize;
        v1::SyncRequest {
            agent: self.name.clone(),
            session: 1,
            sequence,
            info: Some(v1::AgentInfo {
                host: self.name.clone(),
                version: kulprit_proto::VERSION.into(),
                slots: vec![v1::Slot { cores: 1, memory_mib: 4096 }; slots],
                images: vec![IMAGE.into()],
                accelerator: "tcg".into(),
                can_build: true,
                can_boot: true,
                ..Default::default()
            }),
            holding,
            ..Default::default()
        }
    }
}

type Freed = Arc<Mutex<BTreeMap<u32, Instant>>>;

/// A slot at work.
struct Slot {
    name: String,
    client: AgentsClient<Link>,
    shared: Arc<Shared>,
    hands: Hands,
    freed: Freed,
}

impl Slot {
    async fn finish(mut self, assignment: Assignment) {
        let Assignment { attempt, item, work, slot, .. } = assignment;
        // Not all alike, or the farm would breathe in step.
        let mean = self.shared.work_ms.load(Ordering::Relaxed);
        let part = crate::history::number(&format!("{item} {attempt}")) % 1000;
        tokio::time::sleep(Duration::from_millis(mean / 2 + mean * part as u64 / 1000)).await;
        let end = kernels::end(&self.shared.history, &item, &work);
        let request = v1::CompleteRequest {
            agent: self.name.clone(),
            session: 1,
            attempt: attempt.0,
            item: Some(item.into()),
            end: Some(end.into()),
        };
        let began = Instant::now();
        match lock(&self.hands).get_mut(&attempt) {
            Some(held) => held.ended = Some(began),
            // It was told to drop it.
            None => return,
        }
        lock(&self.freed).insert(slot, began);
        while let Err(_late) = self.client.complete(request.clone()).await {
            // What it waits for a coordinator that is away says nothing of the coordinator.
            lock(&self.freed).remove(&slot);
            tokio::time::sleep(AGAIN).await;
        }
        lock(&self.hands).remove(&attempt);
        self.shared.completed.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.shared.seen();
        seen.completed += 1;
        seen.complete.push(began.elapsed());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
