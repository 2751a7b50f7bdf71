//! The journal as a file of SQLite's, beside a lock that keeps others out.

use super::lock::Lock;
use super::{Fact, JournalError, StoredFact};
use crate::failpoint;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;

/// The layout of the tables that this build reads and writes.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// Marks the file as a journal of kulprit (`application_id` in the SQLite header): "Kulp".
pub(super) const APPLICATION_ID: i64 = 0x4b75_6c70;

/// An open file; whoever has it is its only writer.
pub(super) struct JournalFile {
    connection: SqliteConnection,
    lock: Lock,
}

impl JournalFile {
    pub(super) async fn open(
        path: &Path,
        replay: impl FnMut(StoredFact),
    ) -> Result<JournalFile, JournalError> {
        let lock = Lock::acquire(path)?;
        let failed = |error: sqlx::Error| JournalError::open(path, error);
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
        Ok(JournalFile { connection, lock })
    }

    pub(super) async fn commit(&mut self, facts: &[Fact]) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        for fact in facts {
            insert(&mut transaction, fact).await?;
        }
        failpoint::pass("in-commit");
        transaction.commit().await
    }

    /// The lock is let go only after the file is closed.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        let closed = self.connection.close().await;
        drop(self.lock);
        closed
    }
}

/// What a journal takes on disk, with its write-ahead log; nothing where there is none.
pub(super) fn size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let of = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    of(path) + of(Path::new(&log))
}

/// Makes the tables in an empty file; refuses what is not ours or is too new.
pub(super) async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), JournalError> {
    let failed = |error: sqlx::Error| JournalError::open(path, error);
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
        return Err(newer(path, version));
    }
    Ok(())
}

pub(super) fn newer(path: &Path, found: i64) -> JournalError {
    JournalError::NewerSchema { at: path.display().to_string(), found, known: SCHEMA_VERSION }
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
pub(super) async fn insert(connection: &mut SqliteConnection, fact: &Fact) -> Result<(), sqlx::Error> {
    keep(connection, fact.at_ms, fact.kind, &fact.body).await
}

pub(super) async fn keep(
    connection: &mut SqliteConnection,
    at_ms: u64,
    kind: &str,
    body: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO facts (at_ms, kind, body) VALUES (?, ?, ?)")
        .bind(at_ms.cast_signed())
        .bind(kind)
        .bind(body)
        .execute(connection)
        .await
        .map(|_| ())
}

pub(super) async fn read_all(
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
