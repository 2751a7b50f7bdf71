//! A job as a value: what to search for, where, and how to build and boot it.
//!
//! `file` reads the TOML a person writes; this is what the farm works with.

pub mod file;
mod repairs;
mod symptom;

pub use repairs::{Backport, Repairs, SwitchedOff};

use crate::id::Digest;
use serde::{Deserialize, Serialize};

pub use symptom::{NOTHING, Symptom, error_signature};

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The commit that made the crash appear.
    Cause,
    /// The commit that made it disappear.
    Fix,
}

/// A job, validated: every name resolved to a value except revisions, which need the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// For people; need not be unique.
    pub name: String,
    /// A local path (absolute) or a URL git can fetch from.
    pub repository: String,
    /// Cause: the revision the crash was seen on. Fix: the same, and older than `good`.
    pub bad: String,
    /// Cause: a revision without the crash; absent, release tags are walked back.
    /// Fix: a revision where the crash is gone; absent, the repository's HEAD.
    pub good: Option<String>,
    pub mode: Mode,
    /// Other than a crash, it is always searched for its cause, and there is no reproducer.
    #[serde(default)]
    pub symptom: Symptom,
    pub kernel: KernelBuild,
    pub toolchain: ToolchainChoice,
    pub reproducer: Reproducer,
    /// The crash title looked for; absent, the one seen at the bad end.
    pub target: Option<String>,
    pub runs: Runs,
    pub timeouts: Timeouts,
    pub machine: Machine,
    pub prior: Prior,
    pub repairs: Repairs,
    #[serde(default)]
    pub config_work: ConfigWish,
}

/// What is to be done about the configuration once the crash has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigWish {
    /// Go without instrumentation that the crash does not need.
    pub drop_instrumentation: bool,
    /// A whole `.config` to come as near to as the crash allows.
    pub baseline: Option<Fragment>,
    /// Most kernels that are built for it.
    pub steps_max: u32,
}

impl ConfigWish {
    pub fn is_empty(&self) -> bool {
        !self.drop_instrumentation && self.baseline.is_none()
    }
}

impl Default for ConfigWish {
    /// Nothing is done unless it is asked for.
    fn default() -> Self {
        ConfigWish { drop_instrumentation: false, baseline: None, steps_max: 20 }
    }
}

/// How a kernel is configured and made. Together with a tree and a toolchain it makes the build key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KernelBuild {
    /// The kernel's name of the architecture, `x86_64`.
    pub arch: String,
    pub config: ConfigBase,
    /// Merged over the base, in order; the last word on a symbol wins.
    pub fragments: Vec<Fragment>,
    /// More arguments for make, such as `W=1`.
    pub make_args: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConfigBase {
    /// The text of a `.config`.
    File(String),
    /// A make target such as `tinyconfig` or `defconfig`.
    Target(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fragment {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolchainChoice {
    /// By the farm's rules on the release a revision descends from; the choice made for the
    /// bad end holds for the whole range, so that the compiler never changes across the
    /// deciding pair.
    Auto,
    /// This image for every revision.
    Image(String),
}

/// What makes the kernel crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reproducer {
    pub kind: ReproducerKind,
    /// The file's name, for people.
    pub name: String,
    /// SHA-256 of the file's bytes; the bytes are an artifact.
    pub digest: Digest,
    /// Arguments it is started with in the guest.
    pub args: Vec<String>,
    /// For C source: more compiler flags.
    pub cflags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReproducerKind {
    /// Compiled statically in the toolchain container.
    CSource,
    /// Interpreted in the guest by its `#!` line or by busybox sh.
    Script,
    /// A static executable, ready to run.
    Binary,
    /// The run ends where a reproducer would start; `NOTHING` stands in its place.
    Nothing,
}

/// What the search believes of the commits before anything has run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prior {
    /// Commits that touch what the crash's stack names are likelier, and so are recent ones.
    #[default]
    Auto,
    /// All commits are equally likely.
    Flat,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Runs {
    /// Most runs that count at one revision.
    pub max: u32,
    /// Most runs that count at the bad end, which must show the crash.
    pub first_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timeouts {
    /// A build that takes longer is an infra failure.
    pub build_s: u32,
    /// From QEMU's start to the first byte on the console.
    pub first_byte_s: u32,
    /// From QEMU's start to our init's marker.
    pub boot_s: u32,
    /// Between the marker and the reproducer's start, for crashes of the boot itself to show.
    pub settle_ms: u32,
    /// The longest the reproducer may run; one still running then ran its course.
    pub reproducer_s: u32,
    /// How long the console is watched after the reproducer ended.
    pub linger_ms: u32,
    /// How long init may go without a sign of life while the reproducer runs.
    pub silence_s: u32,
    /// After a crash line, how long the rest of the report may take.
    pub drain_ms: u32,
}

/// The virtual machine a kernel boots in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Machine {
    pub memory_mib: u32,
    pub cpus: u32,
    /// Put behind our own kernel command line.
    pub cmdline: String,
}

impl Default for Runs {
    /// As the reference's: 10 a revision, 20 at the start. Early stopping usually needs a third.
    fn default() -> Self {
        Runs { max: 10, first_max: 20 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            build_s: 3600,
            first_byte_s: 60,
            boot_s: 300,
            settle_ms: 200,
            reproducer_s: 60,
            linger_ms: 1000,
            silence_s: 120,
            drain_ms: 3000,
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine { memory_mib: 1024, cpus: 1, cmdline: String::new() }
    }
}
