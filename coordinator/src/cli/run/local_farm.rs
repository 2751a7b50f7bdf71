//! The coordinator and the agents of one run, as child processes.

use super::super::args::RunArgs;
use super::super::failure::Failure;
use super::super::screen::Screen;
use super::super::watching::News;
use super::children::Child;
use super::places::Places;
use crate::ready::Ready;
use kulprit_common::id::Digest;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long work in hand may go on once the run is over: what takes longer is done again.
const DRAIN_S: u32 = 2;
/// The coordinator is told to end when the agents have, or by then.
const COORDINATOR_AFTER: Duration = Duration::from_secs(4);
/// What still lives by then is killed; with the moment that takes, all is over within 10 s.
const KILL_AFTER: Duration = Duration::from_secs(7);
const DEATH: Duration = Duration::from_secs(2);
/// A journal of a long search takes a moment to be read.
const READY_WITHIN: Duration = Duration::from_secs(120);
const READY_LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Programs {
    coordinator: PathBuf,
    agent: PathBuf,
}

impl Programs {
    pub fn find() -> Result<Self, Failure> {
        Ok(Programs { coordinator: program("kulprit-coordinator")?, agent: program("kulprit-agent")? })
    }
}

/// A program of ours: beside this one, else in PATH.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = here.iter().cloned().chain(std::env::split_paths(&path)).collect();
    places.iter().map(|dir| dir.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        let here = here.map_or_else(|| "the directory of kulprit".into(), |dir| dir.display().to_string());
        Failure::Internal(anyhow::anyhow!(
            "find the program {name}: it is neither in {here} nor in PATH; `cargo build --release` makes all three"
        ))
    })
}

pub struct LocalFarm {
    coordinator: Child,
    agents: Vec<Child>,
    ready_file: PathBuf,
}

/// Where a coordinator is to listen.
fn listen(grpc: &str, artifacts: &str) -> [OsString; 4] {
    ["--listen", grpc, "--listen-artifacts", artifacts].map(OsString::from)
}

/// What came of starting a coordinator.
enum Started {
    Ready(Ready),
    Ended(Option<ExitStatus>),
}

impl LocalFarm {
    /// Nothing is started yet.
    pub fn new(programs: Programs, args: &RunArgs, places: &Places) -> Self {
        let ready_file = places.state.join("ready.json");
        let mut coordinator = Child::new("the coordinator", &programs.coordinator, places.log("coordinator"));
        coordinator.arguments = vec![
            "--state".into(),
            places.state.join("coordinator").into(),
            "--mirrors".into(),
            places.cache.join("coordinator/mirrors").into(),
            "--ready-file".into(),
            ready_file.clone().into(),
            "--tied-to-parent".into(),
            // All agents are on this machine, and see with the same eyes.
            "--second-look-percent".into(),
            "0".into(),
        ];
        let repairs = args.repairs.iter().flat_map(|file| ["--repairs".into(), file.clone().into()]);
        coordinator.arguments.extend(repairs);
        let agents = (1..=args.agents).map(|number| agent(number, &programs.agent, args, places)).collect();
        LocalFarm { coordinator, agents, ready_file }
    }

