//! Live logs of attempts: chunks go to a file, followers read the file.
//!
//! Nothing of a log stays in memory, so a slow follower costs nothing. Calls block on the disk,
//! except that a stream reads in the background.

use bytes::Bytes;
use futures::Stream;
use kulprit_common::id::{AgentId, Attempt};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Bytes that one read returns at most.
const READ_BYTES_MAX: u64 = 256 << 10;

/// Attempts that are followed live; of any more, only the files are written.
const LIVE_MAX: usize = 4096;

/// Attempts remembered as finished: a chunk that comes late must not begin them again.
const FINISHED_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The agent sent from beyond what is here: it has to send again from `expected`.
    #[error("append to the log of attempt {attempt} at {offset}: it has {expected} bytes")]
    Gap { attempt: Attempt, offset: u64, expected: u64 },
    #[error("find the log of attempt {0}: there is none, or it was pruned")]
    NotFound(Attempt),
    #[error("use the log of attempt {attempt}: {source}")]
    File { attempt: Attempt, source: std::io::Error },
    #[error("use the log directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
}

/// The logs below one directory.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Attempts that are being written; a finished one is only a file.
    live: HashMap<Attempt, Arc<Live>>,
    /// Who may write, and so end, a log.
    writers: HashMap<Attempt, AgentId>,
    finished: VecDeque<Attempt>,
}

/// An attempt that is being written. Followers see its end when it is dropped.
struct Live {
    file: Mutex<File>,
    /// How long the log is.
    length: watch::Sender<u64>,
}

