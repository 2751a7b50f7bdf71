//! The search as a whole: the ends first, then the range, then the certificate.
//!
//! What is known is a function of the evidence alone; only the revisions in flight and the
//! log of verdicts remember the order in which things happened.

use super::choice::{Field, Visited};
use super::judge::{Measure, Start, judge_start};
use super::ledger::Ledger;
use super::log::Log;
use super::range::Range;
use super::rate::Rate;
use super::releases::{self, Tag, Walk};
use super::{Candidate, Counts, Evidence, Finding, Judgement, Question, Role, Step};
use crate::crash::Target;
use crate::history::History;
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// With as many at once, one of them goes to the good end at the start.
const GOOD_END_WIDTH: usize = 4;

/// A search, from the question to the finding.
#[derive(Clone, Debug)]
pub struct Bisection {
    pub(super) question: Question,
    /// The tags worth testing, newest first.
    pub(super) tags: Vec<Tag>,
    pub(super) ledger: Ledger,
    pub(super) measure: Measure,
    pub(super) range: Option<Range>,
    /// Whatever was handed out, in order, with its first role.
    pub(super) asked: Vec<(RevisionId, Role)>,
    /// Picks of the search that are in flight, in order.
    pub(super) picks: Vec<u32>,
    pub(super) log: Log,
}

impl Bisection {
    pub fn new(question: Question) -> Self {
        Bisection {
            tags: releases::select(&question.releases, question.bad),
            ledger: Ledger::new(question.bad, question.target.clone()),
            measure: Measure { rate: Rate::pooled([]), max: question.runs.max.max(1) },
            range: None,
            asked: Vec::new(),
            picks: Vec::new(),
            log: Log::default(),
            question,
        }
    }

    /// Says what to do now, with room for `width` revisions at once. After `Done` it stays so
    /// unless evidence still in flight says otherwise.
    pub fn next_step(&mut self, width: NonZeroUsize) -> Step {
        self.settle();
        let step = self.decide(width.get());
        match &step {
            Step::Evaluate(candidates) | Step::Certify(candidates) => self.remember(candidates),
            Step::Done(Finding::Culprit { revision, .. }) => self.conclude(*revision),
            Step::Done(_) | Step::LoadHistory { .. } => {}
        }
        step
    }

    /// Takes what was seen, also at revisions nobody asked for.
    pub fn record(&mut self, evidence: Evidence) {
        self.ledger.record(evidence);
        let max = self.measure.max;
        let shows = |counts: &Counts| counts.target >= 2 || counts.target == 1 && counts.total() >= max;
        self.measure.rate = Rate::pooled(self.ledger.kernels().into_iter().filter(shows));
        self.settle();
    }

    /// Answers `Step::LoadHistory`.
    pub fn set_history(&mut self, history: History) {
        self.range = Some(Range::new(history, self.question.mode, &self.question.bad));
        self.picks.clear();
        self.settle();
    }

    /// Every verdict in the order it fell; only ever appended to.
    pub fn judgements(&self) -> &[Judgement] {
        self.log.judgements()
    }

    /// How many commits may still be the culprit; nothing before the range is known.
    pub fn suspects_left(&self) -> Option<usize> {
        self.range.as_ref().map(|range| self.suspects(range).count())
    }

    /// What is searched for; without a given title, known once the bad end has crashed.
    pub fn target(&self) -> Option<&Target> {
        self.ledger.target()
    }

    pub fn history(&self) -> Option<&History> {
        self.range.as_ref().map(|range| &range.history)
    }

    fn decide(&mut self, width: usize) -> Step {
        if let Some(finding) = self.start_finding() {
            return Step::Done(finding);
        }
        if let Some(good) = self.question.good.filter(|good| *good == self.question.bad) {
            return match self.start_candidate() {
                Some(start) => Step::Evaluate(vec![start]),
                None => Step::Done(self.shows_at(good)),
            };
        }
        if self.range.is_none() {
            let bad = self.question.bad;
            return match (self.question.mode, self.question.good) {
                (Mode::Cause, Some(good)) => Step::LoadHistory { good, bad },
                // The range is what the fixed end has and the crashing end has not.
                (Mode::Fix, Some(good)) => Step::LoadHistory { good: bad, bad: good },
                (Mode::Cause, None) => self.walk_step(width),
                (Mode::Fix, None) => blocked("no end is given where the crash is gone"),
            };
        }
        if let Some(finding) = self.end_finding() {
            return Step::Done(finding);
        }
        let mut candidates = self.open_ends(width);
        candidates.truncate(width);
        if candidates.is_empty() {
            return self.search_step(width);
        }
        self.refill(width - candidates.len());
        candidates.extend(self.picked());
        Step::Evaluate(candidates)
    }

