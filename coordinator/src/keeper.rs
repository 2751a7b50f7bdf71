//! Keeps the store in order: removes what retention lets go, takes back uploads that broke off, and has made
//! again what was lost. What may go is decided in `common`.

use crate::artifacts::{Condition, IDLE_MAX, Store, StoreError};
use crate::driver::{Handle, Stopped};
use crate::telemetry::FIGURES;
use futures::TryStreamExt as _;
use kulprit_common::access::Principal;
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::artifacts::Known;
use kulprit_common::farm::event::{ArtifactsEvent, Event};
use kulprit_common::id::Digest;
use kulprit_common::retention::{Retention, Stored, expendable};
use kulprit_common::time::Timestamp;
use kulprit_observe::figures::{Count as _, Say as _, number};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two looks at the whole store.
const GC_EVERY: Duration = Duration::from_secs(60 * 60);
/// Between two looks at uploads in parts.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);
/// Artifacts that are asked about at once.
const BATCH: usize = 500;
/// Artifacts that wait to be looked at since somebody missed them.
pub const SUSPICIONS_MAX: usize = 64;

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    #[error(
        "no retention is set: start the coordinator with --artifacts-keep-days or --artifacts-max-gib, \
         or give --keep-days or --max-gib"
    )]
    NoRetention,
    #[error(
        "the coordinator started {}s ago, and agents may rely on what they found stored before: \
         try again in {}s, or use --dry-run", .0.as_secs(), .1.as_secs()
    )]
    TooEarly(Duration, Duration),
    #[error("the store is being gone through already; try again later")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What is asked of one look at the store.
pub struct Asked {
    pub retention: Retention,
    pub dry_run: bool,
    pub by: Principal,
}

/// An object that went.
pub struct Gone {
    pub stored: Stored,
    pub known: Option<Known>,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub stored: u64,
    pub stored_bytes: u64,
    /// Of them, those that open jobs need.
    pub needed: u64,
}

impl Sums {
    /// Counts what is stored, and shows it as a figure.
    fn of(stored: &[Stored], is_needed: impl Fn(&Digest) -> bool) -> Sums {
        let (needed, others): (Vec<&Stored>, Vec<&Stored>) =
            stored.iter().partition(|it| is_needed(&it.digest));
        let mut stored_bytes = 0;
        for (label, group) in [("yes", &needed), ("no", &others)] {
            let bytes = group.iter().map(|it| it.size).sum();
            FIGURES.stored.say(&[label], number(group.len() as u64));
            FIGURES.stored_bytes.say(&[label], number(bytes));
            stored_bytes += bytes;
        }
        Sums { stored: stored.len() as u64, stored_bytes, needed: needed.len() as u64 }
    }
}

/// All that is stored, and what the farm knows of it.
pub struct Inventory {
    pub stored: Vec<Stored>,
    pub known: BTreeMap<Digest, Known>,
    pub now: Timestamp,
}

pub struct Keeper {
    store: Arc<Store>,
    driver: Handle,
    pub retention: Retention,
    /// What is younger is left alone.
    young: Duration,
    started: Instant,
    /// Held by whoever goes through the store to remove.
    alone: tokio::sync::Mutex<()>,
}

impl Keeper {
    pub fn new(store: Arc<Store>, driver: Handle, retention: Retention, young: Duration) -> Arc<Keeper> {
        let (started, alone) = (Instant::now(), tokio::sync::Mutex::default());
        Arc::new(Keeper { store, driver, retention, young, started, alone })
    }

    /// Lists the store first: what is stored afterwards is nobody's to remove.
    pub async fn inventory(&self) -> Result<Inventory, GcError> {
        let stored: Vec<Stored> = self.store.list().try_collect().await?;
        let (known, now) = self.driver.ask(|farm, now| (farm.known_artifacts(), now)).await?;
        Ok(Inventory { stored, known, now })
    }

