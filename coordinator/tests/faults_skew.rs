//! Ends that are not of one version, and clocks that jump.

mod farm;

use farm::planted::Shape;
use farm::secure;
use farm::small::{Small, started};
use farm::{Farm, LONG, figure, leftovers, wait_for};
use kulprit_common::farm::fact::Fact;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const VERSIONS: &str = "agent one minor version older / far older";
const CLOCKS: &str = "wall clock jumps by hours on either side";
const SHAPE: Shape = Shape { commits: 3, culprit: 1, build_s: 12, build_mib: 0 };

#[test]
fn an_older_agent_is_served_and_a_far_older_one_told_to_upgrade() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(small) = Small::new(dir.path(), SHAPE, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let as_version = |version: &str| {
        farm.coordinator_with(|command| {
            command.env("KULPRIT_PRETEND_VERSION", version);
        })
    };
    // A minor version behind: it is given work.
    let mut coordinator = as_version("0.2.0");
    let agent_name = "faults-old";
    let mut agent = small.start(&farm, agent_name, |_| {});
    small.submit(&farm, "job");
    farm.wait_for_activity(agent_name, "building", LONG);
    let in_hand: Vec<String> =
        started(&farm.said(agent_name)).into_iter().filter(|item| item.starts_with("build:")).collect();

    // The coordinator is upgraded: what the agent holds it ends, and then it ends itself.
    coordinator.kill9();
    coordinator = as_version("0.3.0");
    let upgraded = Instant::now();
    wait_for("the agent to end", LONG, || !agent.is_running());
    let took = upgraded.elapsed().as_secs_f64();
    let said = farm.said(agent_name);
    let why = "the agent is kulprit 0.1.0, too old for this coordinator's 0.3.0; upgrade the agent";
    assert!(said.contains(why), "{said}");
    assert_eq!(said.matches("answer=Recorded").count(), started(&said).len(), "all of it counted: {said}");
    let builds = |said: &str| started(said).into_iter().filter(|item| item.starts_with("build:")).count();
    assert_eq!(builds(&said), in_hand.len(), "and nothing new was begun: {said}");
    let shown = farm.json(&["bisect", "show", "1"]);
    assert!(shown["ending"].is_null(), "the job waits: {shown}");

    coordinator.kill9();
    coordinator = as_version("0.1.0");
    let mut agent = small.start(&farm, agent_name, |_| {});
    small.wait_for_culprit(&farm, "1");
    agent.stop();
    coordinator.stop();
    assert_eq!(leftovers(&[agent_name]), Vec::<String>::new());
    figure(
        VERSIONS,
        &format!("0.1.0 at 0.2.0: served; at 0.3.0: ends its work, told to upgrade after {took:.1} s"),
    );
}

/// libfaketime, where it is installed.
fn libfaketime() -> Option<PathBuf> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|dir| dir.path());
    let found = dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    assert!(
        found.is_some() || std::env::var_os("KULPRIT_TEST_REAL").is_none(),
        "libfaketime is missing: apt-get install faketime"
    );
    if found.is_none() {
        eprintln!("skipped: libfaketime is missing: apt-get install faketime");
    }
    found
}

/// The wall clock of some processes.
struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    fn new(library: &Path, file: PathBuf) -> WallClock {
        let clock = WallClock { library: library.to_owned(), file };
        clock.jump("+0");
        clock
    }

    fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }

    fn jump(&self, by: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, by).and_then(|()| std::fs::rename(&new, &self.file)).expect("written");
    }
}

/// The hours at which a process wrote log lines.
fn hours(log: &str) -> std::collections::BTreeSet<String> {
    log.lines().filter_map(|line| line.get(..13)).map(str::to_owned).collect()
}