impl Logs {
    /// Opens the directory; each log is cut at `bytes_max`.
    pub fn open(dir: impl Into<PathBuf>, bytes_max: u64) -> Result<Logs, LogError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|source| LogError::Directory { path: dir.clone(), source })?;
        Ok(Logs { shared: Arc::new(Shared { dir, bytes_max, table: Mutex::default() }) })
    }

    /// Appends what is new of a chunk that starts at `offset`; a repeated chunk changes nothing.
    ///
    /// Returns where the next chunk starts. What lies beyond the cap is accepted and dropped.
    pub fn append(&self, attempt: Attempt, offset: u64, chunk: &[u8]) -> Result<u64, LogError> {
        let failed = |source| LogError::File { attempt, source };
        let live = self.live(attempt).map_err(failed)?;
        let mut file = lock(&live.file);
        let length = file.metadata().map_err(failed)?.len();
        let end = offset.saturating_add(chunk.len() as u64);
        if length >= self.shared.bytes_max {
            return Ok(end.max(length));
        }
        if offset > length {
            return Err(LogError::Gap { attempt, offset, expected: length });
        }
        let kept = self.shared.bytes_max.min(end);
        if kept > length {
            let new = &chunk[place(length - offset)..place(kept - offset)];
            file.write_all(new).map_err(failed)?;
            live.length.send_replace(kept);
            crate::failpoint::pass("log");
        }
        Ok(end.max(length))
    }

    /// Notes who holds an attempt, and so writes its log.
    pub fn let_write(&self, attempt: Attempt, agent: AgentId) {
        let mut table = lock(&self.shared.table);
        if table.writers.len() < LIVE_MAX && !table.finished.contains(&attempt) {
            table.writers.insert(attempt, agent);
        }
    }

    /// Ends an attempt's log where this agent writes it: a late ending is no evidence any more,
    /// and nothing more is to be read.
    pub fn finish_own(&self, attempt: Attempt, agent: &AgentId) {
        if lock(&self.shared.table).writers.get(&attempt) == Some(agent) {
            self.finish(attempt);
        }
    }

    /// Ends an attempt's log: its followers come to an end.
    pub fn finish(&self, attempt: Attempt) {
        let mut table = lock(&self.shared.table);
        table.live.remove(&attempt);
        table.writers.remove(&attempt);
        if !table.finished.contains(&attempt) {
            table.finished.push_back(attempt);
        }
        if table.finished.len() > FINISHED_MAX {
            table.finished.pop_front();
        }
    }

    /// Bytes from `from` on, some of them; empty at the present end.
    pub fn read(&self, attempt: Attempt, from: u64) -> Result<Bytes, LogError> {
        read(&self.path(attempt), from).map_err(|source| match source.kind() {
            ErrorKind::NotFound => LogError::NotFound(attempt),
            _ => LogError::File { attempt, source },
        })
    }

    /// The log from its beginning to its present end, or with `follow` until the attempt ends.
    pub fn stream(
        &self,
        attempt: Attempt,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, LogError>> + Send + use<>, LogError> {
        let live = lock(&self.shared.table).live.get(&attempt).cloned();
        if live.is_none() && !self.path(attempt).exists() {
            return Err(LogError::NotFound(attempt));
        }
        let news = live.filter(|_| follow).map(|live| live.length.subscribe());
        let state = Some((self.clone(), 0, news));
        Ok(futures::stream::try_unfold(state, move |state| async move {
            let Some((logs, from, mut news)) = state else { return Ok(None) };
            loop {
                // Asked before reading: what is written meanwhile wakes us again.
                let ended = match &mut news {
                    Some(news) => {
                        let ended = news.has_changed().is_err();
                        news.mark_unchanged();
                        ended
                    }
                    None => true,
                };
                let bytes = logs.read_aside(attempt, from).await?;
                if !bytes.is_empty() {
                    let next = from + bytes.len() as u64;
                    return Ok(Some((bytes, Some((logs, next, news)))));
                }
                match &mut news {
                    // An error is the end of the attempt; the next round reads what is left.
                    Some(news) if !ended => drop(news.changed().await),
                    Some(_) | None => return Ok(None),
                }
            }
        }))
    }

    /// Removes logs that were last written more than `keep` before `now`, and returns how many.
    ///
    /// Nobody writes an attempt for days: one that is still live then was lost with its agent.
    pub fn prune(&self, now: SystemTime, keep: Duration) -> Result<usize, LogError> {
        let failed = |source| LogError::Directory { path: self.shared.dir.clone(), source };
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.shared.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(attempt) = attempt_of(&entry.path()) else { continue };
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            if now.duration_since(modified).is_ok_and(|age| age > keep) {
                lock(&self.shared.table).live.remove(&attempt);
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(removed)
    }

    /// The attempt's place in the table, or one of its own when it has ended or the table is full.
    fn live(&self, attempt: Attempt) -> std::io::Result<Arc<Live>> {
        let mut table = lock(&self.shared.table);
        if let Some(live) = table.live.get(&attempt) {
            return Ok(live.clone());
        }
        let file = File::options().create(true).append(true).open(self.path(attempt))?;
        let live = Arc::new(Live { file: Mutex::new(file), length: watch::Sender::new(0) });
        if table.live.len() < LIVE_MAX && !table.finished.contains(&attempt) {
            table.live.insert(attempt, live.clone());
        }
        Ok(live)
    }

    async fn read_aside(&self, attempt: Attempt, from: u64) -> Result<Bytes, LogError> {
        let logs = self.clone();
        match tokio::task::spawn_blocking(move || logs.read(attempt, from)).await {
            Ok(read) => read,
            Err(error) => Err(LogError::File { attempt, source: std::io::Error::other(error) }),
        }
    }

    fn path(&self, attempt: Attempt) -> PathBuf {
        self.shared.dir.join(format!("{attempt}.log"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

fn attempt_of(path: &Path) -> Option<Attempt> {
    if path.extension()? != "log" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok().map(Attempt)
}

/// A place in a chunk in memory.
fn place(distance: u64) -> usize {
    usize::try_from(distance).expect("a distance inside a chunk")
}

fn read(path: &Path, from: u64) -> std::io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    const ATTEMPT: Attempt = Attempt(0x2a);

    fn logs(bytes_max: u64) -> (tempfile::TempDir, Logs) {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path().join("logs"), bytes_max).unwrap();
        (dir, logs)
    }

    async fn text(stream: impl Stream<Item = Result<Bytes, LogError>>) -> String {
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[test]
    fn chunks_may_repeat_and_overlap_but_not_leave_a_gap() {
        let (dir, logs) = logs(100);
        assert_eq!(logs.append(ATTEMPT, 0, b"hello").unwrap(), 5);
        assert_eq!(logs.append(ATTEMPT, 0, b"hello").unwrap(), 5);
        assert_eq!(logs.append(ATTEMPT, 1, b"ell").unwrap(), 5);
        assert_eq!(logs.append(ATTEMPT, 3, b"lo world").unwrap(), 11);
        let gap = logs.append(ATTEMPT, 12, b"!").unwrap_err();
        assert!(matches!(gap, LogError::Gap { expected: 11, .. }), "{gap}");
        // A coordinator that was restarted goes on where the file ends.
        let again = Logs::open(dir.path().join("logs"), 100).unwrap();
        assert_eq!(again.append(ATTEMPT, 6, b"world!").unwrap(), 12);
        assert_eq!(again.read(ATTEMPT, 6).unwrap(), "world!");
        assert!(dir.path().join("logs/2a.log").exists());
    }

    #[test]
    fn a_log_is_cut_at_its_cap() {
        let (_dir, logs) = logs(8);
        assert_eq!(logs.append(ATTEMPT, 0, b"0123456").unwrap(), 7);
        assert_eq!(logs.append(ATTEMPT, 7, b"789").unwrap(), 10);
        assert_eq!(logs.append(ATTEMPT, 10, b"abc").unwrap(), 13);
        assert_eq!(logs.read(ATTEMPT, 0).unwrap(), "01234567");
        assert_eq!(logs.read(ATTEMPT, 99).unwrap(), "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn followers_see_everything_and_then_the_end() {
        let (_dir, logs) = logs(1 << 30);
        assert!(matches!(logs.stream(ATTEMPT, true).err(), Some(LogError::NotFound(ATTEMPT))));
        logs.append(ATTEMPT, 0, b"first\n").unwrap();
        let followers: Vec<_> =
            (0..3).map(|_| tokio::spawn(text(logs.stream(ATTEMPT, true).unwrap()))).collect();
        let mut whole = "first\n".to_owned();
        for i in 0..200 {
            let line = format!("line {i}\n");
            logs.append(ATTEMPT, whole.len() as u64, line.as_bytes()).unwrap();
            whole.push_str(&line);
            tokio::task::yield_now().await;
        }
        logs.finish(ATTEMPT);
        for follower in followers {
            let seen = tokio::time::timeout(Duration::from_secs(10), follower).await.expect("ends");
            assert_eq!(seen.unwrap(), whole);
        }
        // A late chunk is kept, and does not make followers wait for an end that never comes.
        logs.append(ATTEMPT, whole.len() as u64, b"late").unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(10), text(logs.stream(ATTEMPT, true).unwrap()));
        assert_eq!(seen.await.expect("ends"), format!("{whole}late"));
    }

    #[tokio::test]
    async fn a_snapshot_does_not_wait() {
        let (_dir, logs) = logs(1 << 30);
        let big = vec![b'x'; 700_000];
        logs.append(ATTEMPT, 0, &big).unwrap();
        assert_eq!(text(logs.stream(ATTEMPT, false).unwrap()).await.len(), big.len());
    }

    #[test]
    fn old_logs_are_pruned() {
        let (dir, logs) = logs(100);
        logs.append(ATTEMPT, 0, b"old").unwrap();
        std::fs::write(dir.path().join("logs/notes.txt"), "not a log").unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(logs.prune(SystemTime::now(), day).unwrap(), 0);
        assert_eq!(logs.prune(SystemTime::now() + 2 * day, day).unwrap(), 1);
        assert!(matches!(logs.read(ATTEMPT, 0), Err(LogError::NotFound(_))));
        assert!(dir.path().join("logs/notes.txt").exists());
    }
}
