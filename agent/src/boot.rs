//! Boots a kernel in QEMU with a reproducer and reports what the run observed.
//!
//! Here are the hands: files, processes, pipes, the clock. `boot::watch` decides.

mod cgroup;
mod lines;
pub mod process;
pub mod qemu;
mod watch;

pub use cgroup::place as memory_groups;

use crate::container::LogSink;
use crate::initramfs::{self, Plan};
use bytes::Bytes;
use kulprit_common::job::{Machine, ReproducerKind, Timeouts};
use kulprit_common::outcome::{Infra, InfraClass, Outcome};
use nix::sys::signal::Signal;
use process::{Exit, Process, Start};
use qemu::Guest;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watch::{Ending, Watch};

/// Put before the machine's own words. `earlyprintk` shows crashes of before the console's driver;
/// `panic=-1` restarts, which ends QEMU; a loaded host fails the check of the timer.
const CMDLINE: &str = "console=ttyS0 earlyprintk=ttyS0 panic=-1 no_timer_check";
/// How long a killed QEMU may take to be gone, and its pipes to run empty.
const DEATH: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 * 1024;
const PIPE_BYTES: usize = 1 << 20;
/// Memory of QEMU itself, over that of the guest and of translated code.
const OVERHEAD_MIB: u64 = 512;

/// What to do where guests have no control groups.
pub const CAPPED_BY: &str = "run the agent as root, and under systemd as a service with Delegate=yes";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// How this agent runs QEMU.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// Looked up in PATH if it has no slash.
    pub qemu: PathBuf,
    pub accelerator: Accelerator,
    /// User and group id that QEMU runs as; absent, the agent's own.
    pub user: Option<(u32, u32)>,
    /// Most that is stored of a console: its head and its tail.
    pub console_bytes_max: usize,
    /// A static busybox, for reproducers that are scripts.
    pub busybox: PathBuf,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            qemu: "qemu-system-x86_64".into(),
            accelerator: Accelerator::Tcg,
            user: None,
            console_bytes_max: 16 << 20,
            busybox: "/bin/busybox".into(),
        }
    }
}

/// One run.
pub struct BootRequest<'a> {
    /// A bzImage, readable for the user that QEMU runs as.
    pub kernel: &'a Path,
    /// What the kernel must say it is; empty where nobody knows.
    pub build_id: &'a str,
    /// The file's bytes: a static executable (also of C source, then compiled) or a script.
    pub reproducer: &'a [u8],
    pub kind: ReproducerKind,
    pub args: &'a [String],
    pub machine: &'a Machine,
    pub timeouts: &'a Timeouts,
    /// Where the console is put.
    pub work_dir: &'a Path,
    /// Unique among live runs: names files, process and control group.
    pub name: &'a str,
}

/// What a run came to.
#[derive(Debug)]
pub struct BootReport {
    pub outcome: Outcome,
    pub duration: Duration,
    /// The console's bytes as QEMU wrote them, the middle left out beyond the cap.
    pub console: PathBuf,
}

/// Why there is nothing to report about the kernel.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{}: {}", .0.class.as_str(), .0.reason)]
    Infra(Infra),
    #[error("cancelled")]
    Cancelled,
}

/// Boots a kernel and watches the run to its end. Dropping or cancelling it kills QEMU.
pub async fn boot(
    config: &QemuConfig,
    request: BootRequest<'_>,
    console_live: mpsc::Sender<Bytes>,
    cancel: CancellationToken,
) -> Result<BootReport, BootError> {
    let console_path = request.work_dir.join(format!("{}.console", request.name));
    let console = LogSink::create(&console_path, config.console_bytes_max, console_live)
        .map_err(|error| infra(InfraClass::Disk, format!("create {}: {error}", console_path.display())))?;
    let mut run = Run::start(config, &request, console).await?;
    let ended = run.watch(&cancel).await?;
    let Run { started, watch, file, .. } = run;
    file.finish().map_err(|error| infra(InfraClass::Disk, format!("write a console: {error}")))?;
    Ok(BootReport {
        duration: started.elapsed(),
        outcome: conclude(config.accelerator, ended, watch)?,
        console: console_path,
    })
}

