//! Kernels that jobs found not to build or boot: what one has seen, all know whose range holds
//! the same kernel. It follows from facts, so it outlasts jobs and restarts.

use super::Farm;
use super::fact::Judged;
use super::item::ItemKey;
use super::jobs::JobState;
use super::kernels::fixes_of;
use super::wants::Wants;
use crate::bisect::{Bisection, Evidence, Role};
use crate::history::History;
use crate::id::{Digest, JobId, RevisionId};
use crate::job::Symptom;
use crate::outcome::{BuildOutcome, Outcome, Product};
use crate::signature::{SharedKeys, boot_key};
use crate::verdict::Verdict;
use std::collections::BTreeSet;

/// Runs of others are told apart from a job's own by their numbers.
const INHERITED_RUNS: u32 = 1 << 31;

/// A kernel that no run of a job got anything out of.
pub(super) struct Broken {
    key: Digest,
    job: JobId,
    how: How,
}

enum How {
    NoBuild(String),
    /// In a machine of this key; a boot up to the reproducer's start does not depend on that.
    NoBoot {
        machine: Digest,
        fingerprint: Digest,
        outcomes: Vec<Outcome>,
        /// Where they were seen.
        runs: Vec<ItemKey>,
    },
}

/// What a job has taken from others.
#[derive(Default)]
pub(super) struct Inherited {
    /// The range by shared key, in order; made once, when the range is known.
    keys: Option<Vec<(Digest, u32)>>,
    /// Entries of the farm's list already looked at.
    seen: usize,
    pub revisions: BTreeSet<RevisionId>,
}

impl Farm {
    /// Remembers a verdict that says that a kernel does not build or boot.
    pub(super) fn note_breakage(&mut self, state: &JobState, judged: &Judged) {
        if state.job.symptom != Symptom::Crash {
            return;
        }
        let is_revert = matches!(judged.judgement.role, Role::Revert(_));
        let (Some(key), Verdict::Skip, false) = (judged.recipe.shared, judged.judgement.verdict, is_revert)
        else {
            return;
        };
        let Some(Product::Build(build)) = judged.build.as_ref().and_then(|key| self.products.get(key)) else {
            return;
        };
        let how = match &build.outcome {
            BuildOutcome::Failed { message } => How::NoBuild(message.clone()),
            BuildOutcome::Built(kernel) => {
                let believed = judged.runs.iter().filter(|key| !self.noise.is_disowned(key));
                let runs: Vec<ItemKey> = believed.cloned().collect();
                let outcomes: Vec<Outcome> = runs.iter().filter_map(|key| self.outcome(key)).collect();
                let no_boot = |outcome: &Outcome| matches!(outcome, Outcome::BootFailed { .. });
                if outcomes.is_empty() || !outcomes.iter().all(no_boot) {
                    return;
                }
                let machine = boot_key(&state.job.machine, &state.job.timeouts);
                How::NoBoot { machine, fingerprint: kernel.fingerprint, outcomes, runs }
            }
        };
        self.breakage.push(Broken { key, job: state.id.clone(), how });
    }

    fn outcome(&self, key: &ItemKey) -> Option<Outcome> {
        match self.products.get(key) {
            Some(Product::Run(run)) => Some(run.outcome.clone()),
            Some(_) | None => None,
        }
    }

    /// Tells a job's search what others found since it was told last.
    pub(super) fn inherit(&self, state: &mut JobState) {
        // What is broken for others is what these look for.
        if state.job.symptom != Symptom::Crash {
            return;
        }
        let Ok(facts) = self.toolchain(state, &mut Wants::default()) else { return };
        let Some(history) = state.bisection.as_ref().and_then(Bisection::history) else { return };
        let keys = match state.inherited.keys.take() {
            Some(keys) => keys,
            None => in_order(history, &SharedKeys::new(&state.kernel, &facts.image_id, fixes_of(state))),
        };
        let machine = boot_key(&state.job.machine, &state.job.timeouts);
        let mut news: Vec<(RevisionId, &How)> = Vec::new();
        let is_believed = |how: &How| match how {
            How::NoBuild(_) => true,
            How::NoBoot { runs, .. } => !runs.iter().any(|key| self.noise.is_disowned(key)),
        };
        let others = self.breakage[state.inherited.seen..].iter().filter(|broken| broken.job != state.id);
        for broken in others.filter(|broken| is_believed(&broken.how)) {
            let from = keys.partition_point(|(key, _)| *key < broken.key);
            for (_, at) in keys[from..].iter().take_while(|(key, _)| *key == broken.key) {
                news.push((history.commit(*at).id, &broken.how));
            }
        }
        state.inherited.keys = Some(keys);
        state.inherited.seen = self.breakage.len();
        for (revision, how) in news {
            // What the job has seen itself says more.
            let own = state.recorded.iter().any(|(known, _)| *known == revision);
            if !own && !state.inherited.revisions.contains(&revision) {
                tell(state, revision, how, &machine);
            }
        }
    }
}

/// Every commit of a range by its shared key: one hash of some hundred bytes each.
fn in_order(history: &History, keys: &SharedKeys) -> Vec<(Digest, u32)> {
    let mut all: Vec<(Digest, u32)> =
        (0u32..).zip(history.commits()).map(|(at, commit)| (keys.of(&commit.id, &commit.tree), at)).collect();
    all.sort_unstable();
    all
}

fn tell(state: &mut JobState, revision: RevisionId, how: &How, own_machine: &Digest) {
    let Some(bisection) = &mut state.bisection else { return };
    match how {
        How::NoBuild(message) => {
            bisection.inherit(Evidence::BuildFailed { revision, message: message.clone() });
        }
        How::NoBoot { machine, fingerprint, outcomes, .. } if machine == own_machine => {
            bisection.inherit(Evidence::Built { revision, fingerprint: *fingerprint });
            for (number, outcome) in (INHERITED_RUNS..).zip(outcomes) {
                bisection.inherit(Evidence::Run { revision, index: number, outcome: outcome.clone() });
            }
        }
        How::NoBoot { .. } => return,
    }
    state.inherited.revisions.insert(revision);
}

impl Inherited {
    /// For the report, where there was anything.
    pub(super) fn note(&self) -> Option<String> {
        match self.revisions.len() {
            0 => None,
            1 => Some("one revision was known from another job not to build or boot".into()),
            n => Some(format!("{n} revisions were known from other jobs not to build or boot")),
        }
    }
}
