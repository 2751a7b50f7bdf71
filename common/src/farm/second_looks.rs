//! Second looks: which runs another agent makes again, and which agent may.

use super::Farm;
use super::item::{ItemKey, Work};
use super::jobs::JobState;
use super::noise;
use super::wants::Wants;
use crate::id::{AgentId, RevisionId};
use crate::outcome::{BuildOutcome, Kernel, Product};

/// A job's second looks take this part of the slots at most at once, and one in any case.
const SLOTS_PART: usize = 4;

impl Farm {
    /// Wants a share of the job's runs made again by another agent. They come before other runs: a
    /// farm is never idle while its jobs are open. All that became evidence may be chosen, whatever
    /// it saw: to choose by that would make the comparison unfair.
    pub(super) fn want_second_looks(&self, state: &JobState, wants: &mut Wants) {
        let share = self.config.second_looks;
        if share <= 0.0 {
            return;
        }
        let Ok(executable) = self.executable(state, &mut Wants::default()) else { return };
        let mut left = (self.slots() / SLOTS_PART).max(1);
        for (revision, key) in &state.recorded {
            let Some(look) = noise::again(key).filter(|_| self.noise.is_chosen(key, share)) else { continue };
            // One that a machine failed is not worth another try.
            let is_over = self.products.contains_key(&look) || self.failures.contains_key(&look);
            let Some(kernel) = self.kernel_run(state, revision).filter(|_| !is_over) else { continue };
            let (runs, work) = Self::run_work(state, kernel, &executable);
            let is_it = matches!(key, ItemKey::Run(of, _) if *of == runs);
            if !is_it || !self.agents.keys().any(|agent| self.may_look_again(agent, key)) {
                continue;
            }
            let title = format!("job {} {} a run once more, elsewhere", state.id, revision.short());
            wants.add(look, Work::Run(work), title);
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }

    /// The kernel of a revision that the job has run.
    fn kernel_run(&self, state: &JobState, revision: &RevisionId) -> Option<&Kernel> {
        let own = state.recorded.iter().filter(|(of, _)| of == revision);
        own.filter_map(|(_, key)| self.products.get(key)).find_map(|product| match product {
            Product::Build(build) => match &build.outcome {
                BuildOutcome::Built(kernel) => Some(kernel),
                BuildOutcome::Failed { .. } => None,
            },
            Product::Toolchain(_) | Product::Reproducer(_) | Product::Maintainers(_) | Product::Run(_) => {
                None
            }
        })
    }

    /// Whether an agent may make a run again: another than made it, and a machine of the same
    /// kind, for under another accelerator a bug may show at another rate.
    pub(super) fn may_look_again(&self, agent: &AgentId, first: &ItemKey) -> bool {
        let Some(made) = self.noise.ran_by(first).filter(|made| *made != agent) else { return false };
        match (self.agents.get(agent), self.agents.get(made)) {
            (Some(own), Some(made)) => {
                own.takes_work() && own.info.can_boot && own.info.accelerator == made.info.accelerator
            }
            _ => false,
        }
    }
}
