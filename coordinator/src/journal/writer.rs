//! The one writer: drains what waits into one transaction, then acknowledges all of it.

use super::store::Store;
use super::{Fact, JournalError, Shared};
use crate::failpoint;
use crate::telemetry::FIGURES;
use kulprit_observe::figures::{Measure as _, NO_LABELS, number};
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
pub(super) async fn run(mut inbox: mpsc::Receiver<Message>, mut store: Store, shared: Arc<Shared>) {
    let mut close = None;
    loop {
        let renew_at = store.renew_at();
        let first = tokio::select! {
            // In this order, so that a flood of facts does not cost the right to write them.
            biased;
            () = sleep_until(renew_at) => {
                if let Err(error) = store.renew().await {
                    return refuse(inbox, None, error, &shared).await;
                }
                let confirmed_until_ms = store.confirmed_until_ms();
                shared.terms.send_modify(|terms| terms.confirmed_until_ms = confirmed_until_ms);
                continue;
            }
            message = inbox.recv() => match message {
                Some(message) => message,
                None => break,
            },
        };
        let mut batch = Batch::default();
        batch.take(first);
        while !batch.is_full()
            && let Ok(next) = inbox.try_recv()
        {
            batch.take(next);
        }
        let started = Instant::now();
        let result = commit(&mut store, &batch.facts).await;
        if result.is_ok() && !batch.facts.is_empty() {
            FIGURES.commit_time.took(&[], started.elapsed());
            FIGURES.commit_facts.with_label_values(&NO_LABELS).observe(number(batch.facts.len() as u64));
            shared.facts.fetch_add(batch.facts.len() as u64, Ordering::Relaxed);
            shared.transactions.fetch_add(1, Ordering::Relaxed);
        }
        for done in batch.waiting {
            // A waiter that went away needs no answer.
            let _ = done.send(result.clone());
        }
        if let Err(error) = result {
            return refuse(inbox, batch.close, error, &shared).await;
        }
        if batch.close.is_some() {
            close = batch.close;
            break;
        }
    }
    inbox.close();
    let closed = store.close().await;
    if let Some(done) = close {
        let _ = done.send(closed);
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn commit(store: &mut Store, facts: &[Fact]) -> Result<(), JournalError> {
    if facts.is_empty() {
        return Ok(());
    }
    failpoint::pass("before-commit");
    store.commit(facts).await?;
    failpoint::pass("after-commit");
    Ok(())
}

/// Answers everybody with the failure: after one, nobody knows what the disk holds, or another
/// writes there.
async fn refuse(
    mut inbox: mpsc::Receiver<Message>,
    close: Option<Done>,
    error: JournalError,
    shared: &Shared,
) {
    shared.terms.send_modify(|terms| terms.broken = Some(error.clone()));
    if let Some(done) = close {
        let _ = done.send(Err(error.clone()));
    }
    while let Some(message) = inbox.recv().await {
        let (Message::Append { done, .. } | Message::Close { done }) = message;
        let _ = done.send(Err(error.clone()));
    }
}
