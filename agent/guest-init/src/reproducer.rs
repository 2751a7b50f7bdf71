//! The reproducer's process: how it starts, how it is watched, how it ended.

use crate::ALIVE_EVERY;
use crate::plan::Plan;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const ENVIRONMENT: [&CStr; 3] = [c"PATH=/bin:/sbin:/usr/bin:/usr/sbin", c"HOME=/", c"TERM=linux"];
const PATH: &str = "/kulprit/reproducer";
const POLL: Duration = Duration::from_millis(20);
/// How long a killed reproducer may take to die; one stuck in the kernel never does.
const DEATH: Duration = Duration::from_secs(2);

pub enum Ending {
    Exit(i32),
    Signal(Signal),
    Timeout,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "exit code {code}"),
            Ending::Signal(signal) => write!(f, "exit signal {}", *signal as i32),
            Ending::Timeout => f.write_str("timeout"),
        }
    }
}

/// Starts the reproducer in a process group of its own, its output on the console.
pub fn start(plan: &Plan) -> Result<Pid, String> {
    let mut command = if plan.script { script() } else { vec![PATH.to_owned()] };
    command.extend(plan.args.iter().cloned());
    spawn(&command).map_err(|error| match error {
        Errno::ENOENT => format!("{error}: it is linked dynamically, or its interpreter is not in the guest"),
        _ => error.to_string(),
    })
}

/// The command of a script: by its `#!` line if that names something the guest has, otherwise by
/// busybox. The kernel need not know scripts for that.
fn script() -> Vec<String> {
    let mut head = [0; 256];
    let length = File::open(PATH).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..length]);
    let line = head.strip_prefix("#!").and_then(|rest| rest.lines().next()).unwrap_or("").trim();
    let (interpreter, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let mut command: Vec<String> = if !interpreter.is_empty() && Path::new(interpreter).exists() {
        [interpreter, argument.trim()]
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    } else {
        vec!["/bin/busybox".to_owned(), "sh".to_owned()]
    };
    command.push(PATH.to_owned());
    command
}

/// Makes `ls` and the like findable for scripts, whichever shell runs them.
pub fn install_busybox() {
    if let Ok(child) = spawn(&["/bin/busybox", "--install", "-s", "/bin"].map(str::to_owned)) {
        let _ = waitpid(child, None);
    }
}

/// Starts a program. Not by std, which needs a socket for that: a small kernel has no network.
fn spawn(command: &[String]) -> nix::Result<Pid> {
    let words: Result<Vec<CString>, _> = command.iter().map(|word| CString::new(word.as_str())).collect();
    let words = words.map_err(|_| Errno::EINVAL)?;
    let mut files = PosixSpawnFileActions::init()?;
    files.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETPGROUP | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    // Rust's runtime ignores this one, and ignoring is inherited.
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    let program = words.first().ok_or(Errno::EINVAL)?.clone();
    posix_spawn(program.as_c_str(), &files, &attributes, &words, &ENVIRONMENT)
}

/// Waits for the end of `child` and takes in every orphan meanwhile; kills it after `limit`.
pub fn watch(child: Pid, limit: Duration, mut alive: impl FnMut()) -> Ending {
    let started = Instant::now();
    let mut said = started;
    while started.elapsed() < limit {
        if let Some(ending) = reap(child) {
            return ending;
        }
        if said.elapsed() >= ALIVE_EVERY {
            said = Instant::now();
            alive();
        }
        std::thread::sleep(POLL);
    }
    let _ = killpg(child, Signal::SIGKILL);
    let killed = Instant::now();
    while killed.elapsed() < DEATH && reap(child).is_none() {
        std::thread::sleep(POLL);
    }
    Ending::Timeout
}

pub fn reap_orphans() {
    // No process has this id, so every status is that of an orphan.
    let _ = reap(Pid::from_raw(0));
}

/// Collects every process that ended; says how `child` did if it is among them.
fn reap(child: Pid) -> Option<Ending> {
    let mut ending = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => ending = Some(Ending::Exit(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => ending = Some(Ending::Signal(signal)),
            Ok(WaitStatus::StillAlive) => return ending,
            Ok(_) | Err(Errno::EINTR) => {}
            // No child is left, so `child` ended even if its status was one nix cannot name.
            Err(_) => return ending,
        }
    }
}
