//! What a coordinator's hands do: git, and what a report says. Their answers die with it.

use crate::coordinator::Step;
use crate::kernels::{describe, index_of, known_fix, line, patched, revision};
use crate::world::{Due, SECOND, World};
use kulprit_common::farm::action::Action;
use kulprit_common::farm::event::{Event, Traced};
use kulprit_common::farm::fact::Resolution;

impl World {
    pub fn act(&mut self, life: usize, action: Action) {
        let event = match action {
            Action::Record(_) | Action::Answer(_) => unreachable!("these are no work for hands"),
            Action::Lost(_) => return,
            Action::Resolve { job, backports, .. } => {
                let resolution = Resolution {
                    bad: revision(self.plan.commits),
                    good: Some(revision(0)),
                    releases: vec![],
                    fixes: backports.iter().map(known_fix).collect(),
                };
                Event::Resolved { job, result: Ok(Box::new(resolution)) }
            }
            Action::LoadHistory { job, .. } => {
                let history = line(self.plan.commits, |_| false);
                Event::HistoryLoaded { job, result: Ok(Box::new(history)) }
            }
            Action::Identify { job, revision: id, .. } => {
                Event::Identified { job, revision: id, result: Ok(revision(index_of(&id))) }
            }
            Action::Patch { job, name, order, .. } => {
                let result = patched(&order, &|_| false, &self.plan.kernels);
                Event::Patched { job, name, result }
            }
            Action::Trace { job, commits, .. } => {
                let touched = commits.iter().map(|_| vec!["kernel/planted.c".into()]).collect();
                let files = vec!["kernel/planted.c".into()];
                Event::Traced { job, traced: Traced { files, touched } }
            }
            Action::Describe { job, culprit, crash, .. } => {
                Event::Described { job, described: describe(culprit, crash) }
            }
        };
        let at = self.now + 1 + self.dice.roll(3 * SECOND);
        self.lives[life].in_hands += 1;
        self.schedule(at, Due::Life(life, Step::Told(Box::new(event))));
    }
}