/// A guest that runs.
struct Run {
    started: Instant,
    process: Process,
    console: Receiver,
    results: Receiver,
    file: LogSink,
    watch: Watch,
}

struct Ended {
    exit: Exit,
    /// We ended QEMU, since the run was over.
    killed: bool,
}

impl Run {
    async fn start(config: &QemuConfig, request: &BootRequest<'_>, file: LogSink) -> Result<Run, BootError> {
        let secrets =
            secrets().map_err(|error| infra(InfraClass::Internal, format!("get nonces: {error}")))?;
        let [nonce, marker] = &secrets;
        let initrd = initrd(config, request, nonce, marker)?;
        let kernel = File::open(request.kernel).map_err(|error| {
            infra(InfraClass::Artifact, format!("open {}: {error}", request.kernel.display()))
        })?;
        let append = format!("{CMDLINE} {}", request.machine.cmdline);
        let (console, console_writer) = pipe()?;
        let (results, results_writer) = pipe()?;
        let memory_mib = u64::from(request.machine.memory_mib) + qemu::TRANSLATION_MIB + OVERHEAD_MIB;
        let guest = Guest {
            name: request.name,
            memory_mib: request.machine.memory_mib,
            cpus: request.machine.cpus,
            kernel,
            initrd: Some(initrd),
            append: Some(append.trim_end()),
            devices: &[],
            serials: vec![console_writer, results_writer],
        };
        let (command, inherit) = qemu::command(config, guest);
        let cgroup = cgroup::Cgroup::create(&qemu::process_name(request.name), memory_mib << 20);
        let started = Instant::now();
        let process = Process::start(Start { command, inherit, cgroup })
            .await
            .map_err(|error| infra(InfraClass::Qemu, format!("start {}: {error}", config.qemu.display())))?;
        let [nonce, marker] = secrets;
        let watch = Watch::new(request.timeouts.clone(), nonce, marker).of_kernel(request.build_id);
        let watch = if request.kind == ReproducerKind::Nothing { watch.of_the_boot() } else { watch };
        Ok(Run { started, process, console, results, file, watch })
    }

    /// Moves bytes and times to the watch until QEMU is gone and both pipes are empty.
    async fn watch(&mut self, cancel: &CancellationToken) -> Result<Ended, BootError> {
        let (mut from_console, mut from_results) = (vec![0; CHUNK], vec![0; 4096]);
        let (mut console_open, mut results_open) = (true, true);
        let (mut killed, mut cancelled) = (false, false);
        let mut exit = None;
        let mut death = None;
        while exit.is_none() || console_open || results_open {
            if !killed && exit.is_none() && (cancelled || self.watch.ending().is_some()) {
                self.process.kill();
                killed = true;
                death = Some(Instant::now() + DEATH);
            }
            let deadline = death.unwrap_or_else(|| self.started + self.watch.deadline());
            tokio::select! {
                () = cancel.cancelled(), if !cancelled => cancelled = true,
                read = read(&mut self.console, &mut from_console), if console_open => {
                    // What init said before the console's bytes has to be known before them.
                    self.take_results(&mut from_results);
                    console_open = read > 0;
                    self.take_console(&from_console[..read])?;
                }
                read = read(&mut self.results, &mut from_results), if results_open => {
                    results_open = read > 0;
                    self.watch.results(self.started.elapsed(), &from_results[..read]);
                }
                ended = self.process.exit(), if exit.is_none() => {
                    exit = Some(ended.map_err(|error| infra(InfraClass::Qemu, format!("wait for QEMU: {error}")))?);
                    death = Some(Instant::now() + DEATH);
                }
                () = tokio::time::sleep_until(deadline) => match death {
                    Some(_) => break,
                    // An agent that was stopped or slow finds the deadline past and the guest's
                    // words unread; these come first, or it would call the guest silent.
                    None => {
                        self.take_results(&mut from_results);
                        let length = self.console.try_read(&mut from_console).unwrap_or(0);
                        self.take_console(&from_console[..length])?;
                        self.watch.expire(self.started.elapsed());
                    }
                }
            }
        }
        if cancelled {
            return Err(BootError::Cancelled);
        }
        let exit =
            exit.ok_or_else(|| infra(InfraClass::Qemu, "QEMU was killed and does not die".to_owned()))?;
        self.watch.exited();
        Ok(Ended { exit, killed })
    }

