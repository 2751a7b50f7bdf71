//! The kernels of a simulated farm: what commits they have, and what they do when built and run.

use super::Dice;
use kulprit_common::artifact::Artifact;
use kulprit_common::crash::Crash;
use kulprit_common::farm::action::{Assignment, CrashAt};
use kulprit_common::farm::event::{Culprit, Described};
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::history::{Commit, History, Revision, TaggedRelease};
use kulprit_common::id::{Digest, RevisionId, TreeId};
use kulprit_common::job::{
    Backport, ConfigBase, Job, KernelBuild, Machine, Mode, Prior, Repairs, Reproducer, ReproducerKind, Runs,
    Symptom, Timeouts, ToolchainChoice,
};
use kulprit_common::outcome::{
    Build, BuildOutcome, Kernel, Maintainers, Outcome, Phase, Product, ReproducerOutcome, Run, SeenCrash,
    ToolchainFacts,
};
use kulprit_common::patch::{KnownFix, Order, Patch, Patched};
use kulprit_common::report::CommitDetails;
use kulprit_common::toolchain::Release;

/// With this argument of make, the culprit breaks the build.
pub const BREAKS: &str = "BREAKS=1";
pub const TITLE: &str = "WARNING in planted_bug";

/// What can go wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lost: u64,
    pub repeated: u64,
    /// The longest a message travels.
    pub delay_ms: u64,
    /// Per second and agent: it dies and comes back with nothing.
    pub agent_death_permille: u64,
    /// Per second: the coordinator dies and comes back from its facts.
    pub restart_permille: u64,
    /// Of attempts.
    pub infra: u64,
    /// As many agents, the first ones, whose disk is full whatever they try.
    pub full_disks: usize,
    /// Of commits: their reverts do not apply.
    pub conflicts: u64,
    /// Of commits other than the culprit: they change nothing that is built.
    pub idle: u64,
    /// From the first commit on, and before the second, kernels do not build, unless the second
    /// is put in; that applies to every commit that five does not divide.
    pub broken: (u32, u32),
    /// In that region kernels build, and do not boot.
    pub builds_at_least: bool,
    /// Symbols that the crash does not show without.
    pub needs: &'static [&'static str],
    /// Of runs that would show the crash: nothing happens in them, whoever runs them and when.
    pub silent: u64,
}

impl Faults {
    /// A property of a commit that it has or not, in every life of the world.
    pub(super) fn has(index: u32, salt: u64, percent: u64) -> bool {
        Dice(u64::from(index) << 8 | salt).chance(percent)
    }

    pub fn conflicts(&self, index: u32) -> bool {
        Faults::has(index, 1, self.conflicts)
    }

    pub(super) fn is_broken(&self, made: &Made) -> bool {
        (self.broken.0..self.broken.1).contains(&made.index) && !made.mended
    }

    /// The commit whose kernel this one's is.
    pub(super) fn built_like(&self, mut index: u32, culprit: u32) -> u32 {
        while index > 0 && index != culprit && Faults::has(index, 2, self.idle) {
            index -= 1;
        }
        index
    }
}

/// What a kernel of the world is built from, as its tree and its digest tell: a commit, what it
/// is without, and whether a fix was put in.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) index: u32,
    pub(super) without: Option<u32>,
    pub(super) mended: bool,
    /// Whether a symbol is switched off that the crash needs.
    pub(super) lacks: bool,
}

impl Made {
    pub(super) fn write(self, mut bytes: [u8; 20]) -> [u8; 20] {
        bytes[..4].copy_from_slice(&self.index.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.without.map_or(0, |commit| commit + 1).to_be_bytes());
        bytes[8] = u8::from(self.mended);
        bytes[9] = u8::from(self.lacks);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Made {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Made {
            index: number(0),
            without: number(4).checked_sub(1),
            mended: bytes[8] == 1,
            lacks: bytes[9] == 1,
        }
    }

    /// Of the kernel that it becomes with such fragments.
    pub(super) fn digest(self, fragments: &str) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(Digest::of(fragments.as_bytes()).as_bytes());
        bytes[..20].copy_from_slice(&self.write([0x33; 20]));
        Digest::from_bytes(bytes)
    }
}

pub fn commit_id(index: u32) -> RevisionId {
    let mut bytes = [0x11; 20];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    RevisionId::from_bytes(bytes)
}

