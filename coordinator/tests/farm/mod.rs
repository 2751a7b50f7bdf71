//! A farm of real processes on this machine, for tests.

#![allow(dead_code, reason = "each test uses its share")]

pub mod azurite;
pub mod cloud;
pub mod dice;
pub mod fake_store;
pub mod git_server;
pub mod hands;
pub mod hosts;
pub mod idler;
pub mod planted;
pub mod s3;
pub mod scrape;
pub mod secure;
pub mod small;

use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const SEED: &str = "1";

/// Where the demo's history is, or `None` with a word of why the test is skipped.
pub fn history() -> Option<PathBuf> {
    let dir = cache().join("demo").join(format!("history-{SEED}"));
    if dir.join("job.toml").exists() {
        return Some(dir);
    }
    assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "{} is missing", dir.display());
    eprintln!("skipped: {} is missing; `make test` makes it", dir.display());
    None
}

pub fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("KULPRIT_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("kulprit")))
        .or_else(|| Some(from("HOME")?.join(".cache/kulprit")))
        .expect("HOME is set")
}

/// The value of a string in the history's truth.toml.
pub fn truth(history: &Path, field: &str) -> String {
    let text = std::fs::read_to_string(history.join("truth.toml")).expect("the truth is there");
    let table: toml::Table = text.parse().expect("it is TOML");
    table[field].as_str().expect("a string").to_owned()
}

pub fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_kulprit")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// A program of ours, to be given arguments.
pub fn command(name: &str) -> Command {
    Command::new(beside(name))
}

pub fn kulprit_command() -> Command {
    command("kulprit")
}

/// Longer than anything here takes on a slow machine: a search that waits for something it will
/// not get must end as a failed test that shows what it said.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

pub fn kulprit(args: &[&str]) -> Output {
    let (out, err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let stdio = |file: &File| Stdio::from(file.try_clone().expect("a second handle"));
    let mut command = kulprit_command();
    command.args(args).stdin(Stdio::null()).stdout(stdio(&out)).stderr(stdio(&err));
    let mut process = Process { child: command.spawn().expect("kulprit starts") };
    let start = Instant::now();
    let status = loop {
        match process.child.try_wait().expect("it can be asked") {
            Some(status) => break status,
            None if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            None => panic!("no end of {args:?} after {PATIENCE:?}: {}{}", text(&all(out)), text(&all(err))),
        }
    };
    Output { status, stdout: all(out), stderr: all(err) }
}

fn all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("it can be read");
    bytes
}

