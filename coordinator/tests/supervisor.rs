//! What a service manager is told: a real coordinator and agent, and a socket that listens as
//! systemd's does.

mod farm;

use farm::planted::Shape;
use farm::secure::Farm;
use farm::small::Small;
use farm::{command, text, wait_for};
use nix::sys::signal::Signal;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The manager's end: where it listens, and all that it was told.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    told: Vec<String>,
}

const SOON: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_millis(1000);

impl Manager {
    fn new(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        Manager { socket, path: path.to_owned(), told: Vec::new() }
    }

    fn starts(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_PID");
        command.env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
    }

    fn hear(&mut self) {
        let mut message = [0; 4096];
        if let Ok(length) = self.socket.recv(&mut message) {
            self.told.extend(text(&message[..length]).lines().map(str::to_owned));
        }
    }

    fn listen(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.hear();
        }
    }

    fn wait_for(&mut self, line: &str) {
        let start = Instant::now();
        while !self.was_told(line) {
            assert!(start.elapsed() < SOON, "{line} is not in {:?}", self.told);
            self.hear();
        }
    }

    fn was_told(&self, line: &str) -> bool {
        self.told.iter().any(|told| told.starts_with(line))
    }

    fn beats(&self) -> usize {
        self.told.iter().filter(|told| *told == "WATCHDOG=1").count()
    }
}

#[test]
fn a_coordinator_is_ready_when_it_serves_and_lives_by_its_driver() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut manager = Manager::new(&dir.path().join("notify"));
    let mut coordinator = farm.farm.coordinator_unawaited(|command| manager.starts(command));
    manager.wait_for("READY=1");
    let listed = farm.kulprit(&["bisect", "list"]);
    assert!(listed.status.success(), "it is served at once: {}", text(&listed.stderr));
    assert!(manager.was_told("STATUS=serving https on 127.0.0.1:"), "{:?}", manager.told);

    manager.listen(2 * LIMIT);
    assert!(manager.beats() >= 3, "two for each time allowed: {:?}", manager.told);

    // While the journal takes nothing the driver hangs, however well the ports are served.
    let journal = dir.path().join("coordinator/journal.sqlite");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let lock = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&journal);
        let mut lock = options.connect().await.expect("the journal opens");
        lock.execute("BEGIN IMMEDIATE").await.expect("it is locked");
        lock
    });
    let mut token = command("kulprit");
    token.args(["token", "create", "--role", "viewer"]).env("KULPRIT_CREDENTIALS", farm.credentials("olga"));
    let mut waiting = token.spawn().expect("kulprit runs");
    manager.listen(LIMIT);
    let before = manager.beats();
    manager.listen(2 * LIMIT);
    assert_eq!(manager.beats(), before, "the driver hangs and is heard");
    runtime.block_on(lock.close()).expect("the lock is given back");
    assert!(waiting.wait().expect("it ends").success());
    manager.listen(2 * LIMIT);
    assert!(manager.beats() > before, "the driver goes on and is not heard");

    coordinator.stop();
    manager.wait_for("STOPPING=1");
    assert!(manager.was_told("EXTEND_TIMEOUT_USEC="), "{:?}", manager.told);
}

#[test]
fn an_agent_is_ready_when_it_has_joined() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    farm.joined("a1", "agent");
    coordinator.stop();
    let mut manager = Manager::new(&dir.path().join("notify"));
    let mut agent = farm.farm.agent_with("a1", |command| {
        command.arg("--credentials").arg(farm.credentials("a1")).env("KULPRIT_DRAIN_S", "7");
        manager.starts(command);
    });
    wait_for("a first try", SOON, || farm.farm.said("a1").contains("the coordinator does not answer"));
    manager.listen(3 * LIMIT);
    assert!(!manager.was_told("READY=1"), "nobody has answered it: {:?}", manager.told);
    assert!(manager.beats() >= 3, "its loop turns: {:?}", manager.told);

    let mut coordinator = farm.start(3600);
    manager.wait_for("READY=1");
    farm.wait_for_agent("a1", "online");
    manager.wait_for("STATUS=at work, 0 in hand");
    coordinator.kill9();
    manager.wait_for("STATUS=at work, 0 in hand; the coordinator does not answer");
    let _coordinator = farm.start(3600);
    agent.stop();
    manager.wait_for("STOPPING=1");
    manager.wait_for("EXTEND_TIMEOUT_USEC=120000000");
    let ready = manager.told.iter().filter(|told| *told == "READY=1").count();
    assert_eq!(ready, 1, "{:?}", manager.told);
}

#[test]
fn an_agent_that_drains_for_hours_asks_for_a_little_time_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape { commits: 6, culprit: 3, build_s: 600, build_mib: 0 };
    let Some(small) = Small::new(dir.path(), shape, 0) else { return };
    let farm = farm::Farm::new(&dir.path().join("farm"));
    let _coordinator = farm.coordinator();
    let mut manager = Manager::new(&dir.path().join("notify"));
    let mut agent = small.start(&farm, "drains", |command| {
        // More than fits into one request, which has 32 bits for microseconds.
        command.env("KULPRIT_DRAIN_S", "100000");
        manager.starts(command);
    });
    small.submit(&farm, "slow");
    farm.wait_for_activity("drains", "building", SOON);
    agent.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    manager.listen(5 * LIMIT);
    let asked = manager.told.iter().filter_map(|told| told.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let asked: Vec<u32> = asked.map(|time| time.parse().expect("a number")).collect();
    assert!(asked.len() >= 3, "it goes on asking: {:?}", manager.told);
    assert!(asked.iter().all(|time| *time == 120_000_000), "{asked:?}");
    assert!(agent.is_running(), "it drains");
    // The second one lets go at once, so that no container is left.
    agent.signal(Signal::SIGTERM);
    wait_for("the end of the agent", SOON, || !agent.is_running());
}
