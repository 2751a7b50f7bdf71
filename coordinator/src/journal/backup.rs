//! Copies of a journal, made while it is written, and put in its place again. A copy is a journal
//! file, wherever the journal is kept, so that one way leads from a file to a database and back.

mod database;

use super::file::{APPLICATION_ID, SCHEMA_VERSION, insert, newer, prepare, read_all};
use super::lock::Lock;
use super::{Fact, JournalError, Place, StoredFact};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, lchown};
use std::path::{Path, PathBuf};

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub facts: i64,
    /// Of the last fact, in milliseconds since the epoch.
    pub last_at_ms: i64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("find a journal at {}: name the coordinator's --state", .0.display())]
    NoJournal(PathBuf),
    #[error("write {}: it is there already; name another file, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("read {}: it is not a journal of kulprit, or damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("write {at}: there is a journal already; name an empty database")]
    Full { at: String },
    #[error("write {at}: the coordinator at {name} uses it; stop that first")]
    Led { at: String, name: String },
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Copies a journal to `to`, as it is at one moment; whoever writes it goes on.
pub async fn save(journal: &Place, to: &Path) -> Result<Saved, BackupError> {
    if let Place::File(path) = journal
        && !path.is_file()
    {
        return Err(BackupError::NoJournal(path.clone()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.into()));
    }
    let part = beside(to, ".part");
    create(&part)?;
    let copied = match journal {
        Place::File(path) => copy(path, &part).await,
        Place::Database(database) => database::copy(database, &part).await,
    };
    let saved = match copied {
        Ok(()) => check(&part, |_| ()).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(saved) => put_in_place(&part, to).map(|()| saved),
        Err(error) => {
            let _ = remove(&part);
            Err(error)
        }
    }
}

/// Makes the copy at `from` the journal, where there is none; `each` sees every fact and `more` says
/// what is to be kept behind them. No coordinator may run there.
pub async fn restore(
    from: &Path,
    journal: &Place,
    each: impl FnMut(StoredFact),
    more: impl FnOnce() -> Result<Vec<Fact>, String>,
) -> Result<Saved, BackupError> {
    if !from.is_file() {
        return Err(BackupError::NoJournal(from.into()));
    }
    match journal {
        Place::File(path) => restore_file(from, path, each, more).await,
        Place::Database(database) => {
            let saved = check(from, each).await?;
            let more = more().map_err(|why| BackupError::Damaged { path: from.into(), why })?;
            database::fill(database, from, &more).await.map(|()| saved)
        }
    }
}

async fn restore_file(
    from: &Path,
    journal: &Path,
    each: impl FnMut(StoredFact),
    more: impl FnOnce() -> Result<Vec<Fact>, String>,
) -> Result<Saved, BackupError> {
    let lock = Lock::acquire(journal)?;
    let owner = owner_beside(journal)?;
    // As root: the coordinator, which is not, has to be able to open it.
    give(&beside(journal, ".lock"), owner)?;
    for taken in [journal.to_owned(), beside(journal, "-wal")] {
        if taken.exists() {
            return Err(BackupError::Exists(taken));
        }
    }
    let part = beside(journal, ".part");
    let saved = match copy_file(from, &part, owner) {
        Ok(()) => check(&part, each).await,
        Err(error) => Err(error),
    };
    let saved = match saved {
        Ok(saved) => add(&part, more).await.map(|()| saved),
        Err(error) => Err(error),
    };
    let placed = saved.and_then(|saved| put_in_place(&part, journal).map(|()| saved));
    if placed.is_err() {
        let _ = remove(&part);
    }
    drop(lock);
    placed.map_err(|error| name(error, &part, from))
}

/// What is wrong with a copy under way is wrong with what it was copied from.
fn name(error: BackupError, part: &Path, from: &Path) -> BackupError {
    match error {
        BackupError::Damaged { path, why } if path == part => BackupError::Damaged { path: from.into(), why },
        other => other,
    }
}

