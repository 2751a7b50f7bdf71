//! A simulated agent: as agent/src/sync.rs, with a clock of its own.
//!
//! It counts its contact from when it spoke, and stops its work when it was not confirmed for long.

use crate::world::{Due, Letter, Moment, Reply, SECOND, World};
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::event::{AgentInfo, Holding, Slot, Sync};
use kulprit_common::id::{AgentId, Attempt, Session};
use kulprit_common::outcome::AttemptEnd;
use std::collections::BTreeMap;

/// How long it works on without being confirmed, by its own clock.
const CONTACT_MS: u64 = 25 * SECOND;
const SYNC_LIMIT_MS: u64 = 28 * SECOND;
const RETRY_FIRST_MS: u64 = 500;
const RETRY_MAX_MS: u64 = 5000;
const NEXT_SYNC_MS: u64 = 100;
pub const MEMORY_MIB: u64 = 4096;

#[derive(Clone, Copy, Debug)]
pub enum Timer {
    Start,
    /// Valid only for the last one set.
    Speak(u64),
    Unanswered(u64),
    Contact,
    Done(Attempt),
    Report(Attempt),
    LetGo(Attempt),
    GiveUp,
    Continue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    Running,
    /// Done, and being reported until it is answered.
    Reporting(Box<AttemptEnd>),
    /// Dropped: not held any more, and about to be gone.
    Ending,
}

pub struct Held {
    pub assignment: Assignment,
    pub phase: Phase,
}

pub struct Agent {
    pub id: AgentId,
    /// How much faster than true time its clock goes, in millionths.
    pub ppm: i64,
    /// What its wall clock says at the true beginning.
    pub wall_ms: u64,
    /// Lives so far; the number of the process, or 0 while there is none.
    lives: u64,
    pub process: u64,
    pub session: Session,
    sequence: u64,
    pub held: BTreeMap<Attempt, Held>,
    pub waiting: Vec<Assignment>,
    pub confirmed_until: Moment,
    /// The sync that waits for an answer, and when it was sent.
    outstanding: Option<(u64, Moment)>,
    speaks: u64,
    retry_ms: u64,
    pub address: usize,
    pub stopped_until: Option<Moment>,
    pub cut_until: [Moment; 2],
    pub draining: bool,
    pub slots: usize,
    pub low_until: Moment,
    pub full_until: Moment,
}

impl Agent {
    /// The true time that a wait takes by this agent's clock.
    pub fn wait(&self, local_ms: u64) -> Moment {
        (local_ms as i64 * 1_000_000 / (1_000_000 + self.ppm)) as u64
    }

    pub fn is_low(&self, now: Moment) -> bool {
        self.low_until > now
    }

    fn info(&self, now: Moment) -> AgentInfo {
        let low = self.is_low(now);
        AgentInfo {
            slots: vec![Slot { cores: 2, memory_mib: MEMORY_MIB }; self.slots],
            images: vec!["sha256:gcc".into()],
            can_build: !low,
            can_boot: !low,
            problems: low.then(|| "low on disk".into()).into_iter().collect(),
            ..AgentInfo::default()
        }
    }
}

impl World {
    pub fn add_agent(&mut self, index: usize) {
        let ppm = self.dice.roll(20_001) as i64 - 10_000;
        self.agents.push(Agent {
            id: format!("agent-{index}").parse().expect("a valid name"),
            ppm,
            wall_ms: 1_000_000 * SECOND,
            lives: 0,
            process: 0,
            session: Session(0),
            sequence: 0,
            held: BTreeMap::new(),
            waiting: vec![],
            confirmed_until: 0,
            outstanding: None,
            speaks: 0,
            retry_ms: RETRY_FIRST_MS,
            address: 0,
            stopped_until: None,
            cut_until: [0, 0],
            draining: false,
            slots: 1 + self.dice.roll(self.plan.slots as u64) as usize,
            low_until: 0,
            full_until: 0,
        });
        let at = self.dice.roll(5 * SECOND);
        self.schedule(at, Due::Agent { agent: index, process: 0, timer: Timer::Start });
    }

