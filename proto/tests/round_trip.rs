//! What is written is what is read: facts in the journal, messages on the wire. Bytes that were
//! damaged are refused or read as something else, and never bring the reader down.

use kulprit_common::access::{AccessFact, Member, Principal, Role as MemberRole};
use kulprit_common::artifact::Artifact;
use kulprit_common::bisect::{Belief, Counts, Judgement, Picked, Role, Round, Suspect, Why};
use kulprit_common::config_work::Worked;
use kulprit_common::crash::Crash;
use kulprit_common::farm::action::{Assignment, Desired};
use kulprit_common::farm::census::Purpose;
use kulprit_common::farm::event::{AgentInfo, Event, Holding, Slot, Sync};
use kulprit_common::farm::fact::{
    Configured, EndSummary, Fact, Judged, QuarantineFact, Recipe, Rendered, Resolution,
};
use kulprit_common::farm::item::{BuildWork, ItemKey, RunWork, Work};
use kulprit_common::history::{Revision, TaggedRelease};
use kulprit_common::id::{Attempt, Digest, RevisionId, Session, TreeId};
use kulprit_common::job::{
    Backport, ConfigBase, ConfigWish, Fragment, Job, KernelBuild, Machine, Mode, Prior, Repairs, Reproducer,
    ReproducerKind, Runs, SwitchedOff, Symptom, Timeouts, ToolchainChoice,
};
use kulprit_common::outcome::{
    AttemptEnd, Build, BuildOutcome, Infra, InfraClass, Kernel, Maintainers, Outcome, Phase, Product,
    ReproducerOutcome, Run, SeenCrash, ToolchainFacts,
};
use kulprit_common::patch::{KnownFix, Patch};
use kulprit_common::time::Timestamp;
use kulprit_common::verdict::Verdict;
use kulprit_proto::convert::{decode_completion, decode_sync, encode_desired};
use kulprit_proto::{journal, v1};

fn artifact(text: &str) -> Artifact {
    Artifact { digest: Digest::of(text.as_bytes()), size: text.len() as u64 }
}

fn revision(byte: u8, release: Option<&str>) -> Revision {
    Revision {
        id: RevisionId::from_bytes([byte; 20]),
        tree: TreeId::from_bytes([byte ^ 0xff; 20]),
        subject: format!("subject {byte}: \u{e9}"),
        release: release.map(|text| text.parse().expect("a release")),
    }
}

fn kernel_build() -> KernelBuild {
    KernelBuild {
        arch: "x86_64".into(),
        config: ConfigBase::Target("tinyconfig".into()),
        fragments: vec![Fragment { name: "tiny.config".into(), text: "CONFIG_TTY=y\n".into() }],
        make_args: vec!["W=0".into()],
    }
}

fn reproducer(kind: ReproducerKind) -> Reproducer {
    Reproducer {
        kind,
        name: "repro".into(),
        digest: Digest::of(b"repro"),
        args: vec!["-x".into(), String::new()],
        cflags: vec!["-pthread".into()],
    }
}

fn job(good: Option<&str>, config: ConfigBase, toolchain: ToolchainChoice, kind: ReproducerKind) -> Job {
    Job {
        name: "a job".into(),
        repository: "/srv/linux.git".into(),
        bad: "main".into(),
        good: good.map(str::to_owned),
        symptom: if kind == ReproducerKind::Nothing { Symptom::Build } else { Symptom::Crash },
        mode: if good.is_some() { Mode::Cause } else { Mode::Fix },
        kernel: KernelBuild { config, ..kernel_build() },
        toolchain,
        reproducer: reproducer(kind),
        target: good.map(|_| "WARNING in f".to_owned()),
        runs: Runs::default(),
        timeouts: Timeouts::default(),
        machine: Machine { memory_mib: 256, cpus: 2, cmdline: "quiet".into() },
        prior: if good.is_some() { Prior::Auto } else { Prior::Flat },
        repairs: repairs(good.is_some()),
        config_work: match good {
            Some(_) => ConfigWish {
                drop_instrumentation: true,
                baseline: Some(Fragment { name: "base.config".into(), text: "CONFIG_A=y\n".into() }),
                steps_max: 7,
            },
            None => ConfigWish::default(),
        },
    }
}

