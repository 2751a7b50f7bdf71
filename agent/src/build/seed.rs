//! Seeds: a finished object tree, kept per host, from which a slot's first build starts instead
//! of compiling everything.
//!
//! Make goes by file times. So a slot that takes a seed first brings its work tree to the seed's
//! revision, dates every file in it before any object, and only then goes to the revision it
//! wants: what differs is newer than every object, and all else older.

use super::object_tree::{ObjectTree, mark_dated_back};
use crate::container::Unfinished;
use crate::untrusted;
use kulprit_common::id::{Digest, RevisionId};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often a waiting agent looks whether it may go on.
const POLL: Duration = Duration::from_millis(250);
/// Copying more takes longer than it saves.
const BYTES_MAX: u64 = 8 << 30;
/// What a host keeps: the seeds used last.
const SEEDS_MAX: usize = 4;
/// Before anything that was ever compiled here: 1980-01-01.
const OLD: TimeSpec = TimeSpec::new(315_532_800, 0);

/// Where the seeds of a host are.
pub struct Seeds {
    dir: PathBuf,
}

/// Whose turn it is to make a slot's first object tree.
pub enum Turn {
    /// Nobody has made a seed yet; nobody else will while this is held.
    First(Making),
    Planted(Seed),
}

/// The right to make the seed for one key; held until dropped.
pub struct Making {
    _lock: File,
    place: PathBuf,
}

/// A tree to start from; it is not removed while this is held.
pub struct Seed {
    place: PathBuf,
    _lock: File,
    /// What it was built from.
    pub revision: RevisionId,
}

impl Seeds {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Seeds { dir: dir.into() }
    }

    /// Waits while another agent of the host makes the seed for `key`; calls `on_wait` once then.
    pub async fn turn(
        &self,
        key: &Digest,
        on_wait: impl FnOnce(),
        cancel: &CancellationToken,
    ) -> Result<Turn, Unfinished> {
        fs::create_dir_all(&self.dir).map_err(|e| Unfinished::io("create the directory of seeds", &e))?;
        let place = self.dir.join(key.short());
        let mut on_wait = Some(on_wait);
        loop {
            let lock = lock_file(&place).map_err(|e| Unfinished::io("open a seed's lock", &e))?;
            let is_there = Seed::read(&place).is_some();
            match if is_there { lock.try_lock_shared() } else { lock.try_lock() } {
                Ok(()) => match (is_there, Seed::read(&place)) {
                    (true, Some(revision)) => {
                        return Ok(Turn::Planted(Seed { place, _lock: lock, revision }));
                    }
                    (false, None) => return Ok(Turn::First(Making { _lock: lock, place })),
                    // It came or went between the look and the lock.
                    (true, None) | (false, Some(_)) => continue,
                },
                Err(TryLockError::Error(error)) => return Err(Unfinished::io("lock a seed", &error)),
                Err(TryLockError::WouldBlock) => {
                    if let Some(on_wait) = on_wait.take() {
                        on_wait();
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(Unfinished::Cancelled),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

impl Making {
    /// Keeps a copy of a tree that was built from `revision`. Without it, others compile.
    pub fn keep(self, objects_dir: &Path, revision: &RevisionId) -> io::Result<()> {
        let tree = ObjectTree::root_in(objects_dir);
        if untrusted::measure(&tree, BYTES_MAX).is_err() {
            return Ok(());
        }
        let new = self.place.with_extension("new");
        untrusted::remove(&new)?;
        fs::create_dir_all(&new)?;
        copy(&tree, &new.join("tree"))?;
        fs::write(new.join("revision"), revision.to_string())?;
        untrusted::remove(&self.place)?;
        fs::rename(&new, &self.place)?;
        prune(self.place.parent().unwrap_or(&self.place))
    }
}

impl Seed {
    fn read(place: &Path) -> Option<RevisionId> {
        let (file, now) = (place.join("revision"), SystemTime::now());
        let revision = fs::read_to_string(&file).ok()?.parse().ok()?;
        // A clock that was set back would make new sources look older than these objects.
        fs::metadata(&file).ok()?.modified().ok().filter(|made| *made <= now)?;
        // The time of the directory says when the seed was used last.
        let _ = File::open(place).and_then(|dir| dir.set_modified(now));
        Some(revision)
    }

    /// Makes the object tree in `objects_dir` a copy of the seed, for the work tree `source_dir`,
    /// which must be at the seed's revision and is dated before every object.
    pub fn plant(&self, objects_dir: &Path, source_dir: &Path) -> io::Result<()> {
        mark_dated_back(source_dir)?;
        date_back(source_dir)?;
        ObjectTree::plant(objects_dir, source_dir, |root| copy(&self.place.join("tree"), root))
    }
}

/// Copies with times, modes and owners; in no time where the file system can share blocks.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let copied = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).output()?;
    if copied.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&copied.stderr).trim().to_owned()))
}

fn date_back(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            date_back(&entry.path())?;
        } else {
            utimensat(AT_FDCWD, &entry.path(), &OLD, &OLD, UtimensatFlags::NoFollowSymlink)?;
        }
    }
    Ok(())
}

