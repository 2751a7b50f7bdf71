//! What every coordinator writes to, and what happens once it has been written, or not.

use crate::coordinator::{Asker, Decided, Doom, Message, Poll, Step};
use crate::world::{Due, Moment, Reply, SECOND, World};
use kulprit_common::farm::action::{Action, Answer};
use kulprit_common::farm::fact::Fact;

/// How long an answer to a sync is held back while there is nothing new.
const IDLE_PATIENCE: Moment = 10 * SECOND;
const BUSY_PATIENCE: Moment = 8 * SECOND;

/// It takes writes of the one coordinator only that opened it last.
#[derive(Default)]
pub struct Journal {
    pub facts: Vec<Fact>,
    pub owner: usize,
}

impl World {
    /// What was decided waits for the disk.
    pub fn decide(&mut self, index: usize, decided: Vec<(Vec<Action>, Asker)>, polls: Vec<(usize, u64)>) {
        let (mut facts, mut answers, mut rest) = (vec![], vec![], vec![]);
        for (actions, asker) in decided {
            let mut answer = None;
            for action in actions {
                match action {
                    Action::Record(fact) => facts.push(fact),
                    Action::Answer(given) => answer = Some(given),
                    other => rest.push(other),
                }
            }
            answers.push((asker, answer));
        }
        let takes = if facts.is_empty() { 0 } else { 1 + self.dice.roll(self.plan.disk_ms) };
        self.lives[index].writing = Some(Decided { facts, answers, rest, polls });
        self.schedule(self.now + takes, Due::Life(index, Step::Written));
    }

    /// The journal has taken the facts, or refuses them; then everything else happens.
    pub fn written(&mut self, index: usize) {
        let Decided { mut facts, answers, rest, polls } =
            self.lives[index].writing.take().expect("something was being written");
        // Asked for also where there is nothing to write: a grant or a renewal is no fact.
        if self.journal.owner != index {
            self.stats.saw(if facts.is_empty() {
                "old coordinator cannot answer"
            } else {
                "old coordinator cannot write"
            });
            return self.die(index);
        }
        let doom = self.lives[index].doom.filter(|_| !facts.is_empty());
        match doom {
            Some(Doom::BeforeWrite) => facts.clear(),
            Some(Doom::Torn) => facts.truncate(self.dice.roll(facts.len() as u64) as usize),
            Some(Doom::Idle | Doom::AfterWrite | Doom::AmongReplies) | None => {}
        }
        for fact in facts {
            self.trace.note(self.now, || format!("coordinator {index} records {}", describe(&fact)));
            self.promises.record(&self.plan, &fact, &mut self.stats);
            self.journal.facts.push(fact);
        }
        let mut last = answers.len();
        match doom {
            Some(Doom::BeforeWrite) => self.stats.saw("coordinator dies before it writes"),
            Some(Doom::Torn) => self.stats.saw("coordinator dies with a batch torn"),
            Some(Doom::AfterWrite) => self.stats.saw("coordinator dies before it answers"),
            Some(Doom::AmongReplies) => {
                self.stats.saw("coordinator dies among its answers");
                last = self.dice.roll(last as u64) as usize;
            }
            Some(Doom::Idle) | None => {}
        }
        if matches!(doom, Some(Doom::BeforeWrite | Doom::Torn | Doom::AfterWrite)) {
            return self.die(index);
        }
        self.lives[index].serves = true;
        for (asker, answer) in answers.into_iter().take(last) {
            self.release(index, asker, answer);
        }
        if doom == Some(Doom::AmongReplies) {
            return self.die(index);
        }
        rest.into_iter().for_each(|action| self.act(index, action));
        self.answer_polls(index, &polls);
        self.set_alarm(index);
        if !self.lives[index].inbox.is_empty() && !self.lives[index].driving {
            self.lives[index].driving = true;
            self.schedule(self.now, Due::Life(index, Step::Drive));
        }
    }

    fn release(&mut self, index: usize, asker: Asker, answer: Option<Answer>) {
        let address = self.lives[index].address;
        match asker {
            Asker::Nobody => {}
            Asker::Operator(wish, question) => self.operator_hears(wish, question, answer),
            Asker::Complete { agent, process, attempt } => {
                let Some(Answer::Complete(answer)) = answer else { panic!("a completion got {answer:?}") };
                self.promises.acknowledged(attempt, answer, &mut self.stats);
                self.answer(agent, process, address, Reply::Complete { attempt, answer });
            }
            Asker::Sync { agent, process, sequence, held, draining } => {
                if answer == Some(Answer::Superseded) {
                    return self.answer(agent, process, address, Reply::Superseded { sequence });
                }
                let patience = match (held.is_empty(), draining) {
                    (_, true) => 0,
                    (true, false) => IDLE_PATIENCE,
                    (false, false) => BUSY_PATIENCE,
                };
                let over = Step::PollOver { agent, sequence };
                self.inform(index, Message::Poll(Poll { agent, process, sequence, held }));
                self.schedule(self.now + 10 + patience, Due::Life(index, over));
            }
        }
    }

    /// Answers those that there is news for, and those whose patience is over.
    fn answer_polls(&mut self, index: usize, over: &[(usize, u64)]) {
        let address = self.lives[index].address;
        for poll in std::mem::take(&mut self.lives[index].polls) {
            let life = &mut self.lives[index];
            let id = &self.agents[poll.agent].id;
            let assignments = life.farm.desired(id).assignments;
            let revoked = life.farm.revoked(id, &poll.held);
            let granted = assignments.iter().any(|it| !poll.held.contains(&it.attempt));
            if granted || !revoked.is_empty() || over.contains(&(poll.agent, poll.sequence)) {
                self.promises.told_to_hold(&self.agents[poll.agent].id, &assignments);
                let reply = Reply::Hold { sequence: poll.sequence, assignments, revoked };
                self.answer(poll.agent, poll.process, address, reply);
            } else {
                life.polls.push(poll);
            }
        }
    }
}

fn describe(fact: &Fact) -> String {
    match fact {
        Fact::ItemFinished { item, attempt, agent, .. } => format!("{item} finished by {attempt} of {agent}"),
        Fact::AttemptFailed { item, attempt, agent, infra, .. } => {
            format!("{attempt} of {agent} for {item} failed: {}", infra.reason)
        }
        Fact::Judged { id, judged } => {
            let judgement = &judged.judgement;
            format!("job {id}: {:?} {:?}", judgement.revision, judgement.verdict)
        }
        Fact::JobEnded { id, end, .. } => format!("job {id} ended: {} {}", end.kind, end.message),
        Fact::EpochStarted { epoch } => format!("epoch {epoch}"),
        Fact::AgentCame { agent, .. } => format!("{agent} came"),
        Fact::AgentWent { agent, .. } => format!("{agent} went"),
        Fact::JobSubmitted { id, .. } => format!("job {id} submitted"),
        Fact::JobResolved { id, .. } => format!("job {id} resolved"),
        Fact::Overruled { id, revision, word, .. } => format!("job {id} overruled: {revision:?} {word:?}"),
        Fact::Explained { id, .. } => format!("job {id} explained"),
        Fact::Configured { id, .. } => format!("job {id} configured"),
        Fact::CancelRequested { id, .. } => format!("job {id} is to be cancelled"),
        Fact::ProductsForgotten { items, .. } => format!("forgotten: {items:?}"),
        Fact::Quarantine(it) => format!("{it:?}"),
        Fact::Access(access) => format!("{access:?}"),
    }
}
