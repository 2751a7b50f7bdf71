//! What the worlds of farm_faults once broke, each as short as it can be told.

mod farm_support;

use farm_support::scene::{Scene, agent};
use farm_support::{Faults, carry_out, job};
use kulprit_common::access::Principal;
use kulprit_common::farm::Config;
use kulprit_common::farm::action::{Action, Answer, Assignment, CompleteAnswer};
use kulprit_common::farm::census::{Loss, Lost};
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::id::{Attempt, Session};
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};

fn scene() -> Scene {
    Scene::new(Config::default(), 8)
}

fn infra() -> AttemptEnd {
    AttemptEnd::Infra(Infra { class: InfraClass::Qemu, reason: "by chance".into() })
}

/// The agent carries out what it is assigned until it is a build.
fn until_a_build(scene: &mut Scene) -> Assignment {
    loop {
        scene.says(0);
        let next = scene.assigned(0).expect("there is work");
        if matches!(next.work, Work::Build(_)) {
            return next;
        }
        let product = carry_out(&next, 4, &Faults::default());
        scene.completes(0, &next, AttemptEnd::Done(product));
    }
}

#[test]
fn an_agent_whose_wall_clock_was_set_back_is_taken_once_its_earlier_life_is_gone() {
    let mut scene = scene();
    scene.says_more(0, 1000, &[], false);
    assert_eq!(scene.says(0), Some(Answer::Superseded), "the other may be there");
    scene.pass(46);
    assert_eq!(scene.says(0), None);
    scene.submit(job());
    assert!(scene.assigned(0).is_some(), "it is given work");
}

#[test]
fn a_new_life_of_one_agent_leaves_alone_what_another_has_in_hand() {
    let mut scene = scene();
    let id = scene.submit(job());
    scene.says(0);
    let held = scene.assigned(0).expect("there is work");
    scene.says_more(1, 1, &[], false);
    scene.tell(Event::CancelRequested { job: id, by: Principal::Local });
    // Nobody wants the item now, but agent-0 has not let go of it.
    scene.says_more(1, 2, &[], false);
    assert!(scene.farm.is_held_by(&agent(0), held.attempt), "{} is forgotten", held.item);
    scene.submit(job());
    let given = scene.farm.desired(&agent(1)).assignments;
    assert!(given.iter().all(|it| it.item != held.item), "{} would have two holders", held.item);
}

#[test]
fn an_attempt_that_has_ended_is_not_adopted_by_a_late_sync() {
    let mut scene = scene();
    scene.submit(job());
    let held = until_a_build(&mut scene);
    scene.restart();
    assert_eq!(scene.completes(0, &held, infra()), CompleteAnswer::Recorded);
    // It was sent before the completion, and arrives after it.
    scene.says_more(0, 1, &[&held], false);
    scene.pass(5);
    let next = scene.assigned(0).expect("the build is tried again");
    assert_eq!(next.item, held.item);
    assert_ne!(next.attempt, held.attempt, "it would be a duplicate for ever");
}

#[test]
fn what_an_agent_let_go_of_after_a_restart_frees_its_slot() {
    let mut scene = scene();
    let id = scene.submit(job());
    let held = until_a_build(&mut scene);
    scene.tell(Event::CancelRequested { job: id, by: Principal::Local });
    scene.restart();
    scene.says_more(0, 1, &[&held], false);
    let busy = |scene: &Scene| scene.farm.agents()[0].slots[0].work.clone();
    assert_eq!(busy(&scene).map(|work| work.attempt), Some(held.attempt));
    scene.says(0);
    assert!(busy(&scene).is_none());
}

#[test]
fn after_a_restart_a_slot_is_given_once_where_an_old_attempt_in_it_is_still_reported() {
    let mut scene = scene();
    scene.submit(job());
    let old = until_a_build(&mut scene);
    scene.restart();
    // Its completion was lost, and the slot was given to another item since.
    let item = ItemKey::Build(kulprit_common::id::Digest::of(b"another"));
    let new = Assignment { attempt: Attempt(old.attempt.0 + 1), item, ..old.clone() };
    scene.says_more(0, 1, &[&old, &new], false);
    let held = [old.attempt, new.attempt];
    assert_eq!(scene.farm.revoked(&agent(0), &held), [old.attempt], "one to a slot, and the later one");
    assert!(scene.assigned(0).is_none());
}

