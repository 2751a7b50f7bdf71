//! Jobs to render: one written out by hand, and random searches over random histories.
#![allow(dead_code, clippy::disallowed_methods, clippy::disallowed_types)]

use kulprit_common::bisect::{
    Belief, Certificate, CertifiedParent, Counts, Finding, Judgement, Picked, Role, Round, Suspect, Why,
};
use kulprit_common::crash::Crash;
use kulprit_common::history::{Commit, History, Revision};
use kulprit_common::id::{Digest, JobId, RevisionId, TreeId};
use kulprit_common::job::{
    ConfigBase, Job, KernelBuild, Machine, Mode, Prior, Repairs, Reproducer, ReproducerKind, Runs, Symptom,
    Timeouts, ToolchainChoice,
};
use kulprit_common::outcome::{Outcome, Phase, SeenCrash};
use kulprit_common::recipients::Recipients;
use kulprit_common::report::{Built, Ending, Ends, Record, RunLine, Said, Tested};
use kulprit_common::time::Timestamp;
use kulprit_common::verdict::Verdict;
use std::time::Duration;

pub const GCC: &str = "gcc (Debian 10.2.1-6) 10.2.1 20210110, GNU ld (GNU Binutils for Debian) 2.35.2";
pub const TITLE: &str = "WARNING in demo_ioctl";

/// All that a record borrows.
pub struct Scene {
    pub id: JobId,
    pub job: Job,
    pub ends: Option<Ends>,
    pub history: Option<History>,
    pub tested: Vec<Tested>,
    pub rounds: Vec<Round>,
    pub said: Vec<Said>,
    pub ending: Option<Ending>,
}

impl Scene {
    pub fn record(&self) -> Record<'_> {
        self.at(self.tested.len(), true)
    }

    /// As it was after `verdicts` verdicts.
    pub fn at(&self, verdicts: usize, ended: bool) -> Record<'_> {
        Record {
            id: &self.id,
            job: &self.job,
            host: "lab",
            started: Timestamp(1_674_218_225_644),
            ends: self.ends.as_ref(),
            history: self.history.as_ref(),
            tested: &self.tested[..verdicts],
            rounds: &self.rounds[..self.rounds.partition_point(|round| round.after <= verdicts)],
            said: &self.said[..self.said.partition_point(|said| said.after <= verdicts)],
            configured: None,
            ending: self.ending.as_ref().filter(|_| ended),
        }
    }
}

pub fn job(mode: Mode) -> Job {
    Job {
        name: "demo".into(),
        repository: "/src/linux".into(),
        bad: "main".into(),
        good: None,
        mode,
        symptom: Symptom::Crash,
        kernel: KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![],
            make_args: vec![],
        },
        toolchain: ToolchainChoice::Auto,
        reproducer: Reproducer {
            kind: ReproducerKind::CSource,
            name: "repro.c".into(),
            digest: Digest::of(b"int main;"),
            args: vec![],
            cflags: vec![],
        },
        target: None,
        runs: Runs::default(),
        timeouts: Timeouts::default(),
        machine: Machine::default(),
        prior: Prior::Auto,
        repairs: Repairs::default(),
        config_work: Default::default(),
    }
}

pub fn id(n: u8) -> RevisionId {
    RevisionId::from_bytes([n; 20])
}

pub fn revision(id: RevisionId, subject: &str) -> Revision {
    Revision { id, tree: TreeId::from_bytes([1; 20]), subject: subject.into(), release: None }
}

pub fn crash(title: &str) -> Crash {
    Crash { last_line: 1, report: format!("{title}\n"), ..Crash::titled(title) }
}

pub fn seen(phase: Phase, title: &str) -> SeenCrash {
    SeenCrash { phase, crash: crash(title) }
}

pub fn crashed(title: &str) -> RunLine {
    RunLine::Saw(Outcome::Crashed(vec![seen(Phase::Reproducer, title)]))
}