pub(super) fn tree_id(index: u32) -> TreeId {
    TreeId::from_bytes(Made { index, without: None, mended: false, lacks: false }.write([0x22; 20]))
}

pub fn index_of(id: &RevisionId) -> u32 {
    u32::from_be_bytes(id.as_bytes()[..4].try_into().expect("20 bytes"))
}

pub fn revision(index: u32) -> Revision {
    Revision { id: commit_id(index), tree: tree_id(index), subject: format!("commit {index}"), release: None }
}

/// A release that names a commit.
pub fn tagged(index: u32, release: Release) -> TaggedRelease {
    TaggedRelease { tag: release.to_string(), release, revision: revision(index) }
}

pub fn artifact(text: &str) -> Artifact {
    Artifact { digest: Digest::of(text.as_bytes()), size: 1 }
}

pub fn job() -> Job {
    Job {
        name: "sim".into(),
        repository: "/repo".into(),
        bad: "main".into(),
        good: Some("v1.0".into()),
        mode: Mode::Cause,
        symptom: Symptom::Crash,
        kernel: KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![],
            make_args: vec![],
        },
        toolchain: ToolchainChoice::Image("gcc".into()),
        reproducer: Reproducer {
            kind: ReproducerKind::CSource,
            name: "repro.c".into(),
            digest: Digest::of(b"repro"),
            args: vec![],
            cflags: vec![],
        },
        target: None,
        runs: Runs::default(),
        timeouts: Timeouts::default(),
        machine: Machine { memory_mib: 256, cpus: 1, cmdline: String::new() },
        prior: Prior::Auto,
        repairs: Repairs::default(),
        config_work: Default::default(),
    }
}

/// A straight line of commits 1..=n over the good end 0, which some merge once more.
pub fn line(commits: u32, is_merge: impl Fn(u32) -> bool) -> History {
    let commit = |index: u32| Commit {
        id: commit_id(index),
        tree: tree_id(index),
        parents: if index == 1 { vec![] } else { vec![index - 2] },
        outside: if index == 1 || is_merge(index) { vec![commit_id(0)] } else { vec![] },
        time: i64::from(index),
        subject: format!("commit {index}"),
    };
    History::new((1..=commits).map(commit).collect()).expect("a line is a history")
}

/// A fix that a job names by the numbers of its commits.
pub(super) fn known_fix(backport: &Backport) -> KnownFix {
    let commit = |name: &String| commit_id(name.parse().expect("a number"));
    KnownFix {
        fix: commit(&backport.fix),
        breaks: backport.breaks.as_ref().map(commit),
        title: backport.title.clone().unwrap_or_default(),
    }
}

/// What git makes of an order.
pub(super) fn patched(
    order: &Order,
    is_merge: &dyn Fn(u32) -> bool,
    faults: &Faults,
) -> Result<Patched, String> {
    let index = index_of(&order.revision);
    assert_eq!(commit_id(index), order.revision, "git was asked for a name that is no commit's");
    let (mut patches, mut remarks) = (vec![], vec![]);
    for known in &order.fixes {
        let contains = |commit: &RevisionId| index >= index_of(commit);
        if contains(&known.fix) || known.breaks.is_some_and(|breaks| !contains(&breaks)) {
            continue;
        }
        if index.is_multiple_of(5) {
            remarks.push(format!("not put in: {}", known.title));
        } else {
            patches.push(Patch::Pick(known.fix));
            remarks.push(format!("put in: {}", known.title));
        }
    }
    let mended = !patches.is_empty();
    let without = order.revert.as_ref().map(index_of);
    if let Some(commit) = without {
        assert!(!is_merge(commit), "git was asked to revert a merge");
        if faults.conflicts(commit) {
            return Err("it conflicts in f.c".into());
        }
        patches.push(Patch::Revert(commit_id(commit)));
    }
    let tree = TreeId::from_bytes(Made { index, without, mended, lacks: false }.write([0x22; 20]));
    Ok(Patched { tree, patches, remarks })
}

/// A culprit with one person, so that an agent is asked for maintainers.
pub(super) fn describe(culprit: Option<RevisionId>, crash: Option<CrashAt>) -> Described {
    let details = |revision| CommitDetails {
        revision,
        parents: vec![],
        author: "A Person <person@x.org>".into(),
        date: String::new(),
        subject: "subject".into(),
        message: "subject\n".into(),
        files: vec![],
    };
    Described {
        culprit: culprit.map(|id| Culprit { details: details(id), patch: Some("+++ b/f.c\n".into()) }),
        report: crash.map(|crash| crash.report),
        notes: vec![],
    }
}

