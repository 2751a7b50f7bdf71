//! Copies of the journal: made while it is written, complete, and good to go on from.

mod farm;

use farm::hands::{Hand, World};
use farm::planted::{Planted, Shape};
use farm::{Farm, command, facts_of, text, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_coordinator::journal::{Fact as Kept, Journal};
use kulprit_proto::journal as wire;
use kulprit_proto::tls::Link;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const NOBODY: u32 = 65534;

fn backup(verb: &str, state: &Path, file: &Path) -> Output {
    let mut command = command("kulprit-coordinator");
    command.arg(verb).arg("--state").arg(state).arg(file).output().expect("it runs")
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(output: &Output, words: &str) {
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{words:?} is not in: {said}");
}

/// The lives of a coordinator that a journal tells of.
fn epochs(facts: &[Fact]) -> Vec<u32> {
    let epoch = |fact: &Fact| match fact {
        Fact::EpochStarted { epoch } => Some(*epoch),
        _ => None,
    };
    facts.iter().filter_map(epoch).collect()
}

/// Of the attempts that yielded something.
fn attempts(facts: &[Fact]) -> Vec<u64> {
    let attempt = |fact: &Fact| match fact {
        Fact::ItemFinished { attempt, .. } => Some(attempt.0),
        _ => None,
    };
    facts.iter().filter_map(attempt).collect()
}

#[test]
fn a_copy_made_in_the_middle_of_a_job_is_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let shape = Shape { commits: 40, culprit: 17, build_s: 0, build_mib: 0 };
    let planted = Planted::new(dir.path(), shape);
    let culprit = planted.culprit.to_string();
    let file = planted.job("kept");
    let world = World::new(planted);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let link = Link::plain(&farm.url()).expect("a link");
    let hands = ["h1", "h2"].map(|name| {
        let hand = Hand::new(name, link.clone(), &world, Duration::from_millis(100));
        runtime.spawn(hand.work())
    });
    assert!(farm.kulprit(&["bisect", "start", &file.to_string_lossy()]).status.success());
    wait_for("some work to be done", SOON, || world.with_seen(|seen| seen.answered.len() > 8));
    let state = farm.state.join("coordinator");
    let copy = dir.path().join("copy.sqlite");
    let said = done(&backup("backup", &state, &copy));
    assert!(said.contains("copy.sqlite: ") && said.contains(" facts, the last one "), "{said}");
    refused(&backup("backup", &state, &copy), "it is there already");
    refused(&backup("restore", &state, &copy), "is already using it");
    let later = world.with_seen(|seen| seen.answered.len());
    wait_for("more to be done", SOON, || world.with_seen(|seen| seen.answered.len() > later + 3));
    // The machine is lost, with all that came after the copy.
    coordinator.kill9();
    refused(&backup("restore", &state, &copy), "it is there already");
    let artifacts = state.join("artifacts");
    let new = Farm { port: farm.port, ..Farm::new(&dir.path().join("new")) };
    let before = facts_of(&copy);
    let lost = facts_of(&state.join("journal.sqlite"));
    assert!(before.len() < lost.len() && lost[..before.len()] == before[..], "{}", before.len());
    done(&backup("restore", &new.state.join("coordinator"), &copy));
    let mut coordinator = new.coordinator_with(|command| {
        command.arg("--artifacts").arg(&artifacts);
    });
    wait_for("the end of the job", SOON, || {
        new.json(&["bisect", "list"])[0]["ending"]["culprit"] == culprit.as_str()
    });
    hands.iter().for_each(tokio::task::JoinHandle::abort);
    coordinator.stop();
    let facts = new.facts();
    let lives = epochs(&facts);
    assert!(lives.windows(2).all(|pair| pair[0] < pair[1]), "{lives:?}");
    let granted = attempts(&facts[before.len()..]);
    let reached = attempts(&lost).into_iter().max().expect("some were granted");
    let anew = granted.iter().filter(|attempt| **attempt > reached).count();
    assert!(anew > 0 && lives.last().expect("two lives") > &10_000, "{lives:?} {granted:?}");
}

#[test]
fn what_is_no_copy_is_refused_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    refused(&backup("backup", &at("none"), &at("copy")), "name the coordinator's --state");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir(at("state")).unwrap();
    let fact = |body: Vec<u8>| Kept { at_ms: 1, kind: "epoch-started", body };
    let good = fact(wire::encode(Fact::EpochStarted { epoch: 7 }));
    let make = |name: &str, facts: Vec<Kept>| {
        runtime.block_on(async {
            let journal = Journal::open(&at(name), |_| ()).await.expect("it opens");
            journal.append(facts).await.expect("kept");
            journal.close().await.expect("closed");
        });
    };
    make("state/journal.sqlite", vec![good.clone(); 500]);
    done(&backup("backup", &at("state"), &at("copy")));
    refused(&backup("backup", &at("state"), &at("nowhere/copy")), "nowhere");

    std::fs::write(at("text"), "not a database, and longer than a header would be: ".repeat(20)).unwrap();
    let whole = std::fs::read(at("copy")).unwrap();
    std::fs::write(at("torn"), &whole[..whole.len() / 2]).unwrap();
    let mut bent = whole.clone();
    let middle = bent.len() / 2;
    bent[middle..middle + 2000].fill(0xa5);
    std::fs::write(at("bent"), bent).unwrap();
    make("strange", vec![good, fact(vec![0xff; 9])]);
    for (file, words) in [
        ("text", "it is not a journal of kulprit, or damaged"),
        ("torn", "it is not a journal of kulprit, or damaged"),
        ("bent", "it is not a journal of kulprit, or damaged"),
        ("strange", "fact 2 (epoch-started)"),
        ("absent", "find a journal"),
    ] {
        let state = at(&format!("new-{file}"));
        let output = backup("restore", &state, &at(file));
        refused(&output, words);
        assert!(file == "absent" || text(&output.stderr).contains(&format!("/{file}:")), "{file} is named");
        let left = std::fs::read_dir(&state).unwrap().flatten().map(|it| it.file_name());
        let left: Vec<_> = left.filter(|name| name != "journal.sqlite.lock").collect();
        assert!(left.is_empty(), "{file}: {left:?}");
    }
    done(&backup("restore", &at("new"), &at("copy")));
    let facts = facts_of(&at("new/journal.sqlite"));
    assert_eq!(facts.len(), 501);
    assert_eq!(facts.last(), Some(&Fact::EpochStarted { epoch: 10_007 }));
}

