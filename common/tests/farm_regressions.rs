//! What the worlds of farm_faults once broke, each as short as it can be told.

mod farm_support;

use farm_support::{Faults, artifact, carry_out, job, line, revision};
use kulprit_common::access::Principal;
use kulprit_common::farm::action::{Action, Answer, Assignment, CompleteAnswer};
use kulprit_common::farm::event::{AgentInfo, Event, Holding, Slot, Sync};
use kulprit_common::farm::fact::{Fact, Resolution};
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::farm::{Config, Farm};
use kulprit_common::id::{AgentId, Attempt, JobId, Session};
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};
use kulprit_common::time::Timestamp;
use std::time::Duration;

/// One farm with its journal, and agents that do what the test says.
struct Scene {
    farm: Farm,
    now: Timestamp,
    facts: Vec<Fact>,
    sequence: u64,
}

fn agent() -> AgentId {
    "agent-0".parse().expect("a name")
}

fn infra() -> AttemptEnd {
    AttemptEnd::Infra(Infra { class: InfraClass::Qemu, reason: "by chance".into() })
}

impl Scene {
    fn new() -> Scene {
        let now = Timestamp(1_000_000);
        let (farm, first) = Farm::restore(Config::default(), [], now);
        let mut scene = Scene { farm, now, facts: vec![], sequence: 0 };
        scene.act(first);
        scene
    }