pub fn spawn(args: &[&str]) -> Process {
    let mut command = Command::new(beside("kulprit"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process { child: command.spawn().expect("kulprit starts") }
}

/// A process that dies with the test.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn of(child: Child) -> Process {
        Process { child }
    }

    pub fn kill9(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it is there");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// SIGTERM, and a while to follow it.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        wait_for("the end of a process", Duration::from_secs(20), || !self.is_running());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// State and addresses of a farm; processes are started by hand.
pub struct Farm {
    pub state: PathBuf,
    pub port: u16,
    pub artifacts_port: u16,
    /// http, or https where the state directory has a CA.
    pub scheme: &'static str,
    /// What its agents share.
    pub agents_cache: PathBuf,
}

impl Farm {
    pub fn new(state: &Path) -> Farm {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        // Both are held before either is let go, so that they differ.
        let (grpc, artifacts) = (free(), free());
        let port = |it: &std::net::TcpListener| it.local_addr().expect("it has an address").port();
        Farm {
            state: state.to_owned(),
            port: port(&grpc),
            artifacts_port: port(&artifacts),
            scheme: "http",
            agents_cache: cache().join("test"),
        }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub fn coordinator(&self) -> Process {
        self.coordinator_with(|_| {})
    }

    pub fn coordinator_with(&self, change: impl FnOnce(&mut Command)) -> Process {
        let process = self.coordinator_unawaited(change);
        wait_for("the coordinator", Duration::from_secs(20), || self.ready_file().exists());
        process
    }

    fn ready_file(&self) -> PathBuf {
        self.state.join("ready.json")
    }

    /// One that may die before it serves.
    pub fn coordinator_unawaited(&self, change: impl FnOnce(&mut Command)) -> Process {
        let ready = self.ready_file();
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(beside("kulprit-coordinator"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--listen-artifacts", &format!("127.0.0.1:{}", self.artifacts_port)]);
        command.arg("--state").arg(self.state.join("coordinator")).arg("--ready-file").arg(&ready);
        change(&mut command);
        self.spawn("coordinator", command)
    }

    pub fn agent(&self, name: &str) -> Process {
        self.agent_with(name, |command| {
            command.args(["--disk-min-mib", "1024"]);
        })
    }

    pub fn agent_with(&self, name: &str, change: impl FnOnce(&mut Command)) -> Process {
        let mut command = Command::new(beside("kulprit-agent"));
        command.args(["--name", name, "--coordinator", &self.url(), "--slots", "1", "--share-cores"]);
        command.args(["--accelerator", "tcg"]).env("KULPRIT_DRAIN_S", "1");
        command.arg("--state").arg(self.state.join(name)).arg("--cache").arg(&self.agents_cache);
        change(&mut command);
        self.spawn(name, command)
    }

    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        std::fs::create_dir_all(&self.state).expect("the state directory can be made");
        let log = self.log(name);
        let log = File::options().create(true).append(true).open(log).expect("a log can be written");
        let child = command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null()).spawn();
        Process { child: child.expect("the process starts") }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.log"))
    }

    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// `kulprit` with this farm's address.
    pub fn kulprit(&self, args: &[&str]) -> Output {
        let url = self.url();
        let all: Vec<&str> = args.iter().copied().chain(["--coordinator", &url]).collect();
        kulprit(&all)
    }

    /// What `kulprit … -o json` says.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let all: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let output = self.kulprit(&all);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{args:?}: {error}: {}{}", text(&output.stdout), text(&output.stderr))
        })
    }

    /// Waits until an agent's activity starts with a word.
    pub fn wait_for_activity(&self, agent: &str, word: &str, limit: Duration) {
        wait_for(&format!("{agent} to be {word}"), limit, || {
            let agents = self.json(&["agent", "list"]);
            let agents = agents.as_array().cloned().unwrap_or_default();
            let it = agents.into_iter().find(|it| it["id"] == agent).unwrap_or_default();
            it.to_string().contains(&format!("\"activity\":\"{word}"))
        });
    }

    /// The facts of the journal; the coordinator must have ended.
    pub fn facts(&self) -> Vec<Fact> {
        facts_of(&self.state.join("coordinator/journal.sqlite"))
    }
}

/// The facts of a journal that nobody uses.
pub fn facts_of(path: &Path) -> Vec<Fact> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let mut facts = Vec::new();
        let journal = kulprit_coordinator::journal::Journal::open(path, |stored| {
            facts.push(kulprit_proto::journal::decode(&stored.body).expect("a fact is readable"));
        });
        journal.await.expect("the journal opens").close().await.expect("and closes");
        facts
    })
}

/// How often each build was finished.
pub fn builds(facts: &[Fact]) -> BTreeMap<ItemKey, usize> {
    let mut times = BTreeMap::new();
    for fact in facts {
        if let Fact::ItemFinished { item: item @ ItemKey::Build(_), .. } = fact {
            *times.entry(item.clone()).or_default() += 1;
        }
    }
    times
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What git says in a repository, where it has somebody to name as an author.
pub fn git(repository: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(["-c", "user.name=A", "-c", "user.email=a@example.org"]);
    let output = command.args(args).output().expect("git runs");
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// What a farm of small kernels may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(5 * 60);

/// Tries until there is something.
pub fn retried<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_for(what, Duration::from_secs(20), || {
        found = attempt();
        found.is_some()
    });
    found.expect("it was waited for")
}

pub fn wait_for(what: &str, limit: Duration, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A file system of its own, of so many MiB.
pub struct TinyDisk(PathBuf);

impl TinyDisk {
    pub fn mount(path: &Path, mib: u32) -> TinyDisk {
        std::fs::create_dir_all(path).expect("a directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount runs").success(), "mounting takes root");
        TinyDisk(path.to_owned())
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A row of the table of faults, and what was measured of it; `scripts/faults` collects them.
pub fn figure(row: &str, figure: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    println!("FAULT|{row}|{figure}|{test}");
}

/// Containers and guests of ours, by agent name or state directory.
pub fn leftovers(agents: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for agent in agents {
        let filter = format!("label=kulprit.agent={agent}");
        let output =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("docker runs");
        found.extend(text(&output.stdout).lines().map(|id| format!("container {id} of {agent}")));
    }
    found
}

/// Processes whose command line holds a word.
pub fn processes(word: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| text(&bytes).replace('\0', " "))
        .filter(|line| line.contains(word))
        .collect()
}
