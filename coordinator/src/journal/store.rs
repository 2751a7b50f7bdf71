//! What a journal is kept in. The writer knows no more of it than this.

use super::file::JournalFile;
use super::lead::Lead;
use super::{Fact, JournalError};
use tokio::time::Instant;

pub(super) enum Store {
    File(Box<JournalFile>),
    Database(Box<Lead>),
}

impl Store {
    /// Makes facts durable, all or none of them. Any error is final.
    pub(super) async fn commit(&mut self, facts: &[Fact]) -> Result<(), JournalError> {
        match self {
            Store::File(file) => file.commit(facts).await.map_err(|error| failed(&error)),
            Store::Database(lead) => lead.commit(facts).await,
        }
    }

    /// Up to when, by the steady clock, nobody else can write.
    pub(super) fn confirmed_until_ms(&self) -> u64 {
        match self {
            Store::File(_) => u64::MAX,
            Store::Database(lead) => lead.confirmed_until_ms(),
        }
    }

    /// When the store is to be told that its writer is alive, if ever.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        match self {
            Store::File(_) => None,
            Store::Database(lead) => Some(lead.renew_at()),
        }
    }

    pub(super) async fn renew(&mut self) -> Result<(), JournalError> {
        match self {
            Store::File(_) => Ok(()),
            Store::Database(lead) => lead.renew().await,
        }
    }

    pub(super) async fn close(self) -> Result<(), JournalError> {
        match self {
            Store::File(file) => file.close().await.map_err(|error| failed(&error)),
            Store::Database(lead) => lead.resign().await,
        }
    }
}

fn failed(error: &sqlx::Error) -> JournalError {
    JournalError::Write { why: error.to_string().into() }
}
