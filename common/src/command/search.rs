//! What is run next, and when the search is over.
//!
//! First every revision is run once and believed, as git does; so a command that never wavers
//! costs what it costs there. Where more certainty is wanted, or runs contradict each other,
//! the same runs become evidence of a search that reckons with flakiness, and that goes on.

use super::engine;
use super::{Ending, Exit, Plan, Repetition, Step, Tally, Want};
use crate::bisect::{self, Assumption, Bisection, Costs, Finding, Suspect};
use crate::history::History;
use crate::id::RevisionId;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

/// Runs of one look at a revision, at most; the engine comes back where they leave doubt.
const RUNS_MAX: u32 = 10;
/// Looks' worth of runs at the bad end before the command is held to pass there: one that
/// fails once in ten runs is missed by 40 in 1.5 % of searches.
const START_LOOKS: u32 = 4;
/// Switching trees against one run. A command's first run at a revision may build more than
/// the later ones; how much is not known, so little is made of it.
const COSTS: Costs = Costs { build_s: 2.0, revisit_s: 1.0, visit_s: 10.0, runs_per_visit: 1 };
/// Where the engine gives up: runs of one revision after which that is right, failures after
/// which no further one is needed (a few among many passes may be false alarms), runs made at
/// a time, and the probability below which there is nothing left to part.
const RUNS_PERSISTENT_MAX: u32 = 80;
const FAILURES_BELIEVED: u32 = 5;
const RUNS_MORE: u32 = 5;
const PART_MIN: f64 = 0.001;
/// A commit this likely, each run being believed, is what git would name.
const ONLY_ONE: f64 = 0.99;

/// A search with a command, from the range to its ending.
pub struct Search {
    pub(super) history: History,
    pub(super) good: RevisionId,
    pub(super) bad: RevisionId,
    pub(super) good_subject: String,
    plan: Plan,
    pub(super) stage: Stage,
    pub(super) engine: Bisection,
    /// Every run in order.
    pub(super) seen: Vec<(RevisionId, Exit)>,
    pub(super) tallies: BTreeMap<RevisionId, Tally>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Each run is believed, and so is the user about the ends.
    Believing,
    /// A run that passes may have been lucky.
    Doubting,
}

impl Search {
    /// `history` holds what `bad` reaches and `good` does not.
    pub fn new(history: History, good: RevisionId, bad: RevisionId, plan: Plan) -> Self {
        let engine = Bisection::new(engine::question(good, bad, 1, 1));
        let mut search = Search {
            history,
            good,
            bad,
            good_subject: String::new(),
            plan,
            stage: Stage::Believing,
            engine,
            seen: Vec::new(),
            tallies: BTreeMap::new(),
        };
        match plan.repetition {
            Repetition::Exactly(runs) if runs.get() > 1 => search.doubt(),
            Repetition::Auto | Repetition::Exactly(_) => search.engine = search.believing(),
        }
        search
    }

    /// Says what the good end's message begins with; its commit is not in the range.
    pub fn calling_good_end(mut self, subject: &str) -> Self {
        self.good_subject = subject.to_owned();
        self
    }

    /// Says what to do now.
    pub fn step(&mut self) -> Step {
        if self.stage == Stage::Believing && self.contradicts_itself() {
            self.doubt();
        }
        if self.stage == Stage::Believing {
            match self.believe() {
                Some(step) => return step,
                None => self.doubt(),
            }
        }
        self.doubting_step()
    }

    /// Takes what a run said. `Exit::Abort` is nobody's evidence.
    pub fn record(&mut self, revision: RevisionId, exit: Exit) {
        let tally = self.tallies.entry(revision).or_default();
        let index = tally.total();
        let untested = tally.good + tally.bad == 0;
        match exit {
            Exit::Good => tally.good += 1,
            Exit::Bad => tally.bad += 1,
            Exit::Skip => tally.skip += 1,
            Exit::Abort => return,
        }
        self.seen.push((revision, exit));
        engine::tell(&mut self.engine, revision, index, exit, untested);
    }

    pub fn tally(&self, revision: &RevisionId) -> Tally {
        self.tallies.get(revision).copied().unwrap_or_default()
    }

    /// All runs by revision.
    pub fn tallies(&self) -> &BTreeMap<RevisionId, Tally> {
        &self.tallies
    }

