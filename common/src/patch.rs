//! What is done to a revision's tree before it is built.

use crate::id::{RevisionId, TreeId};
use serde::{Deserialize, Serialize};

/// A commit's change, taken out or put in; applied by a three-way merge of trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Patch {
    /// Takes the commit's change out, as `git revert` does.
    Revert(RevisionId),
    /// Puts the commit's change in, as `git cherry-pick` does.
    Pick(RevisionId),
}

/// A fix for breakage that has nothing to do with what is searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFix {
    pub fix: RevisionId,
    /// The commit that broke it; revisions without it need no fix.
    pub breaks: Option<RevisionId>,
    /// For people.
    pub title: String,
}

/// A kernel's source, as git is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub revision: RevisionId,
    /// Each is put in where the revision has the breakage and not the fix.
    pub fixes: Vec<KnownFix>,
    /// Taken out last.
    pub revert: Option<RevisionId>,
}

/// What git made of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    pub tree: TreeId,
    /// What `tree` is made by, in this order.
    pub patches: Vec<Patch>,
    /// What was put in and what did not apply, for people.
    pub remarks: Vec<String>,
}

impl Patch {
    pub fn commit(&self) -> &RevisionId {
        match self {
            Patch::Revert(commit) | Patch::Pick(commit) => commit,
        }
    }
}