    /// Starts the coordinator; yields where it is served.
    pub async fn start_coordinator(&mut self, screen: &Screen) -> Result<String, Failure> {
        let served_before = std::fs::remove_file(&self.ready_file);
        if let Err(error) = served_before
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Failure::internal(format!("remove {}", self.ready_file.display()), error));
        }
        let fixed = self.coordinator.arguments.clone();
        let any = "127.0.0.1:0";
        self.coordinator.arguments.extend(listen(any, any));
        let ready = loop {
            self.coordinator.start()?;
            let status = match self.ready().await? {
                Started::Ready(ready) => break ready,
                Started::Ended(status) => status,
            };
            // The processes of an earlier run may still be on their way out.
            let Some(pause) = self.coordinator.patience.after_death(Instant::now()) else {
                return Err(self.coordinator.gone(status));
            };
            screen.say(&format!("{}; starting it again", self.coordinator.obituary(status)));
            tokio::time::sleep(pause).await;
        };
        // The agents know these addresses, so another life has to be found there too.
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let listen = listen(&address(&ready.grpc), &address(&ready.artifacts));
        self.coordinator.arguments = fixed.into_iter().chain(listen).collect();
        Ok(ready.grpc)
    }

    async fn ready(&mut self) -> Result<Started, Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        let id = self.coordinator.id();
        while Instant::now() < deadline {
            if let Some(ready) = Ready::read(&self.ready_file)?
                && Some(ready.pid) == id
            {
                return Ok(Started::Ready(ready));
            }
            tokio::select! {
                () = tokio::time::sleep(READY_LOOK_EVERY) => {}
                status = self.coordinator.wait() => return Ok(Started::Ended(status?)),
            }
        }
        let seconds = READY_WITHIN.as_secs();
        Err(anyhow::anyhow!("start the coordinator: it is not ready after {seconds} s").into())
    }

    pub fn start_agents(&mut self, url: &str) -> Result<(), Failure> {
        for agent in &mut self.agents {
            agent.arguments.extend(["--coordinator".into(), url.into()]);
            agent.start()?;
        }
        Ok(())
    }

    /// Starts again what dies; returns when that is no use.
    pub async fn keep_alive(&mut self, say: &mpsc::Sender<News>) -> Failure {
        let all = std::iter::once(&mut self.coordinator).chain(&mut self.agents);
        let kept = all.map(|child| Box::pin(child.keep_alive(say)));
        futures::future::select_all(kept).await.0
    }

    /// Ends all: agents first, so that what they finish is still taken.
    pub async fn stop(&mut self) {
        let begin = tokio::time::Instant::now();
        self.agents.iter().for_each(|agent| agent.signal(Signal::SIGTERM));
        let agents_ended = wait_for(&mut self.agents);
        // Either way the coordinator is next.
        let _ = tokio::time::timeout_at(begin + COORDINATOR_AFTER, agents_ended).await;
        self.coordinator.signal(Signal::SIGTERM);
        if tokio::time::timeout_at(begin + KILL_AFTER, self.ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends all at once.
    pub async fn kill(&mut self) {
        let all = std::iter::once(&self.coordinator).chain(&self.agents);
        all.for_each(|child| child.signal(Signal::SIGKILL));
        // What does not die of this hangs in the kernel; waiting longer would not help.
        let _ = tokio::time::timeout(DEATH, self.ended()).await;
    }

    async fn ended(&mut self) {
        wait_for(&mut self.agents).await;
        wait_for(std::slice::from_mut(&mut self.coordinator)).await;
    }
}

async fn wait_for(children: &mut [Child]) {
    for child in children {
        // Whether it ended well matters no more.
        let _ = child.wait().await;
    }
}

fn agent(number: u32, program: &Path, args: &RunArgs, places: &Places) -> Child {
    let name = agent_name(number, &places.state);
    let mut agent = Child::new(&name, program, places.log(&format!("agent-{number}")));
    agent.arguments = vec![
        "--name".into(),
        name.into(),
        "--state".into(),
        places.state.join("agents").join(number.to_string()).into(),
        "--cache".into(),
        places.cache.clone().into(),
        "--slots".into(),
        "1".into(),
        "--share-cores".into(),
        "--tied-to-parent".into(),
        "--drain-s".into(),
        DRAIN_S.to_string().into(),
    ];
    let cores = args.slot_cores.iter().flat_map(|cores| ["--slot-cores".into(), cores.to_string().into()]);
    agent.arguments.extend(cores);
    agent
}

/// Agents remove containers that carry their name, so two runs on a machine must not share one.
fn agent_name(number: u32, state: &Path) -> String {
    let digest = Digest::of(state.as_os_str().as_bytes()).to_string();
    format!("agent-{number}-{}", &digest[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_two_runs_have_different_names() {
        let (one, other) = (agent_name(1, Path::new("/a")), agent_name(1, Path::new("/b")));
        assert_ne!(one, other);
        assert_eq!(one, agent_name(1, Path::new("/a")));
        assert!(one.starts_with("agent-1-") && one.parse::<kulprit_common::id::AgentId>().is_ok());
    }
}
