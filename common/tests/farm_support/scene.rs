//! A farm without a network or waits: agents do at once whatever the test says.

use super::Faults;
use super::kernels::{artifact, describe, line, patched, revision};
use kulprit_common::access::Principal;
use kulprit_common::farm::action::{Action, Answer, Assignment, CompleteAnswer};
use kulprit_common::farm::census::Lost;
use kulprit_common::farm::event::{AgentInfo, Event, Holding, Slot, Sync, Traced};
use kulprit_common::farm::fact::{Fact, Resolution};
use kulprit_common::farm::view::{AgentView, JobView};
use kulprit_common::farm::{Config, Farm};
use kulprit_common::id::{AgentId, JobId, Session};
use kulprit_common::job::Job;
use kulprit_common::outcome::AttemptEnd;
use kulprit_common::time::Timestamp;
use std::time::Duration;

pub struct Scene {
    pub farm: Farm,
    pub now: Timestamp,
    pub facts: Vec<Fact>,
    /// Attempts that ended without a word.
    pub lost: Vec<Lost>,
    pub config: Config,
    /// The good end is 0, the bad end the last.
    pub commits: u32,
    pub faults: Faults,
    sequence: u64,
}

pub fn agent(index: usize) -> AgentId {
    format!("agent-{index}").parse().expect("a name")
}

impl Scene {
    pub fn new(config: Config, commits: u32) -> Scene {
        let now = Timestamp(1_000_000);
        let (farm, first) = Farm::restore(config.clone(), [], now);
        let faults = Faults::default();
        let mut scene =
            Scene { farm, now, facts: vec![], lost: vec![], config, commits, faults, sequence: 0 };
        scene.act(first);
        scene
    }

    fn act(&mut self, actions: Vec<Action>) -> Option<Answer> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Record(fact) => self.facts.push(fact),
                Action::Lost(lost) => self.lost.push(lost),
                Action::Answer(given) => answer = Some(given),
                Action::Resolve { job, .. } => {
                    let (bad, good) = (revision(self.commits), Some(revision(0)));
                    let resolution = Resolution { bad, good, releases: vec![], fixes: vec![] };
                    self.tell(Event::Resolved { job, result: Ok(Box::new(resolution)) });
                }
                Action::LoadHistory { job, .. } => {
                    let history = line(self.commits, |_| false);
                    self.tell(Event::HistoryLoaded { job, result: Ok(Box::new(history)) });
                }
                Action::Patch { job, name, order, .. } => {
                    let result = patched(&order, &|_| false, &self.faults);
                    self.tell(Event::Patched { job, name, result });
                }
                Action::Trace { job, commits, .. } => {
                    let traced = Traced { files: vec![], touched: commits.iter().map(|_| vec![]).collect() };
                    self.tell(Event::Traced { job, traced });
                }
                Action::Describe { job, culprit, crash, .. } => {
                    self.tell(Event::Described { job, described: describe(culprit, crash) });
                }
                Action::Identify { .. } => panic!("all revisions are known"),
            }
        }
        answer
    }

    pub fn tell(&mut self, event: Event) -> Option<Answer> {
        let actions = self.farm.handle(self.now, event);
        self.act(actions)
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.tell(Event::Tick);
    }

    pub fn restart(&mut self) {
        let (farm, first) = Farm::restore(self.config.clone(), self.facts.clone(), self.now);
        self.farm = farm;
        self.act(first);
    }

    pub fn submit(&mut self, job: Job) -> JobId {
        self.sequence += 1;
        let event = Event::Submitted {
            request: format!("request {}", self.sequence),
            job: Box::new(job),
            reproducer: artifact("repro"),
            by: Principal::Local,
        };
        match self.tell(event) {
            Some(Answer::Submitted { job, .. }) => job,
            other => panic!("{other:?}"),
        }
    }

    /// An agent with one slot that holds nothing speaks.
    pub fn says(&mut self, index: usize) -> Option<Answer> {
        self.says_more(index, 1, &[], false)
    }

    /// What an agent says of itself in this session, holding these.
    pub fn says_more(
        &mut self,
        index: usize,
        session: u64,
        holding: &[&Assignment],
        draining: bool,
    ) -> Option<Answer> {
        self.sequence += 1;
        let held = |it: &&Assignment| Holding {
            attempt: it.attempt,
            item: it.item.clone(),
            slot: it.slot,
            activity: String::new(),
        };
        self.tell(Event::Synced(Sync {
            agent: agent(index),
            session: Session(session),
            sequence: self.sequence,
            info: AgentInfo {
                slots: vec![Slot { cores: 2, memory_mib: 4096 }],
                images: vec!["sha256:gcc".into()],
                can_build: true,
                can_boot: true,
                ..AgentInfo::default()
            },
            holding: holding.iter().map(held).collect(),
            have: vec![],
            draining,
        }))
    }

    pub fn assigned(&self, index: usize) -> Option<Assignment> {
        self.farm.desired(&agent(index)).assignments.pop()
    }

    pub fn completes(&mut self, index: usize, it: &Assignment, end: AttemptEnd) -> CompleteAnswer {
        let (agent, session, attempt) = (agent(index), Session(1), it.attempt);
        let (item, end) = (it.item.clone(), Box::new(end));
        match self.tell(Event::Completed { agent, session, attempt, item, end }) {
            Some(Answer::Complete(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// A second in which every agent speaks, and ends what it is given as the test says.
    pub fn round(&mut self, agents: usize, mut end: impl FnMut(usize, &Assignment) -> AttemptEnd) {
        (0..agents).for_each(|index| _ = self.says(index));
        for index in 0..agents {
            if let Some(it) = self.assigned(index) {
                let end = end(index, &it);
                self.completes(index, &it, end);
            }
        }
        self.pass(1);
    }

    pub fn job(&self, id: &JobId) -> JobView {
        self.farm.job(id).expect("the job is known")
    }

    pub fn agent(&self, index: usize) -> AgentView {
        let id = agent(index);
        self.farm.agents().into_iter().find(|it| it.id == id).expect("the agent is known")
    }
}
