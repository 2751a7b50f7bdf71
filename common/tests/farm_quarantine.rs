//! What is in quarantine is shown with its reason, and let go by an operator, over restarts.

mod farm_support;

use farm_support::scene::{Scene, agent};
use farm_support::{Faults, carry_out, commit_id, job};
use kulprit_common::access::Principal;
use kulprit_common::farm::Config;
use kulprit_common::farm::action::{Answer, Assignment};
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::{Fact, QuarantineFact};
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::id::JobId;
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};

const CULPRIT: u32 = 4;

fn olga() -> Principal {
    "operator/olga".parse().expect("an operator")
}

fn done(it: &Assignment) -> AttemptEnd {
    AttemptEnd::Done(carry_out(it, CULPRIT, &Faults::default()))
}

fn broken(reason: &str) -> AttemptEnd {
    AttemptEnd::Infra(Infra { class: InfraClass::Internal, reason: reason.into() })
}

fn quarantine(scene: &mut Scene, index: usize, reason: &str) -> Option<Answer> {
    let reason = reason.to_owned();
    scene.tell(Event::QuarantineRequested { agent: agent(index), reason, by: olga() })
}

fn release_agent(scene: &mut Scene, index: usize) -> Option<Answer> {
    scene.tell(Event::AgentReleaseRequested { agent: agent(index), by: olga() })
}

fn release(scene: &mut Scene, job: &JobId, what: &str) -> Option<Answer> {
    scene.tell(Event::ReleaseRequested { job: job.clone(), what: what.into(), by: olga() })
}

fn quarantine_facts(scene: &Scene) -> usize {
    scene.facts.iter().filter(|fact| matches!(fact, Fact::Quarantine(_))).count()
}

fn refusal(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Refused(why)) => why,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[test]
fn an_agent_set_aside_by_hand_gets_nothing_until_it_is_released() {
    let mut scene = Scene::new(Config::default(), 8);
    assert_eq!(quarantine(&mut scene, 0, "?"), Some(Answer::UnknownAgent));
    assert_eq!(release_agent(&mut scene, 0), Some(Answer::UnknownAgent));
    scene.says(0);
    assert_eq!(refusal(release_agent(&mut scene, 0)), "agent agent-0 is not in quarantine");
    assert_eq!(quarantine(&mut scene, 0, "new disk"), Some(Answer::AgentQuarantined));
    assert_eq!(quarantine(&mut scene, 0, "new disk"), Some(Answer::AgentQuarantined));
    assert_eq!(quarantine_facts(&scene), 1, "said twice, it is one fact");
    let since = scene.agent(0).since;
    let job = scene.submit(job());
    for restarts in 0..3 {
        // However long it takes, and whatever happens to the coordinator.
        (0..40).for_each(|_| scene.round(1, |_, it| panic!("{} was granted", it.item)));
        let view = scene.agent(0);
        assert_eq!((view.state, view.reason.as_str()), ("quarantined", "new disk"), "{restarts}");
        assert_eq!((view.since, view.until), (since, None));
        assert_eq!(scene.job(&job).detail, "waiting: agent-0: set aside: new disk");
        scene.restart();
    }
    // Before it has spoken to this coordinator.
    assert_eq!(release_agent(&mut scene, 0), Some(Answer::AgentReleased));
    scene.says(0);
    assert!(scene.assigned(0).is_some(), "it goes on at once");
    scene.restart();
    scene.says(0);
    assert_eq!(scene.agent(0).state, "online");
    assert_eq!(quarantine_facts(&scene), 2);
}

#[test]
fn a_failing_agent_is_shown_and_released_with_its_count() {
    let mut scene = Scene::new(Config::default(), 8);
    scene.submit(job());
    let fails = |_: usize, it: &Assignment| match it.work {
        Work::Build(_) => broken("no luck"),
        _ => done(it),
    };
    // Width one to an agent: with several there are several builds.
    let mut rounds = 0;
    while scene.farm.agents().iter().all(|it| it.state != "quarantined") {
        rounds += 1;
        assert!(rounds < 40, "an agent that fails all is not set aside");
        scene.round(4, |index, it| if index == 0 { fails(index, it) } else { broken("another") });
    }
    let aside = (0..4).find(|&index| scene.agent(index).state == "quarantined").expect("one is");
    let view = scene.agent(aside);
    assert!(view.reason.starts_with("3 items failed in a row, last: "), "{}", view.reason);
    let (since, until) = view.since.zip(view.until).expect("both are known");
    assert!(since <= scene.now && until > scene.now);
    assert_eq!(release_agent(&mut scene, aside), Some(Answer::AgentReleased));
    let view = scene.agent(aside);
    assert_eq!((view.state, view.reason.as_str(), view.since), ("online", "", None));
}

/// Until nothing happens any more, with a build that fails wherever it goes.
fn poisoned(scene: &mut Scene, is_poison: impl Fn(&Assignment) -> bool) {
    for _ in 0..300 {
        scene.round(3, |_, it| if is_poison(it) { broken("poison") } else { done(it) });
    }
}

