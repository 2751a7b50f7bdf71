//! What to change in a work tree: from one tree to another, or from whatever is on disk.

use super::{CheckoutError, OnProgress};
use git2::{ObjectType, Oid, Repository, Tree};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// One step on one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Relative to the work tree; of plain components only.
    pub path: PathBuf,
    pub kind: ChangeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// Removes a file, or a directory with all it holds.
    Remove,
    /// Writes a file, in place of whatever is there.
    Write(Oid, FileKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Plain,
    Executable,
    Symlink,
}

/// An entry of a tree, as far as a checkout cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir(Oid),
    File(Oid, FileKind),
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// What a tree may hold, which comes from an untrusted repository: one of some kilobytes can name 10^10 files.
/// Linux has 90,000 entries, 12 directories deep, with paths of 4 MiB.
const ENTRIES_MAX: usize = 1_000_000;
const DEPTH_MAX: usize = 256;
const PATHS_BYTES_MAX: usize = 256 << 20;

/// The changes from `old` to `new`, removals before writes. Equal subtrees are not entered.
pub(super) fn between(
    repository: &Repository,
    old: &Tree<'_>,
    new: &Tree<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Change>, CheckoutError> {
    let mut changes = Changes::new(on_progress);
    changes.between(repository, Path::new(""), &entries(old)?, &entries(new)?)?;
    Ok(changes.in_order())
}

/// The changes from what `dir` holds to `tree`; files that are right already are left alone.
pub(super) fn from_disk(
    repository: &Repository,
    dir: &Path,
    tree: &Tree<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Vec<Change>, CheckoutError> {
    let mut changes = Changes::new(on_progress);
    changes.compare(repository, dir, Path::new(""), tree)?;
    Ok(changes.in_order())
}

/// Refuses a tree that is larger than a work tree may be.
pub(super) fn check_size(
    repository: &Repository,
    tree: &Tree<'_>,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), CheckoutError> {
    Changes::new(on_progress).write(repository, PathBuf::new(), &Entry::Dir(tree.id()))
}

struct Changes<'p, 'o> {
    removals: Vec<Change>,
    writes: Vec<Change>,
    entries: usize,
    paths_bytes: usize,
    on_progress: &'p mut OnProgress<'o>,
}

impl<'p, 'o> Changes<'p, 'o> {
    fn new(on_progress: &'p mut OnProgress<'o>) -> Self {
        Changes { removals: vec![], writes: vec![], entries: 0, paths_bytes: 0, on_progress }
    }

    fn in_order(mut self) -> Vec<Change> {
        self.removals.append(&mut self.writes);
        self.removals
    }

    /// Counts what is entered next, in time to refuse it.
    fn enter(&mut self, at: &Path, entries: &Entries) -> Result<(), CheckoutError> {
        if !(self.on_progress)(None) {
            return Err(CheckoutError::Cancelled);
        }
        let too_large = |what: String| Err(CheckoutError::TooLarge { what });
        if at.components().count() > DEPTH_MAX {
            return too_large(format!("more than {DEPTH_MAX} directories in each other"));
        }
        self.entries += entries.len();
        if self.entries > ENTRIES_MAX {
            return too_large(format!("more than {ENTRIES_MAX} files and directories"));
        }
        let names: usize = entries.keys().map(Vec::len).sum();
        self.paths_bytes += names + entries.len() * at.as_os_str().len();
        if self.paths_bytes > PATHS_BYTES_MAX {
            return too_large(format!("paths of more than {} MiB", PATHS_BYTES_MAX >> 20));
        }
        Ok(())
    }

    fn remove(&mut self, path: PathBuf) {
        self.removals.push(Change { path, kind: ChangeKind::Remove });
    }

    fn between(
        &mut self,
        git: &Repository,
        at: &Path,
        old: &Entries,
        new: &Entries,
    ) -> Result<(), CheckoutError> {
        self.enter(at, old)?;
        self.enter(at, new)?;
        for (name, was) in old {
            let path = at.join(OsStr::from_bytes(name));
            match (was, new.get(name)) {
                (was, Some(is)) if was == is => {}
                (Entry::Dir(was), Some(Entry::Dir(is))) => {
                    let (was, is) = (git.find_tree(*was)?, git.find_tree(*is)?);
                    self.between(git, &path, &entries(&was)?, &entries(&is)?)?;
                }
                (Entry::Dir(_), Some(Entry::File(..)) | None)
                | (Entry::File(..), Some(Entry::Dir(_)) | None) => {
                    self.remove(path);
                }
                (Entry::File(..), Some(Entry::File(..))) => {}
            }
        }
        for (name, is) in new {
            match (old.get(name), is) {
                (Some(was), is) if was == is => {}
                (Some(Entry::Dir(_)), Entry::Dir(_)) => {}
                (_, is) => self.write(git, at.join(OsStr::from_bytes(name)), is)?,
            }
        }
        Ok(())
    }

    /// Writes a file, or every file below a directory.
    fn write(&mut self, git: &Repository, path: PathBuf, entry: &Entry) -> Result<(), CheckoutError> {
        match entry {
            Entry::File(blob, kind) => {
                self.writes.push(Change { path, kind: ChangeKind::Write(*blob, *kind) })
            }
            Entry::Dir(tree) => {
                let below = entries(&git.find_tree(*tree)?)?;
                self.enter(&path, &below)?;
                for (name, entry) in &below {
                    self.write(git, path.join(OsStr::from_bytes(name)), entry)?;
                }
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        git: &Repository,
        root: &Path,
        at: &Path,
        tree: &Tree<'_>,
    ) -> Result<(), CheckoutError> {
        let wanted = entries(tree)?;
        self.enter(at, &wanted)?;
        let mut found = read_dir(&root.join(at))?;
        for (name, entry) in &wanted {
            let path = at.join(OsStr::from_bytes(name));
            match (entry, found.remove(name)) {
                (Entry::Dir(id), Some(meta)) if meta.is_dir() => {
                    self.compare(git, root, &path, &git.find_tree(*id)?)?;
                }
                (Entry::File(id, kind), Some(meta))
                    if is_right(git, &root.join(&path), &meta, *id, *kind)? => {}
                (Entry::File(..), Some(meta)) if !meta.is_dir() => self.write(git, path, entry)?,
                (Entry::Dir(_) | Entry::File(..), Some(_)) => {
                    self.remove(path.clone());
                    self.write(git, path, entry)?;
                }
                (Entry::Dir(_) | Entry::File(..), None) => self.write(git, path, entry)?,
            }
        }
        found.into_keys().for_each(|name| self.remove(at.join(OsStr::from_bytes(&name))));
        Ok(())
    }
}

fn read_dir(dir: &Path) -> Result<BTreeMap<Vec<u8>, Metadata>, CheckoutError> {
    let read = || {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            found.insert(entry.file_name().as_bytes().to_vec(), entry.metadata()?);
        }
        Ok(found)
    };
    read().map_err(CheckoutError::io(format!("read {}", dir.display())))
}

/// Whether the file on disk is the one wanted, in kind, mode and content.
fn is_right(
    git: &Repository,
    path: &Path,
    meta: &Metadata,
    wanted: Oid,
    kind: FileKind,
) -> Result<bool, CheckoutError> {
    let same_kind = match kind {
        FileKind::Symlink => meta.is_symlink(),
        FileKind::Plain => meta.is_file() && meta.permissions().mode() & 0o777 == 0o644,
        FileKind::Executable => meta.is_file() && meta.permissions().mode() & 0o777 == 0o755,
    };
    let (size, _) = git.odb()?.read_header(wanted)?;
    if !same_kind || size as u64 != meta.len() {
        return Ok(false);
    }
    let found = match kind {
        FileKind::Symlink => fs::read_link(path).map(|target| target.into_os_string().as_bytes().to_vec()),
        FileKind::Plain | FileKind::Executable => fs::read(path),
    };
    let found = found.map_err(CheckoutError::io(format!("read {}", path.display())))?;
    Ok(Oid::hash_object(ObjectType::Blob, &found)? == wanted)
}

/// The entries of a tree by name. Submodules are left out: a kernel build needs none.
fn entries(tree: &Tree<'_>) -> Result<Entries, CheckoutError> {
    let mut entries = Entries::new();
    for entry in tree {
        let name = entry.name_bytes().to_vec();
        // A repository is untrusted, and libgit2 hands out names as they stand in the tree.
        if matches!(&name[..], b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return Err(CheckoutError::Git(format!("tree {} has an entry with a forged name", tree.id())));
        }
        let found = match entry.filemode_raw() & 0o170_000 {
            0o040_000 => Entry::Dir(entry.id()),
            0o120_000 => Entry::File(entry.id(), FileKind::Symlink),
            0o100_000 if entry.filemode_raw() & 0o100 != 0 => Entry::File(entry.id(), FileKind::Executable),
            0o100_000 => Entry::File(entry.id(), FileKind::Plain),
            _ => continue,
        };
        entries.insert(name, found);
    }
    Ok(entries)
}
