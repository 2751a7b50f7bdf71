//! A scripted kernel on a scripted graph, and the one loop that drives a search through it.

use kulprit_common::bisect::{
    Bisection, Candidate, Evidence, Finding, Judgement, Question, Role, Round, Step, replay,
};
use kulprit_common::crash::Crash;
use kulprit_common::history::{Commit, History};
use kulprit_common::id::{Digest, RevisionId, TreeId};
use kulprit_common::job::{Mode, Runs};
use kulprit_common::outcome::{Outcome, Phase, SeenCrash};
use kulprit_common::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

pub const TITLE: &str = "WARNING in foo_ioctl";

/// What one run of the scripted kernel sees, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    Ok,
    Target,
    /// Another crash first, the target behind it.
    TargetLater,
    TargetAtBoot,
    Other,
    OtherAtBoot,
    BootFailed,
    NoReproducerStart,
    NoBuild,
    Unavailable,
}

/// Commits by number, parents before children.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub parents: Vec<Vec<usize>>,
}

pub fn id(commit: usize) -> RevisionId {
    let mut bytes = [0xc0; 20];
    bytes[..6].copy_from_slice(&(commit as u64).to_be_bytes()[2..]);
    RevisionId::from_bytes(bytes)
}

pub fn number(id: &RevisionId) -> usize {
    id.as_bytes()[..6].iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// A small generator: tests must repeat.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % below.max(1) as u64) as usize
    }
}

impl Graph {
    /// 0 ← 1 ← … ← `len`−1.
    pub fn line(len: usize) -> Self {
        Graph { parents: (0..len).map(|at| if at == 0 { vec![] } else { vec![at - 1] }).collect() }
    }

    pub fn tip(&self) -> usize {
        self.parents.len() - 1
    }

    pub fn ancestors(&self, of: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::from([of]);
        let mut stack = vec![of];
        while let Some(at) = stack.pop() {
            stack.extend(self.parents[at].iter().filter(|&&parent| seen.insert(parent)));
        }
        seen
    }

    pub fn range(&self, good: usize, bad: usize) -> Vec<usize> {
        self.ancestors(bad).difference(&self.ancestors(good)).copied().collect()
    }

    pub fn history(&self, good: usize, bad: usize) -> History {
        let range = self.range(good, bad);
        let place: BTreeMap<usize, u32> = (0..).zip(&range).map(|(place, &at)| (at, place)).collect();
        let commit = |&at: &usize| Commit {
            id: id(at),
            tree: TreeId::from_bytes([0; 20]),
            parents: self.parents[at].iter().filter_map(|parent| place.get(parent).copied()).collect(),
            outside: self.parents[at].iter().filter(|p| !place.contains_key(p)).map(|&p| id(p)).collect(),
            time: at as i64,
            subject: at.to_string(),
        };
        History::new(range.iter().map(commit).collect()).expect("a graph in order")
    }
}

/// A question and the kernel that answers it.
pub struct World<'a> {
    pub graph: Graph,
    pub question: Question,
    pub kernel: Box<dyn Fn(usize, u32) -> Saw + 'a>,
    pub fingerprint: Box<dyn Fn(usize) -> u64 + 'a>,
}

pub fn question(bad: usize, good: Option<usize>) -> Question {
    Question {
        mode: Mode::Cause,
        target: None,
        runs: Runs { max: 10, first_max: 20 },
        bad: id(bad),
        good: good.map(id),
        releases: vec![],
    }
}

impl<'a> World<'a> {
    /// Good end 0, bad end the tip.
    pub fn new(graph: Graph, kernel: impl Fn(usize, u32) -> Saw + 'a) -> Self {
        let question = question(graph.tip(), Some(0));
        World { graph, question, kernel: Box::new(kernel), fingerprint: Box::new(|at| at as u64) }
    }
}

/// What a search came to, and what it cost.
#[derive(Clone, Debug)]
pub struct Ended {
    pub finding: Finding,
    pub judgements: Vec<Judgement>,
    pub rounds: Vec<Round>,
    pub builds: usize,
    /// Kernels that were run: revisions that build to the same one share it.
    pub kernels: usize,
    pub runs: usize,
    /// Revisions in the order in which they were first handed out.
    pub asked: Vec<usize>,
    pub choose_max: Duration,
}

