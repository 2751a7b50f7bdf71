//! Endings of attempts: taken exactly once, whatever is lost, late or repeated.

use super::action::{Action, CompleteAnswer};
use super::fact::Fact;
use super::item::{Failure, ItemKey, State};
use super::quarantine::Rest;
use super::{Config, FINISHED_MAX, Farm};
use crate::id::{AgentId, Attempt, Session};
use crate::outcome::{AttemptEnd, Infra, InfraClass, Product};
use crate::time::Timestamp;

impl Farm {
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn completed(
        &mut self,
        now: Timestamp,
        agent: AgentId,
        session: Session,
        attempt: Attempt,
        key: ItemKey,
        end: AttemptEnd,
        actions: &mut Vec<Action>,
    ) -> CompleteAnswer {
        if self.finished.contains(&attempt) {
            return CompleteAnswer::Duplicate;
        }
        if !self.holds(&agent, session, attempt, &key) {
            return CompleteAnswer::Stale;
        }
        self.remember(attempt);
        self.claims.remove(&key);
        self.items.note(&agent);
        match fitting(end, &key) {
            AttemptEnd::Done(product) => {
                if let Some(state) = self.agents.get_mut(&agent) {
                    state.failing.clear();
                    state.rests = state.rests.saturating_sub(1);
                }
                let compared = self.keep(key.clone(), product.clone(), &agent);
                let product = Box::new(product);
                actions.push(Action::Record(Fact::ItemFinished {
                    item: key,
                    attempt,
                    agent,
                    at: now,
                    product,
                }));
                if compared {
                    self.check_noise(now, actions);
                }
            }
            AttemptEnd::Infra(infra) => {
                self.failed(now, &agent, &key, &infra);
                actions.push(Action::Record(Fact::AttemptFailed {
                    item: key,
                    attempt,
                    agent,
                    at: now,
                    infra,
                }));
            }
            AttemptEnd::Released => self.items.free(&key, now),
        }
        CompleteAnswer::Recorded
    }

    /// Whether this attempt is the item's one live holder. After a restart, an attempt of an
    /// earlier life is, as long as nobody else has been given the item.
    fn holds(&self, agent: &AgentId, session: Session, attempt: Attempt, key: &ItemKey) -> bool {
        if self.products.contains_key(key) {
            return false;
        }
        if self.agents.get(agent).is_some_and(|known| session < known.session) {
            return false;
        }
        let earlier = self.is_from_earlier_life(attempt) && self.grace_until.is_some();
        match self.items.get(key).map(|item| &item.state) {
            Some(State::Leased(lease)) => lease.attempt == attempt && lease.agent == *agent,
            Some(State::Ready) => earlier,
            Some(State::Quarantined(_)) => false,
            None => match self.claims.get(key) {
                Some(claim) => claim.attempt == attempt && claim.agent == *agent,
                None => earlier,
            },
        }
    }

    pub(super) fn remember(&mut self, attempt: Attempt) {
        self.finished.insert(attempt);
        while self.finished.len() > FINISHED_MAX {
            self.finished.pop_first();
        }
    }

    /// Keeps a product for every job that wants it, now or later; says whether it is a run that can
    /// be compared with one of another agent.
    pub(super) fn keep(&mut self, key: ItemKey, product: Product, agent: &AgentId) -> bool {
        let compared = match &product {
            Product::Run(run) => self.noise.saw(&key, agent, &run.outcome),
            Product::Toolchain(_) | Product::Reproducer(_) | Product::Maintainers(_) | Product::Build(_) => {
                false
            }
        };
        self.failures.remove(&key);
        if let Some(item) = self.items.remove(&key) {
            self.dirty.extend(item.wanted_by);
        }
        self.yielded.insert(key.clone(), self.submissions);
        self.products.insert(key, product);
        compared
    }

    /// Counts an infra failure against the item and against the agent. A full disk says nothing
    /// about the item: the agent is set aside at once, and the item waits for another or for room.
    pub(super) fn failed(&mut self, now: Timestamp, agent: &AgentId, key: &ItemKey, infra: &Infra) {
        if infra.class == InfraClass::Disk {
            self.items.free(key, now);
            return self.set_aside(now, agent, format!("{}: {}", infra.class.as_str(), infra.reason));
        }
        let config = &self.config;
        let failure = Failure { agent: agent.clone(), at: now, retry_from: now, infra: infra.clone() };
        let dirty = &mut self.dirty;
        self.items.change(key, |item| {
            item.failures.push(failure.clone());
            item.free(now);
            item.state = state_after(&item.failures, config);
            if matches!(item.state, State::Quarantined(_)) {
                dirty.extend(item.wanted_by.iter().cloned());
            }
        });
        self.failures.entry(key.clone()).or_default().push(failure);
        let Some(state) = self.agents.get_mut(agent) else { return };
        state.failing.insert(key.clone());
        if state.failing.len() >= config.agent_failures_max {
            let reason = format!("{} items failed in a row, last: {}", state.failing.len(), infra.reason);
            self.set_aside(now, agent, reason);
        }
    }

    /// Gives an agent nothing for a while, longer each time.
    fn set_aside(&mut self, now: Timestamp, agent: &AgentId, reason: String) {
        let Some(state) = self.agents.get_mut(agent).filter(|_| !self.aside.contains_key(agent)) else {
            return;
        };
        let until = now + self.config.agent_rest.saturating_mul(1 << state.rests.min(6));
        state.rest = Some(Rest { since: now, until: Some(until), reason });
        state.rests += 1;
        state.failing.clear();
        self.touch_open_jobs();
    }
}

/// Given up after too many failures, ready for another try before.
pub(super) fn state_after(failures: &[Failure], config: &Config) -> State {
    let alone = failures.iter().all(|failure| failure.agent == failures[0].agent);
    let most = if alone { config.item_failures_max_single } else { config.item_failures_max };
    match failures.last() {
        Some(Failure { infra, .. }) if failures.len() >= most => {
            State::Quarantined(format!("{} ({})", infra.reason, infra.class.as_str()))
        }
        Some(_) | None => State::Ready,
    }
}

/// The ending, or an infra failure where the product is not what such an item yields.
fn fitting(end: AttemptEnd, key: &ItemKey) -> AttemptEnd {
    match end {
        AttemptEnd::Done(product) if !product.is_for(key) => {
            let reason = format!("the agent answered {key} with something else");
            AttemptEnd::Infra(Infra { class: InfraClass::Internal, reason })
        }
        other => other,
    }
}
