//! Walks over the commit graph: newest first by commit time, each commit read once.

use super::GitError;
use super::mirrors::{revision_id, subject, tree_id};
use git2::{Oid, Repository};
use kulprit_common::history::{Commit, History};
use std::collections::{BinaryHeap, HashMap};

/// Clocks of committers disagree; a walk that may stop by time goes on for this long.
pub(super) const SKEW_SECONDS: i64 = 24 * 60 * 60;

/// How far the walk goes on after the range is complete, whatever the clocks say: a commit dated
/// far back waits last, and may hide that the good end reaches what seems to be inside.
const FURTHER_COMMITS_MIN: usize = 10_000;

/// How far it goes on when the clocks ask for it.
const FURTHER_COMMITS_MAX: usize = 50_000;

/// What the walk knows of one commit.
pub(super) struct Node {
    pub(super) id: Oid,
    pub(super) time: i64,
    pub(super) parents: Vec<Oid>,
    reach: u8,
    expanded: u8,
}

/// Reachable from the bad end.
const BAD: u8 = 1;
/// Reachable from the good end.
const GOOD: u8 = 2;

/// A graph as far as it was read, and the commits that wait for their turn.
pub(super) struct Walk<'r> {
    repository: &'r Repository,
    nodes: Vec<Node>,
    index: HashMap<Oid, usize>,
    /// By time, newest on top; a commit may wait twice.
    waiting: BinaryHeap<(i64, usize)>,
    /// Waiting commits that only the bad end reaches.
    open: usize,
}

impl<'r> Walk<'r> {
    pub(super) fn new(repository: &'r Repository) -> Self {
        Walk { repository, nodes: Vec::new(), index: HashMap::new(), waiting: BinaryHeap::new(), open: 0 }
    }

    /// Starts at `id`, or comes by it with another colour.
    pub(super) fn push(&mut self, id: Oid, reach: u8) -> Result<(), GitError> {
        let index = match self.index.get(&id) {
            Some(&index) => index,
            None => self.read(id)?,
        };
        let node = &mut self.nodes[index];
        let before = node.reach;
        node.reach |= reach;
        if node.reach == before {
            return Ok(());
        }
        // A commit waits when it has colours that its parents do not know of yet.
        let waited = before != node.expanded;
        if node.reach == BAD {
            self.open += 1;
        } else if waited && before == BAD {
            self.open -= 1;
        }
        if !waited {
            self.waiting.push((node.time, index));
        }
        Ok(())
    }

    fn read(&mut self, id: Oid) -> Result<usize, GitError> {
        // `find_commit` knows where a shallow clone ends, libgit2's own walk does not.
        let commit = self.repository.find_commit(id)?;
        let index = self.nodes.len();
        self.index.insert(id, index);
        let parents = commit.parent_ids().collect();
        self.nodes.push(Node { id, time: commit.time().seconds(), parents, reach: 0, expanded: 0 });
        Ok(index)
    }

    /// The next commit by time, its parents now waiting.
    pub(super) fn next(&mut self) -> Result<Option<&Node>, GitError> {
        let Some((_, index)) = self.waiting.pop() else { return Ok(None) };
        let node = &mut self.nodes[index];
        if node.reach == BAD {
            self.open -= 1;
        }
        node.expanded = node.reach;
        let reach = node.reach;
        for parent in node.parents.clone() {
            self.push(parent, reach)?;
        }
        Ok(Some(&self.nodes[index]))
    }

    /// The time of the newest commit that waits.
    pub(super) fn newest_waiting(&self) -> Option<i64> {
        self.waiting.peek().map(|&(time, _)| time)
    }

    fn reach(&self, id: Oid) -> u8 {
        self.index.get(&id).map_or(0, |&index| self.nodes[index].reach)
    }
}

/// Starts a walk over everything that `tip` reaches.
pub(super) fn ancestors(repository: &Repository, tip: Oid) -> Result<Walk<'_>, GitError> {
    let mut walk = Walk::new(repository);
    walk.push(tip, BAD)?;
    Ok(walk)
}

/// Loads what `bad` reaches and `good` does not.
pub(super) fn history(repository: &Repository, good: Oid, bad: Oid) -> Result<History, GitError> {
    let walk = range(repository, good, bad)?;
    let commits = number(&walk, bad)?;
    Ok(History::new(commits)?)
}

/// Paints the range, and refuses ends that span none.
pub(super) fn range(repository: &Repository, good: Oid, bad: Oid) -> Result<Walk<'_>, GitError> {
    if good == bad {
        return Err(GitError::EmptyRange(revision_id(bad)));
    }
    let mut walk = Walk::new(repository);
    walk.push(bad, BAD)?;
    walk.push(good, GOOD)?;
    paint(&mut walk)?;
    if walk.reach(bad) & GOOD != 0 {
        return Err(GitError::Reversed { good: revision_id(good), bad: revision_id(bad) });
    }
    if walk.reach(good) & BAD == 0 {
        let shallow = repository.is_shallow();
        return Err(GitError::NotAncestor { good: revision_id(good), bad: revision_id(bad), shallow });
    }
    Ok(walk)
}

/// Walks until no waiting commit is reachable from the bad end alone, and a little further.
fn paint(walk: &mut Walk<'_>) -> Result<(), GitError> {
    let mut oldest = i64::MAX;
    let mut further = 0;
    loop {
        if walk.open == 0 {
            further += 1;
            let passed = walk.newest_waiting().is_none_or(|time| time < oldest.saturating_sub(SKEW_SECONDS));
            if (passed && further > FURTHER_COMMITS_MIN) || further > FURTHER_COMMITS_MAX {
                return Ok(());
            }
        }
        match walk.next()? {
            Some(node) if node.reach == BAD => oldest = oldest.min(node.time),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

/// Puts the range in order, parents first, lines of development together; `bad` comes last.
fn number(walk: &Walk<'_>, bad: Oid) -> Result<Vec<Commit>, GitError> {
    let inside = |id: Oid| walk.reach(id) == BAD;
    let mut numbers: HashMap<Oid, u32> = HashMap::new();
    let mut commits = Vec::new();
    // Each entry: a commit, and which of its parents comes next.
    let mut path = vec![(bad, 0)];
    while let Some(top) = path.last_mut() {
        let (id, next) = *top;
        top.1 += 1;
        let parents = &walk.nodes[walk.index[&id]].parents;
        match parents.get(next) {
            Some(&parent) if inside(parent) && !numbers.contains_key(&parent) => path.push((parent, 0)),
            Some(_) => {}
            None => {
                path.pop();
                let number = u32::try_from(commits.len()).expect("a range has fewer than 2^32 commits");
                commits.push(commit(walk.repository, id, &numbers)?);
                numbers.insert(id, number);
            }
        }
    }
    Ok(commits)
}

fn commit(repository: &Repository, id: Oid, numbers: &HashMap<Oid, u32>) -> Result<Commit, GitError> {
    let commit = repository.find_commit(id)?;
    let (mut parents, mut outside) = (Vec::new(), Vec::new());
    for parent in commit.parent_ids() {
        match numbers.get(&parent) {
            Some(&number) => parents.push(number),
            None => outside.push(revision_id(parent)),
        }
    }
    Ok(Commit {
        id: revision_id(id),
        tree: tree_id(commit.tree_id()),
        parents,
        outside,
        time: commit.time().seconds(),
        subject: subject(&commit),
    })
}
