//! The farm: which item is in whose hands, and what each job wants next.
//!
//! Events go in, actions come out; `now` is an argument. Nothing here builds, boots, stores
//! or speaks. `agents` has leases and grants, `artifacts` what of the store is needed, `complete` the endings of attempts, `items` the queue, `jobs` the
//! way of a job, `pursue` and `reporting` its stages, `kernels` what is built, `breakage` what jobs tell each other, `census` what there is of it, `crew` who is of it, `quarantine` what is set aside and let go, `second_looks` runs that another agent makes again, `noise` what differs then, `restore` the way back from the journal, `view` what people see.

pub mod action;
mod agents;
pub mod artifacts;
mod breakage;
pub mod census;
mod complete;
mod config_work;
mod costs;
mod crew;
pub mod event;
pub mod fact;
mod grant;
pub mod item;
mod items;
mod jobs;
mod kernels;
mod noise;
mod overrule;
mod pursue;
pub mod quarantine;
mod reporting;
mod restore;
mod second_looks;
mod trace;
pub mod view;
mod wants;

use self::overrule::Asked;
use crate::access::{AccessAnswer, AccessEvent, Ledger, Role};
use crate::id::{AgentId, Attempt, JobId};
use crate::job::Repairs;
use crate::outcome::Product;
use crate::time::Timestamp;
use crate::toolchain::Rules;
use crate::version::Version;
use action::{Action, Answer, Desired};
use event::Event;
use item::{Failure, ItemKey, Lease};
use items::Items;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The farm's numbers.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinator's name, for logs.
    pub host: String,
    /// Agents are held against it; absent, all are served.
    pub version: Option<Version>,
    pub rules: Rules,
    /// For jobs that have no lists of their own.
    pub repairs: Repairs,
    /// How long an agent may work on without being heard; it counts from when it spoke.
    pub lease_ttl: Duration,
    /// What the coordinator waits longer than that before it gives an item to another.
    pub lease_slack: Duration,
    /// How long a restarted coordinator grants nothing while agents that were there have not
    /// said what they hold. One that cannot reach it has stopped its work by then.
    pub grace: Duration,
    /// Infra failures after which an item is given up, when two agents took part.
    pub item_failures_max: usize,
    /// The same where only one agent ever tried.
    pub item_failures_max_single: usize,
    /// Unrelated items failing in a row after which an agent is set aside.
    pub agent_failures_max: usize,
    /// How long it is set aside the first time; each further time doubles it.
    pub agent_rest: Duration,
    /// The part of all runs that another agent makes again, to find those whose runs are not to be
    /// believed.
    pub second_looks: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "coordinator".into(),
            version: None,
            rules: Rules::default(),
            repairs: Repairs::default(),
            lease_ttl: Duration::from_secs(30),
            lease_slack: Duration::from_secs(12),
            grace: Duration::from_secs(30),
            item_failures_max: 3,
            item_failures_max_single: 5,
            agent_failures_max: 3,
            agent_rest: Duration::from_secs(60),
            second_looks: 0.05,
        }
    }
}

/// Attempts remembered as finished, so that a repeated completion is known as such.
const FINISHED_MAX: usize = 100_000;

pub struct Farm {
    config: Config,
    /// The upper half of every attempt this coordinator grants.
    epoch: u32,
    granted: u32,
    /// Set after a restart, while agents may hold items from before it.
    grace_until: Option<Timestamp>,
    /// Agents that were there before a restart and have not been heard since.
    awaited: BTreeSet<AgentId>,
    jobs: BTreeMap<JobId, jobs::JobState>,
    submissions: u64,
    requests: HashMap<String, JobId>,
    items: Items,
    items_made: u64,
    products: HashMap<ItemKey, Product>,
    /// How many jobs had been submitted when it was yielded.
    yielded: HashMap<ItemKey, u64>,
    /// Which attempt yielded a product.
    finished: BTreeSet<Attempt>,
    /// Heard since the start.
    agents: BTreeMap<AgentId, agents::AgentState>,
    /// Heard before it, by the journal.
    came: BTreeSet<AgentId>,
    access: Ledger,
    /// Agents set aside until an operator releases them, heard of or not.
    aside: BTreeMap<AgentId, quarantine::Rest>,
    /// Held from an earlier coordinator's life, for items no job has asked for yet.
    claims: BTreeMap<ItemKey, Lease>,
    /// Of items that have not yielded, as long as a job is open that met them: items come and go
    /// with what jobs want, and with restarts.
    failures: BTreeMap<ItemKey, Vec<Failure>>,
    /// Who made which run, and whose runs are not believed.
    noise: noise::Noise,
    /// Kernels that jobs found not to build or boot.
    breakage: Vec<breakage::Broken>,
    /// When an event was handled last.
    handled: Timestamp,
    /// Jobs to look at again.
    dirty: BTreeSet<JobId>,
    /// The job that had its turn last; before the first it is none.
    advanced: Option<JobId>,
}

