//! The journal loses nothing it acknowledged, keeps the order, and has one owner.

use kulprit_coordinator::journal::{Fact, Journal, JournalError, StoredFact};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the child process of the test of a torn process: where it shall write.
const CHILD: &str = "KULPRIT_TEST_JOURNAL";

fn fact(number: u64) -> Fact {
    Fact { at_ms: number, kind: "test", body: number.to_be_bytes().to_vec() }
}

async fn open(path: &Path) -> Result<(Journal, Vec<StoredFact>), JournalError> {
    let mut facts = Vec::new();
    let journal = Journal::open(path, |fact| facts.push(fact)).await?;
    Ok((journal, facts))
}

async fn reopen(path: &Path) -> Vec<u64> {
    let (journal, facts) = open(path).await.expect("opens again");
    journal.close().await.expect("closes");
    facts.iter().map(|fact| fact.at_ms).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_share_transactions_and_are_all_durable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = open(&path).await.unwrap();
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
    println!("1000 appends in {} transactions", committed.transactions);
    assert_eq!(committed.facts, 1000);
    assert!(committed.transactions <= 200, "{committed:?}");
    journal.close().await.unwrap();

    let kept = reopen(&path).await;
    for caller in 0..50 {
        let own: Vec<u64> = kept.iter().copied().filter(|number| number / 20 == caller).collect();
        assert_eq!(own, (caller * 20..caller * 20 + 20).collect::<Vec<_>>(), "in the caller's order");
    }
}

#[tokio::test]
async fn facts_come_back_as_they_were_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, facts) = open(&path).await.unwrap();
    assert_eq!(facts, []);
    journal.append(vec![fact(9), fact(3)]).await.unwrap();
    journal.append(vec![]).await.unwrap();
    journal.append(vec![Fact { at_ms: u64::MAX, kind: "other", body: vec![] }]).await.unwrap();
    journal.close().await.unwrap();
    assert!(matches!(journal.append(vec![fact(1)]).await, Err(JournalError::Closed)));

    let (journal, facts) = open(&path).await.unwrap();
    let expected = [(1, 9, "test", 8), (2, 3, "test", 8), (3, u64::MAX, "other", 0)];
    let seen: Vec<_> = facts.iter().map(|f| (f.seq, f.at_ms, f.kind.as_str(), f.body.len())).collect();
    assert_eq!(seen, expected);
    journal.append(vec![fact(7)]).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(reopen(&path).await, [9, 3, u64::MAX, 7]);
}

#[tokio::test]
async fn a_second_owner_is_refused_by_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = open(&path).await.unwrap();
    let refused = open(&path).await.err().expect("is refused");
    let pid = std::process::id();
    assert!(refused.to_string().ends_with(&format!("process {pid} is already using it")), "{refused}");
    journal.close().await.unwrap();
    assert!(open(&path).await.is_ok(), "closing lets go");
}

#[tokio::test]
async fn newer_and_foreign_files_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    open(&path).await.unwrap().0.close().await.unwrap();
    change(&path, "PRAGMA user_version = 2").await;
    let refused = open(&path).await.err().expect("newer");
    assert!(matches!(refused, JournalError::NewerSchema { found: 2, .. }), "{refused}");

    let other = dir.path().join("other");
    change(&other, "CREATE TABLE theirs (x)").await;
    assert!(matches!(open(&other).await, Err(JournalError::Foreign { .. })));

    let text = dir.path().join("text");
    std::fs::write(&text, "not a database at all, but long enough to have a header".repeat(10)).unwrap();
    assert!(matches!(open(&text).await, Err(JournalError::Open { .. })));
}

async fn change(path: &Path, statement: &'static str) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A write that fails ends the journal: no later append may seem to succeed.
#[tokio::test]
async fn a_failed_write_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    open(&path).await.unwrap().0.close().await.unwrap();
    change(&path, "CREATE TRIGGER full BEFORE INSERT ON facts WHEN NEW.at_ms = 13 BEGIN SELECT RAISE(ABORT, 'disk full'); END").await;
    let (journal, _) = open(&path).await.unwrap();
    journal.append(vec![fact(1)]).await.unwrap();
    let failed = journal.append(vec![fact(2), fact(13)]).await.unwrap_err();
    assert!(failed.to_string().contains("disk full"), "{failed}");
    assert!(matches!(journal.append(vec![fact(3)]).await, Err(JournalError::Write { .. })));
    drop(journal);
    // The writer's task lets go of the lock on its own time.
    for _ in 0..100 {
        match open(&path).await {
            Ok((_, facts)) => {
                assert_eq!(facts.iter().map(|fact| fact.at_ms).collect::<Vec<_>>(), [1]);
                return;
            }
            Err(JournalError::InUse { .. }) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock was never let go");
}

/// Not a test of its own: the process that `a_killed_process_loses_nothing_acknowledged` kills.
#[tokio::test]
async fn child_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (journal, _) = open(Path::new(&path)).await.unwrap();
    let mut number = 0;
    loop {
        journal.append(vec![fact(number), fact(number + 1)]).await.unwrap();
        println!("acknowledged {}", number + 1);
        number += 2;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = dir.path().join(format!("journal{round}"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = 0;
        // Read on a little, then kill, then drain what it managed to say before it died.
        let wanted = 40 + round * 17;
        let mut seen = 0;
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            if let Some((_, number)) = line.split_once("acknowledged ")
                && let Ok(number) = number.parse::<u64>()
            {
                last = number;
                seen += 1;
            }
            if seen >= wanted && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let kept = reopen(&path).await;
        assert!(kept.len() as u64 > last, "acknowledged up to {last}, kept {}", kept.len());
        assert_eq!(kept.len() % 2, 0, "an append is all or nothing");
        assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
    }
}
