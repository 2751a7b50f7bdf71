//! A child process: started, kept alive within bounds, ended. Its output goes to a log file.

use super::super::failure::Failure;
use super::super::watching::News;
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;

/// The last bytes of a log that are shown when its process cannot be kept alive.
const TAIL_BYTES: u64 = 2048;

pub struct Child {
    pub name: String,
    pub arguments: Vec<OsString>,
    program: PathBuf,
    log: PathBuf,
    process: Option<tokio::process::Child>,
    pub patience: Patience,
}

/// How processes of a farm are told to speak TLS; those of a run speak plaintext on loopback.
const FARM_SETTINGS: [&str; 8] = [
    "KULPRIT_LISTEN_OPS",
    "KULPRIT_AGENT_LISTEN_OPS",
    "KULPRIT_TLS_CA",
    "KULPRIT_TLS_CERT",
    "KULPRIT_TLS_KEY",
    "KULPRIT_JOIN",
    "KULPRIT_JOIN_FILE",
    "KULPRIT_CREDENTIALS",
];

impl Child {
    pub fn new(name: &str, program: &Path, log: PathBuf) -> Self {
        Child {
            name: name.into(),
            arguments: Vec::new(),
            program: program.into(),
            log,
            process: None,
            patience: Patience::default(),
        }
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = opened.with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        // What a farm's processes on this machine are told by is not for those of a run.
        for name in FARM_SETTINGS {
            command.env_remove(name);
        }
        let process = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A terminal's Ctrl-C is for us; the children are told in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.process = Some(process);
        Ok(())
    }

    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().and_then(tokio::process::Child::id)
    }

    /// Waits for its end; at once where it is not running.
    pub async fn wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let status = process.wait().await.with_context(|| format!("wait for {}", self.name))?;
        self.process = None;
        Ok(Some(status))
    }

    pub fn signal(&self, signal: Signal) {
        let Some(id) = self.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // It may end by itself between the two; then there is nothing left to tell it.
        let _ = kill(Pid::from_raw(id), signal);
    }

    /// Starts it again whenever it ends; returns when that happens too often.
    pub async fn keep_alive(&mut self, say: &mpsc::Sender<News>) -> Failure {
        loop {
            let status = match self.wait().await {
                Ok(status) => status,
                Err(error) => return error.into(),
            };
            let Some(pause) = self.patience.after_death(Instant::now()) else {
                return self.gone(status);
            };
            let line = format!("{}; starting it again", self.obituary(status));
            // Without a listener the run is ending anyway.
            let _ = say.send(News::Said(line)).await;
            tokio::time::sleep(pause).await;
            if let Err(error) = self.start() {
                return error.into();
            }
        }
    }

    pub fn obituary(&self, status: Option<ExitStatus>) -> String {
        match status {
            Some(status) => format!("{} died ({status}), see {}", self.name, self.log.display()),
            None => format!("{} is not running, see {}", self.name, self.log.display()),
        }
    }

    /// Says why it cannot be kept alive, with the end of its log.
    pub fn gone(&self, status: Option<ExitStatus>) -> Failure {
        let tail = tail(&self.log).unwrap_or_default();
        Failure::Internal(anyhow::anyhow!("keep {} alive: {}\n{tail}", self.name, self.obituary(status)))
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(8)..];
    Ok(last.iter().map(|line| format!("  | {line}\n")).collect::<String>().trim_end().to_owned())
}

/// How often a child may die before it is given up: what dies at every start has a reason that
/// starting again does not mend.
#[derive(Debug, Default)]
pub struct Patience {
    deaths: VecDeque<Instant>,
}

impl Patience {
    const WINDOW: Duration = Duration::from_secs(60);
    const DEATHS_MAX: usize = 5;
    const FIRST_PAUSE: Duration = Duration::from_millis(250);

    /// How long to wait before the next start; `None` when it is no use.
    pub fn after_death(&mut self, now: Instant) -> Option<Duration> {
        self.deaths.retain(|death| now.duration_since(*death) < Self::WINDOW);
        self.deaths.push_back(now);
        let earlier = self.deaths.len() - 1;
        (earlier < Self::DEATHS_MAX).then(|| Self::FIRST_PAUSE * (1 << earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_comes_back() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let pauses: Vec<_> = (0..6).map(|i| patience.after_death(start + Duration::from_secs(i))).collect();
        let millis = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [millis(250), millis(500), millis(1000), millis(2000), millis(4000), None]);
        let later = start + Duration::from_secs(120);
        assert_eq!(patience.after_death(later), millis(250));
    }
}