fn repairs(given: bool) -> Repairs {
    let backport = |breaks: Option<&str>, is_farms| Backport {
        fix: "v6.1~2".into(),
        title: breaks.map(Into::into),
        breaks: breaks.map(Into::into),
        is_farms,
    };
    let rule = SwitchedOff { disable: vec!["CONFIG_A".into()], before: "v5.10".parse().expect("a release") };
    match given {
        true => Repairs {
            backports: Some(vec![backport(None, true), backport(Some("v6.0"), false)]),
            configs: Some(vec![rule]),
        },
        false => Repairs { backports: Some(vec![]), configs: None },
    }
}

fn crash(phase: Phase) -> SeenCrash {
    let crash = Crash {
        title: "WARNING in f".into(),
        alt_titles: vec!["bad-access in f".into()],
        frame: Some("f".into()),
        frames: vec!["f".into(), "g".into()],
        files: vec!["mm/mmap.c".into()],
        corrupted: false,
        suppressed: true,
        panicked: true,
        first_line: 3,
        last_line: 77,
        report: "WARNING: CPU: 0\n".into(),
    };
    SeenCrash { phase, crash }
}

fn products() -> Vec<Product> {
    let kernel = Kernel {
        image: artifact("bzImage"),
        vmlinux: artifact("vmlinux"),
        config: artifact(".config"),
        fingerprint: Digest::of(b"text"),
        build_id: "0a1b".into(),
    };
    let build = |outcome| Product::Build(Build { outcome, log: artifact("log"), duration_ms: 1 << 40 });
    let run = |outcome| Product::Run(Run { outcome, console: artifact("console"), duration_ms: 7 });
    let reason = || "for a reason".to_owned();
    let crashes = || vec![crash(Phase::Boot), crash(Phase::Settle), crash(Phase::Reproducer)];
    vec![
        Product::Toolchain(ToolchainFacts {
            image_id: "sha256:ab".into(),
            gcc: "gcc 10".into(),
            ld: "ld 2".into(),
        }),
        Product::Reproducer(ReproducerOutcome::Ready(artifact("executable"))),
        Product::Reproducer(ReproducerOutcome::Failed { message: reason() }),
        Product::Maintainers(Maintainers { output: "A <a@b> (maintainer:X)\n".into(), problem: None }),
        Product::Maintainers(Maintainers { output: String::new(), problem: Some(reason()) }),
        build(BuildOutcome::Built(kernel)),
        build(BuildOutcome::Failed { message: reason() }),
        run(Outcome::Ok),
        run(Outcome::Crashed(crashes())),
        run(Outcome::BootFailed { crashes: crashes(), reason: reason() }),
        run(Outcome::BootFailed { crashes: vec![], reason: reason() }),
        run(Outcome::NoReproducerStart { reason: reason() }),
        run(Outcome::Hung { reason: reason() }),
    ]
}

fn items() -> Vec<ItemKey> {
    vec![
        ItemKey::Toolchain("gcc".into()),
        ItemKey::Reproducer(Digest::of(b"r")),
        ItemKey::Maintainers(Digest::of(b"m")),
        ItemKey::Run(Digest::of(b"k"), u32::MAX),
        ItemKey::Build(Digest::of(b"b")),
    ]
}

fn infra() -> impl Iterator<Item = Infra> {
    let classes = [
        InfraClass::Engine,
        InfraClass::Toolchain,
        InfraClass::Source,
        InfraClass::Disk,
        InfraClass::Memory,
        InfraClass::Qemu,
        InfraClass::Artifact,
        InfraClass::Timeout,
        InfraClass::Internal,
        InfraClass::Limit,
    ];
    classes.into_iter().map(|class| Infra { class, reason: format!("{class:?}") })
}

