//! Source for agents that may not or cannot ask a job's repository themselves: packs out of our own
//! mirror, kept in the artifact store, so that what was made for one agent serves them all.
//!
//! `pack` has git make one, `shelf` remembers which there are. Builds need trees and no history, so
//! an agent gets one revision's whole tree once, and from then on what differs.

mod pack;
mod shelf;

use crate::artifacts::{Store, StoreError};
use crate::git::{GitError, Mirror, Mirrors, Needed};
use crate::telemetry::FIGURES;
use kulprit_common::farm::item::WorkSource;
use kulprit_common::id::{Attempt, Digest, RevisionId};
use kulprit_observe::figures::{Count as _, Measure as _};
use kulprit_proto::convert::SourcePack;
use shelf::{Entry, Shelf};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

/// A thin pack that is larger than this part of its base says that the base has grown old: the next
/// new agent gets another one.
const BASE_WORN: u64 = 4;

/// Attempts whose packs are remembered, the newest.
const OFFERED_MAX: usize = 4096;

/// Agents whose commits are weighed at once, each of which costs a core.
const WEIGHING_MAX: usize = 2;

/// Why an agent gets no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("run git: {0}; is it installed on the coordinator's machine?")]
    NoGit(std::io::Error),
    #[error("pack the source: git says: {0}")]
    Failed(String),
    #[error("pack the source: it is more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("pack the source: it took longer than {0} s")]
    TooSlow(u64),
    #[error("keep the source: {0}")]
    Io(#[from] std::io::Error),
    #[error("keep the source: {0}")]
    Store(#[from] StoreError),
}

/// Says how far packing is, for people.
pub type Say<'a> = &'a (dyn Fn(String) + Send + Sync);

/// All repositories' packs; shared by all calls.
pub struct Sources {
    mirrors: Mirrors,
    store: Arc<Store>,
    dir: PathBuf,
    /// By the name of the mirror. Whoever holds one is alone with its repository.
    shelves: BlockingMutex<BTreeMap<String, Arc<Mutex<Shelf>>>>,
    /// The packs that attempts were told of, and may fetch.
    offered: BlockingMutex<BTreeMap<Attempt, Vec<Digest>>>,
    weighing: Semaphore,
}

impl Sources {
    /// Keeps what it remembers, and packs in the making, in `dir`.
    pub fn open(mirrors: Mirrors, store: Arc<Store>, dir: PathBuf) -> std::io::Result<Sources> {
        std::fs::create_dir_all(&dir)?;
        pack::remove_torn(&dir)?;
        let (shelves, offered) = (BlockingMutex::default(), BlockingMutex::default());
        Ok(Sources { mirrors, store, dir, shelves, offered, weighing: Semaphore::new(WEIGHING_MAX) })
    }

    /// Remembers which packs an attempt was told of. One that was forgotten asks again.
    pub fn offer(&self, attempt: Attempt, packs: &[SourcePack]) {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.insert(attempt, packs.iter().map(|it| it.pack.digest).collect());
        while offered.len() > OFFERED_MAX {
            offered.pop_first();
        }
    }

    pub fn was_offered(&self, attempt: Attempt, digest: &Digest) -> bool {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.get(&attempt).is_some_and(|packs| packs.contains(digest))
    }

    /// The packs that lead from the commits an agent holds to those of an attempt, in order. One is
    /// made at a time for each repository; dropping the future stops that.
    pub async fn packs(
        &self,
        source: WorkSource,
        held: Vec<RevisionId>,
        damaged: &[Digest],
        say: Say<'_>,
    ) -> Result<Vec<SourcePack>, SourceError> {
        let opened = self.open_mirror(&source, say).await?;
        let mirror = opened.path().to_owned();
        let needed = {
            let _turn = self.weighing.acquire().await.map_err(std::io::Error::other)?;
            blocking(move || opened.needed(&source.revision, &source.patches, &held)).await?
        };
        let mut shelf = self.alone(&mirror, say).await?;
        for digest in damaged {
            self.look_into(&mut shelf, digest).await?;
        }
        self.chain(&mut shelf, &mirror, needed, say).await
    }

    /// Fetches what another coordinator's mirror had and this one's has not, once for all who wait.
    async fn open_mirror(&self, source: &WorkSource, say: Say<'_>) -> Result<Mirror, SourceError> {
        let mut commits: Vec<RevisionId> = source.patches.iter().map(|patch| *patch.commit()).collect();
        commits.push(source.revision);
        let repository = source.repository.clone();
        let (mirrors, wanted, at) = (self.mirrors.clone(), commits.clone(), repository.clone());
        if let Some(mirror) = blocking(move || mirrors.at_hand(&at, &wanted)).await? {
            return Ok(mirror);
        }
        let _alone = self.alone(&self.mirrors.path_of(&repository), say).await?;
        say("the coordinator fetches the repository".into());
        let mirrors = self.mirrors.clone();
        blocking(move || mirrors.reopen(&repository, &commits, &mut |line| tracing::info!("{line}"))).await
    }

    async fn alone(&self, mirror: &Path, say: Say<'_>) -> std::io::Result<OwnedMutexGuard<Shelf>> {
        let name = mirror.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let shelf = {
            let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
            match shelves.get(&name) {
                Some(shelf) => shelf.clone(),
                None => {
                    let opened = Shelf::open(&self.dir, &name);
                    shelves.entry(name).or_insert(Arc::new(Mutex::new(opened))).clone()
                }
            }
        };
        if let Ok(alone) = shelf.clone().try_lock_owned() {
            return Ok(alone);
        }
        say("the coordinator packs for another agent".into());
        Ok(shelf.lock_owned().await)
    }

    /// Removes a pack that is not what its digest says, so that it is made again.
    async fn look_into(&self, shelf: &mut Shelf, digest: &Digest) -> Result<(), SourceError> {
        // Of what is not on the shelf nobody is made to read anything.
        if shelf.has(digest) && !self.store.is_whole(digest).await? {
            tracing::warn!(%digest, "a pack was damaged in the artifact store and is made again");
            self.store.remove(digest).await?;
            shelf.forget(digest)?;
        }
        Ok(())
    }

    async fn chain(
        &self,
        shelf: &mut Shelf,
        mirror: &Path,
        needed: Needed,
        say: Say<'_>,
    ) -> Result<Vec<SourcePack>, SourceError> {
        let mut chain: Vec<Entry> = Vec::new();
        let mut held = needed.held;
        if held.is_empty() {
            let base = match self.standing(shelf, |entry| entry.base.is_none()).await? {
                Some(base) => base,
                None => self.make(shelf, mirror, vec![needed.revision], None, say).await?,
            };
            held.clone_from(&base.commits);
            chain.push(base);
        }
        let lacking: Vec<RevisionId> =
            needed.commits.into_iter().filter(|commit| !held.contains(commit)).collect();
        if !lacking.is_empty() {
            let fits = |entry: &Entry| {
                entry.base.is_some_and(|base| held.contains(&base))
                    && lacking.iter().all(|commit| entry.commits.contains(commit))
            };
            let thin = match self.standing(shelf, fits).await? {
                Some(thin) => thin,
                None => self.make(shelf, mirror, lacking, Some(held[0]), say).await?,
            };
            if let [base] = &chain[..]
                && thin.pack.size > base.pack.size / BASE_WORN
            {
                shelf.forget(&base.pack.digest)?;
            }
            chain.push(thin);
        }
        Ok(chain.into_iter().map(|entry| SourcePack { pack: entry.pack, commits: entry.commits }).collect())
    }

    /// A pack that was made before, and is still in the store.
    async fn standing(
        &self,
        shelf: &mut Shelf,
        fits: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Entry>, SourceError> {
        while let Some(entry) = shelf.find(&fits) {
            if self.store.size(&entry.pack.digest).await? == Some(entry.pack.size) {
                FIGURES.source_packs.one(&["reused"]);
                return Ok(Some(entry));
            }
            shelf.forget(&entry.pack.digest)?;
        }
        Ok(None)
    }

    async fn make(
        &self,
        shelf: &mut Shelf,
        mirror: &Path,
        commits: Vec<RevisionId>,
        base: Option<RevisionId>,
        say: Say<'_>,
    ) -> Result<Entry, SourceError> {
        let started = Instant::now();
        let file = pack::make(&self.dir, mirror, &commits, base.as_ref(), say).await?;
        let pack = self.store.put_file(file.path()).await?;
        let kind = if base.is_some() { "thin" } else { "base" };
        FIGURES.source_packs.one(&[kind]);
        FIGURES.source_pack_bytes.add(&[kind], pack.size);
        FIGURES.source_pack_time.took(&[kind], started.elapsed());
        tracing::info!(kind, digest = %pack.digest, bytes = pack.size, commits = commits.len(), took_ms = started.elapsed().as_millis(), "packed source for agents");
        let entry = Entry { commits, base, pack };
        shelf.add(entry.clone())?;
        Ok(entry)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, SourceError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)??)
}
