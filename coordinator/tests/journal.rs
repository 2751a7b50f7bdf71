//! The journal loses nothing it acknowledged, keeps the order, and has one owner: in a file and in a
//! database alike.

mod postgres;

use kulprit_coordinator::journal::{
    self, BackupError, Candidate, Database, Fact, Journal, JournalError, Place, Standing, StoredFact,
};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the child process of the test of a torn process: its directory, and its database if any.
const CHILD: &str = "KULPRIT_TEST_JOURNAL";
const CHILD_DATABASE: &str = "KULPRIT_TEST_JOURNAL_DATABASE";

fn fact(number: u64) -> Fact {
    Fact { at_ms: number, kind: "test", body: number.to_be_bytes().to_vec() }
}

/// A journal to be, of either kind.
struct Bed {
    state: PathBuf,
    place: Place,
    _dir: Option<tempfile::TempDir>,
}

impl Bed {
    fn file() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(None, dir.path()).unwrap();
        Bed { state: dir.path().into(), place, _dir: Some(dir) }
    }

    fn database(url: &str) -> Bed {
        Bed { place: Place::new(Some(url), Path::new("")).unwrap(), ..Bed::file() }
    }

    /// One of each kind that there is on this machine.
    fn each() -> Vec<Bed> {
        let database = postgres::server().map(|server| Bed::database(&server.url(&server.database())));
        std::iter::once(Bed::file()).chain(database).collect()
    }

    /// Another owner of the same journal, on another machine if that may be.
    fn other(&self) -> Bed {
        match &self.place {
            Place::File(_) => Bed { state: self.state.clone(), place: self.place.clone(), _dir: None },
            Place::Database(_) => Bed { place: self.place.clone(), ..Bed::file() },
        }
    }

    async fn open(&self) -> Result<(Journal, Vec<StoredFact>), JournalError> {
        let mut facts = Vec::new();
        let each = |fact| facts.push(fact);
        let journal = match &self.place {
            Place::File(path) => Journal::open(path, each).await?,
            Place::Database(database) => {
                let mut candidate = candidate(database, &self.state)?;
                let standing = loop {
                    match candidate.look().await? {
                        // A busy machine takes its time.
                        Standing::OutOfReach(_) => {}
                        standing => break standing,
                    }
                };
                match standing {
                    Standing::Leads(lead) => Journal::lead(lead, each).await?,
                    Standing::StandsBy(why) | Standing::OutOfReach(why) => {
                        return Err(JournalError::InUse { path: self.state.clone(), pid: why });
                    }
                }
            }
        };
        Ok((journal, facts))
    }

    async fn kept(&self) -> Vec<u64> {
        let (journal, facts) = self.open().await.expect("opens again");
        journal.close().await.expect("closes");
        facts.iter().map(|fact| fact.at_ms).collect()
    }

    /// Tampers with it.
    async fn change(&self, file: &'static str, database: &'static str) {
        use sqlx::{ConnectOptions as _, Connection as _};
        match &self.place {
            Place::File(path) => {
                let options =
                    sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let mut connection = options.connect().await.unwrap();
                sqlx::raw_sql(file).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Database(at) => {
                let mut connection = sqlx::PgConnection::connect(&at.to_string()).await.unwrap();
                sqlx::raw_sql(database).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}

fn candidate(database: &Database, state: &Path) -> Result<Candidate, JournalError> {
    Candidate::new(database.clone(), state, format!("http://{}", state.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_share_transactions_and_are_all_durable() {
    for bed in Bed::each() {
        let (journal, _) = bed.open().await.unwrap();
        let callers = (0..50).map(|caller| {
            let journal = journal.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    journal.append(vec![fact(caller * 20 + i)]).await.expect("appends");
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        let committed = journal.committed();
        println!("1000 appends in {} transactions: {}", committed.transactions, bed.place);
        assert_eq!(committed.facts, 1000);
        assert!(committed.transactions <= 200, "{committed:?}");
        journal.close().await.unwrap();

        let kept = bed.kept().await;
        for caller in 0..50 {
            let own: Vec<u64> = kept.iter().copied().filter(|number| number / 20 == caller).collect();
            assert_eq!(own, (caller * 20..caller * 20 + 20).collect::<Vec<_>>(), "in the caller's order");
        }
    }
}

#[tokio::test]
async fn facts_come_back_as_they_were_in_order() {
    for bed in Bed::each() {
        let (journal, facts) = bed.open().await.unwrap();
        assert_eq!(facts, []);
        journal.append(vec![fact(9), fact(3)]).await.unwrap();
        journal.append(vec![]).await.unwrap();
        journal.append(vec![Fact { at_ms: u64::MAX, kind: "other", body: vec![] }]).await.unwrap();
        journal.close().await.unwrap();
        assert!(matches!(journal.append(vec![fact(1)]).await, Err(JournalError::Closed)));

        let (journal, facts) = bed.open().await.unwrap();
        let expected = [(1, 9, "test", 8), (2, 3, "test", 8), (3, u64::MAX, "other", 0)];
        let seen: Vec<_> = facts.iter().map(|f| (f.seq, f.at_ms, f.kind.as_str(), f.body.len())).collect();
        assert_eq!(seen, expected);
        journal.append(vec![fact(7)]).await.unwrap();
        journal.close().await.unwrap();
        assert_eq!(bed.kept().await, [9, 3, u64::MAX, 7]);
    }
}

#[tokio::test]
async fn a_second_owner_is_refused_by_the_name_of_the_first() {
    for bed in Bed::each() {
        let (journal, _) = bed.open().await.unwrap();
        let other = bed.other();
        let refused = other.open().await.err().expect("is refused").to_string();
        let name = match &bed.place {
            Place::File(_) => std::process::id().to_string(),
            Place::Database(_) => bed.state.display().to_string(),
        };
        assert!(refused.ends_with(&format!("{name} is already using it")), "{refused}");
        // The same state directory has one owner, wherever the journal is.
        let refused = bed.open().await.err().expect("is refused").to_string();
        assert!(
            refused.ends_with(&format!("process {} is already using it", std::process::id())),
            "{refused}"
        );
        journal.close().await.unwrap();
        drop(journal);
        assert!(other.open().await.is_ok(), "closing lets go at once");
    }
}

#[tokio::test]
async fn newer_journals_are_refused_untouched() {
    for bed in Bed::each() {
        bed.open().await.unwrap().0.close().await.unwrap();
        bed.change("PRAGMA user_version = 2", "UPDATE kulprit_schema SET version = 2").await;
        let refused = bed.open().await.err().expect("newer");
        assert!(matches!(refused, JournalError::NewerSchema { found: 2, .. }), "{refused}");
        assert!(refused.to_string().ends_with("upgrade kulprit"), "{refused}");
        bed.change("PRAGMA user_version = 1", "UPDATE kulprit_schema SET version = 1").await;
        assert!(bed.open().await.is_ok());
    }
}

#[tokio::test]
async fn foreign_files_are_refused_untouched() {
    let other = Bed::file();
    other.change("CREATE TABLE theirs (x)", "").await;
    assert!(matches!(other.open().await, Err(JournalError::Foreign { .. })));

    let text = Bed::file();
    let words = "not a database at all, but long enough to have a header".repeat(10);
    std::fs::write(journal::file_in(&text.state), words).unwrap();
    assert!(matches!(text.open().await, Err(JournalError::Open { .. })));
}

/// A write that fails ends the journal: no later append may seem to succeed.
#[tokio::test]
async fn a_failed_write_is_final() {
    for bed in Bed::each() {
        bed.open().await.unwrap().0.close().await.unwrap();
        let file = "CREATE TRIGGER full BEFORE INSERT ON facts WHEN NEW.at_ms = 13 BEGIN SELECT RAISE(ABORT, 'disk full'); END";
        let database = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.at_ms = 13 THEN RAISE 'disk full'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON kulprit_facts
             FOR EACH ROW EXECUTE FUNCTION full_disk()";
        bed.change(file, database).await;
        let (journal, _) = bed.open().await.unwrap();
        journal.append(vec![fact(1)]).await.unwrap();
        let failed = journal.append(vec![fact(2), fact(13)]).await.unwrap_err();
        assert!(failed.to_string().contains("disk full"), "{failed}");
        assert!(matches!(journal.append(vec![fact(3)]).await, Err(JournalError::Write { .. })));
        assert!(matches!(journal.broken().await, JournalError::Write { .. }));
        drop(journal);
        // The writer's task lets go of the lock on its own time.
        let mut tries = 0;
        let facts = loop {
            match bed.open().await {
                Ok((_, facts)) => break facts,
                Err(JournalError::InUse { .. }) if tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(facts.iter().map(|fact| fact.at_ms).collect::<Vec<_>>(), [1]);
    }
}

/// Not a test of its own: the process that `a_killed_process_loses_nothing_acknowledged` kills.
#[tokio::test]
async fn child_writes_until_killed() {
    let Some(state) = std::env::var_os(CHILD) else { return };
    let url = std::env::var(CHILD_DATABASE).ok();
    let place = Place::new(url.as_deref(), Path::new(&state)).unwrap();
    let bed = Bed { state: state.into(), place, _dir: None };
    let (journal, facts) = bed.open().await.unwrap();
    let mut number = facts.len() as u64;
    loop {
        journal.append(vec![fact(number), fact(number + 1)]).await.unwrap();
        println!("acknowledged {}", number + 1);
        number += 2;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    for bed in Bed::each() {
        for round in 0..3 {
            let last = kill_a_writer(&bed, 40 + round * 17);
            let kept = bed.kept().await;
            assert!(kept.len() as u64 > last, "acknowledged up to {last}, kept {}", kept.len());
            assert_eq!(kept.len() % 2, 0, "an append is all or nothing");
            assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
        }
    }
}

/// Kills a process after so many appends; yields the last number that was acknowledged to it.
fn kill_a_writer(bed: &Bed, appends: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_writes_until_killed", "--nocapture"]).env(CHILD, &bed.state);
    if let Place::Database(database) = &bed.place {
        command.env(CHILD_DATABASE, database.to_string());
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut last, mut seen, mut killed) = (0, 0, false);
    // What it managed to say before it died is read to the end.
    while let Some(Ok(line)) = lines.next() {
        if let Some((_, number)) = line.split_once("acknowledged ")
            && let Ok(number) = number.parse::<u64>()
        {
            last = number;
            seen += 1;
        }
        if seen >= appends && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    last
}

#[tokio::test]
async fn copies_lead_from_either_kind_to_either_kind() {
    for from in Bed::each() {
        let (journal, _) = from.open().await.unwrap();
        journal.append((0..2500).map(fact).collect()).await.unwrap();
        let copy = from.state.join("copy");
        let saved = journal::save(&from.place, &copy).await.expect("copied while it is written");
        assert_eq!((saved.facts, saved.last_at_ms), (2500, 2499));
        assert!(matches!(journal::save(&from.place, &copy).await, Err(BackupError::Exists(_))));
        let refused = restore(&copy, &from.place).await.expect_err("it is led").to_string();
        assert!(refused.contains("using it") || refused.contains("uses it"), "{refused}");
        journal.append(vec![fact(9999)]).await.unwrap();
        journal.close().await.unwrap();
        drop(journal);
        let refused = restore(&copy, &from.place).await.expect_err("it is full").to_string();
        assert!(refused.contains("already"), "{refused}");
        for to in Bed::each() {
            restore(&copy, &to.place).await.expect("restored");
            let (journal, facts) = to.open().await.unwrap();
            let expected: Vec<(i64, u64)> = (1..).zip((0..2500).chain([7_000])).collect();
            assert_eq!(facts.iter().map(|it| (it.seq, it.at_ms)).collect::<Vec<_>>(), expected);
            journal.append(vec![fact(1)]).await.unwrap();
            journal.close().await.unwrap();
        }
    }
}

async fn restore(copy: &Path, place: &Place) -> Result<journal::Saved, BackupError> {
    journal::restore(copy, place, |_| (), || Ok(vec![fact(7_000)])).await
}
