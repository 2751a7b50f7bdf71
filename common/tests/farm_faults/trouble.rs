//! What goes wrong, and how it passes.

use crate::agent::Phase;
use crate::coordinator::DOOMS;
use crate::operator::Question;
use crate::plan::Trouble;
use crate::world::{Due, HOUR, MINUTE, Moment, SECOND, World};
use kulprit_common::id::JobId;

pub enum Relief {
    /// An agent's process goes on.
    Continue(usize),
    /// The machine of a preempted agent is taken away.
    Gone {
        agent: usize,
        process: u64,
    },
    /// A coordinator is started at an address, if none serves.
    Restart(usize),
    /// The standby takes over from whoever serves.
    TakeOver(usize),
    CoordinatorContinues(usize),
    /// An operator lets an agent work again.
    LetGo {
        wish: usize,
        agent: usize,
    },
}

impl World {
    pub fn trouble(&mut self, trouble: Trouble) {
        if self.is_calm() {
            return;
        }
        let every = self.plan.troubles.iter().find(|(it, _)| *it == trouble).expect("it is in the plan").1;
        let next = 1 + self.dice.roll(2 * every);
        self.schedule(self.now + next, Due::Trouble(trouble));
        let agent = self.dice.roll(self.agents.len() as u64) as usize;
        self.trace.note(self.now, || format!("trouble: {trouble:?} (agent-{agent})"));
        match trouble {
            Trouble::AgentDies => self.lose(agent, 10 * SECOND, "agent dies"),
            Trouble::AgentVanishes => self.lose(agent, 10 * MINUTE, "agent vanishes"),
            Trouble::AgentForgets => self.make_forget(agent),
            Trouble::AgentStops => {
                self.stats.saw("agent is stopped");
                let longest = if self.dice.chance(50) { 30 * SECOND } else { 5 * MINUTE };
                let takes = self.dice.roll(longest);
                self.stop_process(agent, takes);
            }
            Trouble::AgentCut => self.cut(agent),
            Trouble::HalfCut => {
                self.stats.saw("half of the agents are cut off");
                let until = self.now + self.dice.roll(4 * MINUTE);
                let both = self.dice.chance(50);
                for agent in self.agents.iter_mut().step_by(2) {
                    agent.cut_until[0] = until;
                    agent.cut_until[1] = if both { until } else { agent.cut_until[1] };
                }
            }
            Trouble::AgentPreempted => self.preempt(agent),
            Trouble::DiskLow => {
                self.stats.saw("agent is low on disk");
                self.agents[agent].low_until = self.now + self.dice.roll(10 * MINUTE);
            }
            Trouble::DiskFull => {
                self.stats.saw("agent has no room");
                self.agents[agent].full_until = self.now + self.dice.roll(10 * MINUTE);
            }
            Trouble::WallJumps => self.jump(agent),
            Trouble::CoordinatorDies => {
                let doom = DOOMS[self.dice.roll(DOOMS.len() as u64) as usize];
                let newest = self.lives.len() - 1;
                self.lives[newest].doom = Some(doom);
            }
            Trouble::CoordinatorStops => self.stop_coordinator(),
            Trouble::Overruled => {
                let commit = 1 + self.dice.roll(u64::from(self.plan.commits) - 1) as u32;
                self.ask_about_a_job(Question::Overrule(commit), "operator overrules");
            }
            Trouble::Cancelled => self.ask_about_a_job(Question::Cancel, "operator cancels"),
            Trouble::SetAside => {
                self.stats.saw("operator sets an agent aside");
                let wish = self.dice.roll(self.wishes.len() as u64) as usize;
                self.ask(wish, Question::SetAside(agent));
                let after = self.dice.roll(8 * MINUTE);
                self.schedule(self.now + after, Due::Relief(Relief::LetGo { wish, agent }));
            }
            Trouble::Released => self.ask_for_a_release(),
        }
    }

