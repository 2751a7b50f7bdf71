//! One cold build at a time per host and key: the second agent waits, and then gets from
//! ccache what it would have compiled at the same time.

use super::object_tree::create_for_container;
use crate::container::{LogSink, Unfinished};
use kulprit_common::id::Digest;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a waiting agent looks whether it may go on.
const POLL: Duration = Duration::from_millis(250);

/// The right to fill ccache for one key; held until dropped or released.
pub(super) struct Warming {
    /// `None` when the cache was warm already.
    lock: Option<File>,
    warmed: PathBuf,
}

impl Warming {
    /// Lets others go on; `complete` records that the cache now has all of it.
    pub(super) fn release(self, complete: bool) {
        if complete && self.lock.is_some() {
            // Without the record the next cold build waits in vain, and that is all.
            let _ = fs::write(&self.warmed, "");
        }
    }
}

/// Where ccache keeps its files; the locks stand beside, out of the container's reach.
pub(super) fn cache_dir(ccache_dir: &Path) -> Result<PathBuf, Unfinished> {
    let dir = ccache_dir.join("cache");
    create_for_container(&dir).map_err(|e| Unfinished::io("create ccache's directory", &e))?;
    Ok(dir)
}

/// Waits until no other agent of the host fills the cache for `key`.
pub(super) async fn lock(
    ccache_dir: &Path,
    key: &Digest,
    log: &mut LogSink,
    cancel: &CancellationToken,
) -> Result<Warming, Unfinished> {
    fs::create_dir_all(ccache_dir).map_err(|e| Unfinished::io("create ccache's directory", &e))?;
    let warmed = ccache_dir.join(format!("warmed-{}", key.short()));
    let path = ccache_dir.join(format!("warming-{}.lock", key.short()));
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(|e| Unfinished::io("open a warming lock", &e))?;
    let mut told = false;
    while !warmed.exists() {
        match file.try_lock() {
            Ok(()) if warmed.exists() => break,
            Ok(()) => return Ok(Warming { lock: Some(file), warmed }),
            Err(TryLockError::Error(error)) => return Err(Unfinished::io("take a warming lock", &error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            let text =
                "waiting for another agent on this host, which compiles the same files for the first time";
            log.note(text).map_err(|e| Unfinished::io("write the log", &e))?;
            told = true;
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Unfinished::Cancelled),
            () = tokio::time::sleep(POLL) => {}
        }
    }
    Ok(Warming { lock: None, warmed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let key = Digest::of(b"key");
        let cancel = CancellationToken::new();
        let (live, mut seen) = mpsc::channel(8);
        let mut log = LogSink::create(&dir.path().join("log"), 1000, live).unwrap();
        let first = lock(dir.path(), &key, &mut log, &cancel).await.unwrap();
        assert!(first.lock.is_some());

        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = lock(dir.path(), &key, &mut log, &stop).await.map(|_| ());
        assert_eq!(stopped, Err(Unfinished::Cancelled));
        assert!(String::from_utf8_lossy(&seen.recv().await.unwrap()).contains("another agent"));

        let second = lock(dir.path(), &key, &mut log, &cancel);
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            first.release(true);
        };
        let (second, ()) = tokio::join!(second, release);
        assert!(second.unwrap().lock.is_none(), "the cache is warm, nobody needs the lock");
    }
}