/// What several events came to.
pub struct Handled {
    /// Of each event by itself, with its answer.
    pub each: Vec<Vec<Action>>,
    /// Of all of them; it comes after.
    pub then: Vec<Action>,
}

impl Farm {
    /// The one door: takes what happened, says what to do.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let Handled { mut each, then } = self.handle_all(now, [event]);
        each.extend([then]);
        each.into_iter().flatten().collect()
    }

    /// Takes all that happened at once: what follows from it is looked at when all is known.
    pub fn handle_all(&mut self, now: Timestamp, events: impl IntoIterator<Item = Event>) -> Handled {
        let each = events.into_iter().map(|event| self.take_event(now, event)).collect();
        self.handled = now;
        let mut then = Vec::new();
        self.expire(now, &mut then);
        self.expire_waits(now);
        self.advance(now, &mut then);
        self.grant(now);
        Handled { each, then }
    }

    fn take_event(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Submitted { request, job, reproducer, by } => {
                self.submit(now, request, *job, reproducer, by, &mut actions);
            }
            Event::Resolved { job, result } => self.resolved(now, &job, result, &mut actions),
            Event::HistoryLoaded { job, result } => self.history_loaded(now, &job, result, &mut actions),
            Event::Identified { job, revision, result } => {
                self.identified(now, &job, revision, result, &mut actions);
            }
            Event::Traced { job, traced } => self.traced(&job, traced),
            Event::Patched { job, name, result } => self.patched(&job, name, result),
            Event::Described { job, described } => self.described(&job, described),
            Event::Synced(sync) => self.synced(now, sync, &mut actions),
            Event::Completed { agent, session, attempt, item, end } => {
                let answer = self.completed(now, agent, session, attempt, item, *end, &mut actions);
                actions.push(Action::Answer(Answer::Complete(answer)));
            }
            Event::CancelRequested { job, by } => self.cancel(now, &job, by, &mut actions),
            Event::OverruleRequested { job, revision, word, by } => {
                let overrule = Asked { revision, word, by };
                self.overrule(now, &job, overrule, &mut actions);
            }
            Event::QuarantineRequested { agent, reason, by } => {
                self.quarantine(now, agent, reason, by, &mut actions);
            }
            Event::AgentReleaseRequested { agent, by } => self.release_agent(now, agent, by, &mut actions),
            Event::ReleaseRequested { job, what, by } => self.release(now, &job, &what, by, &mut actions),
            Event::Access(event) => self.access(now, *event, &mut actions),
            Event::Artifacts(event) => self.artifacts(now, event, &mut actions),
            Event::Tick => {}
        }
        actions
    }

    /// Agents that may have to be told something since this was asked last.
    pub fn take_news(&mut self) -> BTreeSet<AgentId> {
        self.items.take_news()
    }

    /// Lets in, or shuts out. What a revoked agent holds is freed when its lease has run out, for
    /// it may still be at work; it is given nothing new.
    fn access(&mut self, now: Timestamp, event: AccessEvent, actions: &mut Vec<Action>) {
        let revoked = match &event {
            AccessEvent::Revoke { member, .. } if member.role == Role::Agent => Some(member.name.clone()),
            _ => None,
        };
        let (fact, answer) = self.access.handle(now, event);
        actions.extend(fact.map(|fact| Action::Record(fact::Fact::Access(fact))));
        if let Some(agent) = revoked.and_then(|name| self.agents.get_mut(&name))
            && answer == AccessAnswer::Revoked
        {
            agent.draining = true;
        }
        actions.push(Action::Answer(Answer::Access(answer)));
    }

    /// Tokens, members, and who is shut out.
    pub fn ledger(&self) -> &Ledger {
        &self.access
    }

    /// What `agent` should be doing now.
    pub fn desired(&self, agent: &AgentId) -> Desired {
        let wanted = self.items.held_by(agent).filter(|(_, item, _)| item.is_wanted());
        let assignments = wanted.map(|(key, item, lease)| action::Assignment {
            attempt: lease.attempt,
            slot: lease.slot,
            item: key.clone(),
            work: item.work.clone(),
            title: item.title.clone(),
            purpose: Some(item.purpose.clone()),
        });
        Desired { assignments: assignments.collect() }
    }

    /// What a job's item yielded, if it has.
    pub fn product(&self, key: &ItemKey) -> Option<&Product> {
        self.products.get(key)
    }

    /// Whether jobs wait for their turn to be looked at: without anything else happening, a tick
    /// takes them further.
    pub fn has_more(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When to call `handle` with a tick at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let claims = self.claims.values().map(|lease| lease.until);
        let agents = self.agents.values().filter_map(|agent| agent.deadline(&self.config));
        let items = [self.items.first_due(), self.items.next_retry(self.handled)].into_iter().flatten();
        // One that has passed waits for an agent that is at it.
        let waits = self.jobs.values().filter_map(jobs::JobState::waits_until);
        let waits = waits.filter(|until| *until > self.handled);
        let turns = self.has_more().then_some(self.handled);
        items.chain(turns).chain(claims).chain(agents).chain(waits).chain(self.grace_until).min()
    }
}
