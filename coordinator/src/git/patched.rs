//! The tree of a revision with patches applied, or that they do not apply: known before anything
//! is built. An agent makes the same tree by the same three-way merge.

use super::GitError;
use super::mirrors::tree_id;
use git2::{Index, Oid, Repository};
use kulprit_common::id::{RevisionId, TreeId};
use kulprit_common::patch::Patch;

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Tree(TreeId),
    /// It conflicts in these files.
    Conflict(Vec<String>),
    /// The tree is as it was: its change is not there, or there already.
    Nothing,
    /// A merge or a root has no change of its own.
    NoChange {
        parents: usize,
    },
}

/// A tree, as patches change it one by one.
pub struct Patching<'r> {
    own: &'r Repository,
    tree: git2::Tree<'r>,
}

impl<'r> Patching<'r> {
    pub(super) fn start(own: &'r Repository, revision: &RevisionId) -> Result<Self, GitError> {
        let tree = own.find_commit(Oid::from_bytes(revision.as_bytes())?)?.tree()?;
        Ok(Patching { own, tree })
    }

    pub(super) fn tree(&self) -> TreeId {
        tree_id(self.tree.id())
    }

    /// Applies a patch; unless it yields a tree, all is as before.
    pub(super) fn apply(&mut self, patch: &Patch) -> Result<Applied, GitError> {
        let commit = self.own.find_commit(Oid::from_bytes(patch.commit().as_bytes())?)?;
        if commit.parent_count() != 1 {
            return Ok(Applied::NoChange { parents: commit.parent_count() });
        }
        let (before, after) = (commit.parent(0)?.tree()?, commit.tree()?);
        let (base, theirs) = match patch {
            Patch::Revert(_) => (after, before),
            Patch::Pick(_) => (before, after),
        };
        let mut merged = self.own.merge_trees(&base, &self.tree, &theirs, None)?;
        if merged.has_conflicts() {
            return Ok(Applied::Conflict(conflicts(&merged)?));
        }
        let next = merged.write_tree_to(self.own)?;
        if next == self.tree.id() {
            return Ok(Applied::Nothing);
        }
        self.tree = self.own.find_tree(next)?;
        Ok(Applied::Tree(self.tree()))
    }
}

fn conflicts(merged: &Index) -> Result<Vec<String>, GitError> {
    let mut files = Vec::new();
    for conflict in merged.conflicts()? {
        let conflict = conflict?;
        let entry = conflict.our.or(conflict.their).or(conflict.ancestor);
        files.extend(entry.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()));
    }
    files.sort();
    files.dedup();
    Ok(files)
}

impl Applied {
    /// Why there is no tree, fit to stand behind the patch's name; `None` where there is one.
    pub fn why_not(&self) -> Option<String> {
        match self {
            Applied::Tree(_) => None,
            Applied::Conflict(files) => {
                let first = files.first().map_or("a file", String::as_str);
                let more = match files.len() {
                    0 | 1 => String::new(),
                    n => format!(" and {} more", n - 1),
                };
                Some(format!("it conflicts in {first}{more}"))
            }
            Applied::Nothing => Some("it changes nothing".into()),
            Applied::NoChange { parents: 0 } => Some("it has no parent".into()),
            Applied::NoChange { .. } => Some("it is a merge".into()),
        }
    }
}
