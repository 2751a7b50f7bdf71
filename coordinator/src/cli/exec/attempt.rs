//! One run of the command in one worktree: its checkout, its process group, its output, its end.

use super::worktrees::{LOCAL_VARIABLES, Worktree};
use anyhow::Context as _;
use kulprit_common::id::RevisionId;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a command may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long its output is waited for after its end: a process it left behind may hold it open.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
/// How long killed processes may take to be gone. Where nobody reaps orphans, theirs stay for ever.
const GONE_MAX: Duration = Duration::from_secs(2);
const GONE_EVERY: Duration = Duration::from_millis(2);
/// A line that is longer is shown in pieces.
const LINE_BYTES_MAX: u64 = 8192;
/// What a shell says of a command that it cannot find, or may not run.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

/// What is wanted of a run that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urge {
    GoOn,
    Stop,
    Kill,
}

/// Where the command's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// To our own output and errors.
    AsIs,
    /// Both to our errors: our output is for one JSON value.
    ToErrors,
    /// Both to our errors, each line behind the revision: several run at once.
    Prefixed,
}

pub struct Attempt {
    pub worktree: Worktree,
    pub revision: RevisionId,
    pub run: u32,
    pub command: Vec<OsString>,
    pub show: Show,
    /// Somebody reads our standard error.
    pub heard: bool,
    pub urge: watch::Receiver<Urge>,
    /// Where a command that seems not to be there is tried as well, before that is believed.
    pub probe: Option<RevisionId>,
}

pub enum Ended {
    Code(i32),
    Killed(i32),
    /// We ended it.
    Dropped,
    /// It cannot be run at the good end either.
    Unrunnable(i32),
}

impl Attempt {
    pub async fn make(mut self) -> (Worktree, anyhow::Result<Ended>) {
        let ended = self.run().await;
        (self.worktree, ended)
    }

    async fn run(&mut self) -> anyhow::Result<Ended> {
        let revision = self.revision;
        self.worktree.check_out(&revision).await?;
        let ended = self.once(&revision).await?;
        let (Ended::Code(NOT_FOUND | NOT_RUNNABLE), Some(good)) = (&ended, self.probe) else {
            return Ok(ended);
        };
        self.worktree.check_out(&good).await?;
        Ok(match self.once(&good).await? {
            Ended::Code(code @ (NOT_FOUND | NOT_RUNNABLE)) => Ended::Unrunnable(code),
            Ended::Dropped => Ended::Dropped,
            Ended::Code(_) | Ended::Killed(_) | Ended::Unrunnable(_) => ended,
        })
    }

    async fn once(&mut self, revision: &RevisionId) -> anyhow::Result<Ended> {
        let mut child = match self.spawn(revision) {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ended::Code(NOT_FOUND)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Ok(Ended::Code(NOT_RUNNABLE));
            }
            Err(error) => return Err(error).context("start the command"),
        };
        let group = Group::of(&child);
        let pumps = self.pumps(&mut child, revision);
        let mut urge = self.urge.clone();
        let status = tokio::select! {
            status = child.wait() => Some(status.context("wait for the command")?),
            () = wants(&mut urge, &[Urge::Stop, Urge::Kill]) => None,
        };
        let Some(status) = status else {
            end(&mut child, group, &mut urge).await;
            return Ok(Ended::Dropped);
        };
        // What it left behind would go on beside the next runs.
        group.end().await;
        for mut pump in pumps {
            if tokio::time::timeout(OUTPUT_GRACE, &mut pump).await.is_err() {
                pump.abort();
            }
        }
        Ok(ended(status))
    }

    fn spawn(&self, revision: &RevisionId) -> std::io::Result<Child> {
        let start = |program: &OsString, arguments: &[OsString]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(&self.worktree.path).stdin(Stdio::null());
            for name in LOCAL_VARIABLES {
                command.env_remove(name);
            }
            command.env("KULPRIT_REVISION", revision.to_string()).env("KULPRIT_RUN", self.run.to_string());
            match self.show {
                Show::AsIs if self.heard => {}
                Show::AsIs => {
                    command.stderr(Stdio::null());
                }
                Show::ToErrors if !self.heard => {
                    command.stdout(Stdio::null()).stderr(Stdio::null());
                }
                Show::ToErrors => {
                    let errors = std::io::stderr().as_fd().try_clone_to_owned()?;
                    command.stdout(Stdio::from(errors));
                }
                Show::Prefixed => {
                    command.stdout(Stdio::piped()).stderr(Stdio::piped());
                }
            }
            // Its own group, so that all it starts can be ended with it, and by us alone.
            command.process_group(0).kill_on_drop(true).spawn()
        };
        match start(&self.command[0], &self.command[1..]) {
            // A script that does not name its interpreter is the shell's.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOEXEC) => {
                start(&"sh".into(), &self.command)
            }
            other => other,
        }
    }

    fn pumps(&self, child: &mut Child, revision: &RevisionId) -> Vec<JoinHandle<()>> {
        let prefix = format!("[{}] ", revision.short());
        let out = child.stdout.take().map(|out| tokio::spawn(pump(out, prefix.clone())));
        let err = child.stderr.take().map(|err| tokio::spawn(pump(err, prefix)));
        out.into_iter().chain(err).collect()
    }
}

/// A command's process group, which does not outlive this.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: &Child) -> Self {
        Group(leader.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        // All may be gone by now; then there is nothing left to tell.
        let _ = self.0.map(|group| killpg(group, signal));
    }

    /// Kills what is left of it, whose leader has been waited for, and sees it gone.
    async fn end(self) {
        self.signal(Signal::SIGKILL);
        let gone = async {
            while self.0.is_some_and(|group| killpg(group, None).is_ok()) {
                tokio::time::sleep(GONE_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(GONE_MAX, gone).await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

async fn pump(from: impl AsyncRead + Unpin, prefix: String) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = prefix.clone().into_bytes();
        match (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // Nobody is left to read it where this fails.
        let _ = std::io::stderr().write_all(&line);
    }
}

fn ended(status: ExitStatus) -> Ended {
    match status.code() {
        Some(code) => Ended::Code(code),
        None => Ended::Killed(status.signal().unwrap_or(0)),
    }
}

/// Ends a command and all it started: first it is asked to.
async fn end(child: &mut Child, group: Group, urge: &mut watch::Receiver<Urge>) {
    group.signal(Signal::SIGTERM);
    tokio::select! {
        _ = child.wait() => {}
        () = tokio::time::sleep(GRACE) => {}
        () = wants(urge, &[Urge::Kill]) => {}
    }
    group.signal(Signal::SIGKILL);
    let _ = child.wait().await;
    group.end().await;
}

async fn wants(urge: &mut watch::Receiver<Urge>, any: &[Urge]) {
    // Without anybody to urge, it goes on.
    if urge.wait_for(|urge| any.contains(urge)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