    /// How the bad end itself ends the search.
    pub(super) fn start_finding(&self) -> Option<Finding> {
        let bad = &self.question.bad;
        let counts = self.ledger.counts(bad);
        match self.start() {
            Start::Shows => None,
            Start::Quiet if counts.failed < counts.total() => Some(Finding::NotReproduced { counts }),
            Start::Quiet | Start::Broken => {
                Some(Finding::BadEndBroken { reason: "no run reached the reproducer".into() })
            }
            Start::Wants(_) => match (self.ledger.build_failed(bad), self.ledger.unavailable(bad)) {
                (Some(message), _) => {
                    Some(Finding::BadEndBroken { reason: format!("it does not build: {message}") })
                }
                (None, Some(reason)) => Some(Finding::Blocked { by: format!("the bad end: {reason}") }),
                (None, None) => None,
            },
        }
    }

    fn walk_step(&mut self, width: usize) -> Step {
        let start = self.start_candidate();
        match releases::walk(&self.tags, |revision| self.verdict(revision)) {
            Walk::Open(tags) => {
                let release = |(tag, id): &Tag| self.candidate(*id, Role::Release(tag.clone()));
                let releases = tags.iter().filter_map(release);
                Step::Evaluate(start.into_iter().chain(releases).take(width).collect())
            }
            _ if start.is_some() => Step::Evaluate(start.into_iter().collect()),
            Walk::Found { good, bad } => Step::LoadHistory { good, bad: bad.unwrap_or(self.question.bad) },
            Walk::OldestIsBad((tag, revision)) => Step::Done(Finding::OldestReleaseHasBug { revision, tag }),
            Walk::Unjudged => blocked("no release could be shown to be free of the crash"),
            Walk::NoTags => blocked("no good end is given, and no release tag leads up to the bad end"),
        }
    }

    /// How the other end, or the merge base of two trees, ends the search.
    fn end_finding(&self) -> Option<Finding> {
        let good = self.question.good?;
        match (self.question.mode, self.verdict(&good)) {
            (Mode::Cause | Mode::Fix, Some(Verdict::Bad)) => Some(self.shows_at(good)),
            (Mode::Fix, Some(Verdict::Skip)) => {
                Some(Finding::Blocked { by: format!("the new end {good} {}", self.why_skipped(&good)) })
            }
            // A good end that cannot be judged is believed: the culprit's own parents decide.
            (Mode::Cause, Some(Verdict::Good | Verdict::Skip) | None) => None,
            (Mode::Fix, Some(Verdict::Good) | None) => {
                let base = self.merge_base()?;
                let why = match self.verdict(&base)? {
                    Verdict::Bad => return None,
                    Verdict::Good => "does not show the crash".into(),
                    Verdict::Skip => self.why_skipped(&base),
                };
                Some(Finding::Blocked { by: format!("the merge base {base} of the two ends {why}") })
            }
        }
    }

    /// The end that should be free of the crash shows it.
    fn shows_at(&self, revision: RevisionId) -> Finding {
        match self.question.mode {
            Mode::Cause => Finding::GoodEndIsBad { revision },
            Mode::Fix => Finding::NotFixed { revision },
        }
    }

    /// Fix across trees: this commit, which the two trees share, must crash.
    pub(super) fn merge_base(&self) -> Option<RevisionId> {
        self.range.as_ref()?.merge_base
    }

    /// The ends that still need a verdict. A cause's good end seldom is not good, and the
    /// certificate tests it where it matters: early on only many slots have one to spare for it.
    fn open_ends(&self, width: usize) -> Vec<Candidate> {
        let wanted = self.question.mode == Mode::Fix || width >= GOOD_END_WIDTH;
        let good = self.question.good.filter(|_| wanted).map(|good| (good, Role::GoodEnd));
        let base = self.merge_base().map(|base| (base, Role::Search));
        let open = good.into_iter().chain(base).filter(|(id, _)| self.verdict(id).is_none());
        self.start_candidate()
            .into_iter()
            .chain(open.filter_map(|(id, role)| self.candidate(id, role)))
            .collect()
    }