pub fn boot_failed(title: &str) -> RunLine {
    RunLine::Saw(Outcome::BootFailed { crashes: vec![seen(Phase::Boot, title)], reason: "crashed".into() })
}

pub fn kernel(revision: &RevisionId) -> Built {
    Built::Kernel { fingerprint: fingerprint(revision) }
}

pub fn fingerprint(revision: &RevisionId) -> Digest {
    Digest::of(revision.as_bytes())
}

pub fn counts(target: u32, ok: u32, other: u32, failed: u32) -> Counts {
    Counts { target, ok, other, failed }
}

/// A verdict with runs to match: the target on Bad, OK on Good, a boot failure on Skip.
pub fn tested(revision: RevisionId, role: Role, verdict: Verdict, narrowed: bool) -> Tested {
    let (run, counts) = match verdict {
        Verdict::Bad => (crashed(TITLE), counts(3, 0, 0, 0)),
        Verdict::Good => (RunLine::Saw(Outcome::Ok), counts(0, 3, 0, 0)),
        Verdict::Skip => (boot_failed("WARNING in cpumask_next_wrap"), counts(0, 0, 0, 3)),
    };
    Tested {
        subject: format!("demo: change {}", &revision.short()[..4]),
        judgement: Judgement { revision, role, verdict, counts, narrowed },
        compiler: GCC.into(),
        patches: vec![],
        remarks: vec![],
        build: kernel(&revision),
        runs: vec![run; 3],
    }
}

pub fn ending(finding: Finding) -> Ending {
    Ending {
        at: Timestamp(1_674_218_225_644 + 725_500),
        finding,
        culprit: None,
        crash: None,
        build_time: Duration::from_millis(301_200),
        test_time: Duration::from_millis(98_000),
        recipients: Recipients::default(),
        notes: vec![],
    }
}

pub fn commit(id: RevisionId, parents: &[u32], outside: &[RevisionId]) -> Commit {
    Commit {
        id,
        tree: TreeId::from_bytes([2; 20]),
        parents: parents.to_vec(),
        outside: outside.to_vec(),
        time: 0,
        subject: format!("demo: change {}", &id.short()[..4]),
    }
}

/// A small generator (splitmix64): the tests must be the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Parents by index; 0 is the good end, the last commit reaches all.
pub struct Dag(pub Vec<Vec<usize>>);

impl Dag {
    pub fn random(rng: &mut Rng, size: usize) -> Dag {
        let mut parents: Vec<Vec<usize>> = vec![vec![]];
        for i in 1..size {
            let near = i - 1 - rng.below(i.min(4));
            let mut of = vec![near];
            if rng.below(4) == 0 {
                of.push(rng.below(i));
            }
            of.sort_unstable_by(|a, b| b.cmp(a));
            of.dedup();
            parents.push(of);
        }
        loop {
            let heads: Vec<usize> =
                (0..parents.len()).filter(|i| !parents.iter().any(|of| of.contains(i))).collect();
            if heads.len() < 2 {
                return Dag(parents);
            }
            parents.push(vec![heads[1], heads[0]]);
        }
    }

    pub fn reached(&self, from: usize) -> Vec<bool> {
        let mut reached = vec![false; self.0.len()];
        reached[from] = true;
        for i in (0..=from).rev() {
            if reached[i] {
                self.0[i].iter().for_each(|&parent| reached[parent] = true);
            }
        }
        reached
    }

    /// The commits but the good end.
    pub fn history(&self, ids: &[RevisionId]) -> History {
        let commits = (1..self.0.len()).map(|i| {
            let inside: Vec<u32> = self.0[i].iter().filter(|&&p| p > 0).map(|&p| p as u32 - 1).collect();
            let outside: Vec<RevisionId> = self.0[i].iter().filter(|&&p| p == 0).map(|_| ids[0]).collect();
            commit(ids[i], &inside, &outside)
        });
        History::new(commits.collect()).expect("parents come first")
    }
}