fn judged() -> Vec<Judged> {
    let (picked, reverted) = (RevisionId::from_bytes([6; 20]), RevisionId::from_bytes([8; 20]));
    let roles = [
        Role::Start,
        Role::GoodEnd,
        Role::Release("v6.1".into()),
        Role::Search,
        Role::Certify,
        Role::Revert(RevisionId::from_bytes([8; 20])),
        Role::Overruled,
    ];
    let verdicts = [Verdict::Good, Verdict::Bad, Verdict::Skip];
    let one = |(index, role): (usize, Role)| Judged {
        judgement: Judgement {
            revision: RevisionId::from_bytes([9; 20]),
            role,
            verdict: verdicts[index % 3],
            counts: Counts { target: 1, ok: 2, other: 3, failed: 4 },
            narrowed: index % 2 == 0,
        },
        subject: "a subject".into(),
        build: (index > 0).then(|| ItemKey::Build(Digest::of(b"b"))),
        runs: items(),
        unavailable: (index == 0).then(|| "gave up".into()),
        given_up: if index == 0 { items().into() } else { Box::default() },
        recipe: Recipe {
            patches: [Patch::Pick(picked), Patch::Revert(reverted)][..index % 3].to_vec(),
            compiler: (index > 0).then(|| "gcc 10".into()),
            remarks: vec!["a remark".into(); index % 2],
            shared: (index > 0).then(|| Digest::of(b"s")),
        },
    };
    roles.into_iter().enumerate().map(one).collect()
}

fn quarantine() -> Vec<QuarantineFact> {
    let (at, by) = (Timestamp(1 << 41), Principal::Local);
    let (agent, reason) = ("agent-1".parse().expect("a name"), "its disk".to_owned());
    let released = QuarantineFact::AgentReleased { agent, at, by: by.clone() };
    let agent = "agent-1".parse().expect("a name");
    let id = "7".parse().expect("an id");
    vec![
        QuarantineFact::AgentSetAside { agent, at, reason, by: by.clone(), disowns: true },
        released,
        QuarantineFact::ItemsReleased { id, at, items: items(), by },
    ]
}

fn rounds() -> Vec<Round> {
    let id = |n| RevisionId::from_bytes([n; 20]);
    let roles = [Role::Start, Role::GoodEnd, Role::Release("v6.1".into()), Role::Search, Role::Certify];
    let roles = roles.into_iter().chain([Role::Revert(id(7))]);
    let pick = |(why, role): (Why, Role)| Picked {
        revision: id(9),
        role,
        runs: 4,
        why,
        bits: (why != Why::Start).then_some(0.75),
        shows: (why != Why::Start).then_some(0.5),
    };
    let belief = Belief {
        unknown_bits: 7.25,
        suspects: 158,
        likeliest: vec![Suspect { revision: id(3), probability: 0.125 }],
        nothing: 0.1,
        outline: vec![0.5, 0.25, 0.15],
    };
    vec![
        Round { after: 0, picks: Why::ALL.into_iter().zip(roles).map(pick).collect(), belief: None },
        Round { after: 12, picks: vec![], belief: Some(belief) },
    ]
}

fn access() -> Vec<AccessFact> {
    let at = Timestamp(1_000_000_007);
    let by: Principal = "operator/alice".parse().expect("a member");
    let member: Member = "agent/a".parse().expect("a member");
    let created = |name: Option<&str>, labels: &[&str]| AccessFact::TokenCreated {
        id: Digest::of(b"t"),
        role: MemberRole::Viewer,
        name: name.map(|name| name.parse().expect("a name")),
        labels: labels.iter().map(ToString::to_string).collect(),
        at,
        expires: Timestamp(2_000_000_007),
        by: by.clone(),
    };
    vec![
        created(None, &[]),
        created(Some("a"), &["zone=eu", "fast"]),
        AccessFact::TokenRevoked { id: Digest::of(b"t"), at, by: Principal::Local },
        AccessFact::Joined {
            token: Digest::of(b"t"),
            member: member.clone(),
            key: Digest::of(b"k"),
            labels: vec!["zone=eu".into()],
            at,
        },
        AccessFact::Revoked { member, at, by },
    ]
}

