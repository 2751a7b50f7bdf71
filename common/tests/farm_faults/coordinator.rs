//! A simulated coordinator: as coordinator/src/driver.rs. It handles a batch of events, makes
//! their facts durable together, and only then answers and acts. It may die at any point between.

use crate::operator::Question;
use crate::world::{Due, Letter, Moment, Reply, SECOND, World};
use kulprit_common::farm::Farm;
use kulprit_common::farm::action::{Action, Answer};
use kulprit_common::farm::event::{Event, Sync};
use kulprit_common::farm::fact::{Fact, QuarantineFact};
use kulprit_common::id::{AgentId, Attempt, Session};
use kulprit_common::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const BATCH_MAX: usize = 512;

/// Where a doomed coordinator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// With what is in its inbox.
    Idle,
    /// When it has decided and written nothing.
    BeforeWrite,
    /// With the first of a batch's facts written.
    Torn,
    /// When all is written and nobody was answered.
    AfterWrite,
    /// With some answered.
    AmongReplies,
}

pub const DOOMS: [Doom; 5] =
    [Doom::Idle, Doom::BeforeWrite, Doom::Torn, Doom::AfterWrite, Doom::AmongReplies];

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub enum Asker {
    Nobody,
    Sync { agent: usize, process: u64, sequence: u64, held: Vec<Attempt>, draining: bool },
    Complete { agent: usize, process: u64, attempt: Attempt },
    Operator(usize, Question),
}

pub enum Message {
    Tell(Box<Event>, Asker),
    Poll(Poll),
    /// A poll's patience is over.
    Answer {
        agent: usize,
        sequence: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Poll {
    pub agent: usize,
    pub process: u64,
    pub sequence: u64,
    pub held: Vec<Attempt>,
}

pub enum Step {
    Drive,
    Written,
    Deadline,
    /// What the coordinator's hands came to.
    Told(Box<Event>),
    PollOver {
        agent: usize,
        sequence: u64,
    },
}

pub struct Decided {
    pub facts: Vec<Fact>,
    pub answers: Vec<(Asker, Option<Answer>)>,
    pub rest: Vec<Action>,
    pub polls: Vec<(usize, u64)>,
}

/// What an agent said last, as this coordinator heard it.
pub struct Heard {
    pub session: Session,
    pub sequence: u64,
    pub at: Moment,
    pub takes_work: bool,
    pub slots: usize,
}

pub struct Life {
    pub address: usize,
    pub farm: Farm,
    started: Moment,
    started_at: Timestamp,
    ppm: i64,
    pub alive: bool,
    /// Its first facts are durable.
    pub serves: bool,
    pub stopped_until: Option<Moment>,
    pub doom: Option<Doom>,
    pub inbox: Vec<Message>,
    pub writing: Option<Decided>,
    pub driving: bool,
    pub polls: Vec<Poll>,
    alarm: Option<Moment>,
    pub heard: BTreeMap<AgentId, Heard>,
    /// Set aside by an operator.
    pub aside: BTreeSet<AgentId>,
    /// What its hands are at.
    pub in_hands: usize,
}

impl Life {
    /// Whether it has nothing to do just now.
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.writing.is_none()
    }

    /// Wall-clock time as it was at the start, and then by a clock that never jumps.
    pub fn clock(&self, now: Moment) -> Timestamp {
        let since = (now - self.started) as i64;
        self.started_at + Duration::from_millis((since * (1_000_000 + self.ppm) / 1_000_000) as u64)
    }

    pub fn age(&self, now: Moment) -> Moment {
        now - self.started
    }
}

impl World {
    /// A new coordinator opens the journal, which from now on takes no other's writes.
    pub fn take_over(&mut self, address: usize) {
        let index = self.lives.len();
        self.journal.owner = index;
        let started_at = Timestamp(self.wall_ms + self.now);
        let ppm = self.dice.roll(20_001) as i64 - 10_000;
        let (farm, first) = Farm::restore(self.plan.config(), self.journal.facts.clone(), started_at);
        let now = self.now;
        self.trace.note(now, || format!("coordinator {index} opens the journal at address {address}"));
        self.promises.restored(&self.journal.facts);
        self.lives.push(Life {
            address,
            farm,
            started: now,
            started_at,
            ppm,
            alive: true,
            serves: false,
            stopped_until: None,
            doom: None,
            inbox: vec![],
            writing: None,
            driving: false,
            polls: vec![],
            alarm: None,
            heard: BTreeMap::new(),
            aside: BTreeSet::new(),
            in_hands: 0,
        });
        let facts: Vec<Action> = self.journal.facts.iter().cloned().map(Action::Record).collect();
        self.lives[index].note(&facts);
        self.listening[address] = Some(index);
        self.decide(index, vec![(first, Asker::Nobody)], vec![]);
    }

    pub fn die(&mut self, index: usize) {
        self.trace.note(self.now, || format!("coordinator {index} dies"));
        let life = &mut self.lives[index];
        life.alive = false;
        life.stopped_until = None;
        let address = life.address;
        if self.listening[address] == Some(index) {
            self.listening[address] = None;
        }
        for poll in std::mem::take(&mut self.lives[index].polls) {
            self.answer(poll.agent, poll.process, address, Reply::Refused);
        }
        // A service manager starts it again, unless another has taken over.
        if self.journal.owner == index {
            let after = 200 + self.dice.roll(20 * SECOND);
            self.schedule(self.now + after, Due::Relief(crate::trouble::Relief::Restart(address)));
        }
    }