fn lock_file(place: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(place.with_extension("lock"))
}

/// Every seed of a host, whole or not, and when it was used last, the oldest first.
pub(crate) fn by_age(dir: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let directories = fs::read_dir(dir)?.flatten().filter(|entry| untrusted::is_directory(&entry.path()));
    let mut seeds: Vec<_> = directories
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    seeds.sort();
    Ok(seeds)
}

/// Removes a seed unless an agent makes it or copies it; says whether it did.
pub(crate) fn remove_unused(seed: &Path) -> io::Result<bool> {
    let lock = lock_file(seed)?;
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    // Renamed first: half a seed must not be taken for one.
    let gone = seed.with_extension("gone");
    if seed != gone {
        untrusted::remove(&gone)?;
        fs::rename(seed, &gone)?;
    }
    untrusted::remove(&gone).map(|()| true)
}

/// Removes all but the seeds used last and those in use.
fn prune(dir: &Path) -> io::Result<()> {
    let mut whole = by_age(dir)?;
    whole.retain(|(_, seed)| seed.join("revision").exists() && seed.extension().is_none());
    let surplus = whole.len().saturating_sub(SEEDS_MAX);
    whole[..surplus].iter().try_for_each(|(_, seed)| remove_unused(seed).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turn(seeds: &Seeds, key: &Digest, cancel: &CancellationToken) -> Result<Turn, Unfinished> {
        seeds.turn(key, || {}, cancel).await
    }

    fn built(dir: &Path, text: &str) -> PathBuf {
        let objects = dir.join("objects");
        fs::create_dir_all(objects.join("tree/sub")).unwrap();
        fs::write(objects.join("tree/sub/a.o"), text).unwrap();
        objects
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let (seeds, key) = (Seeds::new(dir.path().join("seeds")), Digest::of(b"key"));
        let cancel = CancellationToken::new();
        let Ok(Turn::First(making)) = turn(&seeds, &key, &cancel).await else { panic!("nobody was before") };

        let stop = CancellationToken::new();
        let mut waited = false;
        let waiting = seeds.turn(&key, || waited = true, &stop);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
        };
        let (stopped, ()) = tokio::join!(waiting, stopping);
        assert!(matches!(stopped, Err(Unfinished::Cancelled)));
        assert!(waited);

        let objects = built(dir.path(), "x");
        let revision = RevisionId::from_bytes([7; 20]);
        let second = turn(&seeds, &key, &cancel);
        let keep = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            making.keep(&objects, &revision).unwrap();
        };
        let (second, ()) = tokio::join!(second, keep);
        let Ok(Turn::Planted(seed)) = second else { panic!("there is a seed") };
        assert_eq!(seed.revision, revision);

        let (source, other) = (dir.path().join("src"), dir.path().join("other"));
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/a.c"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", source.join("link")).unwrap();
        seed.plant(&other, &source).unwrap();
        let time = |path: PathBuf| fs::symlink_metadata(path).unwrap().modified().unwrap();
        assert_eq!(fs::read_to_string(other.join("tree/sub/a.o")).unwrap(), "x");
        assert_eq!(time(other.join("tree/sub/a.o")), time(objects.join("tree/sub/a.o")));
        for name in ["sub/a.c", "link"] {
            assert!(time(source.join(name)) < time(objects.join("tree/sub/a.o")), "{name}");
        }
    }

    #[tokio::test]
    async fn who_makes_none_lets_the_next_one_try_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let (seeds, cancel) = (Seeds::new(dir.path().join("seeds")), CancellationToken::new());
        let first = Digest::of(b"0");
        drop(turn(&seeds, &first, &cancel).await.unwrap());
        let objects = built(dir.path(), "x");
        for number in 0..=SEEDS_MAX {
            let key = Digest::of(number.to_string().as_bytes());
            let Ok(Turn::First(making)) = turn(&seeds, &key, &cancel).await else { panic!("{number}") };
            making.keep(&objects, &RevisionId::from_bytes([1; 20])).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(matches!(turn(&seeds, &first, &cancel).await, Ok(Turn::First(_))), "the oldest is gone");
        let last = Digest::of(SEEDS_MAX.to_string().as_bytes());
        assert!(matches!(turn(&seeds, &last, &cancel).await, Ok(Turn::Planted(_))));
    }
}