    pub fn relieve(&mut self, relief: Relief) {
        match relief {
            Relief::Continue(agent) => {
                if self.agents[agent].stopped_until.is_some_and(|until| until <= self.now) {
                    self.agents[agent].stopped_until = None;
                    self.trace.note(self.now, || format!("agent-{agent} goes on"));
                    self.agent_timer(agent, crate::agent::Timer::Continue);
                }
            }
            Relief::Gone { agent, process } => {
                if self.agents[agent].process == process {
                    self.lose(agent, 10 * MINUTE, "agent is taken away before it is drained");
                }
            }
            Relief::Restart(address) => {
                let owner = &self.lives[self.journal.owner];
                if !owner.alive && self.listening[address].is_none() {
                    self.stats.saw("coordinator restarts");
                    self.take_over(address);
                }
            }
            Relief::TakeOver(address) => {
                if self.listening[address].is_none() {
                    self.stats.saw("standby takes over");
                    self.take_over(address);
                }
            }
            Relief::LetGo { wish, agent } => {
                self.take_back(Question::SetAside(agent));
                self.ask(wish, Question::LetGo(agent));
            }
            Relief::CoordinatorContinues(index) => {
                self.trace.note(self.now, || format!("coordinator {index} goes on"));
                self.lives[index].stopped_until = None;
            }
        }
    }

    fn lose(&mut self, agent: usize, away: Moment, what: &'static str) {
        if self.agents[agent].process == 0 {
            return;
        }
        self.stats.saw(what);
        self.trace.note(self.now, || format!("agent-{agent} is gone"));
        self.end_process(agent);
        let after = 200 + self.dice.roll(away);
        self.start_in(agent, after);
    }

    fn make_forget(&mut self, agent: usize) {
        if self.agents[agent].process == 0 || self.agents[agent].stopped_until.is_some() {
            return;
        }
        self.stats.saw("agent forgets what it holds");
        self.promises.holds_nothing(agent);
        // An ending that is under way says that it is over, whenever it arrives: an agent that began
        // again what it has reported would be a second holder by its own doing.
        self.agents[agent].held.retain(|_, held| matches!(held.phase, Phase::Reporting(_)));
        self.speak(agent);
    }

    fn cut(&mut self, agent: usize) {
        self.stats.saw("agent is cut off");
        let until = self.now + self.dice.roll(3 * MINUTE);
        match self.dice.roll(3) {
            0 => self.agents[agent].cut_until = [until, until],
            n => self.agents[agent].cut_until[n as usize - 1] = until,
        }
    }

    fn preempt(&mut self, agent: usize) {
        let process = self.agents[agent].process;
        if process == 0 {
            return;
        }
        self.stats.saw("agent is preempted");
        let gone = self.now + 20 * SECOND + self.dice.roll(100 * SECOND);
        self.schedule(gone, Due::Relief(Relief::Gone { agent, process }));
        self.drain(agent);
    }

    /// Wall clocks are read when a process starts and never again.
    fn jump(&mut self, agent: usize) {
        self.stats.saw("wall clock jumps");
        let by = self.dice.roll(10 * HOUR);
        let clock = match self.dice.chance(50) {
            true => &mut self.agents[agent].wall_ms,
            false => &mut self.wall_ms,
        };
        *clock = if self.dice.chance(50) { *clock + by } else { clock.saturating_sub(by) };
    }

    fn stop_coordinator(&mut self) {
        let index = self.lives.len() - 1;
        let life = &mut self.lives[index];
        if !life.alive || life.stopped_until.is_some() {
            return;
        }
        self.stats.saw("coordinator is stopped");
        let until = self.now + self.dice.roll(3 * MINUTE);
        life.stopped_until = Some(until);
        let standby = 1 - life.address;
        self.schedule(until, Due::Relief(Relief::CoordinatorContinues(index)));
        if self.dice.chance(70) {
            let after = self.dice.roll(90 * SECOND);
            self.schedule(self.now + after, Due::Relief(Relief::TakeOver(standby)));
        }
    }

    fn ask_for_a_release(&mut self) {
        let Some(life) = self.serving() else { return };
        let has_given_up = |id: &JobId| {
            let view = self.lives[life].farm.job(id);
            view.is_some_and(|view| !view.given_up.is_empty())
        };
        let wish = self.wishes.iter().position(|wish| wish.id.as_ref().is_some_and(has_given_up));
        if let Some(wish) = wish {
            self.ask(wish, Question::Release);
        }
    }

    fn ask_about_a_job(&mut self, question: Question, what: &'static str) {
        let wish = self.dice.roll(self.wishes.len() as u64) as usize;
        if self.wishes[wish].id.is_some() && !self.wishes[wish].cancelled {
            self.stats.saw(what);
            self.ask(wish, question);
        }
    }
}
