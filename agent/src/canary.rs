//! Finds out which accelerator really runs guests: a tiny guest of our own has to say its phrase.
//!
//! `/dev/kvm` existing, opening and making machines proves nothing.

use crate::boot::process::{Exit, Process, Start};
use crate::boot::qemu::{self, Guest};
use crate::boot::{Accelerator, QemuConfig};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Under KVM the canary takes a fraction of a second, or forever.
const KVM_LIMIT: Duration = Duration::from_secs(5);
/// TCG shares the processors with builds.
const TCG_LIMIT: Duration = Duration::from_secs(30);
const DEATH: Duration = Duration::from_secs(2);
const PHRASE: &str = "kulprit canary in long mode\n";
/// What the canary writes to isa-debug-exit makes QEMU exit with this.
const STATUS: i32 = 85;

/// `canary.S`, assembled.
#[rustfmt::skip]
pub const CANARY: &[u8] = &[
    0x02, 0xb0, 0xad, 0x1b, 0x00, 0x00, 0x01, 0x00, 0xfe, 0x4f, 0x51, 0xe4, 0x00, 0x00, 0x10, 0x00,
    0x00, 0x00, 0x10, 0x00, 0x02, 0x01, 0x10, 0x00, 0x00, 0x00, 0x30, 0x00, 0x20, 0x00, 0x10, 0x00,
    0xfa, 0xbc, 0x00, 0x00, 0x30, 0x00, 0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x03, 0x10, 0x20, 0x00,
    0xc7, 0x05, 0x00, 0x10, 0x20, 0x00, 0x03, 0x20, 0x20, 0x00, 0xbf, 0x00, 0x20, 0x20, 0x00, 0xb8,
    0x83, 0x00, 0x00, 0x00, 0xb9, 0x00, 0x02, 0x00, 0x00, 0x89, 0x07, 0x05, 0x00, 0x00, 0x20, 0x00,
    0x83, 0xc7, 0x08, 0xe2, 0xf4, 0xb8, 0x00, 0x00, 0x20, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0,
    0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01,
    0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0x0f,
    0x01, 0x15, 0xe0, 0x00, 0x10, 0x00, 0xea, 0x8d, 0x00, 0x10, 0x00, 0x08, 0x00, 0x31, 0xc0, 0x8e,
    0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xb9, 0x00, 0x2d, 0x31, 0x01, 0xff, 0xc9, 0x75, 0xfc, 0x0f, 0xa2,
    0xbe, 0xe6, 0x00, 0x10, 0x00, 0xbd, 0x1c, 0x00, 0x00, 0x00, 0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8,
    0x20, 0x74, 0xfb, 0x66, 0xba, 0xf8, 0x03, 0xac, 0xee, 0xff, 0xcd, 0x75, 0xed, 0xb8, 0x2a, 0x00,
    0x00, 0x00, 0x66, 0xba, 0xf4, 0x00, 0xef, 0xf4, 0xeb, 0xfd, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x0f, 0x00, 0xd0, 0x00, 0x10, 0x00, 0x6b, 0x75, 0x6c, 0x70, 0x72, 0x69, 0x74, 0x20, 0x63, 0x61,
    0x6e, 0x61, 0x72, 0x79, 0x20, 0x69, 0x6e, 0x20, 0x6c, 0x6f, 0x6e, 0x67, 0x20, 0x6d, 0x6f, 0x64,
    0x65, 0x0a,
];

/// What an agent may promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub accelerator: Accelerator,
    /// Why it is not KVM, if it is not.
    pub kvm_refused: Option<String>,
}

/// QEMU works with no accelerator at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU runs no guest: {}", reasons(.kvm, .tcg))]
pub struct Broken {
    pub kvm: String,
    pub tcg: String,
}

/// What is wrong with both, such as a QEMU that is not there, is said once.
fn reasons(kvm: &str, tcg: &str) -> String {
    if kvm == tcg { tcg.to_owned() } else { format!("under KVM: {kvm}; under TCG: {tcg}") }
}

/// Tries KVM for five seconds at most, then TCG for thirty. Ignores the accelerator in `config`.
pub async fn find(config: &QemuConfig) -> Result<Found, Broken> {
    let kvm = match check(config, Accelerator::Kvm).await {
        Ok(()) => return Ok(Found { accelerator: Accelerator::Kvm, kvm_refused: None }),
        Err(reason) => reason,
    };
    match check(config, Accelerator::Tcg).await {
        Ok(()) => Ok(Found { accelerator: Accelerator::Tcg, kvm_refused: Some(kvm) }),
        Err(tcg) => Err(Broken { kvm, tcg }),
    }
}

/// Whether the canary speaks under one accelerator; otherwise why not.
pub async fn check(config: &QemuConfig, accelerator: Accelerator) -> Result<(), String> {
    if accelerator == Accelerator::Kvm && !std::path::Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm".to_owned());
    }
    let config = QemuConfig { accelerator, ..config.clone() };
    let (mut process, mut console) = start(&config).await?;
    let mut said = Vec::new();
    let course = async {
        // More than the phrase is wrong as well, and need not be kept.
        let _ = (&mut console).take(4096).read_to_end(&mut said).await;
        process.exit().await
    };
    let limit = match accelerator {
        Accelerator::Kvm => KVM_LIMIT,
        Accelerator::Tcg => TCG_LIMIT,
    };
    let exit = match tokio::time::timeout(limit, course).await {
        Ok(exit) => exit.map_err(|error| format!("wait for QEMU: {error}"))?,
        Err(_) => {
            process.kill();
            let exit = tokio::time::timeout(DEATH, process.exit()).await;
            let complaint = exit.ok().and_then(Result::ok).map(|exit| exit.complaint).unwrap_or_default();
            let reason = format!("the guest said nothing for {} s {}", limit.as_secs(), complaint.trim());
            return Err(reason.trim_end().to_owned());
        }
    };
    judge(&said, &exit)
}

fn judge(said: &[u8], exit: &Exit) -> Result<(), String> {
    if exit.status.code() != Some(STATUS) {
        return Err(exit.describe());
    }
    if said != PHRASE.as_bytes() {
        return Err(format!("the guest said `{}`", String::from_utf8_lossy(said).escape_debug()));
    }
    Ok(())
}

async fn start(config: &QemuConfig) -> Result<(Process, Receiver), String> {
    let prepare = || {
        let mut kernel = tempfile::tempfile()?;
        kernel.write_all(CANARY)?;
        kernel.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        let (reader, writer) = std::io::pipe()?;
        Ok::<(File, _, _), std::io::Error>((kernel, Receiver::from_owned_fd(reader.into())?, writer))
    };
    let (kernel, console, writer) = prepare().map_err(|error| format!("prepare the canary: {error}"))?;
    let guest = Guest {
        name: "canary",
        memory_mib: 16,
        cpus: 1,
        kernel,
        initrd: None,
        append: None,
        devices: &["isa-debug-exit,iobase=0xf4,iosize=0x04"],
        serials: vec![writer],
    };
    let (command, inherit) = qemu::command(config, guest);
    let process = Process::start(Start { command, inherit, cgroup: None }).await;
    let process = process.map_err(|error| format!("start {}: {error}", config.qemu.display()))?;
    Ok((process, console))
}