/// What is known of a search, as a set; it knows nothing of how the log reads it.
struct Search<'a> {
    dag: &'a Dag,
    ids: &'a [RevisionId],
    mode: Mode,
    culprit: usize,
    suspect: Vec<bool>,
    tested: Vec<Tested>,
}

impl Search<'_> {
    fn changed(&self, at: usize) -> bool {
        self.dag.reached(at)[self.culprit]
    }

    fn judge(&mut self, at: usize, role: Role, skip: bool) {
        let verdict = match (skip, self.mode, self.changed(at)) {
            (true, _, _) => Verdict::Skip,
            (_, Mode::Cause, true) | (_, Mode::Fix, false) => Verdict::Bad,
            (_, Mode::Cause, false) | (_, Mode::Fix, true) => Verdict::Good,
        };
        let reached = self.dag.reached(at);
        let (changed, before) = (self.changed(at), self.suspect.clone());
        if !skip {
            self.suspect
                .iter_mut()
                .zip(reached)
                .for_each(|(suspect, reached)| *suspect &= reached == changed);
        }
        let narrowed = if skip { before[at] } else { before != self.suspect };
        self.tested.push(tested(self.ids[at], role, verdict, narrowed));
    }

    fn is_judged(&self, at: usize) -> bool {
        let judged = |tested: &&Tested| tested.judgement.verdict != Verdict::Skip;
        self.tested.iter().filter(judged).any(|tested| tested.judgement.revision == self.ids[at])
    }

    /// A verdict that is overruled later.
    fn misjudge(&mut self, at: usize) {
        let wrong = if self.changed(at) == (self.mode == Mode::Cause) { Verdict::Good } else { Verdict::Bad };
        self.tested.push(tested(self.ids[at], Role::Search, wrong, true));
    }

    fn left(&self) -> Vec<usize> {
        (0..self.suspect.len()).filter(|&i| self.suspect[i]).collect()
    }
}

/// A search of several agents with skips, ended by a certificate. Verdicts arrive out of order.
pub fn search(dag: &Dag, ids: &[RevisionId], mode: Mode, rng: &mut Rng) -> Scene {
    let (tip, culprit) = (dag.0.len() - 1, 1 + rng.below(dag.0.len() - 1));
    let mut suspect = vec![true; dag.0.len()];
    suspect[0] = false;
    let mut search = Search { dag, ids, mode, culprit, suspect, tested: vec![] };
    let (old, new) = match mode {
        Mode::Cause => (Role::GoodEnd, Role::Start),
        Mode::Fix => (Role::Start, Role::GoodEnd),
    };
    search.judge(tip, new, false);
    search.judge(0, old, false);
    for _ in 0..dag.0.len() {
        let left = search.left();
        if left.len() < 2 {
            break;
        }
        let mut picks: Vec<usize> = (0..1 + rng.below(3)).map(|_| left[rng.below(left.len())]).collect();
        picks.retain(|&pick| pick != tip && !search.is_judged(pick));
        picks.sort_unstable();
        picks.dedup();
        let wrong = picks.iter().find(|_| rng.below(8) == 0).copied();
        if let Some(wrong) = wrong {
            search.misjudge(wrong);
        }
        for pick in picks.into_iter().rev() {
            let skip = pick != culprit && Some(pick) != wrong && rng.below(5) == 0;
            search.judge(pick, Role::Search, skip);
        }
    }
    search.judge(culprit, Role::Certify, false);
    for &parent in &dag.0[culprit] {
        search.judge(parent, Role::Certify, false);
    }
    let tested = search.tested;
    scene_of(dag, ids, mode, culprit, tested)
}

