//! What this machine can do now: engine, images, accelerator, disk. Asked again and again.

use crate::boot::{Accelerator, QemuConfig};
use crate::canary;
use crate::config::{Args, Sizing};
use crate::container::{Engine, Unfinished};
use kulprit_common::farm::event::AgentInfo;
use kulprit_common::id::{AgentId, Session};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What was found about booting.
#[derive(Clone, Debug)]
pub struct Booting {
    pub accelerator: Option<Accelerator>,
    pub problem: Option<String>,
}

/// Boots the canary, unless the operator said what to use.
pub async fn booting(args: &Args, qemu: &QemuConfig) -> Booting {
    if let Some(forced) = args.forced_accelerator() {
        let problem = canary::check(qemu, forced).await.err();
        let problem = problem.map(|why| format!("QEMU boots no guest under {}: {why}", forced.as_str()));
        return Booting { accelerator: problem.is_none().then_some(forced), problem };
    }
    match canary::find(qemu).await {
        Ok(found) => {
            if let Some(why) = &found.kvm_refused {
                tracing::info!(why, "guests run under TCG: the canary did not come up under KVM");
            }
            Booting { accelerator: Some(found.accelerator), problem: None }
        }
        Err(broken) => Booting { accelerator: None, problem: Some(broken.to_string()) },
    }
}

/// What is said while a canary is asked after trouble.
pub const GUESTS_FAIL: &str =
    "several guests in a row failed: a canary guest is to say whether guests run here";

/// Boots the canary once more, after guests failed; says what is wrong if it does not come up.
pub async fn canary_again(qemu: &QemuConfig) -> Option<String> {
    let accelerator = qemu.accelerator.as_str();
    match canary::check(qemu, qemu.accelerator).await {
        Ok(()) => {
            tracing::info!(accelerator, "guests failed, and the canary comes up: going on");
            None
        }
        Err(why) => {
            tracing::warn!(accelerator, why, "guests failed, and the canary does not come up either");
            Some(format!("guests failed, and the canary does not come up under {accelerator} either: {why}"))
        }
    }
}

/// The agent's word on itself for the next syncs. Without an engine there is a reason why.
pub async fn look(
    args: &Args,
    sizing: &Sizing,
    engine: Result<&Engine, &str>,
    booting: &Booting,
) -> AgentInfo {
    let mut problems: Vec<String> = booting.problem.iter().cloned().collect();
    let images = match engine {
        Ok(engine) => engine.images().await.map_err(|error| error.to_string()),
        Err(why) => Err(why.to_owned()),
    };
    let mut can_build = images.is_ok();
    if let Err(why) = &images {
        problems.push(format!("no container engine ({why}): install Docker or start its daemon"));
    }
    let mut can_boot = booting.accelerator.is_some() && booting.problem.is_none();
    // Where both are on one disk, it is spoken of once.
    let disk = |dir: &Path| std::fs::metadata(dir).map(|meta| meta.dev()).ok();
    let apart = args.cache.iter().filter(|cache| disk(cache) != disk(&args.state));
    for dir in std::iter::once(&args.state).chain(apart) {
        match free_mib(dir) {
            Ok(free) if free < args.disk_min_mib => {
                can_build = false;
                // A run needs little; an agent that cannot even hold a console takes nothing.
                can_boot &= dir != &args.state || free > args.disk_min_mib / 16;
                let (dir, least) = (dir.display(), args.disk_min_mib);
                problems.push(format!("low on disk: {free} MiB free in {dir}, {least} MiB needed"));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("cannot see the free disk of {}: {error}", dir.display())),
        }
    }
    AgentInfo {
        host: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        version: kulprit_proto::VERSION.into(),
        slots: vec![sizing.slot; sizing.slots as usize],
        accelerator: booting.accelerator.map(Accelerator::as_str).unwrap_or_default().into(),
        images: images.unwrap_or_default(),
        can_build,
        can_boot,
        problems,
    }
}

/// Connects to the engine if it is there; otherwise says why not.
pub async fn engine(agent: &AgentId, session: Session) -> Result<Engine, String> {
    match Engine::connect(agent.clone(), session).await {
        Ok(engine) => Ok(engine),
        Err(Unfinished::Infra(infra)) => {
            tracing::warn!(why = infra.reason, "no container engine");
            Err(infra.reason)
        }
        Err(Unfinished::Cancelled) => Err("not connected".into()),
    }
}

pub fn free_mib(path: &Path) -> nix::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20)
}

/// Cores and memory of the machine, as far as this process may use them.
pub fn machine() -> (u32, u64) {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
    (cores, kib / 1024)
}
