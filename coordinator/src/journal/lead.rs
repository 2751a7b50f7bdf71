//! Who may write into a journal that several coordinators share: the one that leads, for as long as
//! the database confirms it.
//!
//! A row names the leader and its epoch. The leader renews it; one that stands by takes over where
//! that has not happened for longer than a leader goes on without. Each append asks the row, under a
//! lock, whether the epoch is still its own.

use super::database::{ANSWER_LIMIT, Database, is_away};
use super::lock::Lock;
use super::place::file_in;
use super::{Fact, JournalError};
use kulprit_proto::tls::SteadyClock;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long a leader goes on without being confirmed, counted from before it asked.
pub const LEADS_FOR: Duration = Duration::from_secs(7);
/// Silence after which another takes over. The difference is for clocks that run differently.
pub const SILENCE: Duration = Duration::from_secs(8);
/// How often one that stands by looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to reach a database that has gone away.
const AGAIN: Duration = Duration::from_millis(200);
/// What a last try may take, once leadership has not been confirmed in time.
const LAST_TRY: Duration = Duration::from_secs(1);
const ID_FILE: &str = "coordinator-id";
/// What giving leadership up may take.
const RESIGN_LIMIT: Duration = Duration::from_secs(1);

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
        Ok(Some(Lead {
            database: self.database.clone(),
            connection: Some(connection),
            epoch,
            next_seq: last + 1,
            confirmed_until_ms: until(asked_ms),
            renew_at: Instant::now() + RENEW_EVERY,
            _lock: self.lock.take(),
        }))
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

/// Leadership: the right to write, until another takes it.
pub struct Lead {
    database: Database,
    connection: Option<PgConnection>,
    epoch: i64,
    next_seq: i64,
    /// By the steady clock.
    confirmed_until_ms: u64,
    renew_at: Instant,
    _lock: Option<Lock>,
}

/// Why a statement has not done what it should.
enum Failed {
    /// Nobody knows whether it has been carried out.
    Away(String),
    /// There are facts at these places already.
    Taken,
    /// The database has said no.
    Refused(String),
}

impl Lead {
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(super) fn confirmed_until_ms(&self) -> u64 {
        self.confirmed_until_ms
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// Keeps leadership; an error says that it is lost.
    pub(super) async fn renew(&mut self) -> Result<(), JournalError> {
        loop {
            match self.try_renew().await {
                Err(Failed::Away(why)) => self.wait_for_database(why).await?,
                renewed => return self.unless_fenced(renewed),
            }
        }
    }

    /// Makes facts durable, all or none of them, if this coordinator still leads. Where a connection
    /// breaks and nobody knows what came of it, the same facts are sent again to the same places: what
    /// is there by then is there once.
    pub(super) async fn commit(&mut self, facts: &[Fact]) -> Result<(), JournalError> {
        let batch = Batch::new(self.next_seq, facts);
        loop {
            let tried = match self.try_insert(&batch).await {
                Err(Failed::Taken) => self.try_count(&batch).await,
                other => other,
            };
            match tried {
                Err(Failed::Away(why)) => self.wait_for_database(why).await?,
                tried => {
                    self.unless_fenced(tried)?;
                    self.next_seq += batch.len();
                    return Ok(());
                }
            }
        }
    }

    /// Lets another take over at once.
    pub(super) async fn resign(mut self) -> Result<(), JournalError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let text = "UPDATE kulprit_leader SET renewed_at = '-infinity' WHERE epoch = $1";
        let resigning = sqlx::query(text).bind(self.epoch).execute(connection);
        match tokio::time::timeout(RESIGN_LIMIT, resigning).await {
            Ok(Ok(_)) => tracing::info!(epoch = self.epoch, "has given leadership up"),
            // Others find out by themselves; all that was acknowledged is durable.
            Ok(Err(error)) => tracing::warn!(%error, "leadership could not be given up"),
            Err(_) => tracing::warn!("leadership could not be given up: the database does not answer"),
        }
        Ok(())
    }

