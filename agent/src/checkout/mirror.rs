//! A bare mirror per repository: local ones are borrowed from, remote ones fetched.

use super::supply::{self, Origin};
use super::{CheckoutError, OnProgress, Source, is_disk_full, oid};
use git2::{AutotagOption, FetchOptions, Oid, RemoteCallbacks, Repository};
use kulprit_common::id::{Digest, RevisionId};
use kulprit_common::patch::Patch;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// The depth that asks for the rest of a history that was cut off.
const UNSHALLOW: i32 = i32::MAX;
/// How long a git server may take to be reached, and how long it may then say nothing at all.
const CONNECT_TIMEOUT_MS: i32 = 20_000;
const SILENCE_TIMEOUT_MS: i32 = 120_000;
/// How often a waiting slot looks whether it may go on, or was cancelled.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// How far a fetch is; of a pack that is taken in, bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress {
    pub objects: usize,
    pub objects_total: usize,
    pub bytes: usize,
}

impl fmt::Display for FetchProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.objects_total {
            0 => write!(f, "unpacking source, {} MiB", self.bytes >> 20),
            total => write!(f, "fetching objects, {} of {total}", self.objects),
        }
    }
}

/// A directory name for a repository; equal for equal repositories.
pub(super) fn short_name(repository: &str) -> String {
    let last = repository.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let readable: String = last.trim_end_matches(".git").chars().filter(plain).take(32).collect();
    format!("{readable}-{}", Digest::of(repository.as_bytes()).short())
}

/// Opens the mirror of `source`'s repository and makes sure that the revision is in it, and
/// every commit that is to be taken out or put in.
pub(super) fn with_revisions(
    cache_dir: &Path,
    source: &Source,
    origin: &Origin<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Repository, CheckoutError> {
    let path = cache_dir.join("mirrors").join(short_name(&source.repository) + ".git");
    fs::create_dir_all(&path).map_err(CheckoutError::io("create a mirror"))?;
    // Slots share the mirror: one fetches, the others then find what they want.
    let _lock = lock(&path.join("kulprit.lock"), on_progress)?;
    remove_torn_packs(&path);

    let refused = match origin.may_ask(&source.repository) {
        true => match from_repository(&path, source, on_progress) {
            Ok(repository) => return Ok(repository),
            Err(error) => Some(error),
        },
        false => None,
    };
    match (origin.supplier(), refused) {
        (Some(supplier), refused) if refused.as_ref().is_none_or(is_about_the_repository) => {
            if let Some(refused) = &refused {
                tracing::info!(%refused, "the source is fetched from the coordinator");
                origin.refused(&source.repository);
            }
            let supplied =
                supply::supply(&path, source, supplier, on_progress).map_err(|error| error.after(refused))?;
            match missing(&supplied, source) {
                None => Ok(supplied),
                Some(revision) => Err(no_revision(source, revision)),
            }
        }
        (_, Some(refused)) => Err(refused),
        (_, None) => open(&path),
    }
}

/// Whether another way to the source may lead further.
fn is_about_the_repository(error: &CheckoutError) -> bool {
    match error {
        CheckoutError::Git(text) => !is_disk_full(text),
        CheckoutError::NoRevision { .. } => true,
        CheckoutError::Conflict { .. }
        | CheckoutError::TooLarge { .. }
        | CheckoutError::Io { .. }
        | CheckoutError::Supply(_)
        | CheckoutError::Cancelled => false,
    }
}

fn from_repository(
    path: &Path,
    source: &Source,
    on_progress: &mut OnProgress<'_>,
) -> Result<Repository, CheckoutError> {
    let local = local_path(&source.repository);
    if let Some(local) = local {
        borrow_objects(path, local)?;
    }
    let repository = open(path)?;
    if missing(&repository, source).is_none() {
        return Ok(repository);
    }
    if local.is_none() {
        fetch(&repository, source, on_progress)?;
    }
    match missing(&repository, source) {
        None => Ok(repository),
        Some(revision) => Err(no_revision(source, revision)),
    }
}

fn no_revision(source: &Source, revision: RevisionId) -> CheckoutError {
    CheckoutError::NoRevision { repository: source.repository.clone(), revision }
}

pub(super) fn open(path: &Path) -> Result<Repository, CheckoutError> {
    match Repository::open_bare(path) {
        Ok(repository) => Ok(repository),
        Err(_) => Ok(Repository::init_bare(path)?),
    }
}

/// Removes what a fetch left that was broken off; the lock says that nobody is writing it.
fn remove_torn_packs(mirror: &Path) {
    let Ok(entries) = fs::read_dir(mirror.join("objects/pack")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pack_git2_") {
            // A leftover that stays costs space, nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn lock(path: &Path, on_progress: &mut OnProgress<'_>) -> Result<File, CheckoutError> {
    let file = File::create(path).map_err(CheckoutError::io("create a mirror's lock"))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if !on_progress(None) => return Err(CheckoutError::Cancelled),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::Error(error)) => return Err(CheckoutError::io("lock a mirror")(error)),
        }
    }
}