pub enum Arrival {
    /// One candidate after the other, run by run.
    InOrder,
    /// Any order, and some of what is no longer wanted arrives all the same.
    Shuffled(u64),
}

/// Drives a search to its end, and checks what must hold on any way there.
pub fn drive(world: &World, width: usize, arrival: Arrival) -> Ended {
    let mut search = Bisection::new(world.question.clone());
    let width = NonZeroUsize::new(width).expect("a width");
    let mut farm = Farm::new(world, arrival);
    let mut before: Vec<Judgement> = Vec::new();
    let mut told: Vec<Round> = Vec::new();
    let mut choose_max = Duration::ZERO;
    for _ in 0..100_000 {
        let (step, took) = timed_step(&mut search, width);
        choose_max = choose_max.max(took);
        assert_eq!(search.judgements()[..before.len()], before[..], "judgements are append-only");
        before = search.judgements().to_vec();
        assert_eq!(search.rounds()[..told.len()], told[..], "rounds are append-only");
        told = search.rounds().to_vec();
        match step {
            Step::LoadHistory { good, bad } => {
                search.set_history(world.graph.history(number(&good), number(&bad)));
                let left = search.suspects_left();
                assert_eq!(
                    left,
                    search.history().map(History::len),
                    "no verdict narrows before its end does"
                );
            }
            Step::Evaluate(candidates) | Step::Certify(candidates) => {
                assert!(!candidates.is_empty(), "a step without work");
                search.record(farm.work(&candidates));
            }
            Step::Done(finding) => {
                assert_eq!(search.next_step(width), Step::Done(finding.clone()), "Done stays");
                let judgements = search.judgements().to_vec();
                if let Finding::Culprit { revision, .. } = &finding {
                    let history = search.history().expect("a culprit stands in a range");
                    check_replay(world, history, &judgements, number(revision));
                }
                let Farm { builds, runs, asked, .. } = farm;
                let kernels: BTreeSet<u64> = runs.keys().map(|(kernel, _)| *kernel).collect();
                return Ended {
                    finding,
                    judgements,
                    rounds: search.rounds().to_vec(),
                    builds: builds.len(),
                    kernels: kernels.len(),
                    runs: runs.len(),
                    asked,
                    choose_max,
                };
            }
        }
    }
    panic!("the search does not end");
}

/// A step and the time it takes: of the processor, where the system says, since the machine
/// may be busy with something else.
fn timed_step(search: &mut Bisection, width: NonZeroUsize) -> (Step, Duration) {
    let on_cpu = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let (began, began_on_cpu) = (Instant::now(), on_cpu());
    let step = search.next_step(width);
    let took = on_cpu().zip(began_on_cpu).map(|(end, begin)| end - begin);
    (step, took.unwrap_or_else(|| began.elapsed()))
}

/// The farm: holds what was asked and not yet delivered.
struct Farm<'a> {
    world: &'a World<'a>,
    dice: Option<Dice>,
    builds: BTreeSet<usize>,
    delivered: BTreeSet<(usize, u32)>,
    /// Runs of a kernel, which all revisions that build to it share.
    runs: BTreeMap<(u64, u32), Saw>,
    asked: Vec<usize>,
    late: Vec<(usize, u32)>,
}

impl<'a> Farm<'a> {
    fn new(world: &'a World, arrival: Arrival) -> Self {
        let dice = match arrival {
            Arrival::InOrder => None,
            Arrival::Shuffled(seed) => Some(Dice(seed)),
        };
        let (builds, delivered) = (BTreeSet::new(), BTreeSet::new());
        Farm { world, dice, builds, delivered, runs: BTreeMap::new(), asked: vec![], late: vec![] }
    }

