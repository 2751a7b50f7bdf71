//! Changes files of a work tree. Every file written is a new one, so its time is now.

use super::plan::{Change, ChangeKind, FileKind};
use super::{CheckoutError, OnProgress};
use git2::{Oid, Repository};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Carries out `changes` below `root`, in order.
pub(super) fn apply(
    repository: &Repository,
    root: &Path,
    changes: &[Change],
    on_progress: &mut OnProgress<'_>,
) -> Result<(), CheckoutError> {
    // The container's user reads the tree, whatever umask we run under.
    set_mode(root, 0o755).map_err(CheckoutError::io("open the work tree to readers"))?;
    let mut dirs = HashSet::new();
    for change in changes {
        if !on_progress(None) {
            return Err(CheckoutError::Cancelled);
        }
        let path = root.join(&change.path);
        let failed = |verb: &str| CheckoutError::io(format!("{verb} {}", path.display()));
        match change.kind {
            ChangeKind::Remove => {
                remove(&path).map_err(failed("remove"))?;
                prune(root, &change.path);
            }
            ChangeKind::Write(blob, kind) => {
                let parent = change.path.parent().unwrap_or(Path::new(""));
                make_dirs(root, parent, &mut dirs).map_err(failed("create the directory of"))?;
                write(repository, &path, blob, kind)?.map_err(failed("write"))?;
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the directories that became empty, as git does.
fn prune(root: &Path, path: &Path) {
    for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
        if fs::remove_dir(root.join(dir)).is_err() {
            return;
        }
    }
}

/// Makes sure that every component of `dir` is a real directory: a symlink that an interrupted
/// checkout left must not lead a write out of the tree.
fn make_dirs(root: &Path, dir: &Path, known: &mut HashSet<PathBuf>) -> io::Result<()> {
    if dir.as_os_str().is_empty() || known.contains(dir) {
        return Ok(());
    }
    make_dirs(root, dir.parent().unwrap_or(Path::new("")), known)?;
    let path = root.join(dir);
    let there = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
    if !there {
        remove(&path)?;
        fs::create_dir(&path)?;
        set_mode(&path, 0o755)?;
    }
    known.insert(dir.to_path_buf());
    Ok(())
}

fn write(git: &Repository, path: &Path, blob: Oid, kind: FileKind) -> Result<io::Result<()>, CheckoutError> {
    let blob = git.find_blob(blob)?;
    Ok(write_new(path, blob.content(), kind))
}

fn write_new(path: &Path, content: &[u8], kind: FileKind) -> io::Result<()> {
    remove(path)?;
    let mode = match kind {
        FileKind::Symlink => return symlink(OsStr::from_bytes(content), path),
        FileKind::Plain => 0o644,
        FileKind::Executable => 0o755,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}