/// A commit that is wanted and not there; of a patch, also one whose parents are not.
pub(super) fn missing(repository: &Repository, source: &Source) -> Option<RevisionId> {
    let find = |id: &RevisionId| repository.find_commit(oid(id.as_bytes()));
    if find(&source.revision).is_err() {
        return Some(source.revision);
    }
    let whole = |id: &RevisionId| {
        // Where the history was cut off, libgit2 shows a commit without its parents.
        let parents = parents(repository, oid(id.as_bytes())).map(|parents| parents.len());
        find(id).is_ok_and(|commit| {
            Some(commit.parent_count()) == parents && commit.parents().count() == commit.parent_count()
        })
    };
    source.patches.iter().map(Patch::commit).find(|id| !whole(id)).copied()
}

/// The parents that a commit itself names, here or not.
pub(super) fn parents(repository: &Repository, id: Oid) -> Option<Vec<Oid>> {
    let odb = repository.odb().ok()?;
    let raw = odb.read(id).ok()?;
    let header = raw.data().split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let named = header.filter_map(|line| std::str::from_utf8(line.strip_prefix(b"parent ")?).ok());
    Some(named.filter_map(|id| Oid::from_str(id).ok()).collect())
}

fn local_path(repository: &str) -> Option<&Path> {
    let path = repository.strip_prefix("file://").unwrap_or(repository);
    path.starts_with('/').then(|| Path::new(path))
}

/// Names the local repository's objects as an alternate of the mirror.
fn borrow_objects(mirror: &Path, local: &Path) -> Result<(), CheckoutError> {
    let objects = objects_of(local)
        .ok_or_else(|| CheckoutError::Git(format!("{} is not a git repository", local.display())))?;
    let info = mirror.join("objects/info");
    let line = format!("{}\n", objects.display());
    if fs::read_to_string(info.join("alternates")).is_ok_and(|text| text == line) {
        return Ok(());
    }
    fs::create_dir_all(&info).map_err(CheckoutError::io("create a mirror"))?;
    fs::write(info.join("alternates"), line).map_err(CheckoutError::io("write a mirror's alternates"))
}

/// Found by hand, because libgit2 refuses to open what belongs to another user, and only
/// objects are read from it, which are verified by their names.
fn objects_of(local: &Path) -> Option<PathBuf> {
    let dot_git = local.join(".git");
    let linked = || {
        let text = fs::read_to_string(&dot_git).ok()?;
        let dir = local.join(text.strip_prefix("gitdir:")?.trim());
        let common = fs::read_to_string(dir.join("commondir")).unwrap_or_else(|_| ".".into());
        Some(dir.join(common.trim()).join("objects"))
    };
    let places = [Some(dot_git.join("objects")), Some(local.join("objects")), linked()];
    places.into_iter().flatten().find(|objects| objects.is_dir())?.canonicalize().ok()
}

/// Fetches the commits without their history, of patches with the parent they are a change to;
/// from a server that does not hand out single commits, all heads and tags.
fn fetch(
    repository: &Repository,
    source: &Source,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), CheckoutError> {
    bound_waits();
    let wanted = std::iter::once(&source.revision).chain(source.patches.iter().map(Patch::commit));
    let wanted: Vec<String> = wanted.map(|id| format!("+{id}:refs/kulprit/{id}")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let depth = if source.patches.is_empty() { 1 } else { 2 };
    match fetch_refs(repository, source, &wanted, depth, on_progress) {
        Ok(()) if missing(repository, source).is_none() => return Ok(()),
        Err(CheckoutError::Cancelled) => return Err(CheckoutError::Cancelled),
        Ok(()) | Err(_) => {}
    }
    let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let depth = if repository.is_shallow() { UNSHALLOW } else { 0 };
    fetch_refs(repository, source, &all, depth, on_progress)
}

fn fetch_refs(
    repository: &Repository,
    source: &Source,
    refspecs: &[&str],
    depth: i32,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), CheckoutError> {
    let mut cancelled = false;
    let fetched = {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|stats| {
            let progress = FetchProgress {
                objects: stats.received_objects(),
                objects_total: stats.total_objects(),
                bytes: stats.received_bytes(),
            };
            cancelled |= !on_progress(Some(progress));
            !cancelled
        });
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks)
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .depth(depth);
        let mut remote = repository.remote_anonymous(&source.repository)?;
        remote.fetch(refspecs, Some(&mut options), None)
    };
    match fetched {
        _ if cancelled => Err(CheckoutError::Cancelled),
        Err(error) => Err(CheckoutError::Git(format!("fetching {}: {}", source.repository, error.message()))),
        Ok(()) => Ok(()),
    }
}

/// Bounds libgit2's waits for servers, once per process.
fn bound_waits() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // libgit2 offers these as process-wide integers only. They are read when a connection is
        // opened, which is done here alone.
        #[allow(unsafe_code)]
        let set = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_TIMEOUT_MS)
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(SILENCE_TIMEOUT_MS))
        };
        set.expect("libgit2 knows its timeouts");
    });
}
