//! What must hold at every instant, whatever goes wrong. It is checked on the true state of all
//! agents and on the journal, never on what a coordinator believes.

use crate::coordinator::Life;
use crate::evidence::Evidence;
use crate::noise::Looks;
use crate::plan::Plan;
use crate::stats::Stats;
use kulprit_common::farm::action::{Action, Answer, Assignment, CompleteAnswer};
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::{EndSummary, Fact, QuarantineFact};
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::{AgentId, Attempt, JobId};
use kulprit_common::outcome::{AttemptEnd, InfraClass};
use kulprit_common::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Failures after which an item is given up: on two agents, on one alone.
const FAILURES_MAX: usize = 3;
const FAILURES_MAX_SINGLE: usize = 5;

#[derive(Default)]
pub struct Promises {
    /// Who works on what and believes to hold it.
    working: BTreeMap<ItemKey, BTreeSet<(usize, Attempt)>>,
    held: BTreeMap<(usize, Attempt), ItemKey>,
    /// What agents were told to hold, ever.
    granted: BTreeMap<Attempt, (AgentId, ItemKey)>,
    pub evidence: Evidence,
    pub looks: Looks,
    /// Attempts whose ending is durable.
    ended: BTreeSet<Attempt>,
    /// Handed back; these endings are no facts.
    released: BTreeSet<Attempt>,
    submitted: BTreeMap<String, JobId>,
    open: BTreeSet<JobId>,
    pub ends: BTreeMap<JobId, EndSummary>,
    epoch: u32,
    /// Of items, over restarts, as long as no job has ended.
    failures: BTreeMap<ItemKey, Vec<AgentId>>,
    /// What agents told this coordinator when they failed.
    pub reasons: BTreeSet<String>,
    /// How often in a row, and when, a coordinator had more to look at.
    turns: Option<(Timestamp, u32)>,
}

/// Jobs that wait for their turn have it after a few steps.
const TURNS_MAX: u32 = 200;

/// What an event may bring about.
pub struct Expected {
    completes: Option<Attempt>,
    last_attempt: Attempt,
}

impl Promises {
    /// No item has two live holders.
    pub fn works_on(&mut self, agent: usize, attempt: Attempt, item: &ItemKey) {
        let holders = self.working.entry(item.clone()).or_default();
        holders.insert((agent, attempt));
        assert!(holders.iter().all(|(other, _)| *other == agent), "{item} has two live holders: {holders:?}");
        self.held.insert((agent, attempt), item.clone());
    }

    pub fn stops(&mut self, agent: usize, attempt: Attempt) {
        let Some(item) = self.held.remove(&(agent, attempt)) else { return };
        if let Some(holders) = self.working.get_mut(&item) {
            holders.remove(&(agent, attempt));
        }
    }

    pub fn holds_nothing(&mut self, agent: usize) {
        let held = self.held.range((agent, Attempt(0))..=(agent, Attempt(u64::MAX)));
        let held: Vec<Attempt> = held.map(|((_, attempt), _)| *attempt).collect();
        held.into_iter().for_each(|attempt| self.stops(agent, attempt));
    }

    pub fn worked(&mut self, agent: usize, attempt: Attempt, item: &ItemKey, end: &AttemptEnd) {
        self.stops(agent, attempt);
        self.evidence.worked(agent, attempt, item, end);
    }

    /// A fence names one grant of one item to one agent, and no slot is given twice.
    pub fn told_to_hold(&mut self, agent: &AgentId, assignments: &[Assignment]) {
        let mut slots = BTreeSet::new();
        for it in assignments {
            let grant = (agent.clone(), it.item.clone());
            let known = self.granted.entry(it.attempt).or_insert_with(|| grant.clone());
            assert_eq!(*known, grant, "attempt {} was granted twice", it.attempt);
            assert!(slots.insert(it.slot), "slot {} of {agent} was given twice: {assignments:?}", it.slot);
        }
    }

    pub fn before(&mut self, life: &Life, event: &Event) -> Expected {
        let completes = match event {
            Event::Completed { attempt, end, .. } => {
                match &**end {
                    AttemptEnd::Released => _ = self.released.insert(*attempt),
                    AttemptEnd::Infra(infra) => _ = self.reasons.insert(infra.reason.clone()),
                    AttemptEnd::Done(_) => {}
                }
                Some(*attempt)
            }
            _ => None,
        };
        Expected { completes, last_attempt: life.farm.last_attempt() }
    }

    pub fn after(&mut self, life: &Life, clock: Timestamp, expected: Expected, actions: &[Action]) {
        let answer = actions.iter().find_map(|action| match action {
            Action::Answer(Answer::Complete(answer)) => Some(*answer),
            _ => None,
        });
        for action in actions {
            let (Action::Record(Fact::ItemFinished { attempt, .. })
            | Action::Record(Fact::AttemptFailed { attempt, .. })) = action
            else {
                continue;
            };
            assert_eq!(expected.completes, Some(*attempt), "an attempt ended that nobody reported");
            assert_eq!(answer, Some(CompleteAnswer::Recorded), "what was refused became a fact");
        }
        let deadline = life.farm.next_deadline();
        let more = life.farm.has_more();
        assert!(more || deadline.is_none_or(|at| at > clock), "a deadline that has passed: it would spin");
        let before = self.turns.filter(|(at, _)| *at == clock).map_or(0, |(_, turns)| turns);
        self.turns = more.then_some((clock, before + 1));
        assert!(before < TURNS_MAX, "{before} turns at one moment: it spins");
        if life.farm.last_attempt() != expected.last_attempt {
            self.check_grants(life, expected.last_attempt);
        }
    }

