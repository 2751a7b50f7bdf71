//! The tree of a revision with patches applied, or that they do not apply: known before anything
//! is built. An agent makes the same tree by the same three-way merge.

use super::GitError;
use super::mirrors::tree_id;
use git2::{Oid, Repository};
use kulprit_common::id::{RevisionId, TreeId};
use kulprit_common::patch::Patch;

/// `None` where a patch conflicts, is a merge, or changes nothing.
pub(super) fn tree(
    own: &Repository,
    revision: &RevisionId,
    patches: &[Patch],
) -> Result<Option<TreeId>, GitError> {
    let find = |id: &RevisionId| own.find_commit(Oid::from_bytes(id.as_bytes())?);
    let mut tree = find(revision)?.tree()?;
    for patch in patches {
        let commit = find(patch.commit())?;
        if commit.parent_count() != 1 {
            return Ok(None);
        }
        let (before, after) = (commit.parent(0)?.tree()?, commit.tree()?);
        let (base, theirs) = match patch {
            Patch::Revert(_) => (after, before),
            Patch::Pick(_) => (before, after),
        };
        let mut merged = own.merge_trees(&base, &tree, &theirs, None)?;
        if merged.has_conflicts() {
            return Ok(None);
        }
        let next = merged.write_tree_to(own)?;
        if next == tree.id() {
            return Ok(None);
        }
        tree = own.find_tree(next)?;
    }
    Ok(Some(tree_id(tree.id())))
}
