//! What an agent has in hand: begun, done, reported until that is answered, or dropped.

use crate::agent::{Held, Phase, Timer};
use crate::kernels::{Faults, Made, carry_out, index_of};
use crate::plan::Plan;
use crate::world::{Letter, MINUTE, SECOND, World};
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::item::Work;
use kulprit_common::id::Attempt;
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};

const COMPLETE_LIMIT_MS: u64 = 15 * SECOND;
const REPORT_AGAIN_MS: u64 = 5 * SECOND;
/// The longest that containers and guests take to go.
const LET_GO_MS: u64 = 5 * SECOND;

impl World {
    /// Starts what has a free slot.
    pub fn start_waiting(&mut self, index: usize) {
        for assignment in std::mem::take(&mut self.agents[index].waiting) {
            let agent = &self.agents[index];
            let in_slot = |held: &Held| {
                held.assignment.slot == assignment.slot && !matches!(held.phase, Phase::Reporting(_))
            };
            if agent.held.values().any(in_slot) {
                self.agents[index].waiting.push(assignment);
            } else {
                self.start_work(index, assignment);
            }
        }
    }

    fn start_work(&mut self, index: usize, assignment: Assignment) {
        let (attempt, item) = (assignment.attempt, assignment.item.clone());
        self.trace.note(self.now, || format!("agent-{index} starts {attempt} {item}"));
        self.promises.works_on(index, attempt, &item);
        let longest = match assignment.work {
            Work::Build(_) => self.plan.build_ms,
            Work::Run(_) => self.plan.run_ms,
            Work::Toolchain { .. } | Work::Reproducer { .. } | Work::Maintainers(_) => 5 * SECOND,
        };
        let takes = longest / 4 + self.dice.roll(longest);
        self.agents[index].held.insert(attempt, Held { assignment, phase: Phase::Running });
        self.set(index, takes, Timer::Done(attempt));
    }

    /// The work is over: what came of it is reported until that is answered.
    pub fn worked(&mut self, index: usize, attempt: Attempt) {
        let agent = &self.agents[index];
        let Some(held) = agent.held.get(&attempt).filter(|held| held.phase == Phase::Running) else { return };
        let failed = |class, reason: &str| AttemptEnd::Infra(Infra { class, reason: reason.into() });
        let by_chance = self.dice.chance(self.plan.infra) && !self.is_calm();
        let end = if agent.full_until > self.now {
            failed(InfraClass::Disk, "no space left on device")
        } else if poisons(&self.plan, &held.assignment.work) {
            failed(InfraClass::Internal, "poison")
        } else if by_chance {
            failed(InfraClass::Qemu, "by chance")
        } else {
            let product = carry_out(&held.assignment, self.plan.culprit, &self.plan.kernels);
            AttemptEnd::Done(match &self.plan.noise {
                Some(noise) => noise.on(index, &held.assignment.item, product, &mut self.dice),
                None => product,
            })
        };
        let item = held.assignment.item.clone();
        self.trace.note(self.now, || format!("agent-{index} is done with {attempt} {item}: {}", kind(&end)));
        self.promises.worked(index, attempt, &item, &end);
        let phase = Phase::Reporting(Box::new(end));
        self.agents[index].held.get_mut(&attempt).expect("held").phase = phase;
        self.report(index, attempt);
        self.start_waiting(index);
        self.speak(index);
    }

    pub fn report(&mut self, index: usize, attempt: Attempt) {
        let agent = &self.agents[index];
        let Some(held) = agent.held.get(&attempt) else { return };
        let Phase::Reporting(end) = &held.phase else { return };
        let letter = Letter::Complete {
            agent: agent.id.clone(),
            session: agent.session,
            attempt,
            item: held.assignment.item.clone(),
            end: (**end).clone(),
        };
        let address = agent.address;
        self.post(index, address, letter);
        let pause = self.dice.roll(REPORT_AGAIN_MS);
        self.set(index, COMPLETE_LIMIT_MS + pause, Timer::Report(attempt));
    }

    pub fn drop_work(&mut self, index: usize, attempt: Attempt) {
        let running = |held: &&mut Held| held.phase == Phase::Running;
        let Some(held) = self.agents[index].held.get_mut(&attempt).filter(running) else { return };
        held.phase = Phase::Ending;
        self.promises.stops(index, attempt);
        self.trace.note(self.now, || format!("agent-{index} drops {attempt}"));
        let takes = self.dice.roll(LET_GO_MS);
        self.set(index, takes, Timer::LetGo(attempt));
    }

    pub fn forget(&mut self, index: usize, attempt: Attempt) {
        self.agents[index].held.remove(&attempt);
        self.start_waiting(index);
        if self.agents[index].draining && self.agents[index].held.is_empty() {
            return self.leave(index);
        }
        self.speak(index);
    }

    /// Hands everything back and goes.
    pub fn release_all(&mut self, index: usize) {
        let agent = &self.agents[index];
        let address = agent.address;
        let running = agent.held.iter().filter(|(_, held)| held.phase == Phase::Running);
        let letters: Vec<Letter> = running
            .map(|(attempt, held)| Letter::Complete {
                agent: agent.id.clone(),
                session: agent.session,
                attempt: *attempt,
                item: held.assignment.item.clone(),
                end: AttemptEnd::Released,
            })
            .collect();
        letters.into_iter().for_each(|letter| self.post(index, address, letter));
        self.leave(index);
    }

    /// Says goodbye; it comes back some time.
    fn leave(&mut self, index: usize) {
        self.agents[index].held.clear();
        self.speak(index);
        self.end_process(index);
        let away = self.dice.roll(10 * MINUTE);
        self.start_in(index, away);
    }
}

/// Builds of some commits never work out, and runs of others.
fn poisons(plan: &Plan, work: &Work) -> bool {
    match work {
        Work::Build(work) => Faults::has(index_of(&work.revision), 3, plan.poison),
        Work::Run(work) => Faults::has(Made::read(work.kernel.digest.as_bytes()).index, 4, plan.poison / 2),
        Work::Toolchain { .. } | Work::Reproducer { .. } | Work::Maintainers(_) => false,
    }
}

fn kind(end: &AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Done(_) => "done",
        AttemptEnd::Infra(infra) => infra.class.as_str(),
        AttemptEnd::Released => "released",
    }
}