    /// Only who is there and can take work is given any.
    fn check_grants(&self, life: &Life, before: Attempt) {
        for (id, heard) in &life.heard {
            let desired = life.farm.desired(id).assignments;
            for new in desired.iter().filter(|it| it.attempt > before) {
                let item = &new.item;
                assert!(!life.aside.contains(id), "{item} was granted to {id}, which is set aside");
                assert!(heard.takes_work, "{item} was granted to {id}, which takes no work");
                assert!((new.slot as usize) < heard.slots, "{item} was granted a slot that {id} has not");
            }
        }
    }

    /// A fact is durable before it is acknowledged.
    pub fn acknowledged(&self, attempt: Attempt, answer: CompleteAnswer, stats: &mut Stats) {
        let durable = self.ended.contains(&attempt) || self.released.contains(&attempt);
        match answer {
            CompleteAnswer::Recorded => assert!(durable, "{attempt} was acknowledged, and is no fact"),
            CompleteAnswer::Duplicate => {
                stats.saw("completion is a duplicate");
                assert!(durable, "{attempt} was called a duplicate, and is no fact");
            }
            CompleteAnswer::Stale => stats.saw("completion is stale"),
        }
    }

    pub fn told_operator(&self, wish: usize, answer: &Answer) {
        if let Answer::Submitted { job, .. } = answer {
            let kept = self.submitted.get(&format!("wish {wish}"));
            assert_eq!(kept, Some(job), "a job was acknowledged, and is no fact");
        }
    }

    pub fn is_open(&self, job: &JobId) -> bool {
        self.open.contains(job)
    }

    pub fn open_jobs(&self) -> impl Iterator<Item = &JobId> {
        self.open.iter()
    }

    /// A coordinator has begun from these facts.
    pub fn restored(&mut self, facts: &[Fact]) {
        let submitted = facts.iter().filter(|fact| matches!(fact, Fact::JobSubmitted { .. })).count();
        assert_eq!(submitted, self.submitted.len(), "a job was lost");
    }

    /// A fact has become durable.
    pub fn record(&mut self, plan: &Plan, fact: &Fact, stats: &mut Stats) {
        match fact {
            Fact::EpochStarted { epoch } => {
                assert!(*epoch > self.epoch, "epoch {epoch} began after {}", self.epoch);
                self.epoch = *epoch;
            }
            Fact::JobSubmitted { id, request, .. } => {
                let before = self.submitted.insert(request.clone(), id.clone());
                assert_eq!(before, None, "{request} became two jobs");
                self.open.insert(id.clone());
                self.evidence.forget_toolchains();
            }
            Fact::ItemFinished { item, attempt, agent, product, .. } => {
                assert!(self.ended.insert(*attempt), "{attempt} ended twice");
                self.check_quarantine(item, attempt);
                self.evidence.finished(item, *attempt, product);
                self.looks.finished(plan, item, agent, product);
            }
            Fact::AttemptFailed { item, attempt, agent, infra, .. } => {
                assert!(self.ended.insert(*attempt), "{attempt} ended twice");
                self.check_quarantine(item, attempt);
                self.evidence.failed(*attempt, infra);
                if infra.class != InfraClass::Disk {
                    self.failures.entry(item.clone()).or_default().push(agent.clone());
                    if self.is_quarantined(item) {
                        stats.saw("item is quarantined");
                    }
                }
            }
            Fact::Quarantine(QuarantineFact::AgentSetAside { agent, disowns: true, .. }) => {
                self.looks.set_aside(plan, agent, stats);
            }
            Fact::Quarantine(QuarantineFact::AgentReleased { agent, .. }) => self.looks.let_go(agent),
            Fact::Quarantine(QuarantineFact::ItemsReleased { id, items, .. }) => {
                items.iter().for_each(|item| _ = self.failures.remove(item));
                self.open.insert(id.clone());
            }
            Fact::Judged { judged, .. } => {
                self.evidence.judged(plan, judged);
                self.looks.judged(judged, stats);
            }
            Fact::Overruled { id, .. } => {
                self.failures.clear();
                self.open.insert(id.clone());
            }
            Fact::JobEnded { id, end, .. } => {
                assert!(self.open.remove(id), "job {id} ended twice");
                // What a job no longer wants is forgotten with its failures.
                self.failures.clear();
                self.ends.insert(id.clone(), end.clone());
            }
            Fact::AgentCame { .. }
            | Fact::AgentWent { .. }
            | Fact::JobResolved { .. }
            | Fact::Explained { .. }
            | Fact::Configured { .. }
            | Fact::Quarantine(_)
            | Fact::CancelRequested { .. }
            | Fact::ProductsForgotten { .. }
            | Fact::Access(_) => {}
        }
    }

    fn is_quarantined(&self, item: &ItemKey) -> bool {
        let Some(agents) = self.failures.get(item) else { return false };
        let alone = agents.iter().all(|agent| *agent == agents[0]);
        agents.len() >= if alone { FAILURES_MAX_SINGLE } else { FAILURES_MAX }
    }

    /// What was given up is not tried again.
    fn check_quarantine(&self, item: &ItemKey, attempt: &Attempt) {
        assert!(!self.is_quarantined(item), "{item} was given up, and {attempt} was taken");
    }
}
