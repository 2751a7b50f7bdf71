//! Source that the coordinator packed, taken into a mirror.

use super::mirror::{self, FetchProgress};
use super::{CheckoutError, OnProgress, Source, is_disk_full, oid};
use git2::{Oid, Repository};
use kulprit_common::id::RevisionId;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Commits that the coordinator is told of.
const HELD_MAX: usize = 64;
/// How long a repository that could not be asked is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);
const CHUNK_BYTES: usize = 1 << 20;
/// What a commit whose tree is whole is known by.
const REFS: &str = "refs/kulprit/";

/// Whoever packs source.
pub trait Supplier {
    /// The packs that lead from the commits held to those wanted, in order. Their files stay while
    /// the supplier does.
    fn packs(&self, held: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError>;
}

/// A pack, and the commits whose trees it makes whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuppliedPack {
    pub path: PathBuf,
    pub commits: Vec<RevisionId>,
}

/// Who is asked for source.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// The repository, and nobody else.
    Repository,
    /// The coordinator alone.
    Coordinator(&'a dyn Supplier),
    /// The repository first.
    Either(&'a dyn Supplier, &'a Refusals),
}

/// Repositories that could not be asked, and when.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, Instant>>);

impl Origin<'_> {
    pub(super) fn may_ask(&self, repository: &str) -> bool {
        match self {
            Origin::Repository => true,
            Origin::Coordinator(_) => false,
            Origin::Either(_, refusals) => {
                let refused = refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
                refused.get(repository).is_none_or(|at| at.elapsed() > REFUSED_FOR)
            }
        }
    }

    pub(super) fn supplier(&self) -> Option<&dyn Supplier> {
        match self {
            Origin::Repository => None,
            Origin::Coordinator(supplier) | Origin::Either(supplier, _) => Some(*supplier),
        }
    }

    pub(super) fn refused(&self, repository: &str) {
        if let Origin::Either(_, refusals) = self {
            let mut refused = refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
            refused.retain(|_, at| at.elapsed() <= REFUSED_FOR);
            refused.insert(repository.to_owned(), Instant::now());
        }
    }
}

/// Opens the mirror at `path`, and takes packs into it where it lacks anything.
pub(super) fn supply(
    path: &Path,
    source: &Source,
    supplier: &dyn Supplier,
    on_progress: &mut OnProgress<'_>,
) -> Result<Repository, CheckoutError> {
    let repository = mirror::open(path)?;
    if mirror::missing(&repository, source).is_none() {
        return Ok(repository);
    }
    let held = held(&repository)?;
    let packs = supplier.packs(&held)?;
    match take_all(&repository, &packs, on_progress) {
        Err(CheckoutError::Git(why)) if !held.is_empty() && !is_disk_full(&why) => {
            // A thin pack needs what the mirror was said to hold.
            tracing::warn!(why, "a mirror lacks what it should hold; all of the source is fetched");
            forget(&repository)?;
            take_all(&repository, &supplier.packs(&[])?, on_progress)?;
        }
        taken => taken?,
    }
    // libgit2 reads where the history is cut off when a repository is opened.
    mirror::open(path)
}

/// The commits whose trees are whole, the newest first.
fn held(repository: &Repository) -> Result<Vec<RevisionId>, CheckoutError> {
    let mut held = Vec::new();
    for reference in repository.references_glob(&format!("{REFS}*"))? {
        let Some(target) = reference?.target() else { continue };
        if let Ok(commit) = repository.find_commit(target) {
            held.push((commit.time().seconds(), target));
        }
    }
    held.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let ids = held.into_iter().take(HELD_MAX);
    Ok(ids.filter_map(|(_, id)| Some(RevisionId::from_bytes(id.as_bytes().try_into().ok()?))).collect())
}

fn forget(repository: &Repository) -> Result<(), CheckoutError> {
    for reference in repository.references_glob(&format!("{REFS}*"))? {
        reference?.delete()?;
    }
    Ok(())
}

fn take_all(
    repository: &Repository,
    packs: &[SuppliedPack],
    on_progress: &mut OnProgress<'_>,
) -> Result<(), CheckoutError> {
    for pack in packs {
        take(repository, &pack.path, on_progress)?;
        cut_off(repository, &pack.commits)?;
        for commit in &pack.commits {
            let id = oid(commit.as_bytes());
            // What a commit is called by says that it is here.
            repository.find_commit(id)?;
            repository.reference(&format!("{REFS}{commit}"), id, true, "packed by the coordinator")?;
        }
    }
    Ok(())
}

fn take(repository: &Repository, path: &Path, on_progress: &mut OnProgress<'_>) -> Result<(), CheckoutError> {
    let odb = repository.odb()?;
    let mut file = File::open(path).map_err(CheckoutError::io("open a pack"))?;
    let mut bytes = 0;
    let on_progress = std::cell::RefCell::new(on_progress);
    let cancelled = std::cell::Cell::new(false);
    let say = |objects: usize, objects_total: usize, bytes: usize| {
        let goes_on = (on_progress.borrow_mut())(Some(FetchProgress { objects, objects_total, bytes }));
        cancelled.set(cancelled.get() || !goes_on);
        goes_on
    };
    let taken = (|| {
        let mut writer = odb.packwriter()?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk).map_err(CheckoutError::io("read a pack"))?;
            if read == 0 {
                break;
            }
            bytes += read;
            if !say(0, 0, bytes) {
                return Err(CheckoutError::Cancelled);
            }
            // git2 says no more than that it failed.
            writer.write_all(&chunk[..read]).map_err(|_| last_error())?;
        }
        writer.commit()?;
        Ok(())
    })();
    match taken {
        Err(_) if cancelled.get() => Err(CheckoutError::Cancelled),
        taken => taken,
    }
}

fn last_error() -> CheckoutError {
    let error = git2::Error::last_error(-1);
    CheckoutError::Git(format!("unpacking the coordinator's source: {}", error.message()))
}

/// Says for commits whose parents are not here that the history ends there, and for others that it
/// does not; otherwise a fetch would take it that all of it was here.
fn cut_off(repository: &Repository, commits: &[RevisionId]) -> Result<(), CheckoutError> {
    let path = repository.path().join("shallow");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let mut ends: BTreeSet<Oid> = known.lines().filter_map(|line| Oid::from_str(line.trim()).ok()).collect();
    ends.extend(commits.iter().map(|commit| oid(commit.as_bytes())));
    let odb = repository.odb()?;
    ends.retain(|id| {
        mirror::parents(repository, *id).is_some_and(|parents| parents.iter().any(|id| !odb.exists(*id)))
    });
    let new = path.with_extension("new");
    let text: String = ends.iter().map(|id| format!("{id}\n")).collect();
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(CheckoutError::io("cut the history off"))
}
