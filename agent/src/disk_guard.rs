//! Makes room on a disk that runs low: of what this agent and its host keep to be quicker the
//! next time, the oldest goes first. What an attempt uses, this agent's or another's, stays.

use crate::build::{ccache, seed};
use crate::health::free_mib;
use crate::slots::Slots;
use crate::store::Cache;
use crate::untrusted;
use kulprit_common::id::Digest;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where there is something to remove, and who knows what is in use.
pub struct Places<'a> {
    pub state: &'a Path,
    pub cache: &'a Path,
    pub artifacts: &'a Cache,
    pub slots: &'a Slots,
    /// Directories of slots beyond these are left from another sizing.
    pub slots_used: u32,
}

/// Something that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub what: &'static str,
    pub path: PathBuf,
    pub bytes: u64,
}

/// Free disk at which cleaning begins, and up to which it goes; both in MiB and above the least
/// that builds are taken at, so that an agent cleans before it refuses work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub low_mib: u64,
    pub enough_mib: u64,
}

impl Marks {
    pub fn above(least_mib: u64) -> Marks {
        Marks { low_mib: least_mib + least_mib / 4, enough_mib: least_mib + least_mib / 2 }
    }
}

enum Thing {
    Artifact(Digest),
    Objects {
        slot: u32,
    },
    /// All of a slot that there is no longer.
    Slot {
        slot: u32,
    },
    Seed,
    Ccache,
}

struct Candidate {
    used: SystemTime,
    path: PathBuf,
    thing: Thing,
}

/// Removes the oldest unused things, one by one, from every disk that is low, until there is
/// enough or nothing is left to remove.
pub fn make_room(places: &Places<'_>, marks: Marks) -> Vec<Removed> {
    let below = |path: &Path, mib: u64| free_mib(path).is_ok_and(|free| free < mib);
    let mut candidates = Vec::new();
    if below(places.state, marks.low_mib) {
        candidates.extend(own(places));
    }
    if below(places.cache, marks.low_mib) {
        candidates.extend(shared(places.cache));
    }
    candidates.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut all = Vec::new();
    for candidate in candidates {
        if !candidate.path.parent().is_some_and(|dir| below(dir, marks.enough_mib)) {
            continue;
        }
        match remove(places, &candidate) {
            Ok(Some(bytes)) => {
                let (what, path) = (candidate.thing.what(), candidate.path);
                tracing::info!(what, path = %path.display(), mib = bytes >> 20, "removed to make room");
                all.push(Removed { what, path, bytes });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = %candidate.path.display(), %error, "could not be removed to make room");
            }
        }
    }
    all
}

impl Thing {
    fn what(&self) -> &'static str {
        match self {
            Thing::Artifact(_) => "a downloaded artifact",
            Thing::Objects { .. } => "an idle slot's object tree",
            Thing::Slot { .. } => "a slot that there is no longer",
            Thing::Seed => "a seed",
            Thing::Ccache => "a compiler's cache",
        }
    }
}

/// What is this agent's alone.
fn own(places: &Places<'_>) -> Vec<Candidate> {
    let artifacts = places.artifacts.unused().into_iter().map(|(used, digest)| Candidate {
        used,
        path: places.artifacts.dir().join(digest.to_string()),
        thing: Thing::Artifact(digest),
    });
    let mut found: Vec<Candidate> = artifacts.collect();
    for (used, path) in directories(&places.state.join("slots")) {
        let Some(slot) = path.file_stem().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        // One with an extension is what is left of a removal that was cut short.
        if slot >= places.slots_used || path.extension().is_some() {
            found.push(Candidate { used, path, thing: Thing::Slot { slot } });
            continue;
        }
        let trees = directories(&path.join("objects")).into_iter();
        found.extend(trees.map(|(used, path)| Candidate { used, path, thing: Thing::Objects { slot } }));
    }
    found
}

/// What the agents of the host share. The compiler's cache that was used last stays: without it
/// every build is a slow one.
fn shared(cache: &Path) -> Vec<Candidate> {
    let seeds = seed::by_age(&cache.join("seeds")).unwrap_or_default();
    let mut ccaches = ccache::by_age(&cache.join("ccache")).unwrap_or_default();
    ccaches.pop();
    let seeds = seeds.into_iter().map(|(used, path)| Candidate { used, path, thing: Thing::Seed });
    let ccaches = ccaches.into_iter().map(|(used, path)| Candidate { used, path, thing: Thing::Ccache });
    seeds.chain(ccaches).collect()
}

/// The directories in one that is itself no symlink, and when something was put in or taken out.
fn directories(dir: &Path) -> Vec<(SystemTime, PathBuf)> {
    let listed = untrusted::is_directory(dir).then(|| fs::read_dir(dir).ok()).flatten();
    let entries = listed.into_iter().flatten().flatten();
    entries
        .filter(|entry| untrusted::is_directory(&entry.path()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect()
}

/// The bytes that went with it; nothing where it is in use.
fn remove(places: &Places<'_>, candidate: &Candidate) -> io::Result<Option<u64>> {
    let path = &candidate.path;
    let bytes = untrusted::measure(path, u64::MAX).map_or(0, |usage| usage.bytes);
    let removed = match &candidate.thing {
        Thing::Artifact(digest) => return places.artifacts.remove_unused(digest),
        Thing::Seed => seed::remove_unused(path)?,
        Thing::Ccache => ccache::remove_unused(path)?,
        Thing::Objects { slot } | Thing::Slot { slot } => {
            let Some(_hold) = places.slots.try_hold(*slot) else { return Ok(None) };
            // Renamed first: half a tree must not be taken for a whole one.
            let gone = path.with_extension("gone");
            if *path != gone {
                untrusted::remove(&gone)?;
                fs::rename(path, &gone)?;
            }
            untrusted::remove(&gone)?;
            true
        }
    };
    Ok(removed.then_some(bytes))
}