    fn act(&mut self, actions: Vec<Action>) -> Option<Answer> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Record(fact) => self.facts.push(fact),
                Action::Answer(given) => answer = Some(given),
                Action::Resolve { job, .. } => {
                    let (bad, good) = (revision(8), Some(revision(0)));
                    let resolution = Resolution { bad, good, releases: vec![], fixes: vec![] };
                    self.tell(Event::Resolved { job, result: Ok(Box::new(resolution)) });
                }
                Action::LoadHistory { job, .. } => {
                    let history = line(8, |_| false);
                    self.tell(Event::HistoryLoaded { job, result: Ok(Box::new(history)) });
                }
                _ => {}
            }
        }
        answer
    }

    fn tell(&mut self, event: Event) -> Option<Answer> {
        let actions = self.farm.handle(self.now, event);
        self.act(actions)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.tell(Event::Tick);
    }

    fn restart(&mut self) {
        let (farm, first) = Farm::restore(Config::default(), self.facts.clone(), self.now);
        self.farm = farm;
        self.act(first);
    }

    fn submit(&mut self) -> JobId {
        self.submit_as("r")
    }

    fn submit_as(&mut self, request: &str) -> JobId {
        let event = Event::Submitted {
            request: request.into(),
            job: Box::new(job()),
            reproducer: artifact("repro"),
            by: Principal::Local,
        };
        match self.tell(event) {
            Some(Answer::Submitted { job, .. }) => job,
            other => panic!("{other:?}"),
        }
    }

    /// What the agent says of itself in this session, holding these.
    fn says(&mut self, session: u64, holding: &[&Assignment], draining: bool) -> Option<Answer> {
        self.hear(agent(), session, holding, draining)
    }

    fn hear(
        &mut self,
        agent: AgentId,
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
            agent,
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

    fn assigned(&self) -> Option<Assignment> {
        self.farm.desired(&agent()).assignments.pop()
    }

    fn completes(&mut self, it: &Assignment, end: AttemptEnd) -> CompleteAnswer {
        let (agent, session, attempt) = (agent(), Session(1), it.attempt);
        let (item, end) = (it.item.clone(), Box::new(end));
        match self.tell(Event::Completed { agent, session, attempt, item, end }) {
            Some(Answer::Complete(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Carries out what is assigned until it is a build.
    fn until_a_build(&mut self) -> Assignment {
        loop {
            self.says(1, &[], false);
            let next = self.assigned().expect("there is work");
            if matches!(next.work, Work::Build(_)) {
                return next;
            }
            let product = carry_out(&next, 4, &Faults::default());
            self.completes(&next, AttemptEnd::Done(product));
        }
    }
}

#[test]
fn an_agent_whose_wall_clock_was_set_back_is_taken_once_its_earlier_life_is_gone() {
    let mut scene = Scene::new();
    scene.says(1000, &[], false);
    assert_eq!(scene.says(1, &[], false), Some(Answer::Superseded), "the other may be there");
    scene.pass(46);
    assert_eq!(scene.says(1, &[], false), None);
    scene.submit();
    assert!(scene.assigned().is_some(), "it is given work");
}

#[test]
fn a_new_life_of_one_agent_leaves_alone_what_another_has_in_hand() {
    let mut scene = Scene::new();
    let other: AgentId = "agent-1".parse().expect("a name");
    let job = scene.submit();
    scene.says(1, &[], false);
    let held = scene.assigned().expect("there is work");
    scene.hear(other.clone(), 1, &[], false);
    scene.tell(Event::CancelRequested { job, by: Principal::Local });
    // Nobody wants the item now, but agent-0 has not let go of it.
    scene.hear(other.clone(), 2, &[], false);
    assert!(scene.farm.is_held_by(&agent(), held.attempt), "{} is forgotten", held.item);
    scene.submit_as("again");
    let given = scene.farm.desired(&other).assignments;
    assert!(given.iter().all(|it| it.item != held.item), "{} would have two holders", held.item);
}

#[test]
fn an_attempt_that_has_ended_is_not_adopted_by_a_late_sync() {
    let mut scene = Scene::new();
    scene.submit();
    let held = scene.until_a_build();
    scene.restart();
    assert_eq!(scene.completes(&held, infra()), CompleteAnswer::Recorded);
    // It was sent before the completion, and arrives after it.
    scene.says(1, &[&held], false);
    scene.pass(5);
    let next = scene.assigned().expect("the build is tried again");
    assert_eq!(next.item, held.item);
    assert_ne!(next.attempt, held.attempt, "it would be a duplicate for ever");
}

#[test]
fn what_an_agent_let_go_of_after_a_restart_frees_its_slot() {
    let mut scene = Scene::new();
    let job = scene.submit();
    let held = scene.until_a_build();
    scene.tell(Event::CancelRequested { job, by: Principal::Local });
    scene.restart();
    scene.says(1, &[&held], false);
    let busy = |scene: &Scene| scene.farm.agents()[0].slots[0].work.clone();
    assert_eq!(busy(&scene).map(|work| work.attempt), Some(held.attempt));
    scene.says(1, &[], false);
    assert!(busy(&scene).is_none());
}

#[test]
fn after_a_restart_a_slot_is_given_once_where_an_old_attempt_in_it_is_still_reported() {
    let mut scene = Scene::new();
    scene.submit();
    let old = scene.until_a_build();
    scene.restart();
    // Its completion was lost, and the slot was given to another item since.
    let item = ItemKey::Build(kulprit_common::id::Digest::of(b"another"));
    let new = Assignment { attempt: Attempt(old.attempt.0 + 1), item, ..old.clone() };
    scene.says(1, &[&old, &new], false);
    let held = [old.attempt, new.attempt];
    assert_eq!(scene.farm.revoked(&agent(), &held), [old.attempt], "one to a slot, and the later one");
    assert!(scene.assigned().is_none());
}

#[test]
fn failures_are_counted_over_restarts() {
    let mut scene = Scene::new();
    scene.submit();
    let held = scene.until_a_build();
    let mut tries = 0;
    while scene.assigned().is_none_or(|next| next.item == held.item) {
        scene.says(1, &[], false);
        if let Some(next) = scene.assigned() {
            assert_eq!(scene.completes(&next, infra()), CompleteAnswer::Recorded);
            tries += 1;
            scene.restart();
        }
        scene.pass(61);
        if scene.farm.jobs()[0].ended.is_some() || tries > 5 {
            break;
        }
    }
    assert_eq!(tries, 5, "one agent alone tries five times");
}

#[test]
fn a_build_that_was_given_up_is_no_part_of_a_verdict() {
    let mut scene = Scene::new();
    scene.submit();
    scene.until_a_build();
    for _ in 0..20 {
        scene.says(1, &[], false);
        if let Some(next) = scene.assigned() {
            scene.completes(&next, infra());
        }
        scene.pass(61);
    }
    let judged = scene.facts.iter().find_map(|fact| match fact {
        Fact::Judged { judged, .. } => Some(judged),
        _ => None,
    });
    let judged = judged.expect("it was given up");
    assert!(judged.unavailable.is_some());
    assert_eq!(judged.build, None, "nothing was built");
    assert!(!scene.facts.iter().any(|it| matches!(it, Fact::ItemFinished { item: ItemKey::Build(_), .. })));
}

#[test]
fn a_job_whose_agents_all_drain_says_so() {
    let mut scene = Scene::new();
    let job = scene.submit();
    scene.says(1, &[], true);
    let detail = scene.farm.job(&job).expect("known").detail;
    assert_eq!(detail, "waiting: agent-0: draining");
}