    /// Hears what init has said by now, as much as the pipe can hold.
    fn take_results(&mut self, buffer: &mut [u8]) {
        for _ in 0..=PIPE_BYTES / buffer.len() {
            match self.results.try_read(buffer) {
                Ok(length @ 1..) => self.watch.results(self.started.elapsed(), &buffer[..length]),
                Ok(0) | Err(_) => return,
            }
            if self.watch.ending().is_some() {
                return;
            }
        }
    }

    fn take_console(&mut self, bytes: &[u8]) -> Result<(), BootError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.watch.console(self.started.elapsed(), bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        self.file.write(bytes).map_err(|error| infra(InfraClass::Disk, format!("write a console: {error}")))
    }
}

/// The outcome, unless something outside the kernel ended the run.
fn conclude(accelerator: Accelerator, ended: Ended, watch: Watch) -> Result<Outcome, BootError> {
    let Ended { exit, killed } = ended;
    let ours = killed && exit.status.signal() == Some(Signal::SIGKILL as i32);
    if !ours && exit.out_of_memory {
        return Err(infra(InfraClass::Memory, exit.describe()));
    }
    // KVM's own failures pause the guest, which then looks silent.
    let kvm_failed =
        ["KVM internal error", "kvm run failed"].iter().any(|text| exit.complaint.contains(text));
    if kvm_failed || !ours && !exit.status.success() {
        return Err(infra(InfraClass::Qemu, exit.describe()));
    }
    if accelerator == Accelerator::Kvm && watch.ending() == Some(&Ending::NoOutput) {
        return Err(infra(InfraClass::Qemu, "no output under KVM, which may be KVM's fault".to_owned()));
    }
    if let Some(Ending::OtherKernel(id)) = watch.ending() {
        let reason = format!("the image holds another kernel than was built: its build id is {id}");
        return Err(infra(InfraClass::Artifact, reason));
    }
    Ok(watch.conclude())
}

fn infra(class: InfraClass, reason: String) -> BootError {
    BootError::Infra(Infra { class, reason })
}

/// Reads what there is; 0 at the end, and on errors, which a pipe has none of.
async fn read(pipe: &mut Receiver, buffer: &mut [u8]) -> usize {
    tokio::io::AsyncReadExt::read(pipe, buffer).await.unwrap_or(0)
}

fn pipe() -> Result<(Receiver, std::io::PipeWriter), BootError> {
    let make = || {
        let (reader, writer) = std::io::pipe()?;
        // QEMU drops what does not fit, so a burst has to. Unprivileged users may be refused.
        let _ = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        Ok::<_, std::io::Error>((Receiver::from_owned_fd(reader.into())?, writer))
    };
    make().map_err(|error| infra(InfraClass::Internal, format!("make a pipe: {error}")))
}

/// Two unguessable words.
fn secrets() -> std::io::Result<[String; 2]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (nonce, marker) = bytes.split_at(16);
    Ok([hex::encode(nonce), hex::encode(marker)])
}

/// Writes the initramfs to a file without a name, so that nothing is left of it.
fn initrd(
    config: &QemuConfig,
    request: &BootRequest<'_>,
    nonce: &str,
    marker: &str,
) -> Result<File, BootError> {
    let script = request.kind == ReproducerKind::Script;
    let busybox = script.then(|| initramfs::read_busybox(&config.busybox)).transpose();
    let busybox = busybox.map_err(|error| infra(InfraClass::Qemu, error.to_string()))?;
    let plan = Plan {
        nonce,
        marker,
        settle_ms: request.timeouts.settle_ms.into(),
        reproducer_ms: u64::from(request.timeouts.reproducer_s) * 1000,
        linger_ms: request.timeouts.linger_ms.into(),
        script,
        args: request.args,
    };
    let image = initramfs::build(&plan, request.reproducer, busybox.as_deref());
    let write = || {
        let mut file = tempfile::tempfile_in(request.work_dir)?;
        std::io::Write::write_all(&mut file, &image)?;
        // QEMU's user has to be able to open it, if only by its descriptor.
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        Ok::<_, std::io::Error>(file)
    };
    write().map_err(|error| infra(InfraClass::Disk, format!("write the initramfs: {error}")))
}
