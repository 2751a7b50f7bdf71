//! A QEMU process: confined before it runs, never left behind.

use super::cgroup::Cgroup;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getppid};
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// What is kept of QEMU's own complaints.
const STDERR_BYTES_MAX: usize = 4096;
const OPEN_FILES_MAX: u64 = 256;

/// What to start.
pub struct Start {
    pub command: Command,
    /// Handed to the process under the same numbers.
    pub inherit: Vec<OwnedFd>,
    pub cgroup: Option<Cgroup>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    /// The last it wrote to standard error.
    pub complaint: String,
    pub out_of_memory: bool,
}

impl Exit {
    /// For people: how it ended and what it said about that.
    pub fn describe(&self) -> String {
        let how = match self.status.signal() {
            Some(signal) => format!("was killed by signal {signal}"),
            None => format!("exited with status {}", self.status.code().unwrap_or(-1)),
        };
        let complaint = self.complaint.trim();
        if complaint.is_empty() { format!("QEMU {how}") } else { format!("QEMU {how}: {complaint}") }
    }
}

/// A running process, killed with its group when dropped.
pub struct Process {
    /// Empty once the process was waited for and its number may mean another.
    pid: Arc<Mutex<Option<Pid>>>,
    exit: oneshot::Receiver<std::io::Result<Exit>>,
}

impl Process {
    /// Starts a process on a thread that lives as long as it does: the kernel kills the process
    /// at the end of the *thread* that started it, and a runtime's threads may end before.
    pub async fn start(start: Start) -> std::io::Result<Process> {
        let pid = Arc::new(Mutex::new(None));
        let (started, has_started) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        let process = Process { pid: pid.clone(), exit };
        std::thread::Builder::new().name("qemu".to_owned()).spawn(move || {
            let Start { command, inherit, cgroup } = start;
            let spawned = spawn(command, &inherit);
            drop(inherit);
            match spawned {
                Ok(child) => {
                    *lock(&pid) = Some(pid_of(&child));
                    // Nobody left to hear it means that the run was dropped while this started.
                    if started.send(Ok(())).is_err() {
                        kill(&pid);
                    }
                    // Nobody left to hear it means the same, and the process was killed.
                    let _ = ended.send(attend(child, &pid, cgroup));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        has_started.await.unwrap_or_else(|_| Err(std::io::Error::other("the starting thread ended")))?;
        Ok(process)
    }

    pub fn kill(&self) {
        kill(&self.pid);
    }

    /// Waits for the end. To be called until it was there, and not again.
    pub async fn exit(&mut self) -> std::io::Result<Exit> {
        (&mut self.exit).await.unwrap_or_else(|_| Err(std::io::Error::other("the waiting thread ended")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock(pid: &Mutex<Option<Pid>>) -> std::sync::MutexGuard<'_, Option<Pid>> {
    pid.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(pid: &Mutex<Option<Pid>>) {
    if let Some(pid) = *lock(pid) {
        // It fails only when the group is gone, as it should be.
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn spawn(mut command: Command, inherit: &[OwnedFd]) -> std::io::Result<Child> {
    command.env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let agent = nix::unistd::getpid();
    let inherit: Vec<RawFd> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: between fork and exec the closure makes system calls only: it neither allocates nor
    // locks. The descriptors are open, since `inherit` is borrowed until the process has started.
    #[allow(unsafe_code)] // std has no other way to prepare a child
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != agent {
                return Err(Errno::ESRCH.into());
            }
            prctl::set_no_new_privs()?;
            setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
            setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
            setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX)?;
            for fd in &inherit {
                fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Stays with a process until its end, and clears up after it.
fn attend(mut child: Child, pid: &Mutex<Option<Pid>>, cgroup: Option<Cgroup>) -> std::io::Result<Exit> {
    let cgroup = cgroup.filter(|group| match group.add(pid_of(&child)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "QEMU runs without a control group of its own: its memory is not capped");
            false
        }
    });
    let complaint = child.stderr.take().map(tail).unwrap_or_default();
    // The number stays the process's own until it is reaped, so that a late kill hits nobody else.
    while let Err(Errno::EINTR) = waitid(Id::Pid(pid_of(&child)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    {
    }
    kill(pid);
    let status = {
        let mut pid = lock(pid);
        *pid = None;
        child.wait()?
    };
    let out_of_memory = cgroup.as_ref().is_some_and(Cgroup::out_of_memory);
    Ok(Exit { status, complaint, out_of_memory })
}

/// Reads to the end, keeping the last bytes.
fn tail(mut from: impl Read) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => kept.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
