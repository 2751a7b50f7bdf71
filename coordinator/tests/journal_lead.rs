//! One coordinator writes into a shared journal: whoever was taken over from is refused, what was
//! acknowledged is there, and a line that breaks leaves nothing to guess.

mod postgres;

use kulprit_coordinator::journal::{
    Candidate, Database, Fact, Journal, JournalError, LEADS_FOR, Standing, StoredFact,
};
use postgres::{Line, Server, state, url};
use std::path::Path;
use std::time::{Duration, Instant};

fn fact(number: u64) -> Fact {
    Fact { at_ms: number, kind: "test", body: vec![7; 100] }
}

/// A coordinator of this name, by this way to the database.
async fn standing(url: &str, dir: &Path, name: &str) -> Standing {
    let database = Database::parse(url).expect("a URL");
    let mut candidate = Candidate::new(database, &state(dir, name), name.into()).expect("its directory");
    candidate.look().await.expect("an answer")
}

async fn lead(url: &str, dir: &Path, name: &str) -> (Journal, Vec<StoredFact>) {
    for _ in 0..20 {
        match standing(url, dir, name).await {
            Standing::Leads(lead) => {
                let mut facts = Vec::new();
                let journal = Journal::lead(lead, |fact| facts.push(fact)).await.expect("it is read");
                return (journal, facts);
            }
            Standing::StandsBy(other) => panic!("{name} does not lead, {other} does"),
            // A busy machine takes its time.
            Standing::OutOfReach(_) => {}
        }
    }
    panic!("{name} does not reach the database");
}

/// Has the leader seem silent for a moment, in which another takes over.
async fn take_over(server: &Server, database: &str, dir: &Path, name: &str) -> (Journal, Vec<StoredFact>) {
    let url = server.url(database);
    let silent = "UPDATE kulprit_leader SET renewed_at = clock_timestamp() - interval '9 seconds'";
    let mut candidate =
        Candidate::new(Database::parse(&url).expect("a URL"), &state(dir, name), name.into()).expect("ours");
    for _ in 0..100 {
        // The leader may renew it before it is looked at.
        server.execute(database, silent);
        if let Standing::Leads(lead) = candidate.look().await.expect("an answer") {
            let mut facts = Vec::new();
            let journal = Journal::lead(lead, |fact| facts.push(fact)).await.expect("it is read");
            return (journal, facts);
        }
    }
    panic!("{name} does not take over");
}

