//! The commit graph of a range, as a value.
//!
//! Commits are numbered parents before children; everything outside the range counts as the
//! good end. Nothing here knows what was tested.

use crate::id::{RevisionId, TreeId};
use crate::toolchain::Release;
use std::collections::HashMap;

/// One commit of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub id: RevisionId,
    pub tree: TreeId,
    /// Indices of the parents inside the range; each is smaller than the commit's own.
    pub parents: Vec<u32>,
    /// Parents outside the range, by id: a culprit is compared with these too.
    pub outside: Vec<RevisionId>,
    /// Commit time, seconds since the epoch.
    pub time: i64,
    pub subject: String,
}

/// A graph that is not one: it names the commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistory {
    #[error("the range is empty")]
    Empty,
    #[error("commit {0} stands before its parent")]
    Order(RevisionId),
    #[error("commit {0} stands twice")]
    Twice(RevisionId),
}

/// The commits reachable from the last one and not from the good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    commits: Vec<Commit>,
    index: HashMap<RevisionId, u32>,
    /// Paths that each commit touches; empty where nobody looked.
    files: Vec<Vec<String>>,
}

impl History {
    /// Takes commits parents first; the last one is the bad end (for a fix: the fixed end).
    pub fn new(commits: Vec<Commit>) -> Result<Self, InvalidHistory> {
        if commits.is_empty() {
            return Err(InvalidHistory::Empty);
        }
        let mut index = HashMap::with_capacity(commits.len());
        for (i, commit) in (0u32..).zip(&commits) {
            if commit.parents.iter().any(|&parent| parent >= i) {
                return Err(InvalidHistory::Order(commit.id));
            }
            if index.insert(commit.id, i).is_some() {
                return Err(InvalidHistory::Twice(commit.id));
            }
        }
        Ok(History { commits, index, files: Vec::new() })
    }

    /// Adds the paths that each commit touches, in the order of the commits. They make some
    /// commits likelier to be the culprit than others.
    pub fn with_files(mut self, files: Vec<Vec<String>>) -> Self {
        self.set_files(files);
        self
    }

    /// The same, for a history that is in use.
    pub fn set_files(&mut self, files: Vec<Vec<String>>) {
        self.files = files;
    }

    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The paths that a commit touches, as far as they are known.
    pub fn files(&self, index: u32) -> &[String] {
        self.files.get(index as usize).map_or(&[], Vec::as_slice)
    }

    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Never true: `new` refuses an empty range. Stands here for the reader's expectation.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    pub fn commit(&self, index: u32) -> &Commit {
        &self.commits[index as usize]
    }

    pub fn find(&self, id: &RevisionId) -> Option<u32> {
        self.index.get(id).copied()
    }

    /// The last commit: the end where the searched-for change has happened.
    pub fn tip(&self) -> u32 {
        u32::try_from(self.commits.len() - 1).expect("a history holds fewer than 2^32 commits")
    }
}

/// A revision outside or inside the range whose identity the farm needs: the two ends, and
/// the release tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub id: RevisionId,
    pub tree: TreeId,
    pub subject: String,
    /// The newest release it descends from or is.
    pub release: Option<Release>,
}

/// A release tag that the bad end descends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedRelease {
    /// The tag's name, `v6.1`.
    pub tag: String,
    pub release: Release,
    pub revision: Revision,
}