    pub fn good(&self) -> RevisionId {
        self.good
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Runs so far.
    pub fn runs(&self) -> usize {
        self.seen.len()
    }

    /// Whether some revision was seen both to pass and to fail, or runs contradict each other.
    pub fn is_flaky(&self) -> bool {
        self.tallies.values().any(|tally| tally.good > 0 && tally.bad > 0) || self.contradicts_itself()
    }

    /// The next step as git would take it; nothing where that is to go on doubting.
    fn believe(&mut self) -> Option<Step> {
        let width = self.plan.jobs;
        let step = engine::step(&mut self.engine, &self.history, width);
        if let bisect::Step::Evaluate(candidates) = &step {
            return Some(Step::Run(self.wants(candidates)));
        }
        let listed = self.engine.beliefs();
        let best = listed.first().filter(|best| best.probability >= ONLY_ONE).cloned();
        if let Some(best) = best {
            let revision = best.revision;
            return match self.plan.wanted() {
                Some(_) => None,
                None => {
                    Some(Step::Done(Ending::Culprit { revision, probability: self.probability(&revision) }))
                }
            };
        }
        // The engine leaves regions alone that always skip. git tries all of them.
        if let Some(revision) = self.untried(&listed) {
            return Some(Step::Run(vec![Want { revision, runs: 1 }]));
        }
        self.plan.wanted().is_none().then(|| Step::Done(only_skipped(listed)))
    }

    fn doubting_step(&mut self) -> Step {
        let width = self.plan.jobs;
        let step = engine::step(&mut self.engine, &self.history, width);
        let wanted = self.plan.wanted().unwrap_or(super::CONFIDENCE_MAX);
        let done = self.begun().is_empty();
        let finding = match step {
            bisect::Step::Evaluate(candidates) | bisect::Step::Certify(candidates) => {
                let listed = self.engine.beliefs();
                return match listed.first() {
                    Some(best) if wanted < super::CONFIDENCE_MAX && best.probability >= wanted && done => {
                        Step::Done(Ending::Culprit { revision: best.revision, probability: best.probability })
                    }
                    Some(_) | None => Step::Run(self.wants(&candidates)),
                };
            }
            bisect::Step::LoadHistory { .. } => unreachable!("the engine was given its history"),
            bisect::Step::Done(finding) => finding,
        };
        if !done {
            return Step::Run(self.wants(&[]));
        }
        if let Some(want) = self.persist(&finding) {
            return Step::Run(vec![want]);
        }
        Step::Done(match finding {
            Finding::Culprit { revision, .. } => {
                let listed = self.engine.beliefs();
                let own = listed.iter().find(|suspect| suspect.revision == revision);
                Ending::Culprit { revision, probability: own.map_or(ONLY_ONE, |own| own.probability) }
            }
            Finding::Suspects { suspects, reason } => Ending::Suspects { suspects, reason },
            Finding::NotReproduced { .. } => Ending::BadEndPasses { tally: self.tally(&self.bad) },
            Finding::BadEndBroken { .. } => Ending::BadEndSkipped,
            Finding::GoodEndIsBad { revision }
            | Finding::OldestReleaseHasBug { revision, .. }
            | Finding::NotFixed { revision } => Ending::GoodEndFails { revision },
            Finding::Blocked { by } => Ending::Suspects { suspects: vec![], reason: by },
        })
    }

    /// A farm gives up where a visit costs more than it tells. Runs of a command are cheap, so
    /// what still parts the suspects is run again, and the good end if all others fail.
    fn persist(&mut self, finding: &Finding) -> Option<Want> {
        let Finding::Suspects { suspects, .. } = finding else { return None };
        let more = |search: &Self, revision: RevisionId| {
            let tally = search.tally(&revision);
            let open =
                tally.bad < FAILURES_BELIEVED && tally.skip == 0 && tally.total() < RUNS_PERSISTENT_MAX;
            open.then_some(Want { revision, runs: tally.total() + RUNS_MORE })
        };
        let believed: f64 = self.engine.beliefs().iter().map(|suspect| suspect.probability).sum();
        if believed < 0.5 {
            return more(self, self.good);
        }
        let mass = |at: u32| -> f64 {
            let inside = suspects.iter().filter(|suspect| {
                self.history.find(&suspect.revision).is_some_and(|suspect| self.reaches(at, suspect))
            });
            inside.map(|suspect| suspect.probability).sum()
        };
        let places = suspects.iter().filter_map(|suspect| self.history.find(&suspect.revision));
        let nearby: BTreeSet<u32> = places
            .flat_map(|at| std::iter::once(at).chain(self.history.commit(at).parents.iter().copied()))
            .collect();
        let parts = |at: u32| {
            let inside = mass(at);
            let want = more(self, self.history.commit(at).id)?;
            Some((inside.min(1.0 - inside), want))
        };
        let best = nearby.into_iter().filter_map(parts).max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(part, _)| *part > PART_MIN).map(|(_, want)| want)
    }

