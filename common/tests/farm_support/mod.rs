//! A farm in virtual time: agents, a network that loses, repeats and reorders, restarts.
#![allow(dead_code, reason = "each test program uses a part")]

mod dice;
mod kernels;
pub mod scene;

pub use dice::Dice;
pub use kernels::*;

use kulprit_common::access::Principal;
use kulprit_common::farm::action::{Action, Answer, Assignment};
use kulprit_common::farm::event::{AgentInfo, Event, Holding, Slot, Sync, Traced};
use kulprit_common::farm::fact::{Fact, Resolution};
use kulprit_common::farm::item::ItemKey;
use kulprit_common::farm::view::JobView;
use kulprit_common::farm::{Config, Farm};
use kulprit_common::history::{Revision, TaggedRelease};
use kulprit_common::id::{AgentId, Attempt, JobId, RevisionId, Session};
use kulprit_common::job::Job;
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};
use kulprit_common::patch::{Order, Patched};
use kulprit_common::time::Timestamp;
use kulprit_common::toolchain::Release;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

enum ToFarm {
    Sync(Sync, Timestamp),
    Patched { job: JobId, name: RevisionId, result: Result<Patched, String> },
    Complete { agent: AgentId, session: Session, attempt: Attempt, item: ItemKey, end: AttemptEnd },
}

enum ToAgent {
    Hold {
        session: Session,
        sequence: u64,
        assignments: Vec<Assignment>,
        revoked: Vec<Attempt>,
        sent: Timestamp,
    },
    Acknowledged {
        session: Session,
        attempt: Attempt,
    },
}

enum Message {
    Farm(Box<ToFarm>),
    Agent(usize, ToAgent),
}

struct InHand {
    assignment: Assignment,
    done_at: Timestamp,
    end: Option<AttemptEnd>,
}

struct SimAgent {
    id: AgentId,
    session: Session,
    sequence: u64,
    held: BTreeMap<Attempt, InHand>,
    confirmed_until: Timestamp,
    next_sync: Timestamp,
}

pub struct World {
    pub farm: Farm,
    pub now: Timestamp,
    pub facts: Vec<Fact>,
    pub dice: Dice,
    pub commits: u32,
    pub culprit: u32,
    pub faults: Faults,
    /// Walked to find a good end, where there are any.
    pub releases: Vec<TaggedRelease>,
    /// Of the good end, where it is given.
    pub good_release: Option<Release>,
    /// Every seventh commit merges the good end.
    pub merges: bool,
    /// The agents' machines boot guests.
    pub boots: bool,
    /// What git was asked to patch.
    pub orders: Vec<Order>,
    agents: Vec<SimAgent>,
    wire: Vec<(Timestamp, Message)>,
    /// How often each item's product was taken.
    pub recorded: BTreeMap<ItemKey, u32>,
    /// Builds carried out to the end, by item.
    pub built: BTreeMap<ItemKey, u32>,
    next_session: u64,
}

impl World {
    pub fn new(seed: u64, commits: u32, agents: usize, faults: Faults) -> World {
        let mut dice = Dice(seed);
        let culprit = 1 + u32::try_from(dice.roll(u64::from(commits) - 1)).expect("fits");
        let now = Timestamp(1_000_000);
        let (farm, actions) = Farm::restore(Config::default(), [], now);
        let mut world = World {
            farm,
            now,
            facts: vec![],
            dice,
            commits,
            culprit,
            faults,
            releases: vec![],
            good_release: None,
            merges: false,
            boots: true,
            orders: vec![],
            agents: vec![],
            wire: vec![],
            recorded: BTreeMap::new(),
            built: BTreeMap::new(),
            next_session: 1,
        };
        world.act(actions);
        for index in 0..agents {
            let id = format!("agent-{index}").parse().expect("a valid name");
            let session = world.session();
            let (held, next_sync) = (BTreeMap::new(), world.now);
            world.agents.push(SimAgent { id, session, sequence: 0, held, confirmed_until: now, next_sync });
        }
        world
    }