#[test]
fn failures_are_counted_over_restarts() {
    let mut scene = scene();
    scene.submit(job());
    let held = until_a_build(&mut scene);
    let mut tries = 0;
    while scene.assigned(0).is_none_or(|next| next.item == held.item) {
        scene.says(0);
        if let Some(next) = scene.assigned(0) {
            assert_eq!(scene.completes(0, &next, infra()), CompleteAnswer::Recorded);
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
    let mut scene = scene();
    scene.submit(job());
    until_a_build(&mut scene);
    for _ in 0..20 {
        scene.says(0);
        if let Some(next) = scene.assigned(0) {
            scene.completes(0, &next, infra());
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
    let mut scene = scene();
    let id = scene.submit(job());
    scene.says_more(0, 1, &[], true);
    let detail = scene.farm.job(&id).expect("known").detail;
    assert_eq!(detail, "waiting: agent-0: draining");
}

/// The coordinator hands in what arrived while it wrote to the disk.
#[test]
fn what_arrives_together_is_taken_one_by_one_and_then_looked_at_once() {
    let mut scene = scene();
    scene.submit(job());
    let build = until_a_build(&mut scene);
    let end = AttemptEnd::Done(carry_out(&build, 4, &Faults::default()));
    let completed = |index: usize, attempt: Attempt| Event::Completed {
        agent: agent(index),
        session: Session(1),
        attempt,
        item: build.item.clone(),
        end: Box::new(end.clone()),
    };
    scene.farm.take_news();
    let events = [
        completed(1, Attempt(build.attempt.0 + 1)),
        completed(0, build.attempt),
        completed(0, build.attempt),
        Event::Tick,
    ];
    let handled = scene.farm.handle_all(scene.now, events);
    let answers: Vec<Option<&Answer>> = handled
        .each
        .iter()
        .map(|actions| {
            actions.iter().find_map(|action| match action {
                Action::Answer(answer) => Some(answer),
                _ => None,
            })
        })
        .collect();
    let complete = |answer| Some(Answer::Complete(answer));
    let expected = [CompleteAnswer::Stale, CompleteAnswer::Recorded, CompleteAnswer::Duplicate].map(complete);
    assert_eq!(answers, [expected[0].as_ref(), expected[1].as_ref(), expected[2].as_ref(), None]);
    let finished = |action: &&Action| matches!(action, Action::Record(Fact::ItemFinished { .. }));
    assert_eq!(handled.each[1].iter().filter(finished).count(), 1);
    let all = handled.each.iter().flatten().chain(&handled.then);
    assert_eq!(all.filter(finished).count(), 1, "counted once");
    assert!(!handled.then.iter().any(|action| matches!(action, Action::Answer(_))));
    assert!(scene.farm.take_news().contains(&agent(0)), "it is free, and has something new to do");
    assert!(scene.assigned(0).is_some_and(|next| next.item != build.item));
}

/// No job is passed over where more want a turn than have one in a step.
#[test]
fn every_job_has_its_turn() {
    let mut scene = scene();
    (0..30).for_each(|_| _ = scene.submit(job()));
    scene.says(0);
    let last = loop {
        let next = scene.assigned(0).expect("there is work");
        if !matches!(next.work, Work::Toolchain { .. }) {
            break next;
        }
        let product = carry_out(&next, 4, &Faults::default());
        scene.completes(0, &next, AttemptEnd::Done(product));
    };
    let (agent, session, attempt) = (agent(0), Session(1), last.attempt);
    let end = Box::new(AttemptEnd::Done(carry_out(&last, 4, &Faults::default())));
    scene.farm.handle(scene.now, Event::Completed { agent, session, attempt, item: last.item, end });
    let preparing = |scene: &Scene| {
        let views = scene.farm.jobs();
        views.iter().filter(|view| view.stage == "preparing").count()
    };
    assert!(preparing(&scene) > 0, "all of them had their turn at once");
    let mut steps = 0;
    while scene.farm.next_deadline().is_some_and(|at| at <= scene.now) {
        scene.farm.handle(scene.now, Event::Tick);
        steps += 1;
        assert!(steps < 30, "it spins");
    }
    assert_eq!(preparing(&scene), 0, "after {steps} steps");
}

#[test]
fn the_farm_is_counted_and_says_what_work_is_for() {
    let mut scene = scene();
    let count = |scene: &Scene, kind, state| scene.farm.census().items[&(kind, state)];
    assert_eq!(count(&scene, "build", "leased"), 0, "what there is none of is counted too");
    scene.submit(job());
    let build = until_a_build(&mut scene);
    let census = scene.farm.census();
    assert!(census.items[&("build", "leased")] >= 1);
    assert!(census.slots_busy >= 1 && census.slots >= census.slots_busy);
    assert_eq!(census.agents["online"], census.agents.values().sum::<u64>());
    assert_eq!(census.jobs.values().sum::<u64>(), 1);
    let granted = scene.farm.granted(&build.item).expect("it is in somebody's hands");
    assert_eq!((granted.attempt, Some(&granted.purpose)), (build.attempt, build.purpose.as_ref()));
    assert!(granted.wanted <= granted.granted);
    let Work::Build(work) = &build.work else { panic!("{build:?}") };
    assert_eq!(granted.purpose.revision, Some(work.revision));
}

#[test]
fn an_attempt_that_ends_without_a_word_is_told_of_and_its_item_waits_anew() {
    let mut scene = scene();
    let id = scene.submit(job());
    let first = until_a_build(&mut scene);
    // The build takes three hours, and its agent is heard of all along.
    for _ in 0..3 * 60 * 3 {
        scene.pass(20);
        scene.says_more(0, 1, &[&first], false);
    }
    assert_eq!(scene.lost, []);
    scene.pass(46);
    let lost = |it: &Assignment, at, how| Lost { item: it.item.clone(), attempt: it.attempt, at, how };
    let back = scene.now;
    assert_eq!(scene.lost, [lost(&first, back, Loss::RanOut)]);
    assert_eq!(scene.farm.census().oldest_ready, Some(back), "it has not waited while it was built");

    scene.pass(5);
    scene.says(1);
    let second = scene.assigned(1).expect("there is work");
    assert_eq!(second.item, first.item);
    let granted = scene.farm.granted(&second.item).expect("it is in somebody's hands");
    assert_eq!((granted.ready, granted.granted), (back, scene.now));
    assert!(granted.wanted < back, "{granted:?}");

    scene.pass(1);
    scene.says_more(1, 2, &[], false);
    assert_eq!(scene.lost[1..], [lost(&second, scene.now, Loss::NewLife)]);
    let third = scene.assigned(1).expect("it is given again");
    scene.tell(Event::CancelRequested { job: id, by: Principal::Local });
    assert_eq!(scene.lost.len(), 2, "its agent has not let go of it");
    scene.says_more(1, 2, &[], false);
    assert_eq!(scene.lost[2..], [lost(&third, scene.now, Loss::Unwanted)]);
}

#[test]
fn what_is_handed_back_or_fails_waits_from_then_on_and_is_not_lost() {
    for end in [AttemptEnd::Released, infra()] {
        let mut scene = scene();
        scene.submit(job());
        let first = until_a_build(&mut scene);
        scene.pass(30);
        scene.says_more(0, 1, &[&first], false);
        let back = scene.now;
        scene.completes(0, &first, end);
        scene.pass(30);
        scene.says(1);
        let second = scene.assigned(1).filter(|it| it.item == first.item);
        let item = second.map_or(first.item, |it| it.item);
        let granted = scene.farm.granted(&item).expect("somebody has it again");
        assert!(granted.ready == back && granted.attempt != first.attempt, "{granted:?}");
        assert_eq!(scene.lost, []);
    }
}
