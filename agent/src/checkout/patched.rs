//! The tree of a revision with patches applied: the same three-way merge, with the same result,
//! as where the coordinator found that they apply.

use super::{CheckoutError, OnProgress, Source, oid, plan};
use git2::{Repository, Tree};
use kulprit_common::patch::Patch;

pub(super) fn tree<'a>(
    repository: &'a Repository,
    source: &Source,
    on_progress: &mut OnProgress<'_>,
) -> Result<Tree<'a>, CheckoutError> {
    let mut tree = repository.find_commit(oid(source.revision.as_bytes()))?.tree()?;
    for patch in &source.patches {
        let conflict = || CheckoutError::Conflict { revision: source.revision, patch: *patch };
        let commit = repository.find_commit(oid(patch.commit().as_bytes()))?;
        // What a merge did, relative to which parent, nobody has said.
        if commit.parent_count() != 1 {
            return Err(conflict());
        }
        let (before, after) = (commit.parent(0)?.tree()?, commit.tree()?);
        let (base, theirs) = match patch {
            Patch::Revert(_) => (after, before),
            Patch::Pick(_) => (before, after),
        };
        // A merge takes memory for each file of them.
        for tree in [&base, &tree, &theirs] {
            plan::check_size(repository, tree, on_progress)?;
        }
        let mut merged = repository.merge_trees(&base, &tree, &theirs, None)?;
        if merged.has_conflicts() {
            return Err(conflict());
        }
        tree = repository.find_tree(merged.write_tree_to(repository)?)?;
    }
    Ok(tree)
}
