//! A coordinator that would lead: it looks who does, and takes over where nobody does.

use super::JournalError;
use super::database::Database;
use super::lead::{Lead, SILENCE, now_ms};
use super::lock::Lock;
use super::place::file_in;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How often one that stands by looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
const ID_FILE: &str = "coordinator-id";

/// Who asks to lead.
struct Identity {
    /// Of the state directory, whose lock is held: whoever led under the same id and name is dead.
    id: String,
    /// Where it is reached, for people. It tells a copied state directory from the first one.
    name: String,
}

/// How things stand for one that would lead.
pub enum Standing {
    Leads(Box<Lead>),
    /// Another leads, reached under this name.
    StandsBy(String),
    OutOfReach(String),
}

/// A coordinator that would lead.
pub struct Candidate {
    database: Database,
    identity: Identity,
    connection: Option<PgConnection>,
    /// What the row last said, and since when.
    seen: Option<(Term, Instant)>,
    lock: Option<Lock>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    epoch: i64,
    renewed_at: String,
}

impl Candidate {
    /// For the coordinator of a state directory, which is reached under `name`.
    pub fn new(database: Database, state: &Path, name: String) -> Result<Candidate, JournalError> {
        let lock = Lock::acquire(&file_in(state))?;
        let identity = Identity { id: kept_id(&state.join(ID_FILE))?, name };
        Ok(Candidate { database, identity, connection: None, seen: None, lock: Some(lock) })
    }

    /// Looks once, and takes over where nobody leads. Not to be dropped half-way: leadership that was
    /// just taken would be nobody's for a while. An error is what the database refuses for good.
    pub async fn look(&mut self) -> Result<Standing, JournalError> {
        let looked = self.try_look().await;
        if looked.is_err() {
            self.connection = None;
        }
        match looked {
            Err(JournalError::OutOfReach { why, .. }) => Ok(Standing::OutOfReach(why)),
            // What it takes back it may give again: a password that is changed, a certificate.
            Err(JournalError::Open { why, .. }) if self.seen.is_some() => Ok(Standing::OutOfReach(why)),
            other => other,
        }
    }

    async fn try_look(&mut self) -> Result<Standing, JournalError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut connection = self.database.connect().await?;
                self.database.prepare(&mut connection).await?;
                none.insert(connection)
            }
        };
        let looking = async {
            let text = "SELECT epoch, renewed_at::text, id, name,
                    renewed_at < clock_timestamp() - make_interval(secs => $1)
                FROM kulprit_leader";
            sqlx::query(text).bind(SILENCE.as_secs_f64()).fetch_one(connection).await
        };
        let said = self.database.in_time(looking).await?;
        let said = Said::read(&said)
            .map_err(|error| JournalError::Open { at: self.database.to_string(), why: error.to_string() })?;
        if !self.is_vacant(&said) {
            return Ok(Standing::StandsBy(said.name));
        }
        match self.take_over(&said.term).await? {
            Some(lead) => Ok(Standing::Leads(Box::new(lead))),
            // Another was quicker.
            None => Ok(Standing::StandsBy(said.name)),
        }
    }

    /// By the database's clock, or where that was set back by one's own: nobody has renewed it.
    fn is_vacant(&mut self, said: &Said) -> bool {
        let is_own = said.id == self.identity.id && said.name == self.identity.name;
        let since = match &self.seen {
            Some((term, since)) if *term == said.term => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((said.term.clone(), now));
                now
            }
        };
        said.is_silent || is_own || since.elapsed() > SILENCE
    }

    async fn take_over(&mut self, term: &Term) -> Result<Option<Lead>, JournalError> {
        let Some(mut connection) = self.connection.take() else { return Ok(None) };
        let asked_ms = now_ms();
        let taking = async {
            let text = "UPDATE kulprit_leader
                SET epoch = epoch + 1, id = $1, name = $2, renewed_at = clock_timestamp()
                WHERE epoch = $3 AND renewed_at = $4::timestamptz
                RETURNING epoch";
            let epoch: Option<i64> = sqlx::query_scalar(text)
                .bind(&self.identity.id)
                .bind(&self.identity.name)
                .bind(term.epoch)
                .bind(&term.renewed_at)
                .fetch_optional(&mut connection)
                .await?;
            let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM kulprit_facts")
                .fetch_one(&mut connection)
                .await?;
            Ok(epoch.map(|epoch| (epoch, last)))
        };
        let taken = self.database.in_time(taking).await?;
        let Some((epoch, last)) = taken else {
            self.connection = Some(connection);
            return Ok(None);
        };
        tracing::info!(epoch, "leads");
        let lock = self.lock.take();
        Ok(Some(Lead::new(self.database.clone(), connection, epoch, last + 1, asked_ms, lock)))
    }
}

struct Said {
    term: Term,
    id: String,
    name: String,
    is_silent: bool,
}

impl Said {
    fn read(row: &sqlx::postgres::PgRow) -> Result<Said, sqlx::Error> {
        Ok(Said {
            term: Term { epoch: row.try_get(0)?, renewed_at: row.try_get(1)? },
            id: row.try_get(2)?,
            name: row.try_get(3)?,
            is_silent: row.try_get(4)?,
        })
    }
}

/// The id in a file; where there is none, a new one that is there from now on.
fn kept_id(path: &Path) -> Result<String, JournalError> {
    let failed =
        |error: std::io::Error| JournalError::Open { at: path.display().to_string(), why: error.to_string() };
    match std::fs::read_to_string(path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Ok(_) => {
            let why = "it is empty; remove it".into();
            Err(JournalError::Open { at: path.display().to_string(), why })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = uuid::Uuid::now_v7().to_string();
            let new = path.with_extension("new");
            std::fs::write(&new, format!("{id}\n")).map_err(failed)?;
            std::fs::rename(&new, path).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}
