//! A directory of downloaded artifacts, bounded: the least recently used goes first.

use kulprit_common::artifact::Artifact;
use kulprit_common::id::Digest;
use kulprit_common::outcome::{Infra, InfraClass};
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;
use tempfile::NamedTempFile;

const STAGED_PREFIX: &str = "staged-";

/// The cache; clones share it. One process owns the directory.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Counts uses, so that they have an order.
    uses: u64,
    flights: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    used: u64,
    used_at: SystemTime,
    /// Shared with everybody who holds the file.
    held: Arc<()>,
}

/// A file of the cache. It is not removed while this is held.
#[derive(Clone, Debug)]
pub struct Cached {
    path: PathBuf,
    _held: Arc<()>,
}

impl Cached {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Cache {
    /// Opens the directory with what an earlier life left in it.
    pub fn open(dir: impl Into<PathBuf>, bytes_max: u64) -> Result<Cache, Infra> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|error| disk("make", &dir, error))?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|error| disk("read", &dir, error))? {
            let entry = entry.map_err(|error| disk("read", &dir, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(STAGED_PREFIX) {
                // A leftover that stays costs space, nothing else.
                let _ = std::fs::remove_file(entry.path());
            } else if let (Ok(digest), Ok(meta)) = (name.parse::<Digest>(), entry.metadata()) {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), digest, meta.len()));
            }
        }
        found.sort();
        let mut state = State::default();
        for (used_at, digest, size) in found {
            state.uses += 1;
            let entry = Entry { size, used: state.uses, used_at, held: Arc::default() };
            state.entries.insert(digest, entry);
        }
        let cache = Cache { shared: Arc::new(Shared { dir, bytes_max, state: Mutex::new(state) }) };
        cache.make_room(0);
        Ok(cache)
    }

    /// The artifact, if it is here.
    pub fn get(&self, artifact: &Artifact) -> Option<Cached> {
        let path = self.path(&artifact.digest);
        let mut state = self.state();
        // Verified when it came; a length that differs means that a disk or a person meddled.
        let whole = std::fs::metadata(&path).is_ok_and(|meta| meta.len() == artifact.size);
        if !whole {
            state.entries.remove(&artifact.digest);
            return None;
        }
        state.uses += 1;
        let used = state.uses;
        let used_at = SystemTime::now();
        let fresh = || Entry { size: artifact.size, used, used_at, held: Arc::default() };
        let entry = state.entries.entry(artifact.digest).or_insert_with(fresh);
        (entry.used, entry.used_at) = (used, used_at);
        Some(Cached { path, _held: entry.held.clone() })
    }

    /// What is here, most recently used first, `max` of it at most.
    pub fn recent(&self, max: usize) -> Vec<Digest> {
        let state = self.state();
        let mut by_use: Vec<(u64, Digest)> =
            state.entries.iter().map(|(digest, entry)| (entry.used, *digest)).collect();
        by_use.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        by_use.into_iter().take(max).map(|(_, digest)| digest).collect()
    }

    /// Removes what was not used for longest, until `incoming` bytes more fit. What is held
    /// stays, even if the bound is passed then.
    pub(super) fn make_room(&self, incoming: u64) {
        let mut state = self.state();
        loop {
            let total: u64 = state.entries.values().map(|entry| entry.size).sum();
            if total.saturating_add(incoming) <= self.shared.bytes_max {
                return;
            }
            let free = state.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.held) == 1);
            let Some(oldest) = free.min_by_key(|(_, entry)| entry.used).map(|(digest, _)| *digest) else {
                return;
            };
            state.entries.remove(&oldest);
            if let Err(error) = std::fs::remove_file(self.path(&oldest)) {
                tracing::warn!(digest = %oldest, %error, "a cached artifact was not removed");
            }
        }
    }

    /// What nobody holds, and when it was used last.
    pub fn unused(&self) -> Vec<(SystemTime, Digest)> {
        let state = self.state();
        let unused = state.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.held) == 1);
        unused.map(|(digest, entry)| (entry.used_at, *digest)).collect()
    }

    /// Removes what nobody holds; says how many bytes that were.
    pub fn remove_unused(&self, digest: &Digest) -> std::io::Result<Option<u64>> {
        let mut state = self.state();
        match state.entries.get(digest) {
            Some(entry) if Arc::strong_count(&entry.held) == 1 => {
                let size = entry.size;
                state.entries.remove(digest);
                std::fs::remove_file(self.path(digest)).map(|()| Some(size))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The directory that it is.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The lock of one digest: whoever holds it downloads for all.
    pub(super) fn flight(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = state.flights.get(digest).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        state.flights.insert(*digest, Arc::downgrade(&flight));
        flight
    }

    /// A file that is to become an artifact; removed when dropped before.
    pub(super) fn stage(&self) -> Result<NamedTempFile, Infra> {
        tempfile::Builder::new()
            .prefix(STAGED_PREFIX)
            .tempfile_in(&self.shared.dir)
            .map_err(|error| disk("write to", &self.shared.dir, error))
    }

    /// Takes a staged and verified file in, for all to read and nobody to change.
    pub(super) fn keep(&self, artifact: &Artifact, staged: NamedTempFile) -> Result<Cached, Infra> {
        let path = self.path(&artifact.digest);
        let failed = |error| disk("write", &path, error);
        staged.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        staged.persist(&path).map_err(|error| failed(error.error))?;
        self.get(artifact).ok_or_else(|| failed(Error::other("the file vanished")))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.dir.join(digest.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no holder of this lock panics")
    }
}

pub(super) fn disk(verb: &str, path: &Path, error: Error) -> Infra {
    Infra { class: InfraClass::Disk, reason: format!("cannot {verb} {}: {error}", path.display()) }
}