    fn search_step(&mut self, width: usize) -> Step {
        let range = self.range.as_ref().expect("the search begins with the range");
        let suspects = self.suspects(range);
        if suspects.count() == 1 {
            let culprit = suspects.iter().next().expect("one suspect");
            self.picks.clear();
            return self.certify(culprit, width);
        }
        let listed: Vec<u32> = suspects.iter().collect();
        self.refill(width);
        if self.picks.is_empty() {
            return Step::Done(self.unresolved(&listed));
        }
        Step::Evaluate(self.picked())
    }

    /// Drops picks that can teach nothing any more and adds the best ones up to `width`.
    fn refill(&mut self, width: usize) {
        let visited = self.visited();
        let Some(range) = &mut self.range else { return };
        if visited.iter().any(|visited| visited.silent > 0.0) {
            visited.iter().for_each(|visited| range.learn_nearness(visited.at));
        }
        let Some(range) = &self.range else { return };
        let suspects = self.suspects(range);
        let size = suspects.count();
        let judged: BTreeSet<u32> = visited.iter().map(|visited| visited.at).collect();
        let splits = |at: u32| (1..size).contains(&range.ancestry.ancestors(at).count_common(&suspects));
        let tip = range.history.tip();
        let useful = |at: u32| at != tip && !judged.contains(&at) && splits(at);
        let busy = |at: u32| self.candidate(range.history.commit(at).id, Role::Search).is_some();
        let (mut picks, waiting): (Vec<u32>, Vec<u32>) =
            self.picks.iter().copied().filter(|&at| useful(at)).partition(|&at| busy(at));
        // A verdict that fell and no longer stands, since the bug turned out to be rarer than
        // thought, needs a few more runs rather than another revision.
        let withdrawn = self.asked.iter().filter(|(id, _)| self.log.last(id).is_some());
        for at in withdrawn.filter_map(|(id, _)| range.history.find(id)) {
            if picks.len() < width && !picks.contains(&at) && useful(at) {
                picks.push(at);
            }
        }
        if picks.len() < width {
            let mut field = Field::new(range, &suspects, &visited);
            picks.iter().chain(&waiting).for_each(|&at| field.split(at));
            while picks.len() < width {
                let Some(best) = field.best(|at| !judged.contains(&at)) else { break };
                picks.push(best);
                field.split(best);
            }
        }
        self.picks = picks.into_iter().chain(waiting).collect();
    }

    fn picked(&self) -> Vec<Candidate> {
        let Some(range) = &self.range else { return Vec::new() };
        let candidate = |&at: &u32| self.candidate(range.history.commit(at).id, Role::Search);
        self.picks.iter().filter_map(candidate).collect()
    }

    /// Every revision of the range whose runs say how well it works.
    fn visited(&self) -> Vec<Visited> {
        let Some(range) = &self.range else { return Vec::new() };
        let visit = |id: RevisionId| {
            let at = range.history.find(&id)?;
            let counts = self.ledger.counts(&id);
            let silent = match self.verdict(&id)? {
                Verdict::Skip => 1.0,
                Verdict::Good | Verdict::Bad => f64::from(counts.silent()) / f64::from(counts.total().max(1)),
            };
            Some(Visited { at, silent })
        };
        self.ledger.revisions().filter_map(visit).collect()
    }

    pub(super) fn start_candidate(&self) -> Option<Candidate> {
        let revision = self.question.bad;
        match self.start() {
            Start::Wants(runs) => Some(Candidate { revision, role: Role::Start, runs }),
            Start::Shows | Start::Broken | Start::Quiet => None,
        }
    }

    /// What a revision still wants. Nothing, if all it waits for is the start's verdict, before
    /// which no other falls.
    fn candidate(&self, revision: RevisionId, role: Role) -> Option<Candidate> {
        let counts = self.ledger.counts(&revision);
        let enough = self.measure.verdict(&counts).is_some() || self.given_up(&revision);
        (!enough).then(|| Candidate { revision, role, runs: self.measure.wanted(&counts) })
    }

    pub(super) fn given_up(&self, revision: &RevisionId) -> bool {
        self.ledger.build_failed(revision).is_some() || self.ledger.unavailable(revision).is_some()
    }

    /// What the bad end's runs say; if there will be no more, two crashes are enough.
    pub(super) fn start(&self) -> Start {
        let counts = self.ledger.counts(&self.question.bad);
        match judge_start(&counts, self.question.runs.first_max.max(1)) {
            Start::Wants(_) if counts.target >= 2 && self.given_up(&self.question.bad) => Start::Shows,
            start @ (Start::Wants(_) | Start::Shows | Start::Broken | Start::Quiet) => start,
        }
    }
}

fn blocked(by: &str) -> Step {
    Step::Done(Finding::Blocked { by: by.into() })
}
