//! Directory trees that untrusted commands wrote: measured and removed without trusting their shape.
//!
//! A makefile can nest directories until a recursion overflows the agent's stack, take away the
//! permission to read them, or make files without end. So no walk here recurses or opens more than
//! one directory at a time, and each of them is bounded.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Kernels have a tenth of this, with every module built.
const ENTRIES_MAX: u64 = 2_000_000;
/// Paths of directories are held in memory while a tree is walked.
const DIRECTORIES_MAX: u64 = 100_000;
/// From the tree's top. A kernel's own are not half as long.
const PATH_BYTES_MAX: usize = 1024;

/// What a tree takes on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub entries: u64,
}

/// Why a tree is not one that an honest command leaves.
#[derive(Debug, thiserror::Error)]
pub enum Excess {
    #[error("more than {} MiB of files", .0 >> 20)]
    Bytes(u64),
    #[error("more than {ENTRIES_MAX} files, or more than {DIRECTORIES_MAX} directories")]
    Entries,
    #[error("directories nested without end")]
    Depth,
    #[error("a directory that cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Adds up what the tree at `root` takes; stops where it is beyond `bytes_max` or out of shape.
/// The tree may change meanwhile.
pub fn measure(root: &Path, bytes_max: u64) -> Result<Usage, Excess> {
    let mut usage = Usage::default();
    walk(root, |_, meta| {
        usage.entries += 1;
        // Blocks, not length: holes take nothing.
        usage.bytes += meta.blocks() * 512;
        if usage.bytes > bytes_max { Err(Excess::Bytes(bytes_max)) } else { Ok(()) }
    })?;
    Ok(usage)
}

/// Calls `each` with everything below `root` but directories that vanish meanwhile. Symlinks are
/// not followed.
pub fn walk(
    root: &Path,
    mut each: impl FnMut(&Path, &fs::Metadata) -> Result<(), Excess>,
) -> Result<(), Excess> {
    let (mut entries, mut directories) = (0, 0);
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let Some(listed) = present(fs::read_dir(root.join(&below)))? else { continue };
        for entry in listed {
            let Some(entry) = present(entry)? else { break };
            let Some(meta) = present(entry.metadata())? else { continue };
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(Excess::Entries);
            }
            each(&entry.path(), &meta)?;
            if meta.is_dir() {
                directories += 1;
                let path = below.join(entry.file_name());
                if directories > DIRECTORIES_MAX {
                    return Err(Excess::Entries);
                }
                if path.as_os_str().len() > PATH_BYTES_MAX {
                    return Err(Excess::Depth);
                }
                left.push(path);
            }
        }
    }
    Ok(())
}

/// `None` for what is gone by now.
fn present<T>(found: io::Result<T>) -> Result<Option<T>, Excess> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Excess::Unreadable(error)),
    }
}

/// Removes a tree of any shape, or nothing if it is not there.
///
/// By rm, which keeps to a few descriptors however deep a tree is; std would hold one for each level.
pub fn remove(path: &Path) -> io::Result<()> {
    if absent(path) {
        return Ok(());
    }
    let removed = run("rm", &["-rf", "--"], path)?;
    if removed.status.success() {
        return Ok(());
    }
    // Its owner may have taken the permission away from itself.
    run("chmod", &["-R", "u+rwX", "--"], path)?;
    let removed = run("rm", &["-rf", "--"], path)?;
    if removed.status.success() || absent(path) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&removed.stderr);
    Err(io::Error::other(said.lines().next().unwrap_or("rm failed and says nothing").to_owned()))
}

/// Whether a directory is there, and no symlink to one.
pub fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn run(program: &str, options: &[&str], path: &Path) -> io::Result<Output> {
    let output = Command::new(program).args(options).arg(path).output();
    output.map_err(|error| io::Error::new(error.kind(), format!("start {program}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};
    use std::os::unix::fs::PermissionsExt as _;

    /// Deeper than the longest path and than descriptors usually go.
    fn nest(root: &Path, levels: usize) {
        let (flags, mode) = (OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o755));
        let mut at = nix::fcntl::open(root, flags, Mode::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&at, "directory", mode).unwrap();
            at = openat(&at, "directory", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn trees_are_measured_and_removed_whatever_their_shape() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let plain = path("plain");
        fs::write(plain.join("file"), vec![1; 1 << 20]).unwrap();
        fs::create_dir(plain.join("sub")).unwrap();
        std::os::unix::fs::symlink("/", plain.join("sub/link")).unwrap();
        let usage = measure(&plain, 2 << 20).unwrap();
        assert!(usage.entries == 3 && usage.bytes >= 1 << 20, "{usage:?}");
        assert!(matches!(measure(&plain, 1 << 19), Err(Excess::Bytes(_))));

        let sparse = path("sparse");
        fs::File::create(sparse.join("file")).unwrap().set_len(100 << 30).unwrap();
        assert!(measure(&sparse, 1 << 20).is_ok(), "holes take nothing");

        let deep = path("deep");
        nest(&deep, 1500);
        assert!(matches!(measure(&deep, u64::MAX), Err(Excess::Depth)));

        let closed = path("closed");
        fs::create_dir_all(closed.join("sub/sub")).unwrap();
        fs::set_permissions(closed.join("sub"), fs::Permissions::from_mode(0o000)).unwrap();

        for tree in [&plain, &sparse, &deep, &closed] {
            remove(tree).unwrap();
            assert!(!tree.exists(), "{}", tree.display());
        }
        remove(&plain).unwrap();
        assert!(Path::new("/bin").exists(), "symlinks are not followed");
    }
}