    /// A letter of an agent, as an event.
    pub fn receive(&mut self, index: usize, agent: usize, process: u64, letter: Letter) {
        let (event, asker) = match letter {
            Letter::Sync(sync) => {
                let held = sync.holding.iter().map(|holding| holding.attempt).collect();
                let (sequence, draining) = (sync.sequence, sync.draining);
                (Event::Synced(sync), Asker::Sync { agent, process, sequence, held, draining })
            }
            Letter::Complete { agent: id, session, attempt, item, end } => {
                let asker = Asker::Complete { agent, process, attempt };
                (Event::Completed { agent: id, session, attempt, item, end: Box::new(end) }, asker)
            }
        };
        self.inform(index, Message::Tell(Box::new(event), asker));
    }

    pub fn inform(&mut self, index: usize, message: Message) {
        let life = &mut self.lives[index];
        life.inbox.push(message);
        if !life.driving && life.writing.is_none() {
            life.driving = true;
            let soon = self.now + self.dice.roll(3);
            self.schedule(soon, Due::Life(index, Step::Drive));
        }
    }

    pub fn live(&mut self, index: usize, step: Step) {
        match step {
            Step::Drive => self.drive(index),
            Step::Written => self.written(index),
            Step::Told(event) => {
                self.lives[index].in_hands -= 1;
                self.inform(index, Message::Tell(event, Asker::Nobody));
            }
            Step::PollOver { agent, sequence } => {
                let waits = |poll: &Poll| poll.agent == agent && poll.sequence == sequence;
                if self.lives[index].polls.iter().any(waits) {
                    self.inform(index, Message::Answer { agent, sequence });
                }
            }
            Step::Deadline => {
                let life = &mut self.lives[index];
                life.alarm = None;
                let clock = life.clock(self.now);
                if life.farm.next_deadline().is_some_and(|at| at <= clock) {
                    self.inform(index, Message::Tell(Box::new(Event::Tick), Asker::Nobody));
                } else {
                    self.set_alarm(index);
                }
            }
        }
    }

    /// Handles all that waits.
    fn drive(&mut self, index: usize) {
        self.lives[index].driving = false;
        if self.lives[index].doom == Some(Doom::Idle) {
            self.stats.saw("coordinator dies idle");
            return self.die(index);
        }
        if self.lives[index].writing.is_some() {
            return;
        }
        let life = &mut self.lives[index];
        let batch: Vec<Message> = life.inbox.drain(..life.inbox.len().min(BATCH_MAX)).collect();
        let clock = life.clock(self.now);
        let (mut decided, mut polls) = (vec![], vec![]);
        for message in batch {
            match message {
                Message::Tell(event, asker) => {
                    self.stats.handled += 1;
                    let expects = self.promises.before(&self.lives[index], &event);
                    let life = &mut self.lives[index];
                    let sync = if let Event::Synced(sync) = &*event { Some(sync.clone()) } else { None };
                    let actions = life.farm.handle(clock, *event);
                    life.note(&actions);
                    life.hear(self.now, sync, &actions);
                    self.promises.after(&self.lives[index], clock, expects, &actions);
                    decided.push((actions, asker));
                }
                Message::Poll(poll) => {
                    let life = &mut self.lives[index];
                    life.polls.retain(|it| it.agent != poll.agent);
                    life.polls.push(poll);
                }
                Message::Answer { agent, sequence } => polls.push((agent, sequence)),
            }
        }
        self.decide(index, decided, polls);
    }

    pub fn set_alarm(&mut self, index: usize) {
        let life = &mut self.lives[index];
        let Some(deadline) = life.farm.next_deadline() else { return };
        let wait = deadline.since(life.clock(self.now)).as_millis() as i64;
        let at = self.now + (wait * 1_000_000 / (1_000_000 + life.ppm)) as u64 + 1;
        if life.alarm.is_none_or(|alarm| alarm > at) {
            life.alarm = Some(at);
            self.schedule(at, Due::Life(index, Step::Deadline));
        }
    }
}

impl Life {
    /// Agents that were set aside by a fact of its own or of those before it.
    fn note<'a>(&mut self, actions: impl IntoIterator<Item = &'a Action>) {
        for action in actions {
            match action {
                Action::Record(Fact::Quarantine(QuarantineFact::AgentSetAside { agent, .. })) => {
                    self.aside.insert(agent.clone());
                }
                Action::Record(Fact::Quarantine(QuarantineFact::AgentReleased { agent, .. })) => {
                    self.aside.remove(agent);
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, now: Moment, sync: Option<Sync>, actions: &[Action]) {
        let Some(sync) = sync else { return };
        let known = self.heard.get(&sync.agent);
        let late = known.is_some_and(|it| it.session == sync.session && it.sequence >= sync.sequence);
        if late || actions.contains(&Action::Answer(Answer::Superseded)) {
            return;
        }
        let Sync { agent, session, sequence, info, draining, .. } = sync;
        let takes_work = info.can_build && !draining;
        let heard = Heard { session, sequence, at: now, takes_work, slots: info.slots.len() };
        self.heard.insert(agent, heard);
    }
}
