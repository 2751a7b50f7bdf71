//! The agent's settings: flags, each with a `KULPRIT_*` twin.

use crate::boot::{Accelerator, QemuConfig, qemu};
use crate::build::SharedCcacheArgs;
use crate::preemption::{METADATA_URL, Watching};
use crate::source::SourceFrom;
use clap::Parser;
use kulprit_common::farm::event::Slot;
use kulprit_common::id::AgentId;
use kulprit_observe::logging::LogArgs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Builds kernels in containers, boots them in QEMU, and reports what it saw.
#[derive(Clone, Debug, Parser)]
#[command(name = "kulprit-agent", version = kulprit_proto::VERSION)]
pub struct Args {
    /// The coordinator's address: https://HOST:PORT, or http:// on this machine; with commas, those of
    /// all that may take over from one another
    #[arg(long, env = "KULPRIT_COORDINATOR", default_value = "http://127.0.0.1:7453", value_name = "URL")]
    pub coordinator: String,
    /// The agent's name, stable over restarts [default: its certificate's, else the host's name]
    #[arg(long, env = "KULPRIT_AGENT", value_name = "NAME")]
    pub name: Option<AgentId>,
    /// Directory for work trees, object trees and attempts; this agent's alone
    #[arg(long, env = "KULPRIT_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// Join the farm with this token, unless there is a valid certificate; better given as
    /// KULPRIT_JOIN or --join-file, for a command line can be read by others
    #[arg(
        long,
        env = "KULPRIT_JOIN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "join_file"
    )]
    pub join: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "KULPRIT_JOIN_FILE", value_name = "FILE")]
    pub join_file: Option<PathBuf>,
    /// Directory of ca.pem, cert.pem and key.pem, the agent's own or your CA's; read again when
    /// they change [default: STATE/credentials]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// Directory for what the agents of a host share: git mirrors, ccache [default: STATE/cache]
    #[arg(long, env = "KULPRIT_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Where source is fetched: from the job's repository, from the coordinator, or from the
    /// repository and, where that cannot be asked, the coordinator
    #[arg(long, env = "KULPRIT_SOURCE", value_name = "WHERE", value_enum, default_value_t)]
    pub source: SourceFrom,
    #[command(flatten)]
    pub shared_ccache: SharedCcacheArgs,
    /// Items in hand at once [default: cores / slot-cores, as far as memory allows]
    #[arg(long, env = "KULPRIT_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: Option<u32>,
    /// Cores of one slot; builds use as many jobs
    #[arg(long, env = "KULPRIT_SLOT_CORES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub slot_cores: Option<u32>,
    /// Memory of one slot in MiB
    #[arg(long, env = "KULPRIT_SLOT_MEMORY_MIB", default_value_t = 4096, value_name = "MIB", value_parser = clap::value_parser!(u64).range(256..=1 << 24))]
    pub slot_memory_mib: u64,
    /// Let a slot use cores that others leave idle
    #[arg(long, env = "KULPRIT_SHARE_CORES")]
    pub share_cores: bool,
    /// What executes guests: auto tries KVM with a canary guest and falls back to TCG
    #[arg(long, env = "KULPRIT_ACCELERATOR", default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accelerator: String,
    /// The QEMU program
    #[arg(long, env = "KULPRIT_QEMU", default_value = "qemu-system-x86_64", value_name = "PROGRAM")]
    pub qemu: PathBuf,
    /// A static busybox, for reproducers that are scripts
    #[arg(long, env = "KULPRIT_BUSYBOX", default_value = "/bin/busybox", value_name = "FILE")]
    pub busybox: PathBuf,
    /// Free disk below which the agent takes no builds, in MiB
    #[arg(long, env = "KULPRIT_DISK_MIN_MIB", default_value_t = 4096, value_name = "MIB")]
    pub disk_min_mib: u64,
    /// Most that a build's object tree may grow to, in MiB
    #[arg(long, env = "KULPRIT_BUILD_DISK_MIB", default_value_t = 32768, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 24))]
    pub build_disk_mib: u64,
    /// Most that downloaded kernels may take, in MiB
    #[arg(long, env = "KULPRIT_KERNEL_CACHE_MIB", default_value_t = 2048, value_name = "MIB")]
    pub kernel_cache_mib: u64,
    /// How long work in hand may go on after SIGTERM
    #[arg(long, env = "KULPRIT_DRAIN_S", default_value_t = 60, value_name = "SECONDS")]
    pub drain_s: u64,
    /// Whose notices of preemption to watch for; one ends the agent within 15 s
    #[arg(long, env = "KULPRIT_PREEMPTION", default_value = "auto", value_name = "CLOUD")]
    pub preemption: Watching,
    /// Where the cloud's metadata service is
    #[arg(long, env = "KULPRIT_METADATA_URL", default_value = METADATA_URL, value_name = "URL", hide = true)]
    pub metadata_url: String,
    /// Say what this machine can do, as JSON lines, and end
    #[arg(long)]
    pub check: bool,
    /// With --check: the image to look for, in place of the usual toolchains
    #[arg(long, value_name = "IMAGE", requires = "check", hide = true)]
    pub check_image: Option<String>,
    /// Address of /healthz, /readyz and /metrics, over plain HTTP and without certificates, so
    /// better on loopback or a network of your own [default: not served]
    #[arg(long, env = "KULPRIT_AGENT_LISTEN_OPS", value_name = "ADDR:PORT")]
    pub listen_ops: Option<SocketAddr>,
    #[command(flatten)]
    pub log: LogArgs,
    /// End when the parent process ends
    #[arg(long, hide = true)]
    pub tied_to_parent: bool,
}

