//! Where a crash happened in the source, and which commits touch that: what a search goes by before
//! anything has been run.

use super::GitError;
use super::differing::differing;
use git2::{Oid, Repository};
use kulprit_common::crash::Functions;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Paths of one commit that are looked at: one that touches more changes nothing in particular.
const PATHS_MAX: usize = 40;
/// A source file of more is generated, and defines no function of interest.
const SOURCE_BYTES_MAX: usize = 2 << 20;

/// Commits whose paths are remembered; four times a release of Linux.
const REMEMBERED_MAX: usize = 60_000;

/// What commits touch, once somebody has asked: the jobs of a farm search the same ranges.
#[derive(Debug, Default)]
pub(super) struct Touched {
    known: Mutex<HashMap<Oid, Vec<String>>>,
}

impl Touched {
    pub fn of(&self, repository: &Repository, id: Oid) -> Result<Vec<String>, GitError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(paths) = known().get(&id) {
            return Ok(paths.clone());
        }
        let paths = touched(repository, id)?;
        // At the edge of a shallow clone a commit seems to touch more than it does elsewhere.
        if repository.find_commit(id)?.parent_count() > 0 {
            let mut known = known();
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            known.insert(id, paths.clone());
        }
        Ok(paths)
    }
}

/// What a commit touches, against its only parent; nothing for a merge.
fn touched(repository: &Repository, id: Oid) -> Result<Vec<String>, GitError> {
    let commit = repository.find_commit(id)?;
    if commit.parent_count() > 1 {
        return Ok(Vec::new());
    }
    // Behind the edge of a shallow clone nothing is known of the parent.
    let before = match commit.parents().next() {
        Some(parent) => Some(parent.tree()?),
        None => None,
    };
    let mut paths = Vec::new();
    let mut take = |path: &[u8]| paths.push(String::from_utf8_lossy(path).into_owned());
    let (old, new) = (before.map(|tree| tree.id()), commit.tree_id());
    differing(repository, old, Some(new), PATHS_MAX, &mut take)?;
    Ok(paths)
}

/// Those of the paths that define a function of the stack in this commit's tree, by its place there.
pub(super) fn defining<'p>(
    repository: &Repository,
    id: Oid,
    paths: impl Iterator<Item = &'p str>,
    functions: &Functions,
) -> Result<Vec<String>, GitError> {
    let tree = repository.find_commit(id)?.tree()?;
    let mut found: BTreeSet<(usize, &str)> = BTreeSet::new();
    for path in paths.filter(|path| path.ends_with(".c") || path.ends_with(".h")) {
        let Ok(entry) = tree.get_path(std::path::Path::new(path)) else { continue };
        let Ok(blob) = repository.find_blob(entry.id()) else { continue };
        if blob.size() > SOURCE_BYTES_MAX {
            continue;
        }
        let source = String::from_utf8_lossy(blob.content());
        found.extend(functions.defined_in(&source).first().map(|&place| (place, path)));
    }
    Ok(found.into_iter().map(|(_, path)| path.to_owned()).collect())
}