    /// Sets a timer of an agent, by that agent's clock.
    pub fn set(&mut self, index: usize, local_ms: u64, timer: Timer) {
        let (process, wait) = (self.agents[index].process, self.agents[index].wait(local_ms));
        self.schedule(self.now + wait, Due::Agent { agent: index, process, timer });
    }

    pub fn agent_timer(&mut self, index: usize, timer: Timer) {
        let agent = &self.agents[index];
        match timer {
            Timer::Start => self.start_process(index),
            Timer::Speak(number) if number == agent.speaks => self.speak(index),
            Timer::Unanswered(sequence) if agent.outstanding.is_some_and(|(it, _)| it == sequence) => {
                self.not_answered(index);
            }
            Timer::Contact if agent.confirmed_until <= self.now => self.lost_contact(index),
            Timer::Done(attempt) => self.worked(index, attempt),
            Timer::Report(attempt) => self.report(index, attempt),
            Timer::LetGo(attempt) => {
                if agent.held.get(&attempt).is_some_and(|held| held.phase == Phase::Ending) {
                    self.forget(index, attempt);
                }
            }
            Timer::GiveUp => self.release_all(index),
            Timer::Continue => self.continue_process(index),
            Timer::Speak(_) | Timer::Unanswered(_) | Timer::Contact => {}
        }
    }

    fn start_process(&mut self, index: usize) {
        let now = self.now;
        let agent = &mut self.agents[index];
        if agent.process != 0 {
            return;
        }
        agent.lives += 1;
        agent.process = agent.lives;
        agent.session = Session(agent.wall_ms + now);
        agent.sequence = 0;
        agent.draining = false;
        agent.confirmed_until = now;
        self.trace.note(now, || format!("agent-{index} starts, session {}", self.agents[index].session.0));
        self.speak(index);
    }

    /// The process and all it held are gone.
    pub fn end_process(&mut self, index: usize) {
        self.promises.holds_nothing(index);
        let agent = &mut self.agents[index];
        agent.process = 0;
        agent.stopped_until = None;
        agent.outstanding = None;
        agent.held.clear();
        agent.waiting.clear();
    }

    pub fn start_in(&mut self, index: usize, after: Moment) {
        let process = self.agents[index].process;
        self.schedule(self.now + after, Due::Agent { agent: index, process, timer: Timer::Start });
    }

    /// A sync that says all; one that still waits for its answer is given up.
    pub fn speak(&mut self, index: usize) {
        let now = self.now;
        let agent = &mut self.agents[index];
        agent.sequence += 1;
        agent.speaks += 1;
        agent.outstanding = Some((agent.sequence, now));
        let held = agent.held.iter().filter(|(_, held)| held.phase != Phase::Ending);
        let holding = held.map(|(attempt, held)| Holding {
            attempt: *attempt,
            item: held.assignment.item.clone(),
            slot: held.assignment.slot,
            activity: String::new(),
        });
        let sync = Sync {
            agent: agent.id.clone(),
            session: agent.session,
            sequence: agent.sequence,
            info: agent.info(now),
            holding: holding.collect(),
            have: vec![],
            draining: agent.draining,
        };
        let (address, sequence) = (agent.address, agent.sequence);
        self.post(index, address, Letter::Sync(sync));
        self.set(index, SYNC_LIMIT_MS, Timer::Unanswered(sequence));
    }

    fn speak_in(&mut self, index: usize, local_ms: u64) {
        self.agents[index].speaks += 1;
        let number = self.agents[index].speaks;
        self.set(index, local_ms, Timer::Speak(number));
    }

    /// Tries again, the other coordinator perhaps.
    fn not_answered(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        agent.outstanding = None;
        agent.address = 1 - agent.address;
        agent.retry_ms = (agent.retry_ms * 2).min(RETRY_MAX_MS);
        let pause = agent.retry_ms;
        self.speak_in(index, pause);
    }

