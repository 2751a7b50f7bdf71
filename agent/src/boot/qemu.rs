//! QEMU's command line, for runs and for the canary alike.

use super::{Accelerator, QemuConfig};
use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every QEMU of ours has a name, and every control group a directory, that starts with this.
pub const NAME_PREFIX: &str = "kulprit-";

/// No device that is not asked for, no way out but the inherited descriptors, no restart.
const FIXED: [&str; 8] =
    ["-nodefaults", "-no-user-config", "-no-reboot", "-nic", "none", "-display", "none", "-sandbox"];
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// Room for translated code; it fills with what a guest really runs.
pub const TRANSLATION_MIB: u64 = 256;

/// Owns nothing, by convention.
const NOBODY: u32 = 65534;

/// What a QEMU is to boot, and where it writes.
pub struct Guest<'a> {
    pub name: &'a str,
    pub memory_mib: u32,
    pub cpus: u32,
    pub kernel: File,
    pub initrd: Option<File>,
    pub append: Option<&'a str>,
    pub devices: &'a [&'a str],
    /// One serial port each, from COM1 on. Pipes, since QEMU writes byte by byte: a socket
    /// would account each byte as a packet and be full after a few hundred.
    pub serials: Vec<PipeWriter>,
}

/// The command for a guest, and the descriptors it inherits.
///
/// Files go in as descriptors as well: the unprivileged QEMU then needs no way to their directory.
pub fn command(config: &QemuConfig, guest: Guest<'_>) -> (Command, Vec<OwnedFd>) {
    let mut inherit = Vec::new();
    let mut command = Command::new(executable(&config.qemu));
    command.args(FIXED).arg(SANDBOX);
    command.arg("-name").arg(format!("guest={}", process_name(guest.name)));
    command.args(["-machine", "q35"]);
    match config.accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => {
            command.arg("-accel").arg(format!("tcg,tb-size={TRANSLATION_MIB}")).args(["-cpu", "max"])
        }
    };
    command.arg("-m").arg(format!("{}M", guest.memory_mib)).arg("-smp").arg(guest.cpus.to_string());
    command.arg("-kernel").arg(by_descriptor(guest.kernel, &mut inherit));
    if let Some(initrd) = guest.initrd {
        command.arg("-initrd").arg(by_descriptor(initrd, &mut inherit));
    }
    if let Some(append) = guest.append {
        command.arg("-append").arg(append);
    }
    for (index, serial) in guest.serials.into_iter().enumerate() {
        let serial = OwnedFd::from(serial);
        command.arg("-add-fd").arg(format!("fd={},set={index}", serial.as_raw_fd()));
        command.arg("-chardev").arg(format!("file,id=serial{index},path=/dev/fdset/{index},append=on"));
        command.arg("-serial").arg(format!("chardev:serial{index}"));
        inherit.push(serial);
    }
    for device in guest.devices {
        command.arg("-device").arg(device);
    }
    if let Some((user, group)) = config.user {
        command.gid(group).uid(user);
    }
    (command, inherit)
}

/// Whom a root's QEMU runs as: nobody, in the group that may use KVM. Another's runs as itself.
pub fn unprivileged_user() -> Option<(u32, u32)> {
    let kvm = || std::fs::metadata("/dev/kvm").ok().filter(|meta| meta.mode() & 0o060 == 0o060);
    let group = || kvm().map_or(NOBODY, |meta| meta.gid());
    nix::unistd::geteuid().is_root().then(|| (NOBODY, group()))
}

/// The name a QEMU runs under, also that of its control group.
pub fn process_name(name: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || "-_.".contains(char) { char } else { '_' };
    format!("{NAME_PREFIX}{}", name.chars().map(plain).collect::<String>())
}

fn by_descriptor(file: File, inherit: &mut Vec<OwnedFd>) -> String {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    inherit.push(file.into());
    path
}

/// Looks a bare name up in the agent's PATH, which QEMU itself is not given.
fn executable(qemu: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&path).map(|dir| dir.join(qemu)).find(|file| file.is_file());
    if qemu.components().count() > 1 { qemu.to_owned() } else { found().unwrap_or_else(|| qemu.to_owned()) }
}
