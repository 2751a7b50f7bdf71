//! What open jobs need is never let go, and what has gone is made again.

mod farm_support;

use farm_support::scene::Scene;
use farm_support::{Faults, carry_out, job};
use kulprit_common::access::Principal;
use kulprit_common::farm::Config;
use kulprit_common::farm::action::{Answer, Assignment};
use kulprit_common::farm::artifacts::of_work;
use kulprit_common::farm::event::{ArtifactsEvent, Event};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::id::{Digest, JobId};
use kulprit_common::outcome::AttemptEnd;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const CULPRIT: u32 = 5;

fn remove(scene: &mut Scene, digests: BTreeSet<Digest>) -> BTreeSet<Digest> {
    let by: Principal = "operator/olga".parse().expect("an operator");
    match scene.tell(Event::Artifacts(ArtifactsEvent::ToRemove { digests, by })) {
        Some(Answer::Gone(gone)) => gone,
        other => panic!("{other:?}"),
    }
}

fn lose(scene: &mut Scene, digests: BTreeSet<Digest>) {
    scene.tell(Event::Artifacts(ArtifactsEvent::Lost(digests)));
}

fn all(scene: &Scene) -> BTreeSet<Digest> {
    scene.farm.known_artifacts().into_keys().collect()
}

/// Works for as many rounds as the job is open; before each, something may be done.
fn work(scene: &mut Scene, id: &JobId, mut before: impl FnMut(&mut Scene, usize)) {
    for round in 0..400 {
        if scene.job(id).ended.is_some() {
            return;
        }
        before(scene, round);
        scene.round(2, |_, it| AttemptEnd::Done(carry_out(it, CULPRIT, &Faults::default())));
    }
    panic!("no end: {:?}", scene.job(id));
}

fn built(scene: &Scene) -> BTreeMap<ItemKey, usize> {
    let mut times = BTreeMap::new();
    for fact in &scene.facts {
        if let Fact::ItemFinished { item: item @ ItemKey::Build(_), .. } = fact {
            *times.entry(item.clone()).or_default() += 1;
        }
    }
    times
}

fn culprit(scene: &Scene, id: &JobId) -> String {
    let ended = scene.job(id).ended.expect("it has ended");
    format!("{:?}", ended.1.culprit)
}

/// The same kernels, booted longer: runs of before are of no use.
fn slower() -> kulprit_common::job::Job {
    let mut job = job();
    job.timeouts.settle_ms += 1;
    job
}

#[test]
fn what_an_open_job_needs_stays() {
    let mut scene = Scene::new(Config::default(), 12);
    let id = scene.submit(job());
    let mut gone = BTreeSet::new();
    work(&mut scene, &id, |scene, round| {
        let asked = all(scene);
        gone.extend(remove(scene, asked));
        if round % 7 == 3 {
            scene.restart();
        }
    });
    assert!(culprit(&scene, &id).starts_with("Some"), "{}", culprit(&scene, &id));
    assert_eq!(gone, BTreeSet::new(), "all that is known is of the one job");
    assert!(built(&scene).values().all(|times| *times == 1), "nothing is made twice");
}

#[test]
fn what_an_agent_has_in_hand_stays() {
    let mut scene = Scene::new(Config::default(), 12);
    let id = scene.submit(job());
    let mut checked = 0;
    work(&mut scene, &id, |scene, _| {
        (0..2).for_each(|index| _ = scene.says(index));
        let held: Vec<Assignment> = (0..2).filter_map(|index| scene.assigned(index)).collect();
        for held in held {
            let asked: BTreeSet<Digest> = of_work(&held.work).into_iter().map(|(_, it)| it.digest).collect();
            checked += asked.len();
            assert_eq!(remove(scene, asked), BTreeSet::new(), "{}", held.item);
        }
    });
    assert!(checked > 10, "{checked}");
}

#[test]
fn what_has_gone_with_an_old_job_is_made_again_for_a_new_one() {
    let mut scene = Scene::new(Config::default(), 12);
    let first = scene.submit(job());
    work(&mut scene, &first, |_, _| {});
    let before = built(&scene);
    let asked = all(&scene);
    assert_eq!(remove(&mut scene, asked.clone()), asked, "nobody needs anything");
    let forgotten = scene.facts.iter().any(|fact| matches!(fact, Fact::ProductsForgotten { .. }));
    assert!(forgotten, "it is a fact");
    scene.restart();
    let second = scene.submit(slower());
    work(&mut scene, &second, |_, _| {});
    assert_eq!(culprit(&scene, &second), culprit(&scene, &first));
    let again = built(&scene).into_iter().filter(|(key, times)| before.contains_key(key) && *times == 2);
    assert!(again.count() >= 2, "{before:?}");
    // What an old job came to is shown as it was.
    assert!(scene.farm.log(&first).expect("its log").contains("culprit"));
}

#[test]
fn what_is_lost_under_an_open_job_is_made_again() {
    let mut scene = Scene::new(Config { second_looks: 0.0, ..Config::default() }, 12);
    let id = scene.submit(job());
    let is_run = |it: &Assignment| matches!(it.work, Work::Run(_));
    let mut lost = 0;
    work(&mut scene, &id, |scene, round| {
        scene.says(0);
        if let Some(run) = scene.assigned(0).filter(|it| is_run(it) && round % 5 == 0) {
            lost += 1;
            let Work::Run(work) = &run.work else { unreachable!("it is a run") };
            lose(scene, BTreeSet::from([work.kernel.digest]));
            assert_eq!(scene.farm.revoked(&farm_support::scene::agent(0), &[run.attempt]), [run.attempt]);
            scene.pass(60);
        }
    });
    assert!(lost > 0 && built(&scene).values().any(|times| *times > 1), "{lost}");
    assert!(culprit(&scene, &id).starts_with("Some"));
    let unknown = BTreeSet::from([Digest::of(b"nobody's")]);
    let facts = scene.facts.len();
    lose(&mut scene, unknown);
    assert_eq!(scene.facts.len(), facts, "what no fact names is no fact");
    scene.pass(Duration::from_secs(1).as_secs());
}
