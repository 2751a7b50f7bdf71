//! Revisions that do not build or boot for reasons of their own: known fixes, symbols switched
//! off, and what jobs tell each other.

mod farm_support;

use farm_support::{Faults, World, commit_id, index_of, job};
use kulprit_common::access::Principal;
use kulprit_common::bisect::Role;
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::{Fact, Judged};
use kulprit_common::farm::item::{ItemKey, Work};
use kulprit_common::farm::{Config, Farm};
use kulprit_common::id::{AgentId, JobId};
use kulprit_common::job::{Backport, Job, Machine, Repairs, SwitchedOff};
use kulprit_common::patch::Patch;
use kulprit_common::time::Timestamp;
use kulprit_common::verdict::Verdict;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const REGION: (u32, u32) = (8, 32);

fn in_region(index: u32) -> bool {
    (REGION.0..REGION.1).contains(&index)
}

/// A job with its own reproducer arguments, so that no run is another job's.
fn job_with(args: &str, backports: Option<Vec<Backport>>) -> Job {
    let mut job = job();
    job.reproducer.args = vec![args.into()];
    job.repairs.backports = backports;
    job
}

fn mend() -> Backport {
    let (fix, breaks) = (REGION.1.to_string(), Some(REGION.0.to_string()));
    Backport { fix, title: Some("mend it".into()), breaks, is_farms: false }
}

fn judged<'a>(world: &'a World, job: &'a JobId) -> impl Iterator<Item = &'a Judged> {
    world.facts.iter().filter_map(move |fact| match fact {
        Fact::Judged { id, judged } if id == job => Some(&**judged),
        _ => None,
    })
}

fn culprit_of(world: &World, job: &JobId) -> u32 {
    let (_, end) = world.job(job).ended.expect("it ends");
    index_of(&end.culprit.unwrap_or_else(|| panic!("{}: {}", end.kind, end.message)))
}

#[test]
fn a_known_fix_is_put_in_where_it_is_missing_and_nowhere_else() {
    for seed in 0..20 {
        let faults = Faults { broken: REGION, restart_permille: 4, conflicts: 30, ..Faults::default() };
        let mut world = World::new(seed, 40, 3, faults);
        world.culprit = [12, 18, 23, 27, 8, 31][seed as usize % 6];
        let job = world.submit_job("request", job_with("a", Some(vec![mend()])));
        world.run(DAY);
        assert_eq!(culprit_of(&world, &job), world.culprit, "seed {seed}");
        for judged in judged(&world, &job) {
            // A verdict without runs was only concluded.
            let concluded = judged.runs.is_empty() && judged.judgement.verdict != Verdict::Skip;
            if matches!(judged.judgement.role, Role::Revert(_)) || concluded {
                continue;
            }
            let index = index_of(&judged.judgement.revision);
            let (missing, applies) = (in_region(index), !index.is_multiple_of(5));
            let pick = [Patch::Pick(commit_id(REGION.1))];
            assert_eq!(judged.recipe.patches == pick, missing && applies, "{index}: {:?}", judged.recipe);
            let broken = judged.judgement.verdict == Verdict::Skip;
            assert_eq!(broken, missing && !applies, "{index}: {:?}", judged.judgement);
            assert_eq!(judged.recipe.remarks.len(), usize::from(missing), "{index}");
        }
        let log = world.farm.log(&job).expect("known");
        assert!(log.contains("# put in: mend it\n"), "{log}");
    }
}

/// Runs two jobs one after the other in a world whose middle is broken; the second is `other`.
fn after_another(faults: Faults, seed: u64, other: Job) -> (World, JobId, JobId) {
    let mut world = World::new(seed, 60, 2, faults);
    world.culprit = 50;
    let first = world.submit_job("one", job_with("a", None));
    world.run(DAY);
    world.restart();
    let second = world.submit_job("two", other);
    world.run(DAY);
    for job in [&first, &second] {
        assert_eq!(culprit_of(&world, job), 50);
    }
    (world, first, second)
}

fn skipped(world: &World, job: &JobId) -> Vec<u32> {
    let skips = judged(world, job).filter(|it| it.judgement.verdict == Verdict::Skip);
    let skips = skips.filter(|judged| !matches!(judged.judgement.role, Role::Revert(_)));
    skips.map(|judged| index_of(&judged.judgement.revision)).collect()
}

