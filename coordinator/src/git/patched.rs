//! The tree of a revision with patches applied, or that they do not apply: known before anything
//! is built. An agent makes the same tree by the same three-way merge.

use super::GitError;
use super::differing::{Difference, differing};
use super::mirrors::tree_id;
use git2::{Index, Oid, Repository};
use kulprit_common::id::RevisionId;
use kulprit_common::patch::{KnownFix, Order, Patch, Patched};

/// A merge of trees takes memory for each file that they have.
const FILES_MAX: usize = 500_000;

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Applied {
    Tree,
    /// It conflicts in these files.
    Conflict(Vec<String>),
    /// The tree is as it was: its change is not there, or there already.
    Nothing,
    /// There are more files than a merge may have.
    TooLarge,
    /// A merge or a root has no change of its own.
    NoChange {
        parents: usize,
    },
}

/// What was ordered, or why a revert does not apply.
pub(super) fn carry_out(own: &Repository, order: &Order) -> Result<Result<Patched, String>, GitError> {
    let mut patching = Patching::start(own, &order.revision)?;
    let (mut patches, mut remarks) = (Vec::new(), Vec::new());
    for known in &order.fixes {
        if !is_missing(own, &order.revision, known)? {
            continue;
        }
        let (pick, name) = (Patch::Pick(known.fix), format!("{} ({})", known.fix, known.title));
        match patching.apply(&pick)? {
            Applied::Tree => {
                patches.push(pick);
                remarks.push(format!("put in: {name}"));
            }
            // It is there under another id.
            Applied::Nothing => {}
            other => remarks.push(format!("not put in: {name}: {}", other.why_not())),
        }
    }
    if let Some(commit) = order.revert {
        match patching.apply(&Patch::Revert(commit))? {
            Applied::Tree => patches.push(Patch::Revert(commit)),
            other => return Ok(Err(other.why_not())),
        }
    }
    Ok(Ok(Patched { tree: tree_id(patching.tree.id()), patches, remarks }))
}

/// Whether a revision has the breakage and not the fix, by ancestry.
fn is_missing(own: &Repository, revision: &RevisionId, known: &KnownFix) -> Result<bool, GitError> {
    let oid = |id: &RevisionId| Oid::from_bytes(id.as_bytes());
    let contains = |commit: &RevisionId| -> Result<bool, git2::Error> {
        Ok(revision == commit || own.graph_descendant_of(oid(revision)?, oid(commit)?)?)
    };
    let is_broken = match &known.breaks {
        Some(breaks) => contains(breaks)?,
        None => true,
    };
    Ok(is_broken && !contains(&known.fix)?)
}

/// A tree, as patches change it one by one.
struct Patching<'r> {
    own: &'r Repository,
    tree: git2::Tree<'r>,
}

impl<'r> Patching<'r> {
    fn start(own: &'r Repository, revision: &RevisionId) -> Result<Self, GitError> {
        let tree = own.find_commit(Oid::from_bytes(revision.as_bytes())?)?.tree()?;
        Ok(Patching { own, tree })
    }

    /// Applies a patch; unless it yields a tree, all is as before.
    fn apply(&mut self, patch: &Patch) -> Result<Applied, GitError> {
        let commit = self.own.find_commit(Oid::from_bytes(patch.commit().as_bytes())?)?;
        if commit.parent_count() != 1 {
            return Ok(Applied::NoChange { parents: commit.parent_count() });
        }
        let (before, after) = (commit.parent(0)?.tree()?, commit.tree()?);
        let (base, theirs) = match patch {
            Patch::Revert(_) => (after, before),
            Patch::Pick(_) => (before, after),
        };
        for tree in [&base, &self.tree, &theirs] {
            let files = differing(self.own, None, Some(tree.id()), FILES_MAX, &mut |_| ())?;
            if files == Difference::TooMany {
                return Ok(Applied::TooLarge);
            }
        }
        let mut merged = self.own.merge_trees(&base, &self.tree, &theirs, None)?;
        if merged.has_conflicts() {
            return Ok(Applied::Conflict(conflicts(&merged)?));
        }
        let next = merged.write_tree_to(self.own)?;
        if next == self.tree.id() {
            return Ok(Applied::Nothing);
        }
        self.tree = self.own.find_tree(next)?;
        Ok(Applied::Tree)
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
    /// Why the tree is as it was.
    fn why_not(&self) -> String {
        match self {
            Applied::Tree => "it applies".into(),
            Applied::Conflict(files) => {
                let first = files.first().map_or("a file", String::as_str);
                let more = match files.len() {
                    0 | 1 => String::new(),
                    n => format!(" and {} more", n - 1),
                };
                format!("it conflicts in {first}{more}")
            }
            Applied::TooLarge => format!("a tree has more than {FILES_MAX} files"),
            Applied::Nothing => "it changes nothing".into(),
            Applied::NoChange { parents: 0 } => "it has no parent".into(),
            Applied::NoChange { .. } => "it is a merge".into(),
        }
    }
}
