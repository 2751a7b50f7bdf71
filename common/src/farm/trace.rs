//! Where the crash happened: found out once the bad end has shown it, so that the search may go by it.

use super::Farm;
use super::action::Action;
use super::event::Traced;
use super::jobs::JobState;
use crate::bisect::{Bisection, Candidate};
use crate::id::JobId;
use crate::job::Prior;
use crate::time::Timestamp;
use std::time::Duration;

/// How long the search picks nothing new. A build that the answer would not have asked for costs more.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far a job is with that. Not kept in the journal: after a restart it is found out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    Unasked,
    Asked { until: Timestamp },
    Known,
}

impl Farm {
    /// Whether the job's next picks wait; asks for the trace as soon as there is a crash and a range.
    pub(super) fn awaits_trace(
        &self,
        now: Timestamp,
        state: &mut JobState,
        actions: &mut Vec<Action>,
    ) -> bool {
        match state.trace {
            Trace::Known => false,
            Trace::Asked { until } => now < until,
            Trace::Unasked => {
                let Some(action) = self.ask_for_trace(state) else { return false };
                actions.push(action);
                state.trace = Trace::Asked { until: now + PATIENCE };
                true
            }
        }
    }

    fn ask_for_trace(&self, state: &JobState) -> Option<Action> {
        if state.job.prior == Prior::Flat {
            return None;
        }
        let bisection = state.bisection.as_ref()?;
        let (history, target) = (bisection.history()?, bisection.target()?);
        let revision = state.resolution.as_ref()?.bad.id;
        let (shown, crash) = self.shown_at(state, target, &revision)?;
        Some(Action::Trace {
            job: state.id.clone(),
            repository: state.job.repository.clone(),
            revision,
            commits: history.commits().iter().map(|commit| commit.id).collect(),
            crash,
            frames: shown.frames.clone(),
        })
    }

    pub(super) fn traced(&mut self, id: &JobId, traced: Traced) {
        let Some(state) = self.jobs.get_mut(id) else { return };
        if !matches!(state.trace, Trace::Asked { .. }) {
            return;
        }
        state.trace = Trace::Known;
        if let Some(bisection) = &mut state.bisection {
            bisection.learn_trace(traced.files, traced.touched);
        }
        self.dirty.insert(id.clone());
    }

    /// What is in hand goes on while nothing new is picked.
    pub(super) fn in_hand(state: &JobState) -> Vec<Candidate> {
        let enough = |bisection: &Bisection, it: &Candidate| bisection.enough(&it.revision);
        let open = |it: &&Candidate| state.bisection.as_ref().is_some_and(|bisection| !enough(bisection, it));
        state.candidates.iter().filter(open).cloned().collect()
    }
}
