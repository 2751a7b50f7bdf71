//! The journal: facts in the order they were accepted, durable before they are acknowledged.
//!
//! Bodies are opaque here; what a fact means is the driver's business.

mod backup;
mod lock;
mod writer;

pub use backup::{BackupError, Saved, restore, save};

use crate::telemetry::FIGURES;
use kulprit_observe::figures::Measure as _;
use lock::Lock;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// The layout of the tables that this build reads and writes.
const SCHEMA_VERSION: i64 = 1;

/// Marks the file as a journal of kulprit (`application_id` in the SQLite header): "Kulp".
const APPLICATION_ID: i64 = 0x4b75_6c70;

/// Appends that may wait for the writer. A caller beyond it waits, which is the back pressure
/// that keeps a slow disk from filling the memory.
const QUEUE_MAX: usize = 1024;

/// A fact to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    pub kind: &'static str,
    /// The protobuf bytes.
    pub body: Vec<u8>,
}

/// A fact as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFact {
    /// Its place in the order, from 1.
    pub seq: i64,
    pub at_ms: u64,
    pub kind: String,
    pub body: Vec<u8>,
}

/// Why the journal cannot be opened, or can no longer be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("use {}: process {pid} is already using it", path.display())]
    InUse { path: PathBuf, pid: String },
    #[error(
        "read {}: it was written by a newer kulprit (schema {found}, this one knows {SCHEMA_VERSION}); upgrade kulprit",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: i64 },
    #[error("open {}: it is a database, but not a journal of kulprit", path.display())]
    Foreign { path: PathBuf },
    #[error("open {}: {why}", path.display())]
    Open { path: PathBuf, why: String },
    /// Fatal: what was in flight is not durable, and nothing more is accepted.
    #[error("write the journal: {why}")]
    Write { why: Arc<str> },
    #[error("write the journal: it is closed")]
    Closed,
}

/// What was committed since the journal was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub facts: u64,
    pub transactions: u64,
}

#[derive(Default)]
struct Counters {
    facts: AtomicU64,
    transactions: AtomicU64,
}

/// The open journal; clones share the one writer.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<writer::Message>,
    counters: Arc<Counters>,
}

impl Journal {
    /// Opens or creates the journal at `path` and hands every fact in it to `replay`, in order.
    ///
    /// Holds an exclusive lock beside the file until it is closed or dropped.
    pub async fn open(path: &Path, replay: impl FnMut(StoredFact)) -> Result<Journal, JournalError> {
        let lock = Lock::acquire(path)?;
        let failed = |error: sqlx::Error| JournalError::Open { path: path.into(), why: error.to_string() };
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(failed)?;
        prepare(&mut connection, path).await?;
        read_all(&mut connection, replay).await.map_err(failed)?;

        let counters = Arc::new(Counters::default());
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(writer::run(inbox, connection, lock, counters.clone()));
        Ok(Journal { queue, counters })
    }

    /// Appends facts, all or none of them, behind everything appended before.
    ///
    /// Returns once they are on disk. Dropping the future does not take them back. Any error is
    /// final: the caller cannot know what is on disk, and must stop.
    pub async fn append(&self, facts: Vec<Fact>) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        let started = Instant::now();
        let message = writer::Message::Append { facts, done };
        self.queue.send(message).await.map_err(|_| JournalError::Closed)?;
        let appended = answer.await.unwrap_or(Err(JournalError::Closed));
        FIGURES.append_time.took(&[], started.elapsed());
        appended
    }

    /// Waits for everything accepted so far, closes the file and lets go of the lock.
    pub async fn close(&self) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(writer::Message::Close { done }).await.map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    pub fn committed(&self) -> Committed {
        Committed {
            facts: self.counters.facts.load(Ordering::Relaxed),
            transactions: self.counters.transactions.load(Ordering::Relaxed),
        }
    }
}

/// What a journal takes on disk, with its write-ahead log; nothing where there is none.
pub fn size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let of = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    of(path) + of(Path::new(&log))
}

/// Makes the tables in an empty file; refuses what is not ours or is too new.
async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), JournalError> {
    let failed = |error: sqlx::Error| JournalError::Open { path: path.into(), why: error.to_string() };
    let application: i64 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await.map_err(failed)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(failed)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if tables == 0 {
        return create(connection).await.map_err(failed);
    }
    if application != APPLICATION_ID {
        return Err(JournalError::Foreign { path: path.into() });
    }
    if version > SCHEMA_VERSION {
        return Err(JournalError::NewerSchema { path: path.into(), found: version });
    }
    Ok(())
}

async fn create(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let text = format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE facts (
             seq INTEGER PRIMARY KEY,
             at_ms INTEGER NOT NULL,
             kind TEXT NOT NULL,
             body BLOB NOT NULL
         ) STRICT;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {SCHEMA_VERSION};
         COMMIT;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(connection).await.map(|_| ())
}

/// Adds a fact behind all others.
async fn insert(connection: &mut SqliteConnection, fact: &Fact) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO facts (at_ms, kind, body) VALUES (?, ?, ?)")
        .bind(fact.at_ms.cast_signed())
        .bind(fact.kind)
        .bind(fact.body.as_slice())
        .execute(connection)
        .await
        .map(|_| ())
}

async fn read_all(
    connection: &mut SqliteConnection,
    mut replay: impl FnMut(StoredFact),
) -> Result<(), sqlx::Error> {
    use futures::TryStreamExt as _;
    let mut rows = sqlx::query("SELECT seq, at_ms, kind, body FROM facts ORDER BY seq").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        replay(StoredFact {
            seq: row.try_get(0)?,
            at_ms: row.try_get::<i64, _>(1)?.cast_unsigned(),
            kind: row.try_get(2)?,
            body: row.try_get(3)?,
        });
    }
    Ok(())
}
