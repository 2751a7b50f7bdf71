//! The lock beside the journal: two coordinators never share a state directory.

use super::JournalError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Held until dropped; the kernel lets go of it when the process dies, however it dies.
pub(super) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    pub(super) fn acquire(journal: &Path) -> Result<Lock, JournalError> {
        let path = beside(journal);
        let failed = |error: &dyn std::fmt::Display| JournalError::Open {
            at: path.display().to_string(),
            why: error.to_string(),
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            // Root may restore a journal into a directory that is another's, who may have put a link there.
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(JournalError::InUse { path: journal.into(), pid: holder(file) });
            }
            Err((_, errno)) => return Err(failed(&errno)),
        };
        // The number is for the message above; the lock itself is the flock.
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| failed(&error))?;
        Ok(Lock { _file: file })
    }
}

fn beside(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn holder(file: File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) | Err(_) => "(unknown)".to_owned(),
    }
}
