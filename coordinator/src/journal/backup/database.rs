//! From a database into a copy, and from a copy into a database.

use super::{BackupError, prepare};
use crate::journal::database::{ALL_FACTS, read_columns};
use crate::journal::lead::SILENCE;
use crate::journal::{Database, Fact, JournalError, file};
use futures::TryStreamExt as _;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;

/// Facts that are sent to the database at once.
const CHUNK: usize = 1000;

/// Writes all facts, as they are at one moment, into a new file.
pub(super) async fn copy(database: &Database, part: &Path) -> Result<(), BackupError> {
    let mut from = database.connect().await?;
    database.prepare(&mut from).await?;
    let failed = |error: sqlx::Error| BackupError::Damaged { path: part.into(), why: error.to_string() };
    let options = SqliteConnectOptions::new()
        .filename(part)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    let mut to = options.connect().await.map_err(failed)?;
    prepare(&mut to, part).await?;
    let copying = async {
        let mut transaction = to.begin().await?;
        let mut rows = sqlx::query(ALL_FACTS).fetch(&mut from);
        while let Some(row) = rows.try_next().await? {
            let fact = read_columns(&row)?;
            file::keep(&mut transaction, fact.at_ms, &fact.kind, &fact.body).await?;
        }
        transaction.commit().await
    };
    copying.await.map_err(|error| unreadable(database, &error))?;
    to.close().await.map_err(failed)
}

/// Fills an empty database that nobody leads with a copy's facts and some more, all or none of them.
pub(super) async fn fill(database: &Database, from: &Path, more: &[Fact]) -> Result<(), BackupError> {
    let mut to = database.connect().await?;
    database.prepare(&mut to).await?;
    let failed = |error: sqlx::Error| unreadable(database, &error);
    let mut transaction = to.begin().await.map_err(failed)?;
    // Whoever would lead meanwhile waits for this row.
    let text = "SELECT epoch, name, renewed_at > clock_timestamp() - make_interval(secs => $1),
            EXISTS (SELECT FROM kulprit_facts)
        FROM kulprit_leader FOR UPDATE";
    let row = sqlx::query(text).bind(SILENCE.as_secs_f64()).fetch_one(&mut *transaction).await;
    let row = row.map_err(failed)?;
    let at = || database.to_string();
    if row.try_get(2).map_err(failed)? {
        return Err(BackupError::Led { at: at(), name: row.try_get(1).map_err(failed)? });
    }
    if row.try_get(3).map_err(failed)? {
        return Err(BackupError::Full { at: at() });
    }
    let epoch: i64 = row.try_get(0).map_err(failed)?;
    let damaged = |error: sqlx::Error| BackupError::Damaged { path: from.into(), why: error.to_string() };
    let mut copy = super::open(from, true).await.map_err(damaged)?;
    let mut rows = sqlx::query("SELECT at_ms, kind, body FROM facts ORDER BY seq").fetch(&mut copy);
    let mut columns = Columns { first: 1, ..Columns::default() };
    while let Some(row) = rows.try_next().await.map_err(damaged)? {
        let (at_ms, kind, body) = (row.try_get(0), row.try_get(1), row.try_get(2));
        columns.push(at_ms.map_err(damaged)?, kind.map_err(damaged)?, body.map_err(damaged)?);
        if columns.at_ms.len() == CHUNK {
            columns.insert(&mut transaction, epoch).await.map_err(failed)?;
        }
    }
    for fact in more {
        columns.push(fact.at_ms.cast_signed(), fact.kind.to_owned(), fact.body.clone());
    }
    columns.insert(&mut transaction, epoch).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// Facts on their way, as columns.
#[derive(Default)]
struct Columns {
    /// The place of the first of them.
    first: i64,
    at_ms: Vec<i64>,
    kinds: Vec<String>,
    bodies: Vec<Vec<u8>>,
}

impl Columns {
    fn push(&mut self, at_ms: i64, kind: String, body: Vec<u8>) {
        self.at_ms.push(at_ms);
        self.kinds.push(kind);
        self.bodies.push(body);
    }

    async fn insert(&mut self, connection: &mut PgConnection, epoch: i64) -> Result<(), sqlx::Error> {
        let text = "INSERT INTO kulprit_facts (seq, epoch, at_ms, kind, body)
            SELECT $1 + fact.place - 1, $2, fact.at_ms, fact.kind, fact.body
            FROM unnest($3::bigint[], $4::text[], $5::bytea[])
                WITH ORDINALITY AS fact (at_ms, kind, body, place)";
        sqlx::query(text)
            .bind(self.first)
            .bind(epoch)
            .bind(&self.at_ms)
            .bind(&self.kinds)
            .bind(&self.bodies)
            .execute(connection)
            .await?;
        *self = Columns { first: self.first + self.at_ms.len() as i64, ..Columns::default() };
        Ok(())
    }
}

fn unreadable(database: &Database, error: &sqlx::Error) -> BackupError {
    BackupError::Journal(JournalError::Open { at: database.to_string(), why: error.to_string() })
}
