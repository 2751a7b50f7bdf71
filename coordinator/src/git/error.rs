//! What goes wrong with repositories: the user's mistakes, and the rest.

use kulprit_common::history::InvalidHistory;
use kulprit_common::id::RevisionId;
use std::path::PathBuf;

/// The field of a job that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Repository,
    Good,
    /// The caller knows which revision it asked for.
    Revision,
}

/// Why a repository, a revision or a range cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("{} is not a git repository: give the path of a clone, or a URL", path.display())]
    NotARepository { path: PathBuf },
    #[error(
        "{0} belongs to another user: run as its owner, or say that you trust it: \
         `git config --global --add safe.directory {0}`",
        path.display()
    )]
    ForeignOwner { path: PathBuf },
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("unknown revision {rev:?}: {why}")]
    UnknownRevision { rev: String, why: String },
    #[error("good {} is not an ancestor of bad {}{}", good.short(), bad.short(), hint(*shallow))]
    NotAncestor { good: RevisionId, bad: RevisionId, shallow: bool },
    #[error("good {} is newer than bad {}: swap them, or set the mode to fix", good.short(), bad.short())]
    Reversed { good: RevisionId, bad: RevisionId },
    #[error("good and bad are the same commit, {}: there is nothing between them", .0.short())]
    EmptyRange(RevisionId),
    #[error("read the repository: {0}")]
    Git(#[from] git2::Error),
    #[error("make sense of the history: {0}")]
    History(#[from] InvalidHistory),
    #[error("write the mirror {}: {source}", path.display())]
    Mirror { path: PathBuf, source: std::io::Error },
}

impl GitError {
    /// Whether the same may be had later: a server that was there before may be there again.
    pub fn may_pass(&self) -> bool {
        matches!(self, GitError::Unreachable { .. })
    }

    /// The field to blame, where the user can mend it; `None` for failures of ours or of the machine.
    pub fn field(&self) -> Option<Field> {
        match self {
            GitError::NotARepository { .. }
            | GitError::ForeignOwner { .. }
            | GitError::Unreachable { .. } => Some(Field::Repository),
            GitError::UnknownRevision { .. } => Some(Field::Revision),
            GitError::NotAncestor { .. } | GitError::Reversed { .. } | GitError::EmptyRange(_) => {
                Some(Field::Good)
            }
            GitError::Git(_) | GitError::History(_) | GitError::Mirror { .. } => None,
        }
    }
}

fn hint(shallow: bool) -> &'static str {
    if shallow {
        "; the repository is shallow, so `git fetch --unshallow` may help"
    } else {
        ": give a commit that bad descends from"
    }
}
