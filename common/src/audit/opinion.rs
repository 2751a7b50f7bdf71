//! What to think of a bisection: each step, the answer, what should have come next, the waste.

use super::log::{Close, Kind, Log, Role, Test, Word};
use super::reasons;
use super::scale::Scale;
use super::view::View;
use super::weigh::{Weights, is_target};
use crate::crash::{self, Target};
use crate::id::RevisionId;
use serde::Serialize;

/// A commit this much less likely than others is so by its nature, not by where it stands.
const VETO: f64 = 0.1;
/// Parts less likely than this are not listed.
const UNLISTED: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Upheld,
    Doubtful,
    Rejected,
    /// No single commit was blamed, or there is too little to judge by.
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Belief {
    pub standing: Standing,
    pub revision: Option<RevisionId>,
    pub subject: String,
    /// That the blamed commit is the culprit.
    pub probability: Option<f64>,
    pub reasons: Vec<String>,
}

/// One commit, or so many that nothing tells apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspicion {
    pub revision: Option<RevisionId>,
    pub subject: Option<String>,
    pub commits: u64,
    pub probability: f64,
    /// Where they are, for people.
    pub place: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepOpinion {
    /// Counted from 1, as the log has them; ends and releases too.
    pub number: usize,
    pub line: usize,
    pub role: Role,
    pub revision: RevisionId,
    pub subject: Option<String>,
    pub verdict: Option<Word>,
    /// What its runs met, most often first.
    pub decided_by: Vec<Met>,
    /// By our rules: whether it shows the crash; nothing where that cannot be said.
    pub shows: Option<bool>,
    /// That the verdict is right, by all of the log.
    pub probability: Option<f64>,
    pub doubtful: bool,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Met {
    pub what: String,
    /// Before the reproducer started.
    pub at_boot: bool,
    pub runs: u32,
    /// That it is the bug searched for.
    pub same_bug: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// `run`, `revert`, `pick` or `halve`.
    pub action: &'static str,
    pub revision: Option<RevisionId>,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Waste {
    pub runs: u32,
    /// Runs that would have said as much.
    pub runs_enough: u32,
    pub skipped_steps: usize,
    pub steps_after_doubt: usize,
    pub tested_again: usize,
    pub hours: Option<f64>,
    /// Of these, on runs that changed nothing.
    pub hours_wasted: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    pub version: u32,
    pub kind: Kind,
    pub close: Close,
    pub target: Option<String>,
    /// How often the bug shows where it is.
    pub rate: Option<f64>,
    pub belief: Belief,
    pub suspects: Vec<Suspicion>,
    pub steps: Vec<StepOpinion>,
    /// The number of the first step whose verdict is doubted.
    pub first_doubtful: Option<usize>,
    pub next: Vec<Advice>,
    pub wasted: Waste,
}

/// Judges a log; nothing where no line of it is one of a bisection log.
pub fn audit(log: &Log) -> Option<Audit> {
    if log.recognised == 0 {
        return None;
    }
    let target = target(log);
    let scale = Scale::new(log);
    let weights =
        target.as_ref().zip(scale.as_ref()).map(|(target, scale)| weigh(log, scale, target, log.tests.len()));
    let view = View { log, target: target.as_ref(), scale: scale.as_ref(), weights: weights.as_ref() };
    let steps: Vec<StepOpinion> = (0..log.tests.len()).map(|at| view.step(at)).collect();
    let doubted = steps.iter().position(|step| step.doubtful);
    let mut suspects = weights.as_ref().map_or(vec![], |weights| view.suspects(weights));
    suspects.retain(|it| it.probability >= UNLISTED);
    Some(Audit {
        version: 1,
        kind: log.kind,
        close: log.close.clone(),
        target: target.as_ref().map(|target| target.title.clone()),
        rate: weights.as_ref().map(|weights| weights.rate),
        belief: view.belief(),
        next: view.next(doubted),
        wasted: view.waste(&steps, doubted),
        first_doubtful: doubted.map(|at| steps[at].number),
        suspects,
        steps,
    })
}

/// By the first `upto` tests.
pub(super) fn weigh(log: &Log, scale: &Scale, target: &Target, upto: usize) -> Weights {
    let factor = |at: usize| {
        let test = &log.tests[at];
        if log.published.revision == Some(test.revision) {
            return reasons::of_culprit(log, target).iter().map(|(factor, _)| factor).product();
        }
        reasons::of_subject(test.subject.as_deref().unwrap_or(""))
    };
    let mut weights = Weights::new(log, scale, target, upto, factor);
    // What cannot be a culprit is none, however well the runs fit; then something else is wrong.
    let veto: f64 =
        reasons::of_culprit(log, target).iter().map(|(factor, _)| factor).filter(|it| **it <= VETO).product();
    for part in &mut weights.parts {
        if part.test.is_some_and(|at| log.published.revision == Some(log.tests[at].revision)) {
            part.probability *= veto;
        }
    }
    weights
}

/// What was searched for: what the first revision showed most.
fn target(log: &Log) -> Option<Target> {
    let most = |tests: &mut dyn Iterator<Item = &Test>| -> Option<String> {
        let mut counted: Vec<(String, u32)> = Vec::new();
        for (title, runs) in tests.flat_map(|test| test.crashes()) {
            match counted.iter_mut().find(|(known, _)| known == title) {
                Some((_, sum)) => *sum += runs,
                None => counted.push((title.into(), runs)),
            }
        }
        counted.into_iter().rev().max_by_key(|(_, runs)| *runs).map(|(title, _)| title)
    };
    let mut start = log.tests.iter().filter(|test| test.role == Role::Start);
    let mut showing =
        log.tests.iter().filter(|test| test.word.and_then(|word| log.shows(word)) == Some(true));
    let title = most(&mut start)
        .or_else(|| most(&mut log.tests.iter().filter(|test| matches!(test.role, Role::Release(_)))))
        .or_else(|| most(&mut showing))
        .or_else(|| log.crash.clone())?;
    let bare = Target { title, alt_titles: vec![], frames: vec![], files: vec![] };
    let printed = log.crash.as_deref().filter(|crash| is_target(&bare, crash));
    let printed = printed.and_then(|_| crash::parse(log.report.as_bytes()).into_iter().next());
    Some(match printed {
        Some(crash) => {
            Target { alt_titles: crash.alt_titles, frames: crash.frames, files: crash.files, ..bare }
        }
        None => bare,
    })
}