    pub fn agent_hears(&mut self, index: usize, reply: Reply) {
        let outstanding = self.agents[index].outstanding;
        match reply {
            // An agent no longer listens for answers to what it said before.
            Reply::Hold { sequence, assignments, revoked } => match outstanding {
                Some((it, sent)) if it == sequence => self.told_to_hold(index, sent, assignments, revoked),
                _ => {}
            },
            Reply::Superseded { sequence } if outstanding.is_some_and(|(it, _)| it == sequence) => {
                self.stats.saw("agent superseded");
                self.trace.note(self.now, || format!("agent-{index} is superseded"));
                self.end_process(index);
                self.start_in(index, 5 * SECOND);
            }
            Reply::Complete { attempt, answer } => {
                let reported = |held: &Held| matches!(held.phase, Phase::Reporting(_));
                if self.agents[index].held.get(&attempt).is_some_and(reported) {
                    self.trace.note(self.now, || format!("agent-{index} hears {answer:?} of {attempt}"));
                    self.forget(index, attempt);
                }
            }
            Reply::Refused if outstanding.is_some() => self.not_answered(index),
            Reply::Superseded { .. } | Reply::Refused => {}
        }
    }

    fn told_to_hold(
        &mut self,
        index: usize,
        sent: Moment,
        assignments: Vec<Assignment>,
        revoked: Vec<Attempt>,
    ) {
        let now = self.now;
        let agent = &mut self.agents[index];
        agent.outstanding = None;
        agent.retry_ms = RETRY_FIRST_MS;
        agent.confirmed_until = agent.confirmed_until.max(sent + agent.wait(CONTACT_MS));
        let until = agent.confirmed_until;
        self.speak_in(index, NEXT_SYNC_MS);
        for attempt in revoked {
            self.drop_work(index, attempt);
        }
        // An answer that travelled for longer than the lease confirms nothing any more.
        if until <= now {
            self.stats.saw("answer too old to work by");
            return;
        }
        let process = self.agents[index].process;
        self.schedule(until, Due::Agent { agent: index, process, timer: Timer::Contact });
        let agent = &mut self.agents[index];
        agent.waiting = assignments.into_iter().filter(|it| !agent.held.contains_key(&it.attempt)).collect();
        self.start_waiting(index);
    }

    /// The lease may be another's soon: all work stops. What is done goes on being reported.
    fn lost_contact(&mut self, index: usize) {
        let held: Vec<Attempt> = self.agents[index].held.keys().copied().collect();
        if self.agents[index].held.values().any(|held| held.phase == Phase::Running) {
            self.stats.saw("agent out of contact stops its work");
        }
        self.agents[index].waiting.clear();
        held.into_iter().for_each(|attempt| self.drop_work(index, attempt));
    }

    /// After a stop it first looks at its clock.
    fn continue_process(&mut self, index: usize) {
        if self.agents[index].confirmed_until <= self.now {
            return self.lost_contact(index);
        }
        for (attempt, held) in &self.agents[index].held {
            if held.phase == Phase::Running {
                self.promises.works_on(index, *attempt, &held.assignment.item);
            }
        }
    }

    pub fn stop_process(&mut self, index: usize, takes: Moment) {
        if self.agents[index].process == 0 || self.agents[index].stopped_until.is_some() {
            return;
        }
        // Whoever is stopped believes nothing.
        self.promises.holds_nothing(index);
        let until = self.now + takes;
        self.agents[index].stopped_until = Some(until);
        self.schedule(until, Due::Relief(crate::trouble::Relief::Continue(index)));
    }

    pub fn drain(&mut self, index: usize) {
        if self.agents[index].process == 0 {
            return;
        }
        self.agents[index].draining = true;
        self.agents[index].waiting.clear();
        let patience = self.dice.roll(30 * SECOND);
        self.set(index, patience, Timer::GiveUp);
        self.speak(index);
    }
}