    /// Removes what may go, and tells of each as it goes.
    pub async fn gc(&self, asked: Asked, tell: &mpsc::Sender<Gone>) -> Result<Sums, GcError> {
        if asked.retention.is_unlimited() {
            return Err(GcError::NoRetention);
        }
        let up = self.started.elapsed();
        if up < self.young && !asked.dry_run {
            return Err(GcError::TooEarly(up, self.young - up));
        }
        let _alone = self.alone.try_lock().map_err(|_| GcError::Busy)?;
        self.store.forget_uses(self.young);
        let Inventory { stored, known, now } = self.inventory().await?;
        let is_needed = |digest: &Digest| known.get(digest).is_some_and(|it| !it.needed_by.is_empty());
        let going = expendable(now, &stored, &asked.retention, self.young, is_needed);
        let sums = Sums::of(&stored, is_needed);
        for batch in going.chunks(BATCH) {
            let digests = batch.iter().map(|it| it.digest).collect();
            let free = if asked.dry_run { digests } else { self.let_go(digests, &asked.by).await? };
            for it in batch.iter().filter(|it| free.contains(&it.digest)) {
                if asked.dry_run || self.remove(it).await? {
                    let gone = Gone { stored: *it, known: known.get(&it.digest).cloned() };
                    // Nobody may listen any more; what was begun is finished all the same.
                    let _ = tell.send(gone).await;
                }
            }
        }
        Ok(sums)
    }

    /// Has the farm count on these no more, where no open job needs them; what it answers may be removed.
    async fn let_go(&self, digests: BTreeSet<Digest>, by: &Principal) -> Result<BTreeSet<Digest>, Stopped> {
        let event = ArtifactsEvent::ToRemove { digests, by: by.clone() };
        match self.driver.tell(Event::Artifacts(event)).await? {
            Some(Answer::Gone(digests)) => Ok(digests),
            _ => Ok(BTreeSet::new()),
        }
    }

    /// Removes an artifact, unless it is in use. What was let go may be counted on again by the coordinator after
    /// this one; the driver answers while there is none.
    async fn remove(&self, it: &Stored) -> Result<bool, GcError> {
        self.driver.ask(|_, _| ()).await?;
        let is_gone = self.store.remove_unused(&it.digest, self.young).await?;
        if is_gone {
            FIGURES.removed.one(&[]);
            FIGURES.removed_bytes.add(&[], it.size);
        }
        Ok(is_gone)
    }

    /// Sees to the store for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        let every = GC_EVERY.min(self.young.max(Duration::from_secs(1)));
        let mut gc = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                _ = gc.tick() => self.gc_by_settings().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn gc_by_settings(&self) {
        let (tell, mut gone) = mpsc::channel::<Gone>(64);
        let count = tokio::spawn(async move {
            let (mut objects, mut bytes) = (0u64, 0u64);
            while let Some(Gone { stored, known }) = gone.recv().await {
                let content = known.map(|it| it.content.to_string()).unwrap_or_default();
                tracing::debug!(digest = %stored.digest, content, "an artifact was removed");
                (objects, bytes) = (objects + 1, bytes + stored.size);
            }
            (objects, bytes)
        });
        let asked = Asked { retention: self.retention, dry_run: false, by: Principal::Local };
        let ended = self.gc(asked, &tell).await;
        drop(tell);
        let (objects, bytes) = count.await.unwrap_or_default();
        match ended {
            Ok(sums) => tracing::info!(
                stored = sums.stored,
                needed = sums.needed,
                objects,
                bytes,
                "went through the store"
            ),
            Err(GcError::NoRetention | GcError::Busy | GcError::TooEarly(..) | GcError::Stopped(_)) => {}
            Err(GcError::Store(error)) => tracing::warn!(%error, objects, "the store was not gone through"),
        }
    }

    async fn sweep(&self) {
        self.store.forget_uses(self.young);
        match self.store.abort_broken_off(IDLE_MAX).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "uploads that broke off were taken back"),
            Err(error) => tracing::warn!(%error, "uploads that broke off are left for later"),
        }
    }

    /// Looks at what somebody missed or found damaged. What is not whole is made again when it is wanted.
    pub async fn mend(self: Arc<Self>, mut suspects: mpsc::Receiver<Digest>) {
        while let Some(digest) = suspects.recv().await {
            match self.store.remove_corrupt(&digest).await {
                Ok(Condition::Whole) => {}
                Ok(condition @ (Condition::Corrupt | Condition::Missing)) => {
                    FIGURES.lost.one(&[if condition == Condition::Corrupt { "corrupt" } else { "missing" }]);
                    tracing::warn!(%digest, ?condition, "an artifact is lost; it is made again when it is wanted");
                    let lost = ArtifactsEvent::Lost(BTreeSet::from([digest]));
                    self.driver.notify(Event::Artifacts(lost)).await;
                }
                Err(error) => tracing::warn!(%digest, %error, "a missed artifact cannot be looked at"),
            }
        }
    }
}