fn builds(it: &Assignment, index: u32) -> bool {
    matches!(&it.work, Work::Build(work) if work.revision == commit_id(index) && work.patches.is_empty())
}

#[test]
fn what_a_revision_lacks_is_shown_released_and_decides_then() {
    let mut scene = Scene::new(Config::default(), 8);
    // Nor would its revert.
    scene.faults.conflicts = 100;
    let id = scene.submit(job());
    assert_eq!(refusal(release(&mut scene, &id, "x")), "job 1 has nothing in quarantine");
    // Without it nobody can tell the culprit from its parent.
    poisoned(&mut scene, |it| builds(it, CULPRIT));
    let view = scene.job(&id);
    let given_up = view.given_up.first().expect("it was given up").clone();
    assert_eq!(given_up.revision, Some(commit_id(CULPRIT)));
    assert!(given_up.reason.contains("poison"), "{given_up:?}");
    let (_, end) = view.ended.expect("it has ended");
    assert_eq!(end.culprit, None, "{end:?}");
    scene.restart();
    assert_eq!(scene.job(&id).given_up, std::slice::from_ref(&given_up), "it is known after a restart");

    let why = refusal(release(&mut scene, &id, "build:000"));
    assert!(why.starts_with("what: ") && why.contains(&given_up.item), "{why}");
    let name = commit_id(CULPRIT).to_string();
    let before = scene.facts.len();
    let released = Some(Answer::Released { items: vec![given_up.item.clone()] });
    assert_eq!(release(&mut scene, &id, &name[..10]), released);
    let is_it = |fact: &Fact| matches!(fact, Fact::Quarantine(QuarantineFact::ItemsReleased { by, .. }) if *by == olga());
    assert!(is_it(&scene.facts[before]), "{:?}", scene.facts[before]);
    assert!(scene.job(&id).ended.is_none(), "it goes on");
    scene.restart();
    assert!(scene.job(&id).ended.is_none(), "also after a restart");
    (0..100).for_each(|_| scene.round(3, |_, it| done(it)));
    let view = scene.job(&id);
    let (_, end) = view.ended.expect("it has ended");
    assert_eq!(end.culprit, Some(commit_id(CULPRIT)), "{end:?}");
    assert_eq!(view.given_up, []);
}

#[test]
fn a_run_given_up_in_an_open_job_is_tried_again_from_nothing() {
    let mut scene = Scene::new(Config::default(), 8);
    let id = scene.submit(job());
    let is_poison = |it: &Assignment| matches!(it.item, ItemKey::Run(_, 1));
    let mut rounds = 0;
    while scene.job(&id).given_up.is_empty() {
        rounds += 1;
        assert!(rounds < 200 && scene.job(&id).ended.is_none(), "no run was given up");
        scene.round(3, |_, it| if is_poison(it) { broken("poison") } else { done(it) });
    }
    let given_up = scene.job(&id).given_up[0].clone();
    assert_eq!((given_up.failures, given_up.agents.len() >= 2), (3, true), "{given_up:?}");
    assert!(given_up.since.is_some_and(|at| at <= scene.now));
    let item = given_up.item.clone();
    assert_eq!(release(&mut scene, &id, &item), Some(Answer::Released { items: vec![item.clone()] }));
    assert!(scene.job(&id).given_up.iter().all(|it| it.item != item), "its failures count from nothing");
    refusal(release(&mut scene, &id, &item));
    (0..200).for_each(|_| scene.round(3, |_, it| done(it)));
    let (_, end) = scene.job(&id).ended.expect("it has ended");
    assert_eq!(end.culprit, Some(commit_id(CULPRIT)));
}

#[test]
fn a_job_blocked_by_its_toolchain_goes_on_once_that_is_released() {
    let mut scene = Scene::new(Config::default(), 8);
    let id = scene.submit(job());
    poisoned(&mut scene, |it| matches!(it.work, Work::Toolchain { .. }));
    // What another job waits for does not keep the farm from forgetting what this one gave up.
    for restarts in 0..2 {
        let view = scene.job(&id);
        assert_eq!(view.ended.as_ref().map(|(_, end)| end.kind.as_str()), Some("blocked"));
        let items: Vec<&str> = view.given_up.iter().map(|it| it.item.as_str()).collect();
        assert_eq!(items, ["toolchain:gcc"], "{restarts}");
        assert_eq!(view.given_up[0].reason, "poison (internal)");
        scene.restart();
    }
    let item = "toolchain:gcc".to_owned();
    assert_eq!(release(&mut scene, &id, &item), Some(Answer::Released { items: vec![item] }));
    (0..100).for_each(|_| scene.round(3, |_, it| done(it)));
    let (_, end) = scene.job(&id).ended.expect("it has ended");
    assert_eq!(end.culprit, Some(commit_id(CULPRIT)));
    assert_eq!(refusal(release(&mut scene, &id, "toolchain:gcc")), "job 1 has nothing in quarantine");
    assert_eq!(release(&mut scene, &"77".parse().expect("an id"), "x"), Some(Answer::UnknownJob));
}
