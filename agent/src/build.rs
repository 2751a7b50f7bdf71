//! Builds a kernel in a toolchain container, into an object tree that is kept warm.
//!
//! Only a build that failed from a clean object tree, and for no want of memory or disk, is a
//! failure of the kernel.

pub(crate) mod ccache;
mod ccache_stats;
mod config;
mod first_error;
mod object_tree;
mod outputs;
pub mod seed;
mod shared;

pub use ccache::Ccache;
pub use first_error::first_error;
pub use shared::{Questions, Serving, SharedCcache, SharedCcacheArgs};

use crate::container::{
    Access, Bind, CCACHE_TROUBLE, Engine, Exit, Limits, LogSink, RunSpec, Unfinished, infra_of_failure,
};
use crate::untrusted;
use bytes::Bytes;
use kulprit_common::id::Digest;
use kulprit_common::job::{ConfigBase, KernelBuild};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_common::signature::config_key;
use kulprit_common::toolchain::SOURCE_DIR;
use object_tree::{ObjectTree, create_for_container};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs in the container; the paths in it are constant, so that objects and ccache's entries
/// do not depend on where an agent keeps its files.
const SCRIPT: &str = include_str!("build/script.sh");
/// Objects of one configuration with debug information take some 1 to 2 GB.
const CCACHE_SIZE: &str = "20G";
/// ccache cleans up now and then only, and no makefile need go by it.
const CCACHE_BYTES_MAX: u64 = 24 << 30;
/// What a kernel calls itself; constant, for its bytes stand in the kernel. A static glibc reads
/// it as a version and refuses to run on what looks older than it supports.
const KERNEL_RELEASE: &str = "99.0.0-kulprit";

/// What to build, from what and where.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    pub kernel: &'a KernelBuild,
    /// `sha256:…` of the toolchain.
    pub image_id: &'a str,
    /// A work tree; mounted read-only.
    pub source_dir: &'a Path,
    /// Belongs to this toolchain, configuration and work tree; used by one build at a time.
    pub objects_dir: &'a Path,
    /// Shared by the builds of one repository and toolchain, see `Ccache`.
    pub ccache_dir: &'a Path,
    /// Asked for what is not in that one.
    pub shared_ccache: Option<&'a Serving>,
    /// The host's first build of its kind: a seed is made of it, so that the compiler's cache
    /// would only cost time, unless others have filled it.
    pub is_first: bool,
    pub jobs: u32,
    pub limits: Limits,
    /// What the object tree may grow to.
    pub objects_bytes_max: u64,
    /// Where the log is written.
    pub log: &'a Path,
    /// Stands in the container's label.
    pub attempt_label: &'a str,
}

/// What a build came to. The paths are good until the next build with the same object tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    Kernel {
        image: PathBuf,
        vmlinux: PathBuf,
        config: PathBuf,
        fingerprint: Digest,
        /// vmlinux's, in hexadecimal; empty where it has none.
        build_id: String,
    },
    Failed {
        message: String,
    },
}

/// Builds `request`; says how long that took. Cancelling leaves an object tree that the next
/// build repairs.
pub async fn build(
    engine: &Engine,
    request: BuildRequest<'_>,
    live: mpsc::Sender<Bytes>,
    cancel: CancellationToken,
) -> Result<(Built, Duration), Unfinished> {
    let log = open_log(&request, &live)?;
    let image = outputs::image_of(&request.kernel.arch)?;
    let mut tree = ObjectTree::open(request.objects_dir, request.source_dir).await?;
    tree.write_inputs(request.kernel).map_err(|e| Unfinished::io("write the build's inputs", &e))?;
    let warm = tree.is_warm();
    let started = Instant::now();
    let deadline = started + request.limits.time;

    let mut ended = attempt(engine, &request, &mut tree, image, log, deadline, &cancel).await?;
    if let (Ended::Failed { message }, true) = (&ended, warm) {
        let mut log = open_log(&request, &live)?;
        let note =
            format!("the incremental build failed ({message}); building again from a clean object tree");
        log.note(&note).map_err(|e| Unfinished::io("write the log", &e))?;
        tree.set_aside().await?;
        ended = attempt(engine, &request, &mut tree, image, log, deadline, &cancel).await?;
        match ended {
            Ended::Made => tree.forget().await?,
            Ended::Failed { .. } => tree.take_back().await?,
        }
    }
    let built = match ended {
        Ended::Failed { message } => Built::Failed { message },
        Ended::Made => outputs::collect(tree.root(), image).await?,
    };
    Ok((built, started.elapsed()))
}

/// Whether the next build in `objects_dir` would compile everything.
pub async fn is_cold(objects_dir: &Path, source_dir: &Path) -> Result<bool, Unfinished> {
    Ok(!ObjectTree::open(objects_dir, source_dir).await?.is_warm())
}

/// How one run of make ended, as far as it says something about the kernel.
enum Ended {
    Made,
    Failed { message: String },
}

