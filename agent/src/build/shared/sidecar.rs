//! What ccache in a container speaks with in place of a network: a socket that takes GET and SET
//! of the build's own keys, and nothing else.

use super::remote::{Away, Remote};
use super::resp::{self, Reply};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;

/// A compilation has one connection; `make -j` of a large machine has some hundred.
const CONNECTIONS_MAX: usize = 512;
/// Values that wait for being written, and how many bytes they may have.
const WAITING_MAX: usize = 1024;
const WAITING_BYTES_MAX: usize = 256 << 20;
const WRITERS: usize = 4;
/// What all containers may have us hold in memory: bytes that they are saying, and answers that they have not
/// read.
const SAID_BYTES_MAX: usize = 256 << 20;
const ANSWERS_MAX: usize = 16;
/// Of an agent that writes nothing, no value is kept.
const UNWRITTEN_BYTES_MAX: usize = 1 << 10;
/// ccache writes a hash of 20 or 32 bytes in letters and digits.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// What came of the questions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub failures: AtomicU64,
    pub written: AtomicU64,
    /// Not written: the server was away or too slow, or this agent may not.
    pub unwritten: AtomicU64,
}

pub(super) fn one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The room in memory that all builds of an agent share.
pub(super) struct Room {
    waiting: Arc<Semaphore>,
    said: Semaphore,
    answers: Semaphore,
}

impl Room {
    pub fn new() -> Room {
        Room {
            waiting: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            said: Semaphore::new(SAID_BYTES_MAX),
            answers: Semaphore::new(ANSWERS_MAX),
        }
    }
}

struct Shared {
    remote: Arc<Remote>,
    namespace: String,
    tally: Arc<Tally>,
    /// Absent where this agent only reads.
    writes: Option<mpsc::Sender<(String, Bytes, tokio::sync::OwnedSemaphorePermit)>>,
    room: Arc<Room>,
}

/// Serves until dropped or aborted; yields when the last value is written after `closed`.
pub(super) async fn serve(
    listener: UnixListener,
    remote: Arc<Remote>,
    room: Arc<Room>,
    namespace: String,
    may_write: bool,
    tally: Arc<Tally>,
    closed: tokio_util::sync::CancellationToken,
) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let shared = Arc::new(Shared {
        remote: remote.clone(),
        namespace,
        tally: tally.clone(),
        writes: may_write.then_some(sender),
        room,
    });
    let mut writers = JoinSet::new();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..WRITERS {
        writers.spawn(write_all(receiver.clone(), remote.clone(), tally.clone()));
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = closed.cancelled() => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(answer_all(stream, shared.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the socket of the shared cache");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
    // Without senders the writers end once nothing waits.
    drop(shared);
    while writers.join_next().await.is_some() {}
}

async fn write_all(
    values: Arc<Mutex<mpsc::Receiver<(String, Bytes, tokio::sync::OwnedSemaphorePermit)>>>,
    remote: Arc<Remote>,
    tally: Arc<Tally>,
) {
    loop {
        let next = values.lock().await.recv().await;
        let Some((key, value, _room)) = next else { return };
        match remote.put(&key, value).await {
            Ok(()) => one(&tally.written),
            Err(Away::Failed | Away::Resting) => one(&tally.unwritten),
        }
    }
}

/// A container may say what it likes here: what makes no sense ends the connection.
async fn answer_all(stream: UnixStream, shared: Arc<Shared>) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::new(write));
    let room = &shared.room;
    let kept_max = if shared.writes.is_some() { resp::VALUE_BYTES_MAX } else { UNWRITTEN_BYTES_MAX };
    while let Some(command) = resp::read_command(&mut read, &room.said, kept_max).await? {
        let _turn = room.answers.acquire().await.map_err(io::Error::other)?;
        let reply = shared.answer(&command.parts).await;
        resp::bounded(resp::write_reply(&mut write, &reply)).await?;
    }
    Ok(())
}

impl Shared {
    async fn answer(&self, command: &[Bytes]) -> Reply {
        let word = command[0].to_ascii_uppercase();
        match (&word[..], &command[1..]) {
            (b"PING", []) => Reply::Status("PONG".into()),
            (b"SELECT" | b"AUTH" | b"CLIENT", _) => Reply::Status("OK".into()),
            (b"GET", [key]) => match self.key(key) {
                Some(key) => self.get(&key).await,
                None => Reply::Error("a key of ccache's own form is wanted".into()),
            },
            // It is asked before a SET, which replaces nothing by anything else.
            (b"EXISTS", [_]) => Reply::Number(0),
            (b"SET", [key, value]) => match self.key(key) {
                Some(key) => self.set(key, value.clone()),
                None => Reply::Error("a key of ccache's own form is wanted".into()),
            },
            // Nothing that others may need is removed at a container's word.
            (b"DEL", [_]) => Reply::Number(0),
            _ => Reply::Error("only GET and SET are known here".into()),
        }
    }

    /// The key at the server: in this build's own name space, whatever the container says.
    fn key(&self, said: &Bytes) -> Option<String> {
        let said = std::str::from_utf8(said).ok()?;
        let hash = said.rsplit_once(':').map_or(said, |(_, hash)| hash);
        let is_plain = hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_plain && KEY_BYTES.contains(&hash.len()))
            .then(|| format!("{}/{}/{}", self.namespace, &hash[..2], &hash[2..]))
    }

    async fn get(&self, key: &str) -> Reply {
        match self.remote.get(key).await {
            Ok(Some(value)) => {
                one(&self.tally.hits);
                Reply::Value(value)
            }
            Ok(None) => {
                one(&self.tally.misses);
                Reply::Nothing
            }
            Err(Away::Failed | Away::Resting) => {
                one(&self.tally.failures);
                Reply::Nothing
            }
        }
    }

    /// The build does not wait for what it makes to be written.
    fn set(&self, key: String, value: Bytes) -> Reply {
        let Some(writes) = &self.writes else {
            one(&self.tally.unwritten);
            return Reply::Error("this agent only reads".into());
        };
        let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let queued = self
            .room
            .waiting
            .clone()
            .try_acquire_many_owned(size)
            .ok()
            .and_then(|room| writes.try_send((key, value, room)).ok());
        if queued.is_none() {
            one(&self.tally.unwritten);
        }
        Reply::Status("OK".into())
    }
}