    fn wants(&self, candidates: &[bisect::Candidate]) -> Vec<Want> {
        let least = self.least();
        let begun = self.begun();
        let open = |want: &Want| !begun.iter().any(|begun| begun.revision == want.revision);
        let wants = candidates
            .iter()
            .map(|candidate| Want { revision: candidate.revision, runs: candidate.runs.max(least) });
        begun.iter().copied().chain(wants.filter(open)).collect()
    }

    fn least(&self) -> u32 {
        match self.plan.repetition {
            Repetition::Exactly(runs) => runs.get(),
            Repetition::Auto => 1,
        }
    }

    /// What was begun and gets all that was promised, even where the engine has moved on.
    fn begun(&self) -> Vec<Want> {
        let runs = self.least();
        let begun = |tally: &Tally| tally.bad == 0 && tally.skip == 0 && (1..runs).contains(&tally.total());
        let begun = self.tallies.iter().filter(|(_, tally)| begun(tally));
        begun.map(|(revision, _)| Want { revision: *revision, runs }).collect()
    }

    /// The middle one of the suspects that were never run.
    fn untried(&self, listed: &[Suspect]) -> Option<RevisionId> {
        let open = |suspect: &Suspect| {
            let at = self.history.find(&suspect.revision)?;
            (suspect.revision != self.bad && self.tally(&suspect.revision).total() == 0).then_some(at)
        };
        let mut open: Vec<u32> = listed.iter().filter_map(open).collect();
        open.sort_unstable();
        open.get(open.len() / 2).map(|&at| self.history.commit(at).id)
    }

    /// That a commit is the culprit if the command may be flaky, by all runs and by the user's
    /// word for the good end. The word for the bad end says nothing of how often it fails.
    fn probability(&self, revision: &RevisionId) -> f64 {
        let mut engine = Bisection::new(engine::question(self.good, self.bad, RUNS_MAX, 1)).with_costs(COSTS);
        engine::tell(&mut engine, self.good, u32::MAX, Exit::Good, true);
        self.retell(&mut engine);
        engine::step(&mut engine, &self.history, NonZeroUsize::MIN);
        let listed = engine.beliefs();
        listed.iter().find(|suspect| suspect.revision == *revision).map_or(0.0, |own| own.probability)
    }

    /// An engine that believes each run, and the user.
    fn believing(&self) -> Bisection {
        let mut engine = Bisection::new(engine::question(self.good, self.bad, 1, 1))
            .assuming(Assumption::Exact)
            .with_costs(COSTS);
        engine::tell(&mut engine, self.bad, 0, Exit::Bad, true);
        engine::tell(&mut engine, self.good, 0, Exit::Good, true);
        engine
    }

    /// Goes on with an engine that reckons with flakiness, and knows all runs so far.
    fn doubt(&mut self) {
        let max = match self.plan.repetition {
            Repetition::Exactly(runs) if runs.get() > 1 => runs.get(),
            Repetition::Auto | Repetition::Exactly(_) => RUNS_MAX,
        };
        let question = engine::question(self.good, self.bad, max, max.saturating_mul(START_LOOKS));
        let mut engine = Bisection::new(question).with_costs(COSTS);
        self.retell(&mut engine);
        engine.recall_rounds(self.engine.rounds().to_vec());
        self.engine = engine;
        self.stage = Stage::Doubting;
    }

    fn retell(&self, engine: &mut Bisection) {
        let mut told: BTreeMap<RevisionId, (u32, bool)> = BTreeMap::new();
        for (revision, exit) in &self.seen {
            let (index, untested) = told.entry(*revision).or_insert((0, true));
            engine::tell(engine, *revision, *index, *exit, *untested);
            *index += 1;
            *untested &= *exit == Exit::Skip;
        }
    }

    /// Whether a revision that failed is part of one that passed.
    fn contradicts_itself(&self) -> bool {
        let (mut failed, mut passed) = (BTreeSet::new(), Vec::new());
        for (revision, tally) in &self.tallies {
            let Some(at) = self.history.find(revision) else { continue };
            if tally.bad > 0 {
                failed.insert(at);
            }
            if tally.good > 0 {
                passed.push(at);
            }
        }
        let mut reached = BTreeSet::new();
        while let Some(at) = passed.pop() {
            if failed.contains(&at) {
                return true;
            }
            let parents = &self.history.commit(at).parents;
            passed.extend(parents.iter().copied().filter(|&parent| reached.insert(parent)));
        }
        false
    }
}

fn only_skipped(listed: Vec<Suspect>) -> Ending {
    Ending::Suspects { suspects: listed, reason: "only skipped commits are left to test".into() }
}