fn facts() -> Vec<Fact> {
    let (at, attempt) = (Timestamp(1_000_000_007), Attempt(7 << 32 | 9));
    let agent = || "agent-1".parse().expect("a name");
    let id = || "12".parse().expect("an id");
    let submitted = |job: Job| Fact::JobSubmitted {
        id: id(),
        request: "r".into(),
        at,
        job: Box::new(job),
        reproducer: artifact("repro"),
        by: "operator/alice".parse().expect("a member"),
    };
    let text = "CONFIG_A=y\n".to_owned();
    let picked = RevisionId::from_bytes([6; 20]);
    let mut facts = vec![
        Fact::EpochStarted { epoch: 3 },
        Fact::ProductsForgotten { at, items: items(), by: Principal::Local },
        submitted(job(None, ConfigBase::File(text), ToolchainChoice::Auto, ReproducerKind::Script)),
        submitted(job(
            Some("v1.0"),
            ConfigBase::Target("tinyconfig".into()),
            ToolchainChoice::Auto,
            ReproducerKind::Nothing,
        )),
        submitted(job(
            Some("v6.1"),
            ConfigBase::Target("defconfig".into()),
            ToolchainChoice::Image("gcc".into()),
            ReproducerKind::CSource,
        )),
        Fact::JobResolved {
            id: id(),
            resolution: Box::new(Resolution {
                bad: revision(1, None),
                good: Some(revision(2, Some("v6.1"))),
                releases: vec![TaggedRelease {
                    tag: "v5.10".into(),
                    release: "v5.10".parse().expect("a release"),
                    revision: revision(3, Some("v5.10")),
                }],
                fixes: [None, Some(picked)]
                    .map(|breaks| KnownFix { fix: picked, breaks, title: "t".into() })
                    .to_vec(),
            }),
        },
        Fact::CancelRequested { id: id(), at, by: Principal::Local },
        Fact::AgentCame { agent: agent(), at },
        Fact::AgentWent { agent: agent(), at },
        Fact::Overruled {
            id: id(),
            at,
            revision: RevisionId::from_bytes([5; 20]),
            word: None,
            by: Principal::Local,
        },
        Fact::Overruled {
            id: id(),
            at,
            revision: RevisionId::from_bytes([5; 20]),
            word: Some(Verdict::Skip),
            by: Principal::Local,
        },
        Fact::Configured {
            id: id(),
            configured: Configured {
                title: "WARNING in f".into(),
                worked: Worked {
                    fragment: Some(Fragment { name: "config work".into(), text: "CONFIG_A=y\n".into() }),
                    tried: 3,
                },
                items: vec![ItemKey::Run(Digest::of(b"kernel"), 2)],
            },
        },
        Fact::Configured {
            id: id(),
            configured: Configured {
                title: "WARNING in f".into(),
                worked: Worked { fragment: None, tried: 0 },
                items: vec![],
            },
        },
        Fact::JobEnded {
            id: id(),
            at,
            end: EndSummary {
                kind: "culprit".into(),
                culprit: Some(RevisionId::from_bytes([4; 20])),
                message: "m".into(),
                field: String::new(),
            },
            rendered: Box::new(Rendered {
                log: "l".into(),
                replay: "r".into(),
                json: "{}".into(),
                summary: "s".into(),
                plot: "<svg/>".into(),
            }),
        },
    ];
    facts.extend(products().into_iter().zip(items().into_iter().cycle()).map(|(product, item)| {
        Fact::ItemFinished { item, attempt, agent: agent(), at, product: Box::new(product) }
    }));
    facts.extend(infra().zip(items().into_iter().cycle()).map(|(infra, item)| Fact::AttemptFailed {
        item,
        attempt,
        agent: agent(),
        at,
        infra,
    }));
    facts.extend(rounds().into_iter().map(|round| Fact::Explained { id: id(), round }));
    facts.extend(access().into_iter().map(Fact::Access));
    facts.extend(quarantine().into_iter().map(Fact::Quarantine));
    facts.extend(judged().into_iter().map(|judged| Fact::Judged { id: id(), judged: Box::new(judged) }));
    facts
}

#[test]
fn every_fact_comes_back_from_the_journal() {
    for fact in facts() {
        let bytes = journal::encode(fact.clone());
        assert_eq!(journal::decode(&bytes).expect("it is readable"), fact);
    }
}

#[test]
fn damaged_facts_are_refused_or_read_and_never_bring_the_reader_down() {
    for fact in facts() {
        let bytes = journal::encode(fact);
        for end in 0..bytes.len() {
            let _ = journal::decode(&bytes[..end]);
        }
        for index in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[index] ^= flip;
                let _ = journal::decode(&damaged);
            }
        }
    }
}

