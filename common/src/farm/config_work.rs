//! Work on a job's configuration, where it is asked for: once the bad end has shown the crash,
//! kernels of it with less in them are tried, and the search begins anew with the least that
//! shows it. So all its evidence is under one configuration.
//!
//! What was tried is found again among the products; what came of it is a fact.

use super::Farm;
use super::action::Action;
use super::fact::{Configured, Fact};
use super::item::{ItemKey, RunWork, State, Work};
use super::jobs::JobState;
use super::kernels::Sourced;
use super::wants::Wants;
use crate::artifact::Artifact;
use crate::bisect::{self, Bisection, Candidate, Role};
use crate::config_work::ConfigWork;
use crate::crash::{Match, Target, compare};
use crate::id::{Digest, JobId};
use crate::job::KernelBuild;
use crate::outcome::{BuildOutcome, Outcome, Product};
use crate::signature;

/// As many crashes of the target show that it is still there.
const CRASHES: u32 = 2;
/// As many of the bad end, where there are so many, say how often it shows.
const CRASHES_OF_BAD_END: u32 = 4;
/// Runs that are asked for at a time, at least.
const RUNS_AT_ONCE: u32 = 2;

/// How far the work is.
pub(super) enum Working {
    /// There is none, or none now.
    No,
    /// Its items are in the queue or in hand.
    Waiting,
    /// The search began anew.
    Renewed,
}

/// There is no such kernel, and there will be none.
struct NotBuilt;

/// A configuration that was settled on.
pub(super) struct Settled {
    pub configured: Configured,
    /// How many verdicts had fallen before, on other kernels.
    pub judged: usize,
}

impl JobState {
    /// Whether the configuration is still to be worked on.
    pub(super) fn is_unsettled(&self) -> bool {
        self.settled.is_none() && !self.job.config_work.is_empty()
    }

    /// Verdicts before this one are on kernels of another configuration.
    pub(super) fn settled_since(&self) -> usize {
        self.settled.as_ref().map_or(0, |settled| settled.judged)
    }
}