    /// Delivers one piece of what is wanted.
    fn work(&mut self, candidates: &[Candidate]) -> Evidence {
        let mut wanted = Vec::new();
        for candidate in candidates {
            let at = number(&candidate.revision);
            if !self.asked.contains(&at) {
                self.asked.push(at);
            }
            let open = (0..candidate.runs).filter(|&index| !self.delivered.contains(&(at, index)));
            let open: Vec<(usize, u32)> = open.map(|index| (at, index)).collect();
            assert!(!open.is_empty(), "{candidate:?} waits for nothing");
            wanted.extend(open);
        }
        let (at, index) = match &mut self.dice {
            None => wanted[0],
            Some(dice) => {
                self.late.extend(&wanted);
                self.late.retain(|piece| !self.delivered.contains(piece));
                let pool = if dice.roll(4) == 0 { &self.late } else { &wanted };
                pool[dice.roll(pool.len())]
            }
        };
        self.deliver(at, index)
    }

    fn deliver(&mut self, at: usize, index: u32) -> Evidence {
        let revision = id(at);
        let saw = (self.world.kernel)(at, index);
        let first = self.builds.insert(at);
        match saw {
            Saw::NoBuild => Evidence::BuildFailed { revision, message: "error: no".into() },
            Saw::Unavailable => Evidence::Unavailable { revision, reason: "no disk".into() },
            _ if first => {
                let fingerprint = Digest::of(&(self.world.fingerprint)(at).to_be_bytes());
                Evidence::Built { revision, fingerprint }
            }
            _ => {
                self.delivered.insert((at, index));
                let kernel = ((self.world.fingerprint)(at), index);
                let saw = *self.runs.entry(kernel).or_insert(saw);
                Evidence::Run { revision, index, outcome: outcome(saw) }
            }
        }
    }
}

pub fn outcome(saw: Saw) -> Outcome {
    let seen = |phase, title: &str| SeenCrash { phase, crash: crash(title) };
    match saw {
        Saw::Target => Outcome::Crashed(vec![seen(Phase::Reproducer, TITLE)]),
        Saw::TargetLater => {
            Outcome::Crashed(vec![seen(Phase::Boot, "WARNING in bar"), seen(Phase::Reproducer, TITLE)])
        }
        Saw::TargetAtBoot => {
            Outcome::BootFailed { crashes: vec![seen(Phase::Boot, TITLE)], reason: "panic".into() }
        }
        Saw::Other => Outcome::Crashed(vec![seen(Phase::Reproducer, "WARNING in kvm_wait")]),
        Saw::OtherAtBoot => {
            let crashes = vec![seen(Phase::Boot, "WARNING in kvm_wait")];
            Outcome::BootFailed { crashes, reason: "panic".into() }
        }
        Saw::BootFailed => {
            let crashes = vec![seen(Phase::Boot, "WARNING in cpumask_next_wrap")];
            Outcome::BootFailed { crashes, reason: "no marker".into() }
        }
        Saw::NoReproducerStart => Outcome::NoReproducerStart { reason: "exec failed".into() },
        Saw::Ok | Saw::NoBuild | Saw::Unavailable => Outcome::Ok,
    }
}

fn crash(title: &str) -> Crash {
    let frame = title.rsplit(' ').next().map(str::to_string);
    Crash { frames: frame.iter().cloned().collect(), frame, ..Crash::titled(title) }
}

/// Replays as git would: only ancestors of the bad end can become it, and what remains in the
/// end must be the culprit alone.
fn check_replay(world: &World, history: &History, judgements: &[Judgement], culprit: usize) {
    let graph = &world.graph;
    let old = match world.question.mode {
        Mode::Cause => Verdict::Good,
        Mode::Fix => Verdict::Bad,
    };
    let mut end = number(&history.commit(history.tip()).id);
    let mut left: BTreeSet<usize> = history.commits().iter().map(|commit| number(&commit.id)).collect();
    for judgement in replay(judgements) {
        assert!(matches!(judgement.role, Role::Search | Role::Certify));
        let at = number(&judgement.revision);
        let below = graph.ancestors(at);
        if judgement.verdict == old {
            assert!(!below.contains(&end), "git refuses: {at} before the change, {end} behind it");
            left.retain(|commit| !below.contains(commit));
        } else if judgement.verdict != Verdict::Skip {
            assert!(graph.ancestors(end).contains(&at), "git refuses: {at} is no ancestor of {end}");
            end = at;
            left.retain(|commit| below.contains(commit));
        }
    }
    assert_eq!((end, left), (culprit, BTreeSet::from([culprit])), "the replay: {judgements:#?}");
}
