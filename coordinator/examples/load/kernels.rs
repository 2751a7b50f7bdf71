//! What the pretended kernels do: each job has a culprit, and the crash shows in a part of the runs.

use crate::history::{History, number};
use kulprit_common::artifact::Artifact;
use kulprit_common::crash::Crash;
use kulprit_common::farm::item::{BuildWork, ItemKey, RunWork, Work};
use kulprit_common::id::Digest;
use kulprit_common::outcome::{
    AttemptEnd, Build, BuildOutcome, Kernel, Maintainers, Outcome, Phase, Product, ReproducerOutcome, Run,
    SeenCrash, ToolchainFacts,
};
use kulprit_common::patch::Patch;

pub const IMAGE: &str = "sha256:1";
/// Of sixteen runs of a bad kernel, as many show it: a rare bug is what takes many runs.
const SHOWS: usize = 4;
/// A kernel tells by its size whether it is bad.
const BAD: u64 = 1 << 20;

/// What a finished piece of work brings in.
pub fn end(history: &History, item: &ItemKey, work: &Work) -> AttemptEnd {
    let log = Artifact { digest: Digest::of(item.to_string().as_bytes()), size: 4096 };
    AttemptEnd::Done(match work {
        Work::Toolchain { .. } => Product::Toolchain(ToolchainFacts {
            image_id: IMAGE.into(),
            gcc: "gcc 10.2.1".into(),
            ld: "GNU ld 2.35.2".into(),
        }),
        Work::Reproducer { .. } => Product::Reproducer(ReproducerOutcome::Ready(log)),
        Work::Maintainers(_) => {
            Product::Maintainers(Maintainers { output: String::new(), problem: Some("no script".into()) })
        }
        Work::Build(work) => {
            Product::Build(Build { outcome: built(history, work), log, duration_ms: 100_000 })
        }
        Work::Run(work) => Product::Run(Run { outcome: seen(item, work), console: log, duration_ms: 10_000 }),
    })
}

fn built(history: &History, work: &BuildWork) -> BuildOutcome {
    let job = job_of(work);
    let culprit = history.culprit(job);
    let has = history.place(&work.revision).is_some_and(|place| place >= culprit);
    let reverted = work.patches.contains(&Patch::Revert(history.commits[culprit]));
    let size = if has && !reverted { BAD } else { 0 };
    let name = format!("{} {:?} {job}", work.revision, work.patches);
    let of =
        |what: &str| Artifact { digest: Digest::of(format!("{what} {name}").as_bytes()), size: 1 + size };
    BuildOutcome::Built(Kernel {
        image: of("image"),
        vmlinux: of("vmlinux"),
        config: of("config"),
        fingerprint: Digest::of(name.as_bytes()),
        build_id: String::new(),
    })
}

/// Each job builds with its own name, so that no two share a kernel.
fn job_of(work: &BuildWork) -> &str {
    work.kernel.make_args.iter().find_map(|arg| arg.strip_prefix("FOR=")).unwrap_or_default()
}

fn seen(item: &ItemKey, work: &RunWork) -> Outcome {
    let ItemKey::Run(kernel, index) = item else { return Outcome::Ok };
    if work.kernel.size <= BAD || number(&format!("{kernel} {index}")) % 16 >= SHOWS {
        return Outcome::Ok;
    }
    let crash = Crash::titled("WARNING in planted_bug");
    Outcome::Crashed(vec![SeenCrash { phase: Phase::Reproducer, crash }])
}
