//! Operators: they submit jobs, cancel and overrule, and ask again until they are answered.

use crate::coordinator::{Asker, Message};
use crate::kernels::{self, TITLE, artifact, commit_id, job};
use crate::world::{Due, SECOND, World};
use kulprit_common::access::Principal;
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_common::id::JobId;
use kulprit_common::job::{Job, Reproducer, Symptom};
use kulprit_common::verdict::Verdict;

const ASK_AGAIN: u64 = 10 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Submit,
    Cancel,
    /// Of the commit of this number: what it really is.
    Overrule(u32),
    SetAside(usize),
    LetGo(usize),
    /// Of what the job gave up, whatever that is when it is asked for.
    Release,
}

pub struct Wish {
    job: Job,
    pub id: Option<JobId>,
    /// No agent has the memory for it.
    pub hungry: bool,
    pub cancelled: bool,
    pending: Vec<Question>,
}

impl World {
    /// Who wants what, and when.
    pub fn wish(&mut self) {
        for index in 0..self.plan.jobs + usize::from(self.plan.hungry) {
            let hungry = index == self.plan.jobs;
            let mut job = self.some_job(hungry);
            if self.plan.noise.is_some() {
                // Runs of its own in every job, and no doubt about what is searched for.
                job = Job { symptom: Symptom::Crash, target: Some(TITLE.into()), ..job };
                job.reproducer = Reproducer { args: vec![index.to_string()], ..kernels::job().reproducer };
            }
            let pending = vec![Question::Submit];
            self.wishes.push(Wish { job, id: None, hungry, cancelled: false, pending });
            let at = self.dice.roll(self.plan.calm_at / 2);
            self.schedule(at, Due::Operator(index));
        }
    }

    /// The same as the others' or not, so that items are shared or not.
    fn some_job(&mut self, hungry: bool) -> Job {
        let mut job = job();
        match self.dice.roll(6) {
            0 => job.kernel.make_args.push(format!("V={}", self.dice.roll(2))),
            1 => job.reproducer.args.push("twice".into()),
            2 => job = Job { symptom: Symptom::Boot, reproducer: Reproducer::nothing(), ..job },
            _ => {}
        }
        if hungry {
            job.machine.memory_mib = 65536;
        }
        job
    }

    pub fn ask(&mut self, wish: usize, question: Question) {
        self.wishes[wish].pending.push(question);
        self.wishes[wish].cancelled |= question == Question::Cancel;
        self.schedule(self.now, Due::Operator(wish));
    }

    /// What is asked for no longer, also where the answer was lost.
    pub fn take_back(&mut self, question: Question) {
        self.wishes.iter_mut().for_each(|wish| wish.pending.retain(|it| *it != question));
    }

    pub fn ask_again(&mut self, index: usize) {
        if self.wishes[index].pending.is_empty() {
            return;
        }
        self.schedule(self.now + ASK_AGAIN, Due::Operator(index));
        let address = self.dice.roll(2) as usize;
        let listening = self.listening;
        let Some(life) = listening[address].or(listening[1 - address]) else { return };
        for question in self.wishes[index].pending.clone() {
            let wish = &self.wishes[index];
            let event = match (question, wish.id.clone()) {
                (Question::Submit, _) => Event::Submitted {
                    request: format!("wish {index}"),
                    by: Principal::Local,
                    job: Box::new(wish.job.clone()),
                    reproducer: artifact("repro"),
                },
                (Question::Cancel, Some(job)) => Event::CancelRequested { job, by: Principal::Local },
                (Question::Overrule(commit), Some(job)) => {
                    let word = if commit >= self.plan.culprit { Verdict::Bad } else { Verdict::Good };
                    let revision = commit_id(commit).to_string();
                    Event::OverruleRequested { job, revision, word: Some(word), by: Principal::Local }
                }
                (Question::SetAside(agent), _) => Event::QuarantineRequested {
                    agent: self.agents[agent].id.clone(),
                    reason: "by hand".into(),
                    by: Principal::Local,
                },
                (Question::LetGo(agent), _) => {
                    let agent = self.agents[agent].id.clone();
                    Event::AgentReleaseRequested { agent, by: Principal::Local }
                }
                (Question::Release, Some(job)) => {
                    let given_up = self.lives[life].farm.job(&job).map(|view| view.given_up);
                    let what = given_up.and_then(|all| all.first().map(|it| it.item.clone()));
                    let what = what.unwrap_or_else(|| "nothing".into());
                    Event::ReleaseRequested { job, what, by: Principal::Local }
                }
                (Question::Cancel | Question::Overrule(_) | Question::Release, None) => continue,
            };
            self.inform(life, Message::Tell(Box::new(event), Asker::Operator(index, question)));
        }
    }

    pub fn operator_hears(&mut self, index: usize, question: Question, answer: Option<Answer>) {
        let answer = answer.expect("operators are answered");
        self.trace.note(self.now, || format!("operator {index} {question:?}: {answer:?}"));
        self.promises.told_operator(index, &answer);
        if !self.is_calm() && self.dice.chance(self.plan.lost) {
            return;
        }
        let wish = &mut self.wishes[index];
        match (&answer, question) {
            (Answer::Submitted { job, .. }, Question::Submit) => {
                assert!(wish.id.as_ref().is_none_or(|id| id == job), "wish {index} became two jobs");
                wish.id = Some(job.clone());
            }
            (Answer::Cancelled | Answer::AlreadyEnded, Question::Cancel) => {}
            (Answer::Overruled { .. } | Answer::Refused(_), Question::Overrule(_)) => {}
            (Answer::AgentQuarantined | Answer::UnknownAgent, Question::SetAside(_)) => {}
            (Answer::AgentReleased, Question::LetGo(_)) => self.stats.saw("operator lets an agent go on"),
            (Answer::Refused(_) | Answer::UnknownAgent, Question::LetGo(_)) => {}
            (Answer::Released { .. }, Question::Release) => self.stats.saw("operator releases an item"),
            // A job that a coordinator forgot was never acknowledged.
            (Answer::Refused(_), Question::Release) => {}
            _ => panic!("{question:?} was answered {answer:?}"),
        }
        wish.pending.retain(|it| *it != question);
    }

    /// Whether every wish was answered and every job has ended; what can never run is cancelled
    /// once it is alone.
    pub fn is_over(&mut self) -> bool {
        if self.wishes.iter().any(|wish| wish.id.is_none() || !wish.pending.is_empty()) {
            return false;
        }
        let open = |wish: &Wish| wish.id.as_ref().is_some_and(|id| self.promises.is_open(id));
        let hungry = self.wishes.iter().position(|wish| wish.hungry && open(wish));
        let others = self.wishes.iter().any(|wish| !wish.hungry && open(wish));
        match (others, hungry) {
            (true, _) => false,
            (false, None) => true,
            (false, Some(index)) => {
                if self.starves(index) {
                    self.ask(index, Question::Cancel);
                }
                false
            }
        }
    }

    /// Whether a job says that it waits for memory no agent has.
    fn starves(&mut self, index: usize) -> bool {
        let Some(life) = self.serving() else { return false };
        let view = self.lives[life].farm.job(self.wishes[index].id.as_ref().expect("submitted"));
        let starves = view.is_some_and(|view| view.detail.contains("65536 MiB"));
        if starves {
            self.stats.saw("job says that no agent has the memory");
        }
        starves
    }
}