    fn unless_fenced(&self, done: Result<bool, Failed>) -> Result<(), JournalError> {
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(JournalError::Fenced { epoch: self.epoch }),
            Err(Failed::Taken) => Err(write("another has written where this coordinator was to")),
            Err(Failed::Refused(why) | Failed::Away(why)) => Err(write(&why)),
        }
    }

    /// Waits a little before the next try, for as long as this coordinator may lead without word.
    async fn wait_for_database(&mut self, why: String) -> Result<(), JournalError> {
        self.connection = None;
        if now_ms() >= self.confirmed_until_ms {
            return Err(JournalError::OutOfTouch { at: self.database.to_string(), why });
        }
        tracing::warn!(why, "the database does not answer; trying again");
        tokio::time::sleep(AGAIN).await;
        Ok(())
    }

    /// Whether this coordinator still leads, and so goes on leading.
    async fn try_renew(&mut self) -> Result<bool, Failed> {
        let asked_ms = now_ms();
        let text = "UPDATE kulprit_leader SET renewed_at = clock_timestamp() WHERE epoch = $1";
        let limit = self.limit();
        let epoch = self.epoch;
        let connection = self.connection().await?;
        let done = in_time(limit, sqlx::query(text).bind(epoch).execute(connection)).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.confirmed_until_ms = until(asked_ms);
        self.renew_at = Instant::now() + RENEW_EVERY;
        Ok(true)
    }

    /// Whether this coordinator still leads, and the facts are kept. The row of the leader is locked
    /// until they are: whoever takes over comes before them, which refuses them, or finds them.
    async fn try_insert(&mut self, batch: &Batch<'_>) -> Result<bool, Failed> {
        let text = "WITH led AS (SELECT epoch FROM kulprit_leader WHERE epoch = $1 FOR SHARE)
            INSERT INTO kulprit_facts (seq, epoch, at_ms, kind, body)
            SELECT fact.seq, led.epoch, fact.at_ms, fact.kind, fact.body
            FROM led, unnest($2::bigint[], $3::bigint[], $4::text[], $5::bytea[])
                AS fact (seq, at_ms, kind, body)";
        let limit = self.limit();
        let epoch = self.epoch;
        let connection = self.connection().await?;
        let inserting = sqlx::query(text)
            .bind(epoch)
            .bind(&batch.seqs)
            .bind(&batch.at_ms)
            .bind(&batch.kinds)
            .bind(&batch.bodies)
            .execute(connection);
        Ok(in_time(limit, inserting).await?.rows_affected() > 0)
    }

    /// Whether all of these facts are there, from an earlier try whose answer was lost.
    async fn try_count(&mut self, batch: &Batch<'_>) -> Result<bool, Failed> {
        let text = "SELECT count(*) FROM kulprit_facts
            JOIN unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS fact (seq, at_ms, body)
                USING (seq, at_ms, body)
            WHERE epoch = $1";
        let limit = self.limit();
        let epoch = self.epoch;
        let connection = self.connection().await?;
        let counting = sqlx::query_scalar(text)
            .bind(epoch)
            .bind(&batch.seqs)
            .bind(&batch.at_ms)
            .bind(&batch.bodies)
            .fetch_one(connection);
        let there: i64 = in_time(limit, counting).await?;
        match there == batch.len() {
            true => Ok(true),
            false => Err(Failed::Taken),
        }
    }

    /// The connection, made anew where it was lost.
    async fn connection(&mut self) -> Result<&mut PgConnection, Failed> {
        if self.connection.is_none() {
            let connecting = self.database.connect();
            let connection = tokio::time::timeout(self.limit(), connecting).await;
            let away = |why: String| Failed::Away(why);
            let connection = connection.map_err(|_| away("no connection in time".into()))?;
            self.connection = Some(connection.map_err(|error| away(error.to_string()))?);
        }
        self.connection.as_mut().ok_or_else(|| Failed::Away("no connection".into()))
    }

    /// What a statement may take. A process that stood still asks once more, to know who leads.
    fn limit(&self) -> Duration {
        match self.confirmed_until_ms.saturating_sub(now_ms()) {
            0 => LAST_TRY,
            left => Duration::from_millis(left).min(ANSWER_LIMIT),
        }
    }
}

async fn in_time<T>(
    limit: Duration,
    talk: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(limit, talk).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(error)) if is_away(&error) => Err(Failed::Away(error.to_string())),
        Ok(Err(sqlx::Error::Database(error))) if error.is_unique_violation() => Err(Failed::Taken),
        Ok(Err(error)) => Err(Failed::Refused(error.to_string())),
        Err(_) => Err(Failed::Away(format!("no answer within {} ms", limit.as_millis()))),
    }
}

/// Facts with their places, as columns.
pub(super) struct Batch<'a> {
    seqs: Vec<i64>,
    at_ms: Vec<i64>,
    kinds: Vec<&'a str>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> Batch<'a> {
    fn new(first: i64, facts: &'a [Fact]) -> Batch<'a> {
        Batch {
            seqs: (first..).take(facts.len()).collect(),
            at_ms: facts.iter().map(|fact| fact.at_ms.cast_signed()).collect(),
            kinds: facts.iter().map(|fact| fact.kind).collect(),
            bodies: facts.iter().map(|fact| fact.body.as_slice()).collect(),
        }
    }

    fn len(&self) -> i64 {
        self.seqs.len() as i64
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

fn write(why: &str) -> JournalError {
    JournalError::Write { why: why.into() }
}

fn now_ms() -> u64 {
    SteadyClock::shared().now_ms()
}

fn until(asked_ms: u64) -> u64 {
    asked_ms + LEADS_FOR.as_millis() as u64
}
