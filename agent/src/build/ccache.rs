//! The compiler's cache, one for each repository and toolchain of a host.
//!
//! A makefile may write to it what it likes, and other builds take objects out of it. So builds
//! share one only where they share an object tree as well: within one repository.

use crate::container::{Unfinished, io_infra};
use crate::untrusted;
use kulprit_common::signature;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a host keeps: the caches used last.
const CACHES_MAX: usize = 4;

/// A cache in use; it is not removed while this is held.
pub struct Ccache {
    dir: PathBuf,
    _lock: File,
}

impl Ccache {
    /// Takes the cache for builds of `repository` with a toolchain; removes those not used for long.
    pub async fn open(all: PathBuf, image_id: &str, repository: &str) -> Result<Ccache, Unfinished> {
        // Those of version 1 may hold objects with another kernel's bytes in them.
        let mut key = signature::Hasher::new("kulprit ccache 2");
        key.field(image_id.as_bytes());
        key.field(repository.as_bytes());
        let name = key.finish().to_string();
        let opened = tokio::task::spawn_blocking(move || open(&all, &name)).await;
        let opened = opened.expect("file operations do not panic");
        opened.map_err(|error| Unfinished::Infra(io_infra("open the compiler's cache", &error)))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same on every host, for builds that may share what they compile.
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn open(all: &Path, name: &str) -> io::Result<Ccache> {
    let dir = all.join(name);
    fs::create_dir_all(&dir)?;
    let lock = lock_file(&dir)?;
    // Whoever removes caches has it for a moment.
    lock.lock_shared()?;
    fs::create_dir_all(&dir)?;
    // The time of the lock says when the cache was used last.
    lock.set_modified(SystemTime::now())?;
    prune(all)?;
    Ok(Ccache { dir, _lock: lock })
}

fn lock_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(dir.with_extension("lock"))
}

/// Every cache of a host and when it was used last, the oldest first.
pub(crate) fn by_age(all: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut caches: Vec<(SystemTime, PathBuf)> = fs::read_dir(all)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lock"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path.with_extension(""))))
        .filter(|(_, dir)| untrusted::is_directory(dir))
        .collect();
    caches.sort();
    Ok(caches)
}

/// Removes a cache unless a build of any agent uses it; says whether it did.
pub(crate) fn remove_unused(dir: &Path) -> io::Result<bool> {
    let lock = lock_file(dir)?;
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    untrusted::remove(dir).map(|()| true)
}

/// Removes all but the caches used last and those in use.
fn prune(all: &Path) -> io::Result<()> {
    let caches = by_age(all)?;
    let surplus = caches.len().saturating_sub(CACHES_MAX);
    caches[..surplus].iter().try_for_each(|(_, dir)| remove_unused(dir).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_repository_and_toolchain_has_its_own_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let open = async |image: &str, repository: &str| {
            let opened = Ccache::open(dir.path().to_owned(), image, repository).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            opened
        };
        let first = open("sha256:1", "/linux.git").await;
        let again = open("sha256:1", "/linux.git").await;
        assert_eq!(first.dir(), again.dir());
        let others = [open("sha256:2", "/linux.git").await, open("sha256:1", "/fork.git").await];
        assert!(others.iter().all(|other| other.dir() != first.dir()));
        let kept = first.dir().to_owned();
        let dropped = others.map(|other| other.dir().to_owned());
        for number in 0..CACHES_MAX {
            open("sha256:1", &format!("/{number}.git")).await;
        }
        assert!(kept.is_dir(), "it is in use");
        assert!(dropped.iter().all(|dir| !dir.exists()), "they are the oldest of those not in use");
    }
}