#[test]
fn a_copy_is_its_owners_alone_and_what_root_restores_the_coordinators() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir(at("state")).unwrap();
    runtime.block_on(async {
        let journal = Journal::open(&at("state/journal.sqlite"), |_| ()).await.expect("it opens");
        let body = wire::encode(Fact::EpochStarted { epoch: 7 });
        journal.append(vec![Kept { at_ms: 1, kind: "epoch-started", body }]).await.expect("kept");
        journal.close().await.expect("closed");
    });
    done(&backup("backup", &at("state"), &at("copy")));
    let about = |path: &Path| std::fs::symlink_metadata(path).expect("it is there");
    assert_eq!(about(&at("copy")).mode() & 0o777, 0o600);

    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root restores for another");
    }
    // A state directory as systemd makes it for the unit's user.
    std::fs::create_dir(at("new")).unwrap();
    std::os::unix::fs::chown(at("new"), Some(NOBODY), Some(NOBODY)).unwrap();
    done(&backup("restore", &at("new"), &at("copy")));
    let made: Vec<_> = std::fs::read_dir(at("new")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(made.len(), 2, "the journal and its lock: {made:?}");
    for path in made {
        let about = about(&path);
        assert_eq!((about.uid(), about.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
    assert_eq!(about(&at("new/journal.sqlite")).mode() & 0o777, 0o600);

    // What that user has put there leads root nowhere else.
    std::fs::create_dir(at("trap")).unwrap();
    std::fs::write(at("another's"), "kept").unwrap();
    std::os::unix::fs::symlink(at("another's"), at("trap/journal.sqlite.lock")).unwrap();
    refused(&backup("restore", &at("trap"), &at("copy")), "journal.sqlite.lock");
    assert_eq!(std::fs::read_to_string(at("another's")).unwrap(), "kept");
    assert!(!at("trap/journal.sqlite").exists());
}

#[test]
fn manual_pages_have_all_that_a_program_takes() {
    for (program, words) in [
        ("kulprit-coordinator", &["backup", "restore", "listen"][..]),
        ("kulprit-agent", &["slots", "coordinator"]),
    ] {
        let output = command(program).arg("--man").output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let page = text(&output.stdout);
        assert!(page.starts_with(".ie") && page.contains(".TH "), "{program}: {page}");
        for word in words {
            assert!(page.contains(word), "{program} has no {word}");
        }
    }
}
