//! A farm in virtual time, from one happening to the next: agents, wires, coordinators, operators.

use crate::agent::{Agent, Timer};
use crate::coordinator::{Life, Step};
use crate::dice::Dice;
use crate::journal::Journal;
use crate::operator::Wish;
use crate::plan::{Plan, Trouble};
use crate::promises::Promises;
use crate::stats::Stats;
use crate::trace::Trace;
use crate::trouble::Relief;
use kulprit_common::farm::action::{Assignment, CompleteAnswer};
use kulprit_common::farm::event::Sync;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::{AgentId, Attempt, Session};
use kulprit_common::outcome::AttemptEnd;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// True time, in milliseconds; nobody in the world can read it.
pub type Moment = u64;

pub const SECOND: Moment = 1000;
pub const MINUTE: Moment = 60 * SECOND;
pub const HOUR: Moment = 60 * MINUTE;

/// After the last trouble every job ends within this, or states what it waits for.
const PATIENCE: Moment = 12 * HOUR;
/// How often the views of open jobs are compared with the world.
const LOOK_EVERY: Moment = 20 * SECOND;

/// What an agent says to a coordinator.
#[derive(Clone, Debug)]
pub enum Letter {
    Sync(Sync),
    Complete { agent: AgentId, session: Session, attempt: Attempt, item: ItemKey, end: AttemptEnd },
}

/// What an agent is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Hold {
        sequence: u64,
        assignments: Vec<Assignment>,
        revoked: Vec<Attempt>,
    },
    Superseded {
        sequence: u64,
    },
    Complete {
        attempt: Attempt,
        answer: CompleteAnswer,
    },
    /// Nobody listens at that address.
    Refused,
}

pub enum Due {
    Letter { agent: usize, process: u64, address: usize, to: Option<usize>, letter: Box<Letter> },
    Reply { agent: usize, process: u64, address: usize, reply: Reply },
    Life(usize, Step),
    Agent { agent: usize, process: u64, timer: Timer },
    Trouble(Trouble),
    Relief(Relief),
    Operator(usize),
    Look,
}

struct Scheduled {
    at: Moment,
    number: u64,
    due: Due,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct World {
    pub plan: Plan,
    pub now: Moment,
    pub dice: Dice,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub journal: Journal,
    /// Every coordinator that ever lived.
    pub lives: Vec<Life>,
    /// Which of them listens at each address.
    pub listening: [Option<usize>; 2],
    /// How far the coordinators' wall clocks are off.
    pub wall_ms: u64,
    pub agents: Vec<Agent>,
    pub wishes: Vec<Wish>,
    pub promises: Promises,
    pub stats: Stats,
    pub trace: Trace,
}

impl World {
    pub fn new(seed: u64, trace: Trace) -> World {
        let plan = Plan::of(seed);
        let mut world = World {
            now: 0,
            dice: Dice(seed),
            queue: BinaryHeap::new(),
            scheduled: 0,
            journal: Journal::default(),
            lives: vec![],
            listening: [None, None],
            wall_ms: 1_000_000 * SECOND,
            agents: vec![],
            wishes: vec![],
            promises: Promises::default(),
            stats: Stats::default(),
            trace,
            plan,
        };
        world.trace.note(0, || format!("{:?}", world.plan));
        if world.plan.noise.is_some() {
            world.stats.saw_often("honest agents beside a noisy one", world.plan.agents as u64 - 1);
        }
        world.take_over(0);
        for index in 0..world.plan.agents {
            world.add_agent(index);
        }
        world.wish();
        for (trouble, every) in world.plan.troubles.clone() {
            let at = world.dice.roll(2 * every);
            world.schedule(at, Due::Trouble(trouble));
        }
        world.schedule(LOOK_EVERY, Due::Look);
        world
    }

