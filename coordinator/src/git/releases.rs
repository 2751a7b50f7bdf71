//! Release tags: the newest that a revision descends from, and all of them.

use super::GitError;
use super::mirrors::revision;
use super::walk::{SKEW_SECONDS, ancestors};
use git2::{Oid, Repository};
use kulprit_common::history::TaggedRelease;
use kulprit_common::toolchain::Release;
use std::collections::{HashMap, HashSet};

/// Commits that one question about tags may read: some seconds of a repository without
/// a commit graph. What lies beyond counts as not there.
const COMMITS_MAX: usize = 300_000;

/// Commits read in full for the list of all releases; from there on only first parents.
const WINDOW_MAX: usize = 50_000;

struct Tag {
    name: String,
    release: Release,
    commit: Oid,
    time: i64,
}

/// The newest release, by its number, that `tip` is or descends from.
///
/// Stops as soon as every release that would be newer is too young to be among the ancestors
/// still unread.
pub(super) fn newest(repository: &Repository, tip: Oid) -> Result<Option<Release>, GitError> {
    let latest = repository.find_commit(tip)?.time().seconds().saturating_add(SKEW_SECONDS);
    let mut tags = tags(repository)?;
    tags.retain(|tag| tag.time <= latest);
    tags.sort_by_key(|tag| tag.release);
    // For each tag: the oldest time among it and all newer releases.
    let mut oldest_from: Vec<i64> = tags.iter().map(|tag| tag.time).collect();
    for i in (1..oldest_from.len()).rev() {
        oldest_from[i - 1] = oldest_from[i - 1].min(oldest_from[i]);
    }
    let mut place: HashMap<Oid, usize> = HashMap::new();
    for (i, tag) in tags.iter().enumerate() {
        place.insert(tag.commit, i);
    }

    let mut walk = ancestors(repository, tip)?;
    let mut best: Option<usize> = None;
    for _ in 0..COMMITS_MAX {
        let better = best.map_or(0, |i| i + 1);
        let Some(&oldest) = oldest_from.get(better) else { break };
        if walk.newest_waiting().is_none_or(|time| time < oldest.saturating_sub(SKEW_SECONDS)) {
            break;
        }
        let Some(node) = walk.next()? else { break };
        best = best.max(place.get(&node.id).copied());
    }
    Ok(best.map(|i| tags[i].release))
}

/// All releases that `tip` is or descends from, newest first.
///
/// Reads a window of recent history in full, and then follows the first parents of every tag
/// found: releases are tagged on the line of their branch, so this misses nothing that
/// matters and does not read a million commits.
pub(super) fn reachable(repository: &Repository, tip: Oid) -> Result<Vec<TaggedRelease>, GitError> {
    let tags = tags(repository)?;
    let tagged: HashSet<Oid> = tags.iter().map(|tag| tag.commit).collect();
    let Some(oldest) = tags.iter().map(|tag| tag.time).min() else { return Ok(Vec::new()) };
    let floor = oldest.saturating_sub(SKEW_SECONDS);

    let mut found = HashSet::new();
    let mut lines = vec![tip];
    let mut walk = ancestors(repository, tip)?;
    for _ in 0..WINDOW_MAX {
        if walk.newest_waiting().is_none_or(|time| time < floor) {
            break;
        }
        let Some(node) = walk.next()? else { break };
        if tagged.contains(&node.id) {
            found.insert(node.id);
            lines.push(node.id);
        }
    }
    follow_first_parents(repository, lines, floor, &tagged, &mut found)?;

    let mut releases: Vec<&Tag> = tags.iter().filter(|tag| found.contains(&tag.commit)).collect();
    releases.sort_by(|a, b| b.release.cmp(&a.release).then_with(|| a.name.cmp(&b.name)));
    releases.dedup_by_key(|tag| tag.release);
    let describe = |tag: &Tag| {
        let commit = repository.find_commit(tag.commit)?;
        let revision = revision(&commit, Some(tag.release));
        Ok(TaggedRelease { tag: tag.name.clone(), release: tag.release, revision })
    };
    releases.into_iter().map(describe).collect()
}

fn follow_first_parents(
    repository: &Repository,
    lines: Vec<Oid>,
    floor: i64,
    tagged: &HashSet<Oid>,
    found: &mut HashSet<Oid>,
) -> Result<(), GitError> {
    let mut passed = HashSet::new();
    for start in lines {
        let mut next = Some(start);
        while let Some(id) = next {
            if passed.len() >= COMMITS_MAX || !passed.insert(id) {
                break;
            }
            if tagged.contains(&id) {
                found.insert(id);
            }
            let commit = repository.find_commit(id)?;
            next = if commit.time().seconds() < floor { None } else { commit.parent_ids().next() };
        }
    }
    Ok(())
}

/// Every tag `vX.Y[.Z]` that names a commit.
fn tags(repository: &Repository) -> Result<Vec<Tag>, GitError> {
    let mut tags = Vec::new();
    for reference in repository.references_glob("refs/tags/v*")? {
        let reference = reference?;
        let Ok(name) = reference.shorthand().map(str::to_owned) else { continue };
        let Ok(release) = name.parse() else { continue };
        // Early kernels have tags of trees.
        let Ok(commit) = reference.peel_to_commit() else { continue };
        tags.push(Tag { name, release, commit: commit.id(), time: commit.time().seconds() });
    }
    Ok(tags)
}