/// What slots there are and how a build is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    pub slots: u32,
    pub slot: Slot,
    /// `make -j`.
    pub jobs: u32,
    /// Cores a container may use; absent, whatever is idle.
    pub cores_max: Option<u32>,
    /// What an object tree may grow to.
    pub build_bytes_max: u64,
    /// A command in a container is stopped when the disk has less left.
    pub disk_free_bytes_min: u64,
}

/// A slot of this many cores builds at a good speed and still leaves several on a large host.
const SLOT_CORES: u32 = 4;

impl Args {
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }

    pub fn forced_accelerator(&self) -> Option<Accelerator> {
        match self.accelerator.as_str() {
            "kvm" => Some(Accelerator::Kvm),
            "tcg" => Some(Accelerator::Tcg),
            _ => None,
        }
    }

    /// How QEMU is run, as far as the machine need not be asked.
    pub fn qemu_config(&self) -> QemuConfig {
        QemuConfig {
            qemu: self.qemu.clone(),
            busybox: self.busybox.clone(),
            user: qemu::unprivileged_user(),
            ..QemuConfig::default()
        }
    }

    /// Slots by cores and memory; at least one.
    pub fn sizing(&self, cores: u32, memory_mib: u64) -> Sizing {
        let slot_cores = self.slot_cores.unwrap_or(SLOT_CORES).clamp(1, cores.max(1));
        let by_memory = u32::try_from(memory_mib / self.slot_memory_mib.max(1)).unwrap_or(u32::MAX);
        let slots = self.slots.unwrap_or_else(|| (cores / slot_cores).min(by_memory).max(1));
        Sizing {
            slots,
            slot: Slot { cores: slot_cores, memory_mib: self.slot_memory_mib.min(memory_mib) },
            jobs: if self.share_cores { cores.max(1) } else { slot_cores },
            cores_max: (!self.share_cores).then_some(slot_cores),
            build_bytes_max: self.build_disk_mib << 20,
            // A build that was begun may use the rest, but for what the agent itself needs.
            disk_free_bytes_min: (self.disk_min_mib << 20) / 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_cores_and_memory() {
        let args = |extra: &[&str]| {
            let fixed = ["kulprit-agent", "--state", "x"];
            Args::parse_from(fixed.iter().chain(extra))
        };
        for (extra, cores, memory, slots, slot_cores) in [
            (&[][..], 2, 24_000, 1, 2),
            (&[], 64, 256_000, 16, 4),
            (&[], 64, 9_000, 2, 4),
            (&[], 1, 500, 1, 1),
            (&["--slots", "3", "--slot-cores", "1"], 2, 24_000, 3, 1),
        ] {
            let sizing = args(extra).sizing(cores, memory);
            assert_eq!((sizing.slots, sizing.slot.cores), (slots, slot_cores), "{extra:?} {cores} {memory}");
        }
    }
}
