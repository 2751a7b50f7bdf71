//! What an attempt observed: of a toolchain, a reproducer, a build, one run.

use crate::artifact::Artifact;
use crate::crash::Crash;
use crate::id::Digest;
use serde::{Deserialize, Serialize};

/// How far a run had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Before the marker of our init.
    Boot,
    /// After the marker, before the reproducer started.
    Settle,
    /// From the reproducer's start on.
    Reproducer,
}

/// A crash and the phase it came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCrash {
    pub phase: Phase,
    pub crash: Crash,
}

/// What one run (one boot of one kernel with the reproducer) observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The reproducer ran its course and the console stayed free of crashes.
    Ok,
    /// At least one crash after the reproducer started; earlier ones are listed too, in order.
    Crashed(Vec<SeenCrash>),
    /// The guest crashed, or stopped, before our init's marker or before the reproducer started.
    BootFailed { crashes: Vec<SeenCrash>, reason: String },
    /// The guest was up, but the reproducer could not be started.
    NoReproducerStart { reason: String },
    /// The guest fell silent after the reproducer started, and no crash was printed.
    Hung { reason: String },
}

impl Outcome {
    /// Every crash of the run, in order.
    pub fn crashes(&self) -> &[SeenCrash] {
        match self {
            Outcome::Crashed(crashes) | Outcome::BootFailed { crashes, .. } => crashes,
            Outcome::Ok | Outcome::NoReproducerStart { .. } | Outcome::Hung { .. } => &[],
        }
    }
}

/// A run as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub outcome: Outcome,
    pub console: Artifact,
    pub duration_ms: u64,
}

/// A kernel that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What QEMU boots (for x86-64 a bzImage).
    pub image: Artifact,
    /// The ELF file with symbols, compressed with zstd.
    pub vmlinux: Artifact,
    /// The configuration after kconfig had its say.
    pub config: Artifact,
    /// Digest over what the kernel does, see `signature`.
    pub fingerprint: Digest,
    /// vmlinux's GNU build id in hexadecimal, which the kernel tells too when it runs; empty where
    /// it has none.
    #[serde(default)]
    pub build_id: String,
}

/// What a build came to. Both endings say something about the revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildOutcome {
    Built(Kernel),
    /// `message` is the first error line, fit to stand in a log.
    Failed {
        message: String,
    },
}

/// A build as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub outcome: BuildOutcome,
    pub log: Artifact,
    pub duration_ms: u64,
}

/// A toolchain as an agent found it in its container engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolchainFacts {
    /// The image id that pins it, `sha256:…`.
    pub image_id: String,
    /// First line of `gcc --version`.
    pub gcc: String,
    /// First line of `ld --version`.
    pub ld: String,
}

impl ToolchainFacts {
    /// The log's `compiler:` line.
    pub fn compiler(&self) -> String {
        format!("{}, {}", self.gcc, self.ld)
    }
}

/// What compiling a reproducer came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReproducerOutcome {
    Ready(Artifact),
    Failed { message: String },
}

/// What `scripts/get_maintainer.pl` of a revision printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintainers {
    /// Lines such as `A <a@b> (maintainer:BLOCK LAYER)`.
    pub output: String,
    /// Why there is less than there could be: an image without perl, a tree without the script.
    pub problem: Option<String>,
}

/// Why an attempt says nothing about the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InfraClass {
    /// The container engine is not there or refuses.
    Engine,
    /// No such toolchain image on this agent, nor to be had.
    Toolchain,
    /// The source could not be fetched or checked out.
    Source,
    /// The agent's disk is full or failing.
    Disk,
    /// The kernel's out-of-memory killer, or a container's limit, ended it.
    Memory,
    /// QEMU could not be started or died of itself.
    Qemu,
    /// An artifact could not be read or written.
    Artifact,
    /// It took longer than it may, for no reason in the kernel.
    Timeout,
    /// It went beyond what an attempt may have of something else: disk, files. The machine is
    /// well, so that it counts against the item like any other failure.
    Limit,
    /// A bug of ours.
    Internal,
}

impl InfraClass {
    /// The word that stands in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            InfraClass::Engine => "container engine",
            InfraClass::Toolchain => "toolchain",
            InfraClass::Source => "source",
            InfraClass::Disk => "disk",
            InfraClass::Memory => "memory",
            InfraClass::Qemu => "qemu",
            InfraClass::Artifact => "artifact",
            InfraClass::Timeout => "timeout",
            InfraClass::Limit => "limit",
            InfraClass::Internal => "internal",
        }
    }
}

/// An attempt that failed for reasons outside the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infra {
    pub class: InfraClass,
    pub reason: String,
}

/// What an item yields: kept under the item's key, shared by every job that wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Product {
    Toolchain(ToolchainFacts),
    Reproducer(ReproducerOutcome),
    Maintainers(Maintainers),
    Build(Build),
    Run(Run),
}

/// How an attempt ended. Only `Done` is evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    Done(Product),
    Infra(Infra),
    /// The agent is shutting down or was told to let go; counts against nobody.
    Released,
}