const JUMPS: [&str; 4] = ["+7h", "-7h", "+3h", "+0"];

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn leases_and_certificates_go_by_no_wall_clock() {
    let Some(library) = libfaketime() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = secure::Farm::new(dir.path());
    let [ours, theirs] = ["ours", "theirs"].map(|name| WallClock::new(&library, dir.path().join(name)));
    // Certificates of members and of the coordinator are renewed meanwhile, several times.
    let mut coordinator = farm.farm.coordinator_with(|command| {
        ours.give(command);
        command.args(["--leaf-life-s", "36"]);
    });
    let token = farm.token(&["--role", "agent"]);
    let mut agent = farm.farm.agent_with("faults-clock", |command| {
        theirs.give(command);
        command.env("KULPRIT_JOIN", token).args(["--disk-min-mib", "512"]);
    });
    farm.wait_for_agent("faults-clock", "online");
    for (clock, by) in JUMPS.iter().flat_map(|by| [(&ours, by), (&theirs, by)]) {
        clock.jump(by);
        let jumped = Instant::now();
        while jumped.elapsed() < Duration::from_secs(9) {
            let list = farm.command(&["agent", "list", "-o", "json"], |command| {
                // The operator's short-lived certificate is not renewed by itself.
                command.env("KULPRIT_CREDENTIALS", farm.credentials("olga"));
            });
            let list = farm::text(&list.stdout);
            assert!(list.contains("\"online\""), "after a jump to {by}: {list}");
            std::thread::sleep(Duration::from_millis(1500));
        }
    }
    let (here, there) = (farm.farm.said("coordinator"), farm.farm.said("faults-clock"));
    assert!(agent.is_running(), "{there}");
    assert!(hours(&here).len() >= 3, "the coordinator's clock did jump: {here}");
    for bad in ["out of contact", "does not answer", "expired"] {
        assert!(!there.contains(bad), "{there}");
    }
    let renewed = here.matches("the coordinator has a new certificate").count();
    agent.stop();
    coordinator.stop();
    let went = farm.farm.facts().into_iter().filter(|fact| matches!(fact, Fact::AgentWent { .. })).count();
    assert_eq!(went, 0, "nobody was lost");
    figure(
        CLOCKS,
        &format!("8 jumps of 3 to 14 h, mTLS, certificates renewed {renewed} times meanwhile: nothing lost"),
    );
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn work_and_restarts_go_by_no_wall_clock() {
    let Some(library) = libfaketime() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(small) = Small::new(dir.path(), Shape { build_s: 25, ..SHAPE }, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let [ours, theirs] = ["ours", "theirs"].map(|name| WallClock::new(&library, dir.path().join(name)));
    let mut coordinator = farm.coordinator_with(|command| ours.give(command));
    let name = "faults-jumping";
    let mut agent = small.start(&farm, name, |command| theirs.give(command));
    small.submit(&farm, "job");
    farm.wait_for_activity(name, "building", LONG);
    for by in ["+7h", "-7h"] {
        ours.jump(by);
        std::thread::sleep(Duration::from_secs(3));
        theirs.jump(by);
        std::thread::sleep(Duration::from_secs(3));
    }
    // Hours back, both ends begin a new life in the middle of it.
    coordinator.kill9();
    coordinator = farm.coordinator_with(|command| ours.give(command));
    farm.wait_for_activity(name, "building", LONG);
    agent.kill9();
    let restarted = Instant::now();
    theirs.jump("-9h");
    agent = small.start(&farm, name, |command| theirs.give(command));
    let before = started(&farm.said(name)).len();
    wait_for("its new life to be given work", Duration::from_secs(30), || {
        started(&farm.said(name)).len() > before
    });
    let took = restarted.elapsed().as_secs_f64();
    small.wait_for_culprit(&farm, "1");
    agent.stop();
    coordinator.stop();
    assert_eq!(leftovers(&[name]), Vec::<String>::new());
    let failed = farm.facts().into_iter().filter(|fact| matches!(fact, Fact::AttemptFailed { .. })).count();
    assert_eq!(failed, 0);
    figure(
        CLOCKS,
        &format!(
            "jumps and restarts in a build, hours back: right answer; a new life given work after {took:.1} s"
        ),
    );
}