async fn attempt(
    engine: &Engine,
    request: &BuildRequest<'_>,
    tree: &mut ObjectTree,
    image: outputs::Image,
    mut log: LogSink,
    deadline: Instant,
    cancel: &CancellationToken,
) -> Result<Ended, Unfinished> {
    let ccache = request.ccache_dir.join("cache");
    create_for_container(&ccache).map_err(|e| Unfinished::io("create ccache's directory", &e))?;
    let spec = spec(request, tree, &ccache, image, deadline.saturating_duration_since(Instant::now()));
    tree.begin()?;
    ccache_stats::clear(tree.root());
    let exit = engine.run(&spec, &mut log, cancel).await;
    if let Some(calls) = ccache_stats::count(tree.root()) {
        log.note(&calls.to_string()).map_err(|e| Unfinished::io("write the log", &e))?;
    }
    if matches!(&exit, Ok(Exit { code: 0, .. })) {
        for lost in config::lost_symbols(request.kernel, tree.root()) {
            log.note(&lost).map_err(|e| Unfinished::io("write the log", &e))?;
        }
    }
    let log = log.finish().map_err(|e| Unfinished::io("write the log", &e))?;
    let ended = exit.and_then(|exit| match exit.code {
        0 => Ok(Ended::Made),
        _ => failure(exit, request, &log.path),
    });
    if let Err(Unfinished::Infra(infra)) = &ended {
        clear_up(infra, tree, &ccache).await?;
    }
    let ended = ended?;
    tree.end()?;
    Ok(ended)
}

/// Removes what would have the next build fail as well, or what takes more room than it may.
async fn clear_up(infra: &Infra, tree: &mut ObjectTree, ccache: &Path) -> Result<(), Unfinished> {
    if infra.class == InfraClass::Limit {
        tree.discard().await?;
    }
    let unfit = infra.reason.contains(CCACHE_TROUBLE)
        || infra.class == InfraClass::Limit && untrusted::measure(ccache, CCACHE_BYTES_MAX).is_err();
    if unfit {
        untrusted::remove(ccache).map_err(|e| Unfinished::io("remove the compiler's cache", &e))?;
    }
    Ok(())
}

/// What a failed make means: infra where the machine ran out of something.
fn failure(exit: Exit, request: &BuildRequest<'_>, log: &Path) -> Result<Ended, Unfinished> {
    let text = std::fs::read(log).map_err(|e| Unfinished::io("read the log", &e))?;
    let text = String::from_utf8_lossy(&text);
    if let Some(infra) = infra_of_failure(exit, &request.limits, &text, request.objects_dir) {
        return Err(Unfinished::Infra(infra));
    }
    // The shell's codes for what it cannot run: the image is no toolchain.
    if matches!(exit.code, 126 | 127) {
        let reason = first_error(&text).unwrap_or_else(|| "the image lacks sh or make".into());
        return Err(Unfinished::infra(InfraClass::Toolchain, reason));
    }
    let message = first_error(&text).unwrap_or_else(|| format!("make ended with code {}", exit.code));
    Ok(Ended::Failed { message })
}

fn spec<'a>(
    request: &'a BuildRequest<'_>,
    tree: &'a ObjectTree,
    ccache: &'a Path,
    image: outputs::Image,
    time: Duration,
) -> RunSpec<'a> {
    let kernel = request.kernel;
    let target = match &kernel.config {
        ConfigBase::Target(target) => target.clone(),
        ConfigBase::File(_) => String::new(),
    };
    let is_alone = request.is_first && request.shared_ccache.is_none();
    let without_cache = is_alone.then(|| ("CCACHE_DISABLE", "1".to_owned()));
    let mut argv: Vec<String> = ["/bin/sh", "-c", SCRIPT, "build"].map(String::from).into();
    argv.extend(kernel.make_args.iter().cloned());
    let objects = Access::Writable { bytes_max: request.objects_bytes_max };
    let cached = Access::Writable { bytes_max: CCACHE_BYTES_MAX };
    RunSpec {
        image_id: request.image_id,
        argv,
        env: vec![
            ("HOME", "/tmp".into()),
            ("LC_ALL", "C".into()),
            ("KULPRIT_ARCH", kernel.arch.clone()),
            ("KULPRIT_JOBS", request.jobs.max(1).to_string()),
            ("KULPRIT_CONFIG_KEY", config_key(kernel).to_string()),
            ("KULPRIT_CONFIG_TARGET", target),
            ("KULPRIT_IMAGE_TARGET", image.target.into()),
            ("KULPRIT_RELEASE", KERNEL_RELEASE.into()),
            ("CCACHE_DIR", "/ccache".into()),
            ("CCACHE_NOHASHDIR", "1".into()),
            ("CCACHE_STATSLOG", ccache_stats::IN_CONTAINER.into()),
            // Without CCACHE_DEPEND: in that mode nobody looks for .incbin, and an object that takes a
            // file in was served with another kernel's file. The compiler's plugins are part of the
            // tree, so their content counts, and not the image's name.
            ("CCACHE_COMPILERCHECK", "content".into()),
            ("CCACHE_MAXSIZE", CCACHE_SIZE.into()),
        ]
        .into_iter()
        .chain(without_cache)
        .chain(request.shared_ccache.map(|shared| ("CCACHE_REMOTE_STORAGE", shared.storage())))
        .collect(),
        workdir: "/build",
        binds: vec![
            Bind { host: request.source_dir, container: SOURCE_DIR, access: Access::ReadOnly },
            Bind { host: tree.root(), container: "/build", access: objects },
            Bind { host: tree.inputs(), container: "/kulprit", access: Access::ReadOnly },
            Bind { host: ccache, container: "/ccache", access: cached },
        ]
        .into_iter()
        .chain(request.shared_ccache.map(|shared| Bind {
            host: shared.dir(),
            container: shared::IN_CONTAINER,
            access: Access::ReadOnly,
        }))
        .collect(),
        limits: Limits { time, ..request.limits },
        attempt: request.attempt_label,
    }
}

fn open_log(request: &BuildRequest<'_>, live: &mpsc::Sender<Bytes>) -> Result<LogSink, Unfinished> {
    LogSink::create(request.log, request.limits.log_bytes_max, live.clone())
        .map_err(|e| Unfinished::io("create the log", &e))
}
