//! The database that keeps a journal for several coordinators: how it is named and reached, and its
//! tables. Who may write into them is `lead`'s business.

use super::{JournalError, StoredFact};
use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;
use url::{Host, Url};

/// Each step makes the layout of the version before into the next; their number is the version.
/// Coordinators of the version before may be at work while a step is made.
const STEPS: [&str; 1] = ["
    CREATE TABLE kulprit_facts (
        seq BIGINT PRIMARY KEY,
        epoch BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        kind TEXT NOT NULL,
        body BYTEA NOT NULL
    );
    CREATE TABLE kulprit_leader (
        one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
        epoch BIGINT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        renewed_at TIMESTAMPTZ NOT NULL
    );
    INSERT INTO kulprit_leader (epoch, id, name, renewed_at) VALUES (0, '', '', '-infinity');
"];
pub(super) const SCHEMA_VERSION: i64 = STEPS.len() as i64;

/// Held while tables are made, so that two coordinators started at once make them once: "Kulp".
const MAKING_TABLES: i64 = 0x4b75_6c70;

/// A database that does not answer in this time is out of reach.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What may lie between two facts that are read; the first comes after the database has looked them up.
const FACT_LIMIT: Duration = Duration::from_secs(60);

/// Where a database is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Database {
    options: Box<PgConnectOptions>,
    /// The URL, which holds no password.
    shown: String,
}

impl Database {
    /// Reads `postgres://USER@HOST/DATABASE`; a password comes from PGPASSFILE or PGPASSWORD.
    pub fn parse(text: &str) -> Result<Database, JournalError> {
        let bad = |why: String| JournalError::BadUrl { why };
        let url = Url::parse(text)
            .map_err(|error| bad(format!("not a URL ({error}); write postgres://USER@HOST/DATABASE")))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(bad(format!("{:?} is no store for a journal; write postgres://", url.scheme())));
        }
        if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
            return Err(bad("it holds a password, which others could read on the command line; \
                 put that into the file that PGPASSFILE names, or into PGPASSWORD"
                .into()));
        }
        let mut options = PgConnectOptions::from_str(text).map_err(|error| bad(error.to_string()))?;
        let says_how = url.query_pairs().any(|(key, _)| ["sslmode", "ssl-mode"].contains(&&*key));
        if !says_how && std::env::var_os("PGSSLMODE").is_none() && !is_here(&url) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        let options = options.application_name("kulprit-coordinator").disable_statement_logging();
        Ok(Database { options: Box::new(options), shown: text.to_owned() })
    }

    /// Connects, and sees to it that what is committed is on disk.
    pub(super) async fn connect(&self) -> Result<PgConnection, JournalError> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            let row = sqlx::query(
                "SELECT current_setting('fsync'), set_config('synchronous_commit',
                     CASE current_setting('synchronous_commit')
                         WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)",
            )
            .fetch_one(&mut connection)
            .await?;
            Ok::<_, sqlx::Error>((connection, row.try_get::<String, _>(0)?))
        };
        let (connection, fsync) = self.in_time(connecting).await?;
        if fsync != "on" {
            let why = "fsync is off in its settings, so that it may lose what it has confirmed".into();
            return Err(JournalError::Open { at: self.shown.clone(), why });
        }
        Ok(connection)
    }

    /// Bounds a conversation, and tells what is out of reach from what is refused.
    pub(super) async fn in_time<T>(
        &self,
        talk: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, JournalError> {
        match tokio::time::timeout(ANSWER_LIMIT, talk).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) if is_away(&error) => Err(self.out_of_reach(error.to_string())),
            Ok(Err(error)) => Err(JournalError::Open { at: self.shown.clone(), why: error.to_string() }),
            Err(_) => Err(self.out_of_reach(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
    }

    fn out_of_reach(&self, why: String) -> JournalError {
        JournalError::OutOfReach { at: self.shown.clone(), why }
    }

    /// Makes what tables are missing; refuses what a newer kulprit made.
    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), JournalError> {
        let found = self.in_time(make_tables(connection)).await?;
        match found > SCHEMA_VERSION {
            true => Err(JournalError::NewerSchema { at: self.shown.clone(), found, known: SCHEMA_VERSION }),
            false => Ok(()),
        }
    }

    /// What the facts take there.
    pub(super) async fn size(&self) -> Result<u64, JournalError> {
        let mut connection = self.connect().await?;
        let text = "SELECT pg_total_relation_size('kulprit_facts')";
        let bytes: i64 = self.in_time(sqlx::query_scalar(text).fetch_one(&mut connection)).await?;
        Ok(bytes.cast_unsigned())
    }

    /// Hands every fact to `replay`, in order, as they are at one moment.
    pub(super) async fn read_all(&self, replay: impl FnMut(StoredFact)) -> Result<(), JournalError> {
        let mut connection = self.connect().await?;
        let failed =
            |error: sqlx::Error| JournalError::Open { at: self.shown.clone(), why: error.to_string() };
        read_all(&mut connection, replay).await.map_err(failed)?;
        // What was read is read.
        let _ = connection.close().await;
        Ok(())
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Whether what is said to it stays on this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        None => true,
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // An address too, in a URL of this scheme; a socket's path with its slashes escaped.
        Some(Host::Domain(name)) => {
            let is_loopback = name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
            is_loopback || name.is_empty() || name == "localhost" || name.starts_with("%2F")
        }
    }
}