fn scene_of(dag: &Dag, ids: &[RevisionId], mode: Mode, culprit: usize, tested: Vec<Tested>) -> Scene {
    let (tip, root) = (ids[dag.0.len() - 1], ids[0]);
    let (bad, good) = if mode == Mode::Cause { (tip, root) } else { (root, tip) };
    let (with, without) = match mode {
        Mode::Cause => (counts(3, 0, 0, 0), counts(0, 3, 0, 0)),
        Mode::Fix => (counts(0, 3, 0, 0), counts(3, 0, 0, 0)),
    };
    let parents = dag.0[culprit].iter().map(|&parent| CertifiedParent {
        revision: ids[parent],
        counts: without,
        fingerprint: fingerprint(&ids[parent]),
    });
    let certificate = Certificate {
        culprit: with,
        culprit_fingerprint: fingerprint(&ids[culprit]),
        parents: parents.collect(),
        reverted: None,
        overruled: vec![],
    };
    Scene {
        id: "job-1".parse().expect("a plain id"),
        job: job(mode),
        ends: Some(Ends {
            bad: revision(bad, "the bad end"),
            good: Some(revision(good, "the good end")),
            good_tag: None,
        }),
        history: Some(dag.history(ids)),
        tested,
        rounds: vec![],
        said: vec![],
        ending: Some(ending(Finding::Culprit { revision: ids[culprit], certificate: Box::new(certificate) })),
    }
}

/// A random search with made-up commit ids.
pub fn random(seed: u64) -> Scene {
    let mut rng = Rng(seed);
    let size = 3 + rng.below(30);
    let dag = Dag::random(&mut rng, size);
    let ids: Vec<RevisionId> = (0..dag.0.len()).map(|i| id(i as u8 + 1)).collect();
    let mode = if rng.below(2) == 0 { Mode::Cause } else { Mode::Fix };
    let mut scene = search(&dag, &ids, mode, &mut rng);
    let Finding::Culprit { revision, .. } = scene.ending.as_ref().expect("ended").finding else {
        unreachable!("a search ends with a culprit")
    };
    scene.rounds = rounds(&scene.tested, scene.history.as_ref().expect("a range"), revision);
    scene
}

/// A round before every second verdict, as a search whose belief in a commit grows would tell it.
pub fn rounds(tested: &[Tested], history: &History, culprit: RevisionId) -> Vec<Round> {
    let len = history.len();
    let at = history.find(&culprit).expect("it is in the range") as usize;
    let belief = |round: usize| {
        let sure = (0.1 + 0.15 * round as f64).min(0.996);
        let even = (1.0 - sure) / len as f64;
        let mut outline = vec![even as f32; len];
        outline[at] += sure as f32;
        let probability = sure + even;
        Belief {
            unknown_bits: (1.0 - sure) * 4.0,
            suspects: if sure > 0.99 { 1 } else { len },
            likeliest: vec![Suspect { revision: culprit, probability }],
            nothing: 0.0,
            outline,
        }
    };
    let picked = |one: &Tested| {
        let why = match &one.judgement.role {
            Role::Start => Why::Start,
            Role::GoodEnd => Why::End,
            Role::Release(_) => Why::Release,
            Role::Search => Why::Split,
            Role::Certify => Why::Certificate,
            Role::Revert(_) | Role::Overruled => Why::Ahead,
        };
        let known = matches!(why, Why::Split | Why::Certificate);
        let (bits, shows) = (known.then_some(0.75), known.then_some(0.4));
        let Judgement { revision, role, .. } = one.judgement.clone();
        Picked { revision, role, runs: 3, why, bits, shows }
    };
    let pairs = tested.chunks(2).enumerate();
    let mut rounds: Vec<Round> = pairs
        .map(|(round, pair)| Round {
            after: round * 2,
            picks: pair.iter().map(picked).collect(),
            belief: (round > 1).then(|| belief(round - 2)),
        })
        .collect();
    rounds.push(Round { after: tested.len(), picks: vec![], belief: Some(belief(9)) });
    rounds
}

/// Compares with a file of testdata/report; `KULPRIT_BLESS=1` writes it.
pub fn snapshot(name: &str, actual: &str) {
    let path = format!("{}/testdata/report/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("KULPRIT_BLESS").is_some() {
        std::fs::write(&path, actual).expect("testdata can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{name} differs; KULPRIT_BLESS=1 writes it\n--- now:\n{actual}");
}