    fn session(&mut self) -> Session {
        self.next_session += 1;
        Session(self.next_session)
    }

    pub fn submit(&mut self, request: &str) -> JobId {
        self.submit_job(request, job())
    }

    pub fn submit_job(&mut self, request: &str, job: Job) -> JobId {
        let event = Event::Submitted {
            request: request.into(),
            job: Box::new(job),
            reproducer: artifact("repro"),
            by: Principal::Local,
        };
        match self.tell(event) {
            Some(Answer::Submitted { job, .. }) => job,
            other => panic!("submitted, and was told {other:?}"),
        }
    }

    /// Hands an event to the farm, carries out what it asks for, returns its answer.
    pub fn tell(&mut self, event: Event) -> Option<Answer> {
        let actions = self.farm.handle(self.now, event);
        self.act(actions)
    }

    fn act(&mut self, actions: Vec<Action>) -> Option<Answer> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Record(fact) => {
                    if let Fact::ItemFinished { item, .. } = &fact {
                        *self.recorded.entry(item.clone()).or_default() += 1;
                    }
                    self.facts.push(fact);
                }
                Action::Lost(_) => {}
                Action::Answer(given) => answer = Some(given),
                Action::Resolve { job, backports, .. } => {
                    let fixes = backports.iter().map(known_fix).collect();
                    let releases = self.releases.clone();
                    let release = self.good_release;
                    let good = releases.is_empty().then(|| Revision { release, ..revision(0) });
                    let resolution = Resolution { bad: revision(self.commits), good, releases, fixes };
                    self.tell(Event::Resolved { job, result: Ok(Box::new(resolution)) });
                }
                Action::LoadHistory { job, .. } => {
                    let history = line(self.commits, |index| self.is_merge(index));
                    self.tell(Event::HistoryLoaded { job, result: Ok(Box::new(history)) });
                }
                Action::Identify { job, revision: id, .. } => {
                    let found = revision(index_of(&id));
                    assert_eq!(found.id, id, "git was asked for a name that is no commit's");
                    self.tell(Event::Identified { job, revision: id, result: Ok(found) });
                }
                Action::Patch { job, name, order, .. } => {
                    self.orders.push(order.clone());
                    let result = patched(&order, &|index| self.is_merge(index), &self.faults);
                    let at = self.now + Duration::from_millis(self.dice.roll(2000));
                    let message = Message::Farm(Box::new(ToFarm::Patched { job, name, result }));
                    self.wire.push((at, message));
                }
                Action::Trace { job, commits, frames, .. } => {
                    assert_eq!(frames, ["planted_bug"]);
                    let touched = commits.iter().map(|_| vec!["kernel/planted.c".into()]).collect();
                    let traced = Traced { files: vec!["kernel/planted.c".into()], touched };
                    self.tell(Event::Traced { job, traced });
                }
                Action::Describe { job, culprit, crash, .. } => {
                    let described = describe(culprit, crash);
                    self.tell(Event::Described { job, described });
                }
            }
        }
        answer
    }

    fn is_merge(&self, index: u32) -> bool {
        self.merges && index.is_multiple_of(7)
    }

    /// Runs until every job has ended, for `limit` of virtual time at most.
    pub fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        while self.now < end && self.farm.jobs().iter().any(|job| job.ended.is_none()) {
            self.now = self.now + Duration::from_millis(250);
            self.step();
            self.check_holders();
        }
    }

    pub fn job(&self, id: &JobId) -> JobView {
        self.farm.job(id).expect("the job is known")
    }

    pub fn step(&mut self) {
        if self.dice.roll(4000) < self.faults.restart_permille {
            self.restart();
        }
        if self.farm.next_deadline().is_some_and(|at| at <= self.now) {
            self.tell(Event::Tick);
        }
        self.deliver();
        for index in 0..self.agents.len() {
            if self.dice.roll(4000) < self.faults.agent_death_permille {
                self.kill(index);
            }
            self.agent_step(index);
        }
    }

    pub fn kill(&mut self, index: usize) {
        let session = self.session();
        let agent = &mut self.agents[index];
        agent.session = session;
        agent.sequence = 0;
        agent.held.clear();
        agent.next_sync = self.now + Duration::from_secs(1);
    }

    /// Every agent dies and none comes back.
    pub fn lose_agents(&mut self) {
        self.agents.clear();
        self.wire.clear();
    }

    /// The coordinator dies with all it knew but its facts, and what was on the wire to it.
    pub fn restart(&mut self) {
        self.wire.retain(|(_, message)| matches!(message, Message::Agent(..)));
        let (farm, actions) = Farm::restore(Config::default(), self.facts.clone(), self.now);
        self.farm = farm;
        self.act(actions);
    }

    fn send(&mut self, message: impl Fn() -> Message) {
        let copies = if self.dice.chance(self.faults.lost) {
            0
        } else if self.dice.chance(self.faults.repeated) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = self.dice.roll(self.faults.delay_ms + 1);
            self.wire.push((self.now + Duration::from_millis(delay), message()));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.wire).into_iter().partition(|(at, _)| *at <= now);
        self.wire = later;
        for (_, message) in due {
            match message {
                Message::Farm(message) => self.farm_gets(*message),
                Message::Agent(index, message) => self.agent_hears(index, message),
            }
        }
    }

    fn farm_gets(&mut self, message: ToFarm) {
        match message {
            ToFarm::Sync(sync, sent) => self.farm_hears(sync, sent),
            ToFarm::Patched { job, name, result } => {
                self.tell(Event::Patched { job, name, result });
            }
            ToFarm::Complete { agent, session, attempt, item, end } => {
                let index = self.agents.iter().position(|it| it.id == agent).expect("known");
                let end = Box::new(end);
                let answer = self.tell(Event::Completed { agent, session, attempt, item, end });
                assert!(matches!(answer, Some(Answer::Complete(_))), "{answer:?}");
                self.send(|| Message::Agent(index, ToAgent::Acknowledged { session, attempt }));
            }
        }
    }

    fn farm_hears(&mut self, sync: Sync, sent: Timestamp) {
        let (agent, session, sequence) = (sync.agent.clone(), sync.session, sync.sequence);
        let held: Vec<Attempt> = sync.holding.iter().map(|holding| holding.attempt).collect();
        let index = self.agents.iter().position(|it| it.id == agent).expect("known");
        if let Some(Answer::Superseded) = self.tell(Event::Synced(sync)) {
            return;
        }
        let assignments = self.farm.desired(&agent).assignments;
        let revoked = self.farm.revoked(&agent, &held);
        self.send(|| {
            let (assignments, revoked) = (assignments.clone(), revoked.clone());
            Message::Agent(index, ToAgent::Hold { session, sequence, assignments, revoked, sent })
        });
    }

    fn agent_hears(&mut self, index: usize, message: ToAgent) {
        let now = self.now;
        let lasts = Duration::from_millis(2000 + self.dice.roll(60_000));
        let agent = &mut self.agents[index];
        match message {
            ToAgent::Acknowledged { session, attempt } if session == agent.session => {
                agent.held.remove(&attempt);
                agent.next_sync = now;
            }
            // An agent speaks again only when it no longer listens for the answer before.
            ToAgent::Hold { session, sequence, assignments, revoked, sent }
                if session == agent.session && sequence == agent.sequence =>
            {
                agent.confirmed_until = agent.confirmed_until.max(sent + Duration::from_secs(25));
                agent.next_sync = now + Duration::from_secs(5);
                for attempt in revoked {
                    agent.held.remove(&attempt);
                }
                for assignment in assignments {
                    // An answer that travelled for longer than the lease grants nothing any more.
                    let fresh = sent + Duration::from_secs(25) > now;
                    let busy = agent.held.values().any(|held| held.assignment.slot == assignment.slot);
                    if fresh && !busy {
                        let quick = matches!(assignment.item, ItemKey::Run(..));
                        let done_at = now + if quick { Duration::from_secs(2) } else { lasts };
                        agent.held.insert(assignment.attempt, InHand { assignment, done_at, end: None });
                        agent.next_sync = now;
                    }
                }
            }
            ToAgent::Acknowledged { .. } | ToAgent::Hold { .. } => {}
        }
    }

    fn agent_step(&mut self, index: usize) {
        let (now, culprit, faults) = (self.now, self.culprit, self.faults);
        let class = match index < self.faults.full_disks {
            true => Some(InfraClass::Disk),
            false => self.dice.chance(self.faults.infra).then_some(InfraClass::Internal),
        };
        let agent = &mut self.agents[index];
        if agent.confirmed_until <= now {
            // Work stops; what is done goes on being reported.
            agent.held.retain(|_, held| held.end.is_some());
        }
        let mut built = Vec::new();
        for held in agent.held.values_mut().filter(|held| held.end.is_none() && held.done_at <= now) {
            let reason = "the dice say so".into();
            let end = match class {
                Some(class) => AttemptEnd::Infra(Infra { class, reason }),
                None => AttemptEnd::Done(carry_out(&held.assignment, culprit, &faults)),
            };
            if matches!((&held.assignment.item, &end), (ItemKey::Build(_), AttemptEnd::Done(_))) {
                built.push(held.assignment.item.clone());
            }
            held.end = Some(end);
            agent.next_sync = now;
        }
        for item in built {
            *self.built.entry(item).or_default() += 1;
        }
        if self.agents[index].next_sync <= now {
            self.speak(index);
        }
    }

    /// A sync, and a repeated completion for everything that is done.
    fn speak(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        agent.sequence += 1;
        // Without an answer by then, it is asked again.
        agent.next_sync = self.now + Duration::from_secs(12);
        let sync = Sync {
            agent: agent.id.clone(),
            session: agent.session,
            sequence: agent.sequence,
            info: AgentInfo {
                slots: vec![Slot { cores: 2, memory_mib: 4096 }],
                images: vec!["sha256:gcc".into()],
                can_build: true,
                can_boot: self.boots,
                problems: if self.boots { vec![] } else { vec!["no QEMU".into()] },
                ..AgentInfo::default()
            },
            holding: agent
                .held
                .values()
                .map(|held| Holding {
                    attempt: held.assignment.attempt,
                    item: held.assignment.item.clone(),
                    slot: held.assignment.slot,
                    activity: String::new(),
                })
                .collect(),
            have: vec![],
            draining: false,
        };
        let completions: Vec<_> = agent
            .held
            .values()
            .filter_map(|held| {
                Some((held.assignment.attempt, held.assignment.item.clone(), held.end.clone()?))
            })
            .collect();
        let (id, session, now) = (agent.id.clone(), agent.session, self.now);
        self.send(|| Message::Farm(Box::new(ToFarm::Sync(sync.clone(), now))));
        for (attempt, item, end) in completions {
            self.send(|| {
                let (agent, item, end) = (id.clone(), item.clone(), end.clone());
                Message::Farm(Box::new(ToFarm::Complete { agent, session, attempt, item, end }))
            });
        }
    }

    /// No item is worked on by two agents at once.
    fn check_holders(&self) {
        let mut working = BTreeSet::new();
        for agent in &self.agents {
            for held in agent.held.values().filter(|held| held.end.is_none()) {
                assert!(
                    working.insert(&held.assignment.item),
                    "{} has two live holders at {:?}",
                    held.assignment.item,
                    self.now
                );
            }
        }
    }
}