/// What stands in the log of a culprit that the maintainers were asked for.
pub const RECIPIENTS: &str = "recipients (to): [\"maintainer@x.org\" \"person@x.org\"]\n";

pub fn carry_out(assignment: &Assignment, culprit: u32, faults: &Faults) -> Product {
    match &assignment.work {
        Work::Toolchain { .. } => Product::Toolchain(ToolchainFacts {
            image_id: "sha256:gcc".into(),
            gcc: "gcc 10".into(),
            ld: "ld 2".into(),
        }),
        Work::Reproducer { .. } => Product::Reproducer(ReproducerOutcome::Ready(artifact("executable"))),
        Work::Maintainers(_) => Product::Maintainers(Maintainers {
            output: "M <maintainer@x.org> (maintainer:THING)\n".into(),
            problem: None,
        }),
        Work::Build(work) => {
            let mut made = Made::read(work.tree.as_bytes());
            let pick = made.mended.then(|| Patch::Pick(commit_id(faults.broken.1)));
            let revert = made.without.map(|commit| Patch::Revert(commit_id(commit)));
            let patches: Vec<Patch> = pick.into_iter().chain(revert).collect();
            assert_eq!(work.patches, patches, "what makes the tree");
            assert_eq!(index_of(&work.revision), made.index);
            let text: String = work.kernel.fragments.iter().map(|fragment| fragment.text.as_str()).collect();
            made.lacks = faults.needs.iter().any(|it| text.contains(&format!("# {it} is not set\n")));
            made.without = made.without.filter(|&commit| faults.built_like(commit, culprit) == commit);
            made.index = faults.built_like(made.index, culprit);
            if work.kernel.make_args.iter().any(|arg| arg == BREAKS)
                && made.index >= culprit
                && made.without != Some(culprit)
            {
                // Lines shift, and a few revisions fail otherwise.
                let index = made.index;
                let message = match index % 7 {
                    3 => format!("fs/b.c:{index}:1: error: expected ')'"),
                    _ => format!("fs/a.c:{index}:3: error: expected ';'"),
                };
                let log = artifact("log");
                let outcome = BuildOutcome::Failed { message };
                return Product::Build(Build { outcome, log, duration_ms: 10_000 });
            }
            let image = Artifact { digest: made.digest(&text), size: 1 };
            if faults.is_broken(&made) && !faults.builds_at_least {
                let outcome = BuildOutcome::Failed { message: "f.c:1: error".into() };
                return Product::Build(Build { outcome, log: image, duration_ms: 60_000 });
            }
            let fingerprint = made.digest(&text);
            let kernel =
                Kernel { image, vmlinux: image, config: image, fingerprint, build_id: String::new() };
            Product::Build(Build { outcome: BuildOutcome::Built(kernel), log: image, duration_ms: 60_000 })
        }
        Work::Run(work) => {
            let made = Made::read(work.kernel.digest.as_bytes());
            let crashes = made.index >= culprit && made.without != Some(culprit) && !made.lacks;
            let ItemKey::Run(kernel, index) = assignment.item else {
                panic!("{} is no run", assignment.item)
            };
            let number = u32::from(kernel.as_bytes()[31]) << 16 | index;
            let crashes = crashes && !Faults::has(number, 3, faults.silent);
            let outcome = match (faults.is_broken(&made), crashes, work.kind) {
                (false, true, ReproducerKind::Nothing) => Outcome::BootFailed {
                    crashes: vec![SeenCrash { phase: Phase::Boot, ..target() }],
                    reason: "it crashed".into(),
                },
                (true, _, _) => Outcome::BootFailed { crashes: vec![], reason: "it hangs".into() },
                (false, true, _) => Outcome::Crashed(vec![target()]),
                (false, false, _) => Outcome::Ok,
            };
            Product::Run(Run { outcome, console: artifact("console"), duration_ms: 2000 })
        }
    }
}

pub(super) fn target() -> SeenCrash {
    let crash = Crash {
        title: TITLE.into(),
        alt_titles: vec![],
        frame: Some("planted_bug".into()),
        frames: vec!["planted_bug".into()],
        files: vec![],
        corrupted: false,
        suppressed: false,
        panicked: true,
        first_line: 1,
        last_line: 2,
        report: "report".into(),
    };
    SeenCrash { phase: Phase::Reproducer, crash }
}
