//! Where two trees differ, looked at no further than a bound: a repository of some kilobytes can name more
//! files than there is time to count, in directories that hold each other's contents again and again.

use git2::{ObjectType, Oid, Repository, Tree, TreeEntry};
use std::cmp::Ordering;
use std::ops::ControlFlow::{self, Break, Continue};

/// Entries of trees that are looked at; Linux has 90,000, of which two releases may share none.
const ENTRIES_MAX: usize = 1_000_000;
/// Directories in each other.
const DEPTH_MAX: usize = 256;
const PATH_BYTES_MAX: usize = 4096;

/// What differs between two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Files(usize),
    /// More than was asked for, or than can be counted.
    TooMany,
}

/// The files of one comparison.
struct Found<'f> {
    count: usize,
    max: usize,
    on_file: &'f mut dyn FnMut(&[u8]),
}

/// Counts the files that differ, and names up to `max` of them.
pub(super) fn differing(
    git: &Repository,
    old: Option<Oid>,
    new: Option<Oid>,
    max: usize,
    on_file: &mut dyn FnMut(&[u8]),
) -> Result<Difference, git2::Error> {
    let mut found = Found { count: 0, max, on_file };
    match (Look { git, entries_left: ENTRIES_MAX }).look(&mut Vec::new(), 0, old, new, &mut found)? {
        Continue(()) => Ok(Difference::Files(found.count)),
        Break(()) => Ok(Difference::TooMany),
    }
}

struct Look<'r> {
    git: &'r Repository,
    entries_left: usize,
}

impl Look<'_> {
    fn look(
        &mut self,
        path: &mut Vec<u8>,
        depth: usize,
        old: Option<Oid>,
        new: Option<Oid>,
        found: &mut Found<'_>,
    ) -> Result<ControlFlow<()>, git2::Error> {
        if old == new {
            return Ok(Continue(()));
        }
        if depth > DEPTH_MAX {
            return Ok(Break(()));
        }
        let tree = |id: Option<Oid>| id.map(|id| self.git.find_tree(id)).transpose();
        let (old, new) = (tree(old)?, tree(new)?);
        let entries = old.as_ref().map_or(0, Tree::len) + new.as_ref().map_or(0, Tree::len);
        let Some(left) = self.entries_left.checked_sub(entries) else { return Ok(Break(())) };
        self.entries_left = left;
        let mut olds = old.iter().flat_map(entries_of).peekable();
        let mut news = new.iter().flat_map(entries_of).peekable();
        loop {
            let side = match (olds.peek(), news.peek()) {
                (None, None) => return Ok(Continue(())),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => order(old, new),
            };
            let was = olds.next_if(|_| side != Ordering::Greater);
            let is = news.next_if(|_| side != Ordering::Less);
            if self.step(path, depth, was.as_ref(), is.as_ref(), found)?.is_break() {
                return Ok(Break(()));
            }
        }
    }

    /// One name in both, or in one of them.
    fn step(
        &mut self,
        path: &mut Vec<u8>,
        depth: usize,
        was: Option<&TreeEntry<'_>>,
        is: Option<&TreeEntry<'_>>,
        found: &mut Found<'_>,
    ) -> Result<ControlFlow<()>, git2::Error> {
        let stands_for = |entry: Option<&TreeEntry<'_>>| entry.map(|it| (it.id(), it.filemode_raw()));
        let Some(entry) = was.or(is).filter(|_| stands_for(was) != stands_for(is)) else {
            return Ok(Continue(()));
        };
        let before = path.len();
        if before > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name_bytes());
        let flow = if path.len() > PATH_BYTES_MAX {
            Break(())
        } else if is_dir(entry) {
            let tree = |entry: Option<&TreeEntry<'_>>| entry.map(TreeEntry::id);
            self.look(path, depth + 1, tree(was), tree(is), found)?
        } else {
            found.add(path)
        };
        path.truncate(before);
        Ok(flow)
    }
}

impl Found<'_> {
    fn add(&mut self, path: &[u8]) -> ControlFlow<()> {
        if self.count == self.max {
            return Break(());
        }
        self.count += 1;
        (self.on_file)(path);
        Continue(())
    }
}

/// As git sorts them, so that a file and a directory never meet.
fn order(a: &TreeEntry<'_>, b: &TreeEntry<'_>) -> Ordering {
    let key = |entry: &TreeEntry<'_>| is_dir(entry).then_some(b'/');
    let (a_name, b_name) = (a.name_bytes().iter().copied(), b.name_bytes().iter().copied());
    a_name.chain(key(a)).cmp(b_name.chain(key(b)))
}

fn is_dir(entry: &TreeEntry<'_>) -> bool {
    entry.filemode_raw() & 0o170_000 == 0o040_000
}

/// What a tree names, without submodules.
fn entries_of<'t>(tree: &'t Tree<'_>) -> impl Iterator<Item = TreeEntry<'t>> {
    tree.iter().filter(|entry| entry.kind() != Some(ObjectType::Commit))
}