async fn copy(journal: &Path, part: &Path) -> Result<(), BackupError> {
    let damaged = |error: sqlx::Error| BackupError::Damaged { path: journal.into(), why: error.to_string() };
    let mut connection = open(journal, true).await.map_err(damaged)?;
    prepare(&mut connection, journal).await?;
    let copied = sqlx::query("VACUUM INTO ?")
        .bind(part.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await
        .map_err(damaged);
    let _ = connection.close().await;
    copied.map(|_| ())
}

async fn open(path: &Path, read_only: bool) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(read_only)
        .disable_statement_logging()
        .connect()
        .await
}

/// Reads all of a copy, and says what it holds.
async fn check(path: &Path, each: impl FnMut(StoredFact)) -> Result<Saved, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: path.into(), why };
    let mut connection = open(path, true).await.map_err(|error| damaged(error.to_string()))?;
    let checked = look(&mut connection, each).await;
    let _ = connection.close().await;
    let (application, version, integrity, facts, last_at_ms) =
        checked.map_err(|error| damaged(error.to_string()))?;
    if application != APPLICATION_ID {
        return Err(damaged("it is another program's".into()));
    }
    if version > SCHEMA_VERSION {
        return Err(newer(path, version).into());
    }
    if integrity != "ok" {
        return Err(damaged(integrity));
    }
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    Ok(Saved { facts, last_at_ms, bytes })
}

type Looked = (i64, i64, String, i64, i64);

async fn look(
    connection: &mut SqliteConnection,
    each: impl FnMut(StoredFact),
) -> Result<Looked, sqlx::Error> {
    let application = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let version = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let integrity = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut *connection).await?;
    let (facts, last) = sqlx::query_as("SELECT count(*), coalesce(max(at_ms), 0) FROM facts")
        .fetch_one(&mut *connection)
        .await?;
    read_all(connection, each).await?;
    Ok((application, version, integrity, facts, last))
}

async fn add(part: &Path, more: impl FnOnce() -> Result<Vec<Fact>, String>) -> Result<(), BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: part.into(), why };
    let facts = more().map_err(damaged)?;
    let failed = |error: sqlx::Error| damaged(error.to_string());
    let mut connection = SqliteConnectOptions::new()
        .filename(part)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    for fact in facts {
        insert(&mut connection, &fact).await.map_err(failed)?;
    }
    connection.close().await.map_err(failed)
}

/// An empty file that nobody else may read, from its first byte on: it will hold what the journal
/// does. SQLite takes an empty file for a new database.
fn create(part: &Path) -> Result<File, BackupError> {
    remove(part)?;
    let created = File::options().write(true).create_new(true).mode(0o600).open(part);
    created.map_err(|source| BackupError::Write { path: part.into(), source })
}

fn copy_file(from: &Path, part: &Path, owner: (u32, u32)) -> Result<(), BackupError> {
    let mut file = create(part)?;
    let copied = File::open(from).and_then(|mut from| io::copy(&mut from, &mut file));
    copied.map_err(|source| BackupError::Write { path: part.into(), source })?;
    give(part, owner)
}

/// Whose the directory is that the journal is in.
fn owner_beside(journal: &Path) -> Result<(u32, u32), BackupError> {
    let directory = directory_of(journal);
    let metadata = fs::metadata(directory);
    let metadata = metadata.map_err(|source| BackupError::Write { path: directory.into(), source })?;
    Ok((metadata.uid(), metadata.gid()))
}

/// Hands a file to an owner; anybody but root keeps what is his.
fn give(path: &Path, (user, group): (u32, u32)) -> Result<(), BackupError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // Not what a link points to, which the directory's owner may have put there.
    lchown(path, Some(user), Some(group)).map_err(|source| BackupError::Write { path: path.into(), source })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// On disk under its own name, or not there at all.
fn put_in_place(part: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::Write { path: to.into(), source };
    File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    // Unlike a rename, a link takes nobody's place who came meanwhile.
    fs::hard_link(part, to).map_err(failed)?;
    fs::remove_file(part).map_err(failed)?;
    File::open(directory_of(to)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Removes a copy under way, with what SQLite keeps beside it.
fn remove(part: &Path) -> Result<(), BackupError> {
    for path in [part.to_owned(), beside(part, "-wal"), beside(part, "-shm")] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::Write { path, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