#[test]
fn what_broke_in_one_job_is_known_to_the_next() {
    for (builds_at_least, seed) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let faults = Faults { broken: (12, 46), builds_at_least, ..Faults::default() };
        let (world, first, second) = after_another(faults, seed, job_with("b", None));
        let (before, after) = (skipped(&world, &first), skipped(&world, &second));
        assert!(!before.is_empty(), "the first job met nothing broken");
        assert!(after.iter().all(|index| !before.contains(index)), "{before:?} {after:?}");
        assert!(after.len() < before.len(), "{before:?} {after:?}");
        let note = match before.len() {
            1 => "# one revision was known from another job not to build or boot".into(),
            n => format!("# {n} revisions were known from other jobs not to build or boot"),
        };
        let log = world.farm.log(&second).expect("known");
        assert!(log.lines().any(|line| line == note), "{note}\n{log}");
        assert!(!world.farm.log(&first).expect("known").contains("from another job"));
    }
}

#[test]
fn what_is_another_kernel_or_another_machine_is_not_known() {
    let mut config = job_with("b", None);
    config.kernel.make_args = vec!["W=1".into()];
    let fixes = Some(vec![Backport { fix: "59".into(), breaks: Some("58".into()), ..mend() }]);
    let machine = Machine { memory_mib: 300, ..job().machine };
    for (builds_at_least, other) in
        [(false, config), (false, job_with("b", fixes)), (true, Job { machine, ..job_with("b", None) })]
    {
        let faults = Faults { broken: (12, 46), builds_at_least, ..Faults::default() };
        let (world, _, second) = after_another(faults, 1, other);
        assert!(!skipped(&world, &second).is_empty());
        assert!(!world.farm.log(&second).expect("known").contains("not to build or boot"));
    }
}

#[test]
fn all_kernels_of_a_job_are_configured_alike() {
    let rule = SwitchedOff { disable: vec!["CONFIG_A".into()], before: "v5.10".parse().expect("one") };
    let text = "# CONFIG_A is not set\n";
    let release = |text: &str| text.parse().ok();
    for (good, oldest, off) in [
        (release("v5.4"), None, true),
        (release("v5.10"), None, false),
        (release("v5.9.3"), None, true),
        (None, None, false),
        (None, release("v4.19"), true),
        (None, release("v6.1"), false),
    ] {
        let mut world = World::new(3, 40, 2, Faults::default());
        world.culprit = 30;
        world.good_release = good;
        world.releases = oldest.map(|oldest| farm_support::tagged(5, oldest)).into_iter().collect();
        let mut job = job();
        job.good = oldest.is_none().then(|| "v1.0".into());
        job.repairs.configs = Some(vec![rule.clone()]);
        let job = world.submit_job("request", job);
        let agents: Vec<AgentId> = ["agent-0", "agent-1"].map(|name| name.parse().expect("a name")).into();
        let mut kernels = Vec::new();
        while world.job(&job).ended.is_none() {
            world.run(Duration::from_millis(250));
            for assigned in agents.iter().flat_map(|agent| world.farm.desired(agent).assignments) {
                if let (ItemKey::Build(_), Work::Build(work)) = (&assigned.item, assigned.work) {
                    kernels.push(work.kernel);
                }
            }
        }
        assert_eq!(culprit_of(&world, &job), 30);
        assert!(!kernels.is_empty());
        for kernel in &kernels {
            let texts: Vec<&str> = kernel.fragments.iter().map(|it| it.text.as_str()).collect();
            assert_eq!(texts, if off { vec![text] } else { vec![] }, "{good:?} {oldest:?}");
        }
        let said = "# switched off in all kernels, since the range reaches below v5.10: CONFIG_A\n";
        assert_eq!(world.farm.log(&job).expect("known").contains(said), off, "{good:?} {oldest:?}");
    }
}

#[test]
fn a_job_takes_the_farms_lists_as_they_are_when_it_is_submitted() {
    let repairs = Repairs { backports: Some(vec![mend()]), configs: None };
    let (mut farm, _) = Farm::restore(Config { repairs, ..Config::default() }, [], Timestamp(1));
    for (request, own, expected) in [("a", None, 1), ("b", Some(vec![]), 0)] {
        let reproducer =
            kulprit_common::artifact::Artifact { digest: kulprit_common::id::Digest::of(b"r"), size: 1 };
        let job = Box::new(job_with("a", own));
        let actions = farm.handle(
            Timestamp(2),
            Event::Submitted { request: request.into(), job, reproducer, by: Principal::Local },
        );
        let submitted = actions.iter().find_map(|action| match action {
            kulprit_common::farm::action::Action::Record(Fact::JobSubmitted { job, .. }) => Some(job),
            _ => None,
        });
        assert_eq!(submitted.expect("a fact").repairs.backports().len(), expected);
    }
}
