//! The one writer: drains what waits into one transaction, then acknowledges all of it.

use super::lock::Lock;
use super::{Counters, Fact, JournalError, insert};
use crate::failpoint;
use crate::telemetry::FIGURES;
use kulprit_observe::figures::{Measure as _, NO_LABELS, number};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Facts in one transaction at most, so that the first waiter is not held up by a flood.
const BATCH_FACTS_MAX: usize = 10_000;

type Done = oneshot::Sender<Result<(), JournalError>>;

pub(super) enum Message {
    Append { facts: Vec<Fact>, done: Done },
    Close { done: Done },
}

/// What one transaction carries, and who waits for it.
#[derive(Default)]
struct Batch {
    facts: Vec<Fact>,
    waiting: Vec<Done>,
    close: Option<Done>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Append { facts, done } => {
                self.facts.extend(facts);
                self.waiting.push(done);
            }
            Message::Close { done } => self.close = Some(done),
        }
    }

    fn is_full(&self) -> bool {
        self.close.is_some() || self.facts.len() >= BATCH_FACTS_MAX
    }
}

/// Runs until closed, until the last `Journal` is dropped, or until a write fails.
///
/// The lock is let go only after the file is closed.
pub(super) async fn run(
    mut inbox: mpsc::Receiver<Message>,
    mut connection: SqliteConnection,
    lock: Lock,
    counters: Arc<Counters>,
) {
    let mut close = None;
    while let Some(first) = inbox.recv().await {
        let mut batch = Batch::default();
        batch.take(first);
        while !batch.is_full()
            && let Ok(next) = inbox.try_recv()
        {
            batch.take(next);
        }
        let started = Instant::now();
        let result = commit(&mut connection, &batch.facts).await;
        if result.is_ok() && !batch.facts.is_empty() {
            FIGURES.commit_time.took(&[], started.elapsed());
            FIGURES.commit_facts.with_label_values(&NO_LABELS).observe(number(batch.facts.len() as u64));
            counters.facts.fetch_add(batch.facts.len() as u64, Ordering::Relaxed);
            counters.transactions.fetch_add(1, Ordering::Relaxed);
        }
        let result =
            result.map_err(|error| JournalError::Write { why: Arc::from(error.to_string().as_str()) });
        for done in batch.waiting {
            // A waiter that went away needs no answer.
            let _ = done.send(result.clone());
        }
        if let Err(error) = result {
            return refuse(inbox, batch.close, error).await;
        }
        if batch.close.is_some() {
            close = batch.close;
            break;
        }
    }
    inbox.close();
    let closed = connection.close().await;
    drop(lock);
    if let Some(done) = close {
        let _ = done.send(closed.map_err(|error| JournalError::Write { why: error.to_string().into() }));
    }
}

async fn commit(connection: &mut SqliteConnection, facts: &[Fact]) -> Result<(), sqlx::Error> {
    if facts.is_empty() {
        return Ok(());
    }
    failpoint::pass("before-commit");
    let mut transaction = connection.begin().await?;
    for fact in facts {
        insert(&mut transaction, fact).await?;
    }
    failpoint::pass("in-commit");
    transaction.commit().await?;
    failpoint::pass("after-commit");
    Ok(())
}

/// Answers everybody with the failure: after one, nobody knows what the disk holds.
async fn refuse(mut inbox: mpsc::Receiver<Message>, close: Option<Done>, error: JournalError) {
    if let Some(done) = close {
        let _ = done.send(Err(error.clone()));
    }
    while let Some(message) = inbox.recv().await {
        let (Message::Append { done, .. } | Message::Close { done }) = message;
        let _ = done.send(Err(error.clone()));
    }
}
