//! Agents that are away while the coordinator is started again: they stay in all that is shown, and
//! can be set aside and shut out.

mod farm_support;

use farm_support::job;
use farm_support::scene::{Scene, agent};
use kulprit_common::access::{AccessEvent, Member, Principal, Role};
use kulprit_common::farm::Config;
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_common::id::Digest;
use std::time::Duration;

/// Longer than the grace of a restart, and than it takes until an agent counts as lost.
const LONG_S: u64 = 43;

fn joins(scene: &mut Scene, index: usize) {
    let (id, name) = (Digest::of(format!("token {index}").as_bytes()), Some(agent(index)));
    let (role, ttl, by) = (Role::Agent, Duration::from_secs(600), Principal::Local);
    let labels = vec!["place=here".into()];
    scene.tell(Event::Access(Box::new(AccessEvent::CreateToken { id, role, name, labels, ttl, by })));
    let join = AccessEvent::Join { token: id, name: agent(index), key: Digest::of(b"key") };
    let answer = scene.tell(Event::Access(Box::new(join)));
    assert!(format!("{answer:?}").contains("Joined"), "{answer:?}");
}

fn revoke(scene: &mut Scene, index: usize) {
    let member = Member { role: Role::Agent, name: agent(index) };
    scene.tell(Event::Access(Box::new(AccessEvent::Revoke { member, by: Principal::Local })));
}

fn quarantine(scene: &mut Scene, index: usize, reason: &str) -> Option<Answer> {
    let reason = reason.to_owned();
    scene.tell(Event::QuarantineRequested { agent: agent(index), reason, by: Principal::Local })
}

/// Names and states, as listed.
fn listed(scene: &Scene) -> Vec<(String, &'static str)> {
    let views = scene.farm.agents();
    let census = scene.farm.census().agents;
    for state in census.keys() {
        let there = views.iter().filter(|view| view.state == *state).count();
        assert_eq!(census[state], there as u64, "the census and the list differ in {state}");
    }
    views.into_iter().map(|view| (view.id.to_string(), view.state)).collect()
}

fn expect(scene: &Scene, all: &[(&str, &'static str)]) {
    let all: Vec<_> = all.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect();
    assert_eq!(listed(scene), all);
}

#[test]
fn agents_that_died_are_lost_over_restarts() {
    let mut scene = Scene::new(Config::default(), 8);
    (0..3).for_each(|index| _ = scene.says(index));
    // One is long gone when the coordinator is started again, one dies with it.
    for _ in 0..LONG_S {
        scene.pass(1);
        (1..3).for_each(|index| _ = scene.says(index));
    }
    expect(&scene, &[("agent-0", "lost"), ("agent-1", "online"), ("agent-2", "online")]);
    scene.restart();
    expect(&scene, &[("agent-0", "lost"), ("agent-1", "lost"), ("agent-2", "lost")]);
    assert_eq!([0, 1, 2].map(|index| scene.agent(index).awaited), [false, true, true]);
    assert_eq!(scene.agent(1).last_sync, None);
    scene.says(2);
    assert!(!scene.agent(2).awaited && scene.agent(1).awaited);
    for restarts in 0..3 {
        scene.pass(LONG_S);
        scene.says(2);
        expect(&scene, &[("agent-0", "lost"), ("agent-1", "lost"), ("agent-2", "online")]);
        assert!(!scene.agent(1).awaited, "{restarts}: it is not waited for any more");
        scene.restart();
    }
    scene.says(1);
    assert_eq!((scene.agent(1).state, scene.agent(1).last_sync), ("online", Some(scene.now)));
}

#[test]
fn a_dead_agent_can_be_set_aside_whenever_the_coordinator_was_started() {
    for long_ago in [true, false] {
        let mut scene = Scene::new(Config::default(), 8);
        scene.says(0);
        if long_ago {
            scene.pass(LONG_S);
        }
        scene.restart();
        assert_eq!(quarantine(&mut scene, 1, "?"), Some(Answer::UnknownAgent), "nobody has that name");
        assert_eq!(quarantine(&mut scene, 0, "dead"), Some(Answer::AgentQuarantined));
        for restarts in 0..3 {
            let view = scene.agent(0);
            assert_eq!((view.state, view.reason.as_str()), ("lost", "dead"), "{restarts}");
            assert!(view.since.is_some() && view.until.is_none() && view.slots.is_empty());
            scene.pass(LONG_S);
            assert!(!scene.agent(0).awaited);
            scene.restart();
        }
        scene.says(0);
        assert_eq!(scene.agent(0).state, "quarantined");
    }
}

#[test]
fn what_an_agent_held_before_a_restart_is_waited_for() {
    let mut scene = Scene::new(Config::default(), 8);
    scene.submit(job());
    scene.says(0);
    let work = scene.assigned(0).expect("it is given something");
    scene.restart();
    quarantine(&mut scene, 0, "drained");
    let view = scene.agent(0);
    assert!(view.awaited && view.slots.is_empty(), "nobody knows yet what it holds");
    scene.says_more(0, 1, &[&work], false);
    let view = scene.agent(0);
    assert!(!view.awaited && view.slots[0].work.is_some(), "{view:?}");
}

#[test]
fn members_are_of_the_farm_before_they_are_heard_and_until_they_are_shut_out() {
    let mut scene = Scene::new(Config::default(), 8);
    joins(&mut scene, 0);
    joins(&mut scene, 1);
    let lost = [("agent-0", "lost"), ("agent-1", "lost")];
    expect(&scene, &lost);
    scene.restart();
    expect(&scene, &lost);
    assert_eq!(scene.agent(0).labels, ["place=here"]);
    assert!(!scene.agent(0).awaited, "it was never there");

    scene.says(0);
    revoke(&mut scene, 0);
    revoke(&mut scene, 1);
    let revoked = [("agent-0", "revoked"), ("agent-1", "revoked")];
    expect(&scene, &revoked);
    scene.restart();
    expect(&scene, &revoked);
    // Taking it out once more is no error.
    assert_eq!(quarantine(&mut scene, 1, "out"), Some(Answer::AgentQuarantined));
    expect(&scene, &revoked);
    joins(&mut scene, 1);
    assert_eq!((scene.agent(1).state, scene.agent(1).reason.as_str()), ("lost", "out"));
}
