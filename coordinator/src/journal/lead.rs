//! Who may write into a journal that several coordinators share: the one that leads, for as long as
//! the database confirms it.
//!
//! A row names the leader and its epoch. The leader renews it; one that stands by takes over where
//! that has not happened for longer than a leader goes on without. Each append asks the row, under a
//! lock, whether the epoch is still its own.

use super::database::{ANSWER_LIMIT, Database, is_away};
use super::lock::Lock;
use super::{Fact, JournalError};
use kulprit_proto::tls::SteadyClock;
use sqlx::postgres::PgConnection;
use std::time::Duration;
use tokio::time::Instant;

const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long a leader goes on without being confirmed, counted from before it asked.
pub const LEADS_FOR: Duration = Duration::from_secs(7);
/// Silence after which another takes over. The difference is for clocks that run differently.
pub const SILENCE: Duration = Duration::from_secs(8);
/// Between two tries to reach a database that has gone away.
const AGAIN: Duration = Duration::from_millis(200);
/// What a last try may take, once leadership has not been confirmed in time.
const LAST_TRY: Duration = Duration::from_secs(1);
/// What giving leadership up may take.
const RESIGN_LIMIT: Duration = Duration::from_secs(1);

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
    /// Confirmed by an answer to what was asked at `asked_ms`, by the steady clock.
    pub(super) fn new(
        database: Database,
        connection: PgConnection,
        epoch: i64,
        next_seq: i64,
        asked_ms: u64,
        lock: Option<Lock>,
    ) -> Lead {
        Lead {
            database,
            connection: Some(connection),
            epoch,
            next_seq,
            confirmed_until_ms: until(asked_ms),
            renew_at: Instant::now() + RENEW_EVERY,
            _lock: lock,
        }
    }

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

fn write(why: &str) -> JournalError {
    JournalError::Write { why: why.into() }
}

pub(super) fn now_ms() -> u64 {
    SteadyClock::shared().now_ms()
}

fn until(asked_ms: u64) -> u64 {
    asked_ms + LEADS_FOR.as_millis() as u64
}