#[test]
fn assignments_come_back_and_held_work_is_not_said_again() {
    let run = RunWork {
        kernel: artifact("bzImage"),
        build_id: "0a1b".into(),
        executable: artifact("repro"),
        kind: ReproducerKind::Binary,
        args: vec!["a b".into()],
        machine: Machine::default(),
        timeouts: Timeouts::default(),
    };
    let build = BuildWork {
        repository: "/srv/linux.git".into(),
        revision: RevisionId::from_bytes([1; 20]),
        patches: vec![
            Patch::Revert(RevisionId::from_bytes([3; 20])),
            Patch::Pick(RevisionId::from_bytes([4; 20])),
        ],
        tree: TreeId::from_bytes([2; 20]),
        kernel: kernel_build(),
        image_id: "sha256:ab".into(),
        timeout_s: 60,
    };
    let works = [
        Work::Toolchain { image: "gcc".into() },
        Work::Reproducer {
            reproducer: reproducer(ReproducerKind::CSource),
            source: artifact("repro.c"),
            image_id: "sha256:ab".into(),
        },
        Work::Run(run),
        Work::Build(build),
    ];
    let purpose = |revision| Some(Purpose { job: "j-1".parse().expect("a name"), revision });
    let purposes = [None, purpose(None), purpose(Some(RevisionId::from_bytes([3; 20]))), None];
    let assignments: Vec<Assignment> = works
        .into_iter()
        .zip(items())
        .zip(1u32..)
        .map(|((work, item), slot)| Assignment {
            attempt: Attempt(u64::from(slot)),
            slot,
            item,
            work,
            title: "t".into(),
            purpose: purposes[slot as usize - 1].clone(),
        })
        .collect();
    let wire = encode_desired(Desired { assignments: assignments.clone() }, &[Attempt(2)]);
    assert!(wire[1].work.is_none());
    for (message, assignment) in wire.into_iter().zip(assignments) {
        if assignment.attempt != Attempt(2) {
            assert_eq!(Assignment::try_from(message).expect("readable"), assignment);
        }
    }
}

#[test]
fn a_sync_and_every_completion_come_back() {
    let sync = Sync {
        agent: "agent-1".parse().expect("a name"),
        session: Session(5),
        sequence: 6,
        info: AgentInfo {
            host: "host".into(),
            version: "0.1.0".into(),
            slots: vec![Slot { cores: 2, memory_mib: 4096 }],
            accelerator: "tcg".into(),
            images: vec!["sha256:ab".into()],
            can_build: true,
            can_boot: false,
            problems: vec!["low on disk".into()],
        },
        holding: items()
            .into_iter()
            .map(|item| Holding { attempt: Attempt(3), item, slot: 1, activity: "booting".into() })
            .collect(),
        have: vec![Digest::of(b"kernel")],
        draining: true,
    };
    let message = v1::SyncRequest {
        agent: sync.agent.to_string(),
        session: sync.session.0,
        sequence: sync.sequence,
        info: Some(sync.info.clone().into()),
        holding: sync.holding.iter().cloned().map(Into::into).collect(),
        have: sync.have.iter().map(|digest| digest.as_bytes().to_vec()).collect(),
        draining: sync.draining,
    };
    assert_eq!(decode_sync(message.clone()).expect("readable"), sync);
    let unnamed = v1::SyncRequest { agent: String::new(), ..message.clone() };
    assert!(decode_sync(unnamed).expect_err("no name").to_string().contains("agent"));
    assert!(
        decode_sync(v1::SyncRequest { info: None, ..message })
            .expect_err("no info")
            .to_string()
            .contains("info")
    );

    let ends = products().into_iter().map(AttemptEnd::Done).chain(infra().map(AttemptEnd::Infra));
    for end in ends.chain([AttemptEnd::Released]) {
        let message = v1::CompleteRequest {
            agent: "agent-1".into(),
            session: 5,
            attempt: 3,
            item: Some(items().remove(0).into()),
            end: Some(end.clone().into()),
        };
        let Event::Completed { end: read, .. } = decode_completion(message).expect("readable") else {
            panic!("another event")
        };
        assert_eq!(*read, end);
    }
}
