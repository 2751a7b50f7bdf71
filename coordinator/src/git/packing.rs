//! What a pack for an agent has to hold, and which of the agent's commits it is best made against.

use super::GitError;
use super::differing::{Difference, differing};
use super::mirrors::revision_id;
use git2::{Oid, Repository};
use kulprit_common::id::RevisionId;
use kulprit_common::patch::Patch;

/// Of an agent's commits, those that are weighed: each costs a comparison of two trees.
const WEIGHED_MAX: usize = 16;

/// A commit of which more files differ is as far away as any.
const DIFFERING_MAX: usize = 50_000;

/// What of a repository an agent is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    pub revision: RevisionId,
    /// The revision, and each patch with the commit that it is a change to.
    pub commits: Vec<RevisionId>,
    /// Commits of the agent that are known here, the nearest to the revision first.
    pub held: Vec<RevisionId>,
}

pub(super) fn needed(
    git: &Repository,
    revision: &RevisionId,
    patches: &[Patch],
    held: &[RevisionId],
) -> Result<Needed, GitError> {
    let mut commits = vec![*revision];
    for patch in patches {
        let commit = git.find_commit(oid(patch.commit())?)?;
        commits.push(*patch.commit());
        commits.extend(commit.parent_ids().map(revision_id));
    }
    let mut seen = std::collections::BTreeSet::new();
    commits.retain(|commit| seen.insert(*commit));
    let wanted = git.find_commit(oid(revision)?)?.tree_id();
    let mut weighed = Vec::new();
    for commit in held.iter().take(WEIGHED_MAX) {
        // The agent may have fetched what this mirror never had.
        let Ok(tree) = git.find_commit(oid(commit)?).and_then(|commit| commit.tree()) else { continue };
        let differs = match differing(git, Some(tree.id()), Some(wanted), DIFFERING_MAX, &mut |_| ())? {
            Difference::Files(count) => count,
            Difference::TooMany => usize::MAX,
        };
        weighed.push((differs, *commit));
    }
    weighed.sort_by_key(|(files, _)| *files);
    Ok(Needed { revision: *revision, commits, held: weighed.into_iter().map(|(_, commit)| commit).collect() })
}

fn oid(id: &RevisionId) -> Result<Oid, GitError> {
    Ok(Oid::from_bytes(id.as_bytes())?)
}