/// Whether the same may succeed with a new connection: the database cannot be reached, is starting
/// or stopping, has no room, or is no longer the one that takes writes.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // A certificate that is not to be trusted stays so.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "40", "53300", "57P", "25006"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Yields the version that was found, if there was any, and is there otherwise.
async fn make_tables(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAKING_TABLES).execute(&mut *transaction).await?;
    let is_new: bool = sqlx::query_scalar("SELECT to_regclass('kulprit_schema') IS NULL")
        .fetch_one(&mut *transaction)
        .await?;
    if is_new {
        let text = "CREATE TABLE kulprit_schema (version BIGINT NOT NULL);
             INSERT INTO kulprit_schema VALUES (0)";
        sqlx::raw_sql(text).execute(&mut *transaction).await?;
    }
    let found: i64 =
        sqlx::query_scalar("SELECT version FROM kulprit_schema").fetch_one(&mut *transaction).await?;
    let done = usize::try_from(found).unwrap_or_default();
    for step in STEPS.iter().skip(done) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    if found < SCHEMA_VERSION {
        sqlx::query("UPDATE kulprit_schema SET version = $1")
            .bind(SCHEMA_VERSION)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(found.max(SCHEMA_VERSION))
}

/// In the order of their places.
pub(super) const ALL_FACTS: &str = "SELECT seq, at_ms, kind, body FROM kulprit_facts ORDER BY seq";

async fn read_all(
    connection: &mut PgConnection,
    mut replay: impl FnMut(StoredFact),
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(ALL_FACTS).fetch(connection);
    let late = |_| sqlx::Error::Protocol(format!("no fact came for {} s", FACT_LIMIT.as_secs()));
    while let Some(row) = tokio::time::timeout(FACT_LIMIT, rows.try_next()).await.map_err(late)?? {
        replay(read_columns(&row)?);
    }
    Ok(())
}

pub(super) fn read_columns(row: &PgRow) -> Result<StoredFact, sqlx::Error> {
    Ok(StoredFact {
        seq: row.try_get(0)?,
        at_ms: row.try_get::<i64, _>(1)?.cast_unsigned(),
        kind: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_secrets_are_read() {
        for (text, refused) in [
            ("postgres://kulprit@db.example.org/farm", None),
            ("postgresql://kulprit@127.0.0.1:5433/farm?sslmode=disable", None),
            ("postgres://%2Frun%2Fpostgresql/farm", None),
            ("postgres:///farm?host=/run/postgresql", None),
            ("postgres://kulprit:secret@db/farm", Some("PGPASSFILE")),
            ("postgres://kulprit@db/farm?password=secret", Some("PGPASSFILE")),
            ("postgres://kulprit@db/farm?sslmode=maybe", Some("maybe")),
            ("mysql://db/farm", Some("write postgres://")),
            ("/var/lib/journal", Some("not a URL")),
        ] {
            let parsed = Database::parse(text);
            match (parsed, refused) {
                (Ok(database), None) => assert_eq!(database.to_string(), text),
                (Err(error), Some(words)) => {
                    let error = error.to_string();
                    assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
                }
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_it_is_said_otherwise() {
        let mode = |text: &str| Database::parse(text).expect("a URL").options.get_ssl_mode();
        assert!(matches!(mode("postgres://a@db.example.org/farm"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://a@db.example.org/farm?sslmode=require"), PgSslMode::Require));
        assert!(matches!(mode("postgres://a@127.0.0.1/farm"), PgSslMode::Prefer));
        assert!(matches!(mode("postgres://%2Frun%2Fpostgresql/farm"), PgSslMode::Prefer));
    }
}
