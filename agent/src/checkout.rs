//! Brings a slot's work tree to a revision, touching only the files that differ.
//!
//! `mirror` gets the objects, `supply` those that the coordinator packed, `patched` makes the tree
//! where patches are asked for, `plan` finds what to change, `apply` changes it. All of it blocks.

mod apply;
mod mirror;
mod patched;
mod plan;
mod supply;

pub use mirror::FetchProgress;
pub use supply::{Origin, Refusals, SuppliedPack, Supplier};

use crate::container::io_infra;
use git2::Oid;
use kulprit_common::id::{RevisionId, TreeId};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_common::patch::Patch;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A revision and where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// An absolute local path, or a URL git can fetch from.
    pub repository: String,
    pub revision: RevisionId,
    /// Applied in this order.
    pub patches: Vec<Patch>,
}

/// A work tree that is at the revision asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedOut {
    /// Holds the revision's files and nothing else; mount it read-only.
    pub dir: PathBuf,
    pub tree: TreeId,
    /// Files written or removed.
    pub touched: usize,
}

/// Why there is no work tree.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error("{0}")]
    Git(String),
    #[error("the repository {repository} has no revision {revision}")]
    NoRevision { repository: String, revision: RevisionId },
    #[error("{patch:?} does not apply to {revision}")]
    Conflict { revision: RevisionId, patch: Patch },
    /// It would fill the memory or the disk, and is no kernel.
    #[error("the source is too large: it has {what}")]
    TooLarge { what: String },
    #[error("failed to {what}: {source}")]
    Io { what: String, source: io::Error },
    /// The coordinator's packs did not come.
    #[error("{}", .0.reason)]
    Supply(Infra),
    #[error("cancelled")]
    Cancelled,
}

impl CheckoutError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| CheckoutError::Io { what, source }
    }

    /// Says as well why the repository itself was of no use.
    fn after(self, refused: Option<CheckoutError>) -> Self {
        match (self, refused) {
            (CheckoutError::Supply(infra), Some(refused)) => {
                let reason = format!("{refused}; and from the coordinator: {}", infra.reason);
                CheckoutError::Supply(Infra { reason, ..infra })
            }
            (error, _) => error,
        }
    }

    /// The infra failure this is; `None` when it was cancelled.
    pub fn infra(&self) -> Option<Infra> {
        match self {
            CheckoutError::Cancelled => None,
            CheckoutError::Supply(infra) => Some(infra.clone()),
            CheckoutError::Io { what, source } => match io_infra(what, source) {
                disk @ Infra { class: InfraClass::Disk, .. } => Some(disk),
                other => Some(Infra { class: InfraClass::Source, ..other }),
            },
            CheckoutError::Git(text) if is_disk_full(text) => {
                Some(Infra { class: InfraClass::Disk, reason: text.clone() })
            }
            CheckoutError::Git(_)
            | CheckoutError::NoRevision { .. }
            | CheckoutError::Conflict { .. }
            | CheckoutError::TooLarge { .. } => {
                Some(Infra { class: InfraClass::Source, reason: self.to_string() })
            }
        }
    }
}

/// libgit2 passes errno on as text only.
fn is_disk_full(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Disk quota exceeded")
}

impl From<git2::Error> for CheckoutError {
    fn from(error: git2::Error) -> Self {
        CheckoutError::Git(error.message().to_string())
    }
}

/// Called with how far a fetch is, and between files with `None`; `false` cancels.
pub type OnProgress<'a> = dyn FnMut(Option<FetchProgress>) -> bool + 'a;

/// Brings the work tree of `source`'s repository below `slot_dir` to its revision.
///
/// Mirrors are kept below `cache_dir` and shared by slots. A work tree that was left in an
/// unknown state, because a checkout or the host broke off, is compared file by file, and
/// files that are right keep their times.
pub fn checkout(
    cache_dir: &Path,
    slot_dir: &Path,
    source: &Source,
    origin: &Origin<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<CheckedOut, CheckoutError> {
    let repository = mirror::with_revisions(cache_dir, source, origin, on_progress)?;
    let tree = patched::tree(&repository, source, on_progress)?;
    let place = slot_dir.join(mirror::short_name(&source.repository));
    let dir = place.join("tree");
    fs::create_dir_all(&dir).map_err(CheckoutError::io("create the work tree"))?;

    let marker = Marker { path: place.join("checked-out") };
    let current = marker.read().and_then(|id| repository.find_tree(id).ok());
    let changes = match &current {
        Some(current) => plan::between(&repository, current, &tree, on_progress)?,
        None => plan::from_disk(&repository, &dir, &tree, on_progress)?,
    };
    if !changes.is_empty() || current.is_none() {
        marker.clear().map_err(CheckoutError::io("clear the marker of the work tree"))?;
        apply::apply(&repository, &dir, &changes, on_progress)?;
        marker.write(tree.id()).map_err(CheckoutError::io("write the marker of the work tree"))?;
    }
    let id =
        <[u8; 20]>::try_from(tree.id().as_bytes()).map_err(|_| CheckoutError::Git("not a SHA-1".into()))?;
    Ok(CheckedOut { dir, tree: TreeId::from_bytes(id), touched: changes.len() })
}

fn oid(bytes: &[u8]) -> Oid {
    Oid::from_bytes(bytes).expect("ids are 20 bytes")
}

/// Names the tree a work tree holds, while it is known to hold it.
struct Marker {
    path: PathBuf,
}

impl Marker {
    /// The tree, if the marker is there and was written since the host started: after a power
    /// cut, a marker may have reached the disk and files before it not.
    fn read(&self) -> Option<Oid> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (tree, boot) = text.trim_end().split_once(' ')?;
        if boot != boot_id() {
            return None;
        }
        Oid::from_str(tree).ok()
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, tree: Oid) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{tree} {}\n", boot_id()))?;
        fs::rename(&new, &self.path)
    }
}

/// Differs between any two starts of the host.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_string()
}