impl Farm {
    /// Takes the work on a job's configuration as far as it goes.
    pub(super) fn work_on_config(
        &mut self,
        state: &mut JobState,
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Working {
        let shown = |bisection: &&Bisection| bisection.has_shown();
        let Some(bisection) = state.bisection.as_ref().filter(shown).filter(|_| state.is_unsettled()) else {
            return Working::No;
        };
        let Some(target) = bisection.target().cloned() else { return Working::No };
        // By no more than the search that begins anew will know.
        let target = Target { title: target.title, alt_titles: vec![], frames: vec![], files: vec![] };
        let mut work = match state.config_work.take() {
            Some(work) => work,
            None => {
                let off = self.symbols_off(state);
                ConfigWork::new(&state.kernel, &state.job.config_work, &target.title, &off)
            }
        };
        wants.items.clear();
        let Some(quiet) = self.quiet_of_bad_end(state, &target, executable, wants, actions) else {
            state.config_work = Some(work);
            return Working::Waiting;
        };
        while let Some(fragment) = work.next() {
            let mut kernel = state.kernel.clone();
            kernel.fragments.push(fragment);
            wants.items.clear();
            let title = format!("job {} configuration {}", state.id, work.result().tried + 1);
            let shows = self.shows(state, (&kernel, title), (&target, quiet), executable, wants, actions);
            let Some(shows) = shows else {
                state.config_work = Some(work);
                return Working::Waiting;
            };
            work.record(shows);
        }
        wants.items.clear();
        let configured = Configured {
            title: target.title,
            worked: work.result(),
            items: std::mem::take(&mut state.config_items).into_iter().collect(),
        };
        let fact = Fact::Configured { id: state.id.clone(), configured: configured.clone() };
        actions.push(Action::Record(fact));
        if self.settle(state, configured) {
            self.recall(state);
            Working::Renewed
        } else {
            Working::No
        }
    }

    /// The quiet runs after which a kernel is held not to show the crash, by the bad end's own. They
    /// are taken in order up to the fourth crash, whatever else has arrived.
    fn quiet_of_bad_end(
        &mut self,
        state: &mut JobState,
        target: &Target,
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Option<u32> {
        let (kernel, title) = (state.kernel.clone(), format!("job {} bad end", state.id));
        let max = state.job.runs.max.max(1);
        let (mut crashes, mut oks) = (0, 0);
        let built = self.built(state, (&kernel, &title), executable, wants, actions)?;
        let Ok((runs, work)) = built else { return Some(bisect::quiet_runs_after(crashes, oks, max)) };
        for index in 0..state.job.runs.first_max.max(CRASHES) {
            if crashes >= CRASHES_OF_BAD_END {
                break;
            }
            let Some(Product::Run(run)) = self.products.get(&self.noise.standing(ItemKey::Run(runs, index)))
            else {
                self.want_runs(runs, index..index.saturating_add(1), (&work, &title), wants)?;
                continue;
            };
            crashes += u32::from(shows_target(&run.outcome, target));
            oks += u32::from(run.outcome == Outcome::Ok);
        }
        Some(bisect::quiet_runs_after(crashes, oks, max))
    }

    /// What the bad end's runs with this kernel are, once it is built; or that there will be none.
    fn built(
        &mut self,
        state: &mut JobState,
        (kernel, title): (&KernelBuild, &str),
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Option<Result<(Digest, RunWork), NotBuilt>> {
        let bad = state.resolution.as_ref()?.bad.id;
        let candidate = Candidate { revision: bad, role: Role::Start, runs: 0 };
        let source = match Self::source(state, &candidate, actions) {
            Sourced::Ready(source) => source,
            Sourced::Waiting => return None,
            Sourced::Refused(_) => return Some(Err(NotBuilt)),
        };
        let image_id = self.toolchain(state, wants).ok()?.image_id.clone();
        let build = ItemKey::Build(signature::build_key(&source.tree, kernel, &image_id));
        let Some(product) = self.products.get(&build) else {
            let work = Self::build_work(&state.job, source, kernel.clone(), image_id);
            let given_up = self.want_of_config(build, Work::Build(work), title.to_owned(), wants);
            return given_up.map(|_| Err(NotBuilt));
        };
        if kernel != &state.kernel {
            state.config_items.insert(build);
        }
        let Product::Build(product) = product else { return None };
        match &product.outcome {
            BuildOutcome::Built(built) => Some(Ok(Self::run_work(state, built, executable))),
            BuildOutcome::Failed { .. } => Some(Err(NotBuilt)),
        }
    }

    /// Whether the bad end shows the crash with this kernel; nothing while that is not known. One
    /// that does not build, or does not come to the reproducer, does not show it.
    fn shows(
        &mut self,
        state: &mut JobState,
        (kernel, title): (&KernelBuild, String),
        (target, quiet): (&Target, u32),
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Option<bool> {
        let built = self.built(state, (kernel, &title), executable, wants, actions)?;
        let Ok((runs, work)) = built else { return Some(false) };
        let at_once = u32::try_from(self.width().get()).unwrap_or(u32::MAX).max(RUNS_AT_ONCE);
        // The search that begins anew judges the bad end by as many runs, of the same ones. They are
        // taken in order, so that whoever asks again comes to the same answer.
        let last = state.job.runs.first_max.max(CRASHES);
        let (mut crashes, mut oks, mut unbooted) = (0, 0, 0);
        for index in 0..last {
            let key = self.noise.standing(ItemKey::Run(runs, index));
            let Some(Product::Run(run)) = self.products.get(&key) else {
                return self.want_runs(
                    runs,
                    index..last.min(index.saturating_add(at_once)),
                    (&work, &title),
                    wants,
                );
            };
            state.config_items.insert(key);
            crashes += u32::from(shows_target(&run.outcome, target));
            oks += u32::from(run.outcome == Outcome::Ok);
            unbooted += u32::from(matches!(run.outcome, Outcome::BootFailed { .. }));
            // One that did not boot twice will not do so the third time either.
            if unbooted == index + 1 && unbooted == CRASHES || crashes == 0 && oks >= quiet {
                return Some(false);
            }
            if crashes >= CRASHES {
                return Some(true);
            }
        }
        Some(crashes > 0)
    }

    /// Asks for those runs of a kernel that are not there; says so where the farm has given one up.
    fn want_runs(
        &self,
        runs: Digest,
        indices: std::ops::Range<u32>,
        (work, title): (&RunWork, &str),
        wants: &mut Wants,
    ) -> Option<bool> {
        let keys = indices.map(|index| (index, self.noise.standing(ItemKey::Run(runs, index))));
        let mut open = keys.filter(|(_, key)| !self.products.contains_key(key));
        open.find_map(|(index, key)| {
            self.want_of_config(key, Work::Run(work.clone()), format!("{title} run {index}"), wants)
        })
    }

    /// Asks for an item; says that the crash does not show where the farm has given it up.
    fn want_of_config(&self, key: ItemKey, work: Work, title: String, wants: &mut Wants) -> Option<bool> {
        let given_up = matches!(self.items.get(&key).map(|item| &item.state), Some(State::Quarantined(_)));
        wants.add(key, work, title);
        given_up.then_some(false)
    }

    /// Takes a configuration for all of a job's kernels; says whether the search began anew.
    fn settle(&self, state: &mut JobState, configured: Configured) -> bool {
        let changes = configured.worked.fragment.is_some();
        let judged = if changes { state.judged.len() } else { 0 };
        state.settled = Some(Settled { configured, judged });
        state.config_work = None;
        if changes {
            self.begin_anew(state);
        }
        changes
    }

    pub(super) fn take_configured(&mut self, id: &JobId, configured: Configured) {
        if let Some(mut state) = self.jobs.remove(id) {
            self.settle(&mut state, configured);
            self.jobs.insert(id.clone(), state);
        }
    }
}

fn shows_target(outcome: &Outcome, target: &Target) -> bool {
    let Outcome::Crashed(crashes) = outcome else { return false };
    crashes.iter().any(|seen| compare(target, &seen.crash) == Match::Same)
}