fn numbers(facts: &[StoredFact]) -> Vec<u64> {
    facts.iter().map(|fact| fact.at_ms).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_was_taken_over_from_writes_nothing_more() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
    let url = server.url(&database);
    let (old, _) = lead(&url, dir.path(), "old").await;
    old.append(vec![fact(1)]).await.unwrap();
    assert!(matches!(standing(&url, dir.path(), "new").await, Standing::StandsBy(name) if name == "old"));
    let (new, facts) = take_over(server, &database, dir.path(), "new").await;
    assert_eq!(numbers(&facts), [1]);
    let refused = old.append(vec![fact(2)]).await.unwrap_err();
    assert!(matches!(refused, JournalError::Fenced { epoch: 1 }), "{refused}");
    assert!(matches!(old.broken().await, JournalError::Fenced { epoch: 1 }));
    assert!(matches!(old.append(vec![fact(2)]).await, Err(JournalError::Fenced { .. })), "for good");
    new.append(vec![fact(3)]).await.unwrap();
    new.close().await.unwrap();
    let (_, facts) = lead(&url, dir.path(), "third").await;
    assert_eq!(numbers(&facts), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_learns_by_itself_that_it_was_taken_over_from() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
    let url = server.url(&database);
    let (old, _) = lead(&url, dir.path(), "old").await;
    old.confirm().await.expect("it leads");
    let _new = take_over(server, &database, dir.path(), "new").await;
    let why = tokio::time::timeout(Duration::from_secs(30), old.broken()).await.expect("soon");
    assert!(matches!(why, JournalError::Fenced { epoch: 1 }), "{why}");
    assert!(why.to_string().contains("another coordinator leads"), "{why}");
    assert!(old.confirm().await.is_err());
}

/// Whatever moment one is taken over from: what it was told is durable, its successor has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn taking_over_from_a_busy_leader_loses_nothing_acknowledged() {
    let Some(server) = postgres::server() else { return };
    for round in 0..8u64 {
        let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
        let url = server.url(&database);
        let (old, _) = lead(&url, dir.path(), "old").await;
        let writers = (0..4u64).map(|writer| {
            let old = old.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    match old.append(vec![fact(writer + 4 * number)]).await {
                        Ok(()) => acknowledged.push(writer + 4 * number),
                        Err(JournalError::Fenced { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(50 + 7 * round)).await;
        let (new, facts) = take_over(server, &database, dir.path(), "new").await;
        let read: std::collections::BTreeSet<u64> = numbers(&facts).into_iter().collect();
        let mut count = 0;
        for writer in writers {
            let acknowledged = writer.await.unwrap();
            count += acknowledged.len();
            let lost: Vec<_> = acknowledged.iter().filter(|number| !read.contains(number)).collect();
            assert!(lost.is_empty(), "acknowledged and not read: {lost:?}");
        }
        assert!(count > 0, "nothing was written meanwhile");
        new.append(vec![fact(0)]).await.unwrap();
        new.close().await.unwrap();
    }
}

/// The answer to a commit is lost: the fact is there once, and the caller is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_answer_is_lost_is_found_out_about() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
    let line = Line::to(server);
    let (journal, _) = lead(&url(line.port, &database), dir.path(), "it").await;
    for number in 0..5 {
        line.lose_next_answer();
        journal.append(vec![fact(10 * number), fact(10 * number + 1)]).await.expect("kept all the same");
        line.mend();
        journal.append(vec![fact(10 * number + 2)]).await.expect("and on");
    }
    journal.close().await.unwrap();
    let (_, facts) = lead(&server.url(&database), dir.path(), "other").await;
    let expected: Vec<u64> = (0..5).flat_map(|it| [10 * it, 10 * it + 1, 10 * it + 2]).collect();
    assert_eq!(numbers(&facts), expected);
    assert_eq!(facts.iter().map(|fact| fact.seq).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_away_for_a_moment_is_waited_for() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
    let line = Line::to(server);
    let (journal, _) = lead(&url(line.port, &database), dir.path(), "it").await;
    line.cut();
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(vec![fact(1)]).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!appending.is_finished(), "nothing is acknowledged meanwhile");
    line.mend();
    appending.await.unwrap().expect("it is back");
    journal.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_out_of_touch_ends_before_another_may_lead() {
    let Some(server) = postgres::server() else { return };
    for silent in [false, true] {
        let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
        let line = Line::to(server);
        let (old, _) = lead(&url(line.port, &database), dir.path(), "old").await;
        old.append(vec![fact(1)]).await.unwrap();
        let cut = Instant::now();
        if silent {
            line.silence()
        } else {
            line.cut()
        }
        let refused = old.append(vec![fact(2)]).await.unwrap_err();
        let ended = cut.elapsed();
        assert!(matches!(refused, JournalError::OutOfTouch { .. }), "{refused}");
        assert!(ended < LEADS_FOR + Duration::from_secs(3), "{ended:?}");
        // What was on its way may still arrive, before the next one leads or never.
        line.mend();
        let mut tries = 0;
        let facts = loop {
            if let Standing::Leads(lead) = standing(&server.url(&database), dir.path(), "new").await {
                let mut facts = Vec::new();
                Journal::lead(lead, |fact| facts.push(fact)).await.unwrap();
                break facts;
            }
            tries += 1;
            assert!(tries < 100, "nobody takes over");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        println!("out of touch after {ended:?}, taken over after {:?}", cut.elapsed());
        assert!([&[1][..], &[1, 2]].contains(&&numbers(&facts)[..]), "{facts:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(server.facts_kept(&database), facts.len(), "and nothing comes later");
    }
}

/// The database's clock may be set back; then silence is counted by the one that stands by.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_silent_leader_is_noticed_whatever_the_database_takes_the_time_for() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().unwrap());
    let url = server.url(&database);
    let _ = lead(&url, dir.path(), "old").await.0.close().await;
    server.execute(&database, "UPDATE kulprit_leader SET renewed_at = clock_timestamp() + interval '1 hour'");
    let at = Database::parse(&url).unwrap();
    let mut candidate = Candidate::new(at, &state(dir.path(), "new"), "new".into()).unwrap();
    let begun = Instant::now();
    while !matches!(candidate.look().await.unwrap(), Standing::Leads(_)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody takes over");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_password_comes_from_a_file_and_is_needed() {
    let Some(server) = postgres::server() else { return };
    let database = server.database();
    server.execute(&database, "CREATE ROLE guarded LOGIN PASSWORD 'a long secret'");
    server.execute(&database, &format!("ALTER DATABASE {database} OWNER TO guarded"));
    server.ask_password_of("guarded");
    let url = format!("postgres://guarded@127.0.0.1:{}/{database}", server.port);
    let run = |passfile: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        std::fs::write(&file, passfile).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kulprit-coordinator"));
        command.args(["backup", "--journal", &url]).arg(dir.path().join("copy"));
        command.env("PGPASSFILE", &file).env_remove("PGPASSWORD").env("KULPRIT_LOG", "trace");
        command.output().expect("it runs")
    };
    let output = run("127.0.0.1:*:*:guarded:a long secret\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("secret"), "{said}");
    let output = run("127.0.0.1:*:*:guarded:another secret\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("secret"), "{said}");
    assert!(said.contains("password authentication failed"), "{said}");
}