    /// Runs until every job has ended that can, and checks that it does.
    pub fn run(&mut self) {
        let limit = self.plan.calm_at + PATIENCE;
        while let Some(Reverse(scheduled)) = self.queue.pop() {
            self.now = scheduled.at;
            self.stats.happenings += 1;
            self.take(scheduled.due);
            if self.now > self.plan.calm_at && self.is_over() {
                return self.at_the_end();
            }
            assert!(self.now < limit, "a job has not ended: {}", self.open_jobs());
        }
        unreachable!("agents speak for ever");
    }

    pub fn schedule(&mut self, at: Moment, due: Due) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), number: self.scheduled, due }));
    }

    fn take(&mut self, due: Due) {
        match due {
            Due::Letter { agent, process, address, to, letter } if !self.is_cut(agent, address) => match to {
                Some(life) if self.lives[life].alive => self.receive(life, agent, process, *letter),
                _ => self.answer(agent, process, address, Reply::Refused),
            },
            Due::Letter { .. } => {}
            Due::Reply { agent, process, address, reply } => {
                if self.is_cut(agent, address) {
                    return;
                }
                if let Some(until) = self.agents[agent].stopped_until {
                    return self.schedule(until, Due::Reply { agent, process, address, reply });
                }
                if self.agents[agent].process == process {
                    self.agent_hears(agent, reply);
                }
            }
            Due::Life(life, step) => match self.lives[life].stopped_until {
                Some(until) => self.schedule(until, Due::Life(life, step)),
                None if self.lives[life].alive => self.live(life, step),
                None => {}
            },
            Due::Agent { agent, process, timer } => {
                if let Some(until) = self.agents[agent].stopped_until {
                    return self.schedule(until, Due::Agent { agent, process, timer });
                }
                if self.agents[agent].process == process {
                    self.agent_timer(agent, timer);
                }
            }
            Due::Trouble(trouble) => self.trouble(trouble),
            Due::Relief(relief) => self.relieve(relief),
            Due::Operator(wish) => self.ask_again(wish),
            Due::Look => {
                self.look();
                self.schedule(self.now + LOOK_EVERY, Due::Look);
            }
        }
    }

    /// Sends to a coordinator: lost, repeated, delayed as the dice say. A connection has a process
    /// at its other end, and ends with it: what was on the way then reaches no later one.
    pub fn post(&mut self, agent: usize, address: usize, letter: Letter) {
        let to = self.listening[address];
        let process = self.agents[agent].process;
        for at in self.travels(agent, address) {
            self.schedule(at, Due::Letter { agent, process, address, to, letter: Box::new(letter.clone()) });
        }
    }

    /// Sends to an agent's process.
    pub fn answer(&mut self, agent: usize, process: u64, address: usize, reply: Reply) {
        for at in self.travels(agent, address) {
            self.schedule(at, Due::Reply { agent, process, address, reply: reply.clone() });
        }
    }

    /// When each copy of a message arrives.
    fn travels(&mut self, agent: usize, address: usize) -> Vec<Moment> {
        let calm = self.is_calm();
        if self.is_cut(agent, address) || (!calm && self.dice.chance(self.plan.lost)) {
            return vec![];
        }
        let copies = if !calm && self.dice.chance(self.plan.repeated) { 2 } else { 1 };
        let mut travel = || {
            let late = !calm && self.dice.roll(1000) < self.plan.late;
            let more = if late { self.dice.roll(2 * MINUTE) } else { 0 };
            self.now + 1 + self.dice.roll(self.plan.delay_ms) + more
        };
        (0..copies).map(|_| travel()).collect()
    }

    pub fn is_calm(&self) -> bool {
        self.now >= self.plan.calm_at
    }

    fn is_cut(&self, agent: usize, address: usize) -> bool {
        self.agents[agent].cut_until[address] > self.now
    }

    /// The coordinator whose writes the journal takes, once it serves.
    pub fn serving(&self) -> Option<usize> {
        let newest = self.lives.len() - 1;
        let life = &self.lives[newest];
        (life.alive && life.serves && life.stopped_until.is_none()).then_some(newest)
    }
}
