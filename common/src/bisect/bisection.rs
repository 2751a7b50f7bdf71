//! The search as a whole: the ends first, then the range, then the certificate.
//!
//! What is known is a function of the evidence alone; only the revisions in flight and the
//! log of verdicts remember the order in which things happened.

use super::beliefs::Beliefs;
use super::costs::Costs;
use super::explain::Round;
use super::judge::{Measure, Start, judge_start};
use super::ledger::Ledger;
use super::log::Log;
use super::looks::Flight;
use super::model::Assumption;
use super::range::Range;
use super::rate::Rate;
use super::releases::{self, Tag, Walk};
use super::{Candidate, Counts, Evidence, Finding, Judgement, Question, Role, Step};
use crate::crash::Target;
use crate::history::History;
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Kernels that the search is trying, in order.
    pub(super) flights: Vec<Flight>,
    pub(super) log: Log,
    pub(super) assumption: Assumption,
    pub(super) costs: Costs,
    /// Whether whoever builds can revert a commit on top of the bad end.
    pub(super) reverts_allowed: bool,
    /// Whatever stands before the range is free of the bug, and is not looked at.
    pub(super) outside_is_good: bool,
    /// Names of reverted kernels that were asked for, with the commit reverted.
    pub(super) reverts: BTreeMap<RevisionId, u32>,
    /// What operators say of revisions.
    pub(super) overruled: BTreeMap<RevisionId, Verdict>,
    /// Revisions that are known from elsewhere only.
    pub(super) inherited: BTreeSet<RevisionId>,
    /// The target's files and the prior that they make.
    pub(super) prior: Option<(Vec<String>, Vec<f64>)>,
    /// Absent after new evidence.
    pub(super) beliefs: Option<Beliefs>,
    /// What was handed out by the last step, and what there is to say of all steps.
    pub(super) hand: Vec<(RevisionId, Role)>,
    pub(super) rounds: Vec<Round>,
}

impl Bisection {
    pub fn new(question: Question) -> Self {
        Bisection {
            tags: releases::select(&question.releases, question.bad),
            ledger: Ledger::new(question.bad, question.target.clone()),
            measure: Measure { rate: Rate::pooled([]), max: question.runs.max.max(1) },
            range: None,
            asked: Vec::new(),
            flights: Vec::new(),
            log: Log::default(),
            assumption: Assumption::Flaky,
            costs: Costs::run_by_run(),
            reverts_allowed: false,
            outside_is_good: false,
            reverts: BTreeMap::new(),
            overruled: BTreeMap::new(),
            inherited: BTreeSet::new(),
            prior: None,
            beliefs: None,
            hand: Vec::new(),
            rounds: Vec::new(),
            question,
        }
    }

    /// Says what a visit costs; else it is as on a farm that hands out single runs.
    pub fn with_costs(mut self, costs: Costs) -> Self {
        self.costs = costs;
        self
    }

    /// The same, for a search under way.
    pub fn set_costs(&mut self, costs: Costs) {
        self.costs = costs;
    }

    /// Says what may be assumed of the bug; else that it may be flaky.
    pub fn assuming(mut self, assumption: Assumption) -> Self {
        self.assumption = assumption;
        self
    }

    /// Says all that is known of the crash; else its frames and files are taken from the bad end.
    pub fn with_target(mut self, target: Target) -> Self {
        self.ledger = Ledger::of_target(self.question.bad, target);
        self
    }

    /// Says that nothing before the range has the bug, and that nothing there is to be tried.
    pub fn trusting_outside(mut self) -> Self {
        self.outside_is_good = true;
        self
    }

    /// Allows candidates with `Role::Revert`: the bad end with one commit reverted. Where the
    /// revert does not apply, `Evidence::Unavailable` is the answer.
    pub fn allow_reverts(mut self) -> Self {
        self.reverts_allowed = true;
        self
    }

    /// Says what to do now, with room for `width` revisions at once. After `Done` it stays so
    /// unless evidence still in flight says otherwise.
    pub fn next_step(&mut self, width: NonZeroUsize) -> Step {
        self.settle();
        let step = self.decide(width.get());
        self.explain(&step);
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
        self.beliefs = None;
        let max = self.measure.max;
        let shows = |counts: &Counts| counts.target >= 2 || counts.target == 1 && counts.total() >= max;
        self.measure.rate = Rate::pooled(self.ledger.kernel_counts().filter(shows));
        self.settle();
    }

    /// Takes what another search saw. It is evidence as any other, but no look of this search,
    /// which it does not tire, and no verdict is logged on it unless the revision is asked for.
    pub fn inherit(&mut self, evidence: Evidence) {
        let revision = evidence.revision();
        if !self.asked.iter().any(|(asked, _)| *asked == revision) {
            self.inherited.insert(revision);
        }
        self.record(evidence);
    }

    /// Answers `Step::LoadHistory`.
    pub fn set_history(&mut self, history: History) {
        let mut range = Range::new(history, self.question.mode, &self.question.bad);
        if let (Mode::Cause, Some(good)) = (self.question.mode, self.question.good) {
            range.learn_good(&good);
        }
        self.range = Some(range);
        self.flights.clear();
        (self.prior, self.beliefs) = (None, None);
        self.settle();
    }

    /// Says what is known before anything has run: where in the source the crash happened, innermost
    /// first, and what each commit of the range touches.
    pub fn learn_trace(&mut self, files: Vec<String>, touched: Vec<Vec<String>>) {
        self.ledger.learn_trace(files);
        if let Some(range) = self.range.as_mut().filter(|range| range.history.len() == touched.len()) {
            range.history.set_files(touched);
        }
        (self.prior, self.beliefs) = (None, None);
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
    pub(super) fn shows_at(&self, revision: RevisionId) -> Finding {
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

    pub(super) fn start_candidate(&self) -> Option<Candidate> {
        let revision = self.question.bad;
        match self.start() {
            Start::Wants(runs) => {
                let seen = self.ledger.counts(&revision).total();
                let runs = seen + self.costs.whole_batches(runs - seen);
                Some(Candidate { revision, role: Role::Start, runs })
            }
            Start::Shows | Start::Broken | Start::Quiet => None,
        }
    }

    /// What a revision still wants. Nothing, if all it waits for is the start's verdict, before
    /// which no other falls.
    fn candidate(&self, revision: RevisionId, role: Role) -> Option<Candidate> {
        let counts = self.ledger.counts(&revision);
        let enough = self.measure.verdict(&counts).is_some() || self.given_up(&revision);
        let more = self.measure.wanted(&counts).saturating_sub(counts.total());
        let runs = counts.total() + self.costs.whole_batches(more);
        (!enough).then_some(Candidate { revision, role, runs })
    }

    pub(super) fn given_up(&self, revision: &RevisionId) -> bool {
        self.ledger.build_failed(revision).is_some() || self.ledger.unavailable(revision).is_some()
    }

    /// Whether the bad end has shown the crash.
    pub(crate) fn has_shown(&self) -> bool {
        matches!(self.start(), Start::Shows)
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
