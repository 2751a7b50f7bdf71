//! The journal: facts in the order they were accepted, durable before they are acknowledged.
//!
//! Bodies are opaque here; what a fact means is the driver's business. A journal is kept in a `file`,
//! or in a `database` that several coordinators know and one of them, the one with the `lead`, writes.

mod backup;
mod candidate;
mod database;
mod file;
mod lead;
mod lock;
mod place;
mod store;
mod writer;

pub use backup::{BackupError, Saved, restore, save};
pub use candidate::{Candidate, LOOK_EVERY, Standing};
pub use database::Database;
pub use lead::{LEADS_FOR, Lead, SILENCE};
pub use place::{Place, file_in};

use crate::telemetry::FIGURES;
use kulprit_observe::figures::Measure as _;
use kulprit_proto::tls::SteadyClock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use store::Store;
use tokio::sync::{mpsc, oneshot, watch};

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
        "read {at}: it was written by a newer kulprit (schema {found}, this one knows {known}); upgrade kulprit"
    )]
    NewerSchema { at: String, found: i64, known: i64 },
    #[error("open {}: it is a database, but not a journal of kulprit", path.display())]
    Foreign { path: PathBuf },
    #[error("open {at}: {why}")]
    Open { at: String, why: String },
    #[error("read --journal: {why}")]
    BadUrl { why: String },
    /// The same may succeed later.
    #[error("reach {at}: {why}")]
    OutOfReach { at: String, why: String },
    /// Fatal: what was in flight is not durable, and nothing more is accepted.
    #[error("write the journal: {why}")]
    Write { why: Arc<str> },
    #[error("write the journal: another coordinator leads the farm since, and epoch {epoch} is over")]
    Fenced { epoch: i64 },
    #[error(
        "keep the lead: {at} has not confirmed it for {} s, so that another may have it: {why}",
        LEADS_FOR.as_secs()
    )]
    OutOfTouch { at: String, why: String },
    #[error("write the journal: it is closed")]
    Closed,
}

impl JournalError {
    fn open(path: &Path, error: sqlx::Error) -> JournalError {
        JournalError::Open { at: path.display().to_string(), why: error.to_string() }
    }
}

/// What was committed since the journal was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub facts: u64,
    pub transactions: u64,
}

/// What the writer tells.
struct Shared {
    facts: AtomicU64,
    transactions: AtomicU64,
    terms: watch::Sender<Terms>,
}

/// For how long the journal is this coordinator's.
#[derive(Clone)]
struct Terms {
    /// Up to when, by the steady clock, nobody else can have written.
    confirmed_until_ms: u64,
    /// Why nothing more is written.
    broken: Option<JournalError>,
}

/// The open journal; clones share the one writer.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<writer::Message>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens or creates the journal at `path` and hands every fact in it to `replay`, in order.
    ///
    /// Holds an exclusive lock beside the file until it is closed or dropped.
    pub async fn open(path: &Path, replay: impl FnMut(StoredFact)) -> Result<Journal, JournalError> {
        let file = file::JournalFile::open(path, replay).await?;
        Ok(Journal::start(Store::File(Box::new(file))))
    }

    /// Opens the journal in a database that this coordinator leads, and hands every fact in it to
    /// `replay`, in order. Leadership is kept from now on, and given up when the journal is closed.
    pub async fn lead(lead: Box<Lead>, replay: impl FnMut(StoredFact)) -> Result<Journal, JournalError> {
        let database = lead.database().clone();
        let journal = Journal::start(Store::Database(lead));
        tokio::select! {
            read = database.read_all(replay) => read?,
            why = journal.broken() => return Err(why),
        }
        Ok(journal)
    }

    fn start(store: Store) -> Journal {
        let shared = Arc::new(Shared {
            facts: AtomicU64::default(),
            transactions: AtomicU64::default(),
            terms: watch::channel(Terms { confirmed_until_ms: store.confirmed_until_ms(), broken: None }).0,
        });
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(writer::run(inbox, store, shared.clone()));
        Journal { queue, shared }
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

    /// Waits until it is known that nobody else has written; whoever is refused must stop.
    pub async fn confirm(&self) -> Result<(), JournalError> {
        self.wait_for(|terms| {
            terms.broken.is_some() || SteadyClock::shared().now_ms() < terms.confirmed_until_ms
        })
        .await
        .map_or(Ok(()), Err)
    }

    /// Waits until nothing more can be written.
    pub async fn broken(&self) -> JournalError {
        self.wait_for(|terms| terms.broken.is_some()).await.unwrap_or(JournalError::Closed)
    }

    /// Whether the journal is broken, once `until` holds.
    async fn wait_for(&self, until: impl FnMut(&Terms) -> bool) -> Option<JournalError> {
        let mut terms = self.shared.terms.subscribe();
        // The sender is ours: it is there for as long as anybody waits.
        terms.wait_for(until).await.ok().and_then(|terms| terms.broken.clone())
    }

    /// Waits for everything accepted so far, closes the file and lets go of the lock, or of the lead.
    pub async fn close(&self) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(writer::Message::Close { done }).await.map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    pub fn committed(&self) -> Committed {
        Committed {
            facts: self.shared.facts.load(Ordering::Relaxed),
            transactions: self.shared.transactions.load(Ordering::Relaxed),
        }
    }
}
