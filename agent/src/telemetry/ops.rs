//! What the ops listener is told when it asks.

use super::FIGURES;
use crate::config::Sizing;
use kulprit_common::farm::event::AgentInfo;
use kulprit_observe::figures::{Count as _, Say as _, number};
use kulprit_observe::ops::Observed;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Without an answer for this long the agent has stopped its work.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the loop says of itself.
#[derive(Clone, Default)]
pub struct Contact(Arc<Mutex<State>>);

#[derive(Clone, Copy, Default)]
struct State {
    answered: Option<Instant>,
    draining: bool,
    busy: usize,
}

impl Contact {
    pub fn answered(&self) {
        FIGURES.syncs.one(&["answered"]);
        self.change(|state| state.answered = Some(Instant::now()));
    }

    pub fn failed(&self) {
        FIGURES.syncs.one(&["failed"]);
    }

    /// Said with every sync.
    pub fn holds(&self, busy: usize, draining: bool) {
        self.change(|state| (state.busy, state.draining) = (busy, draining));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readiness(&self) -> Result<(), String> {
        let state = self.state();
        match state.answered.map(|at| at.elapsed()) {
            _ if state.draining => Err("it is draining".into()),
            None => Err("the coordinator has not answered yet".into()),
            Some(age) if age > SILENCE_MAX => {
                Err(format!("the coordinator has not answered for {} s", age.as_secs()))
            }
            Some(_) => Ok(()),
        }
    }
}

/// The agent, once it is put together; before, nothing of it is known.
#[derive(Default)]
pub struct Ops {
    parts: std::sync::OnceLock<Parts>,
}

struct Parts {
    contact: Contact,
    info: watch::Receiver<AgentInfo>,
    sizing: Sizing,
    places: [(&'static str, PathBuf); 2],
}

impl Ops {
    /// The agent begins its work.
    pub fn begins(
        &self,
        contact: Contact,
        info: watch::Receiver<AgentInfo>,
        sizing: Sizing,
        (state, cache): (PathBuf, PathBuf),
    ) {
        let places = [("state", state), ("cache", cache)];
        // It is said once, by the one who puts the parts together.
        let _ = self.parts.set(Parts { contact, info, sizing, places });
    }
}

impl Observed for Ops {
    async fn readiness(&self) -> Result<(), String> {
        let starting = || Err("the machine is being looked at".into());
        self.parts.get().map_or_else(starting, |parts| parts.contact.readiness())
    }

    async fn figures(&self) -> String {
        if let Some(parts) = self.parts.get() {
            parts.show();
        }
        FIGURES.book.text()
    }
}

impl Parts {
    fn show(&self) {
        let state = self.contact.state();
        if let Some(at) = state.answered {
            FIGURES.contact_age.say(&[], at.elapsed().as_secs_f64());
        }
        FIGURES.slots.say(&[], f64::from(self.sizing.slots));
        FIGURES.slots_busy.say(&[], number(state.busy as u64));
        let info = self.info.borrow().clone();
        for (work, able) in [("build", info.can_build), ("boot", info.can_boot)] {
            FIGURES.able.say(&[work], if able { 1.0 } else { 0.0 });
        }
        let capped = crate::boot::memory_groups().is_ok();
        FIGURES.guests_capped.say(&[], if capped { 1.0 } else { 0.0 });
        for (dir, path) in &self.places {
            if let Ok(stat) = nix::sys::statvfs::statvfs(path) {
                let free = stat.blocks_available().saturating_mul(stat.fragment_size());
                FIGURES.disk_free.say(&[dir], number(free));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_while_the_coordinator_answers_and_it_takes_work() {
        let contact = Contact::default();
        assert!(contact.readiness().is_err_and(|why| why.contains("not answered yet")));
        contact.answered();
        assert_eq!(contact.readiness(), Ok(()));
        contact.holds(1, true);
        assert!(contact.readiness().is_err_and(|why| why.contains("draining")));
        contact.holds(0, false);
        assert_eq!(contact.readiness(), Ok(()));
    }
}
