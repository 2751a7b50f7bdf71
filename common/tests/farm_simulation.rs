//! The farm under faults, in virtual time: the right answer, nothing counted twice, nothing lost.

mod farm_support;

use farm_support::{BREAKS, Faults, World, commit_id, job};
use kulprit_common::access::{AccessEvent, Principal};
use kulprit_common::bisect::Role;
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::history::TaggedRelease;
use kulprit_common::id::{AgentId, JobId, RevisionId, Session};
use kulprit_common::job::{Job, Machine, Reproducer, Symptom, ToolchainChoice};
use kulprit_common::outcome::{AttemptEnd, Product, ReproducerOutcome};
use kulprit_common::verdict::Verdict;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Runs one job in a world and checks everything that must hold whatever went wrong.
fn check(seed: u64, agents: usize, faults: Faults) -> World {
    let mut world = World::new(seed, 40, agents, faults);
    let job = world.submit("request");
    world.run(DAY);
    let view = world.job(&job);
    let (_, end) =
        view.ended.unwrap_or_else(|| panic!("seed {seed}: {} for a day: {}", view.stage, view.detail));
    let culprit = end.culprit;
    assert_eq!(culprit, Some(commit_id(world.culprit)), "seed {seed}: {} {}", end.kind, end.message);
    for (item, times) in &world.recorded {
        assert_eq!(*times, 1, "seed {seed}: {item} was counted {times} times");
    }
    world
}

#[test]
fn a_calm_farm_finds_the_culprit_with_any_number_of_agents() {
    for agents in [1, 2, 5, 16] {
        for seed in 0..10 {
            check(seed, agents, Faults::default());
        }
    }
}

#[test]
fn lost_repeated_and_reordered_messages_change_nothing() {
    for seed in 0..150 {
        check(seed, 3, Faults { lost: 20, repeated: 20, delay_ms: 4000, ..Faults::default() });
    }
}

#[test]
fn dying_agents_only_cost_time() {
    for seed in 0..100 {
        check(seed, 3, Faults { agent_death_permille: 10, lost: 5, delay_ms: 500, ..Faults::default() });
    }
}

#[test]
fn a_coordinator_that_dies_again_and_again_loses_nothing() {
    for seed in 0..100 {
        check(seed, 3, Faults { restart_permille: 15, lost: 5, delay_ms: 500, ..Faults::default() });
    }
}

#[test]
fn infra_failures_never_become_a_verdict() {
    for seed in 0..100 {
        let mut world = World::new(seed, 40, 3, Faults { infra: 15, ..Faults::default() });
        let job = world.submit("request");
        world.run(DAY);
        let (_, end) = world.job(&job).ended.expect("every job ends");
        // An item may be given up; then there are suspects or a block, but no wrong culprit.
        match end.culprit {
            Some(found) => assert_eq!(found, commit_id(world.culprit), "seed {seed}"),
            None => assert!(["suspects", "blocked"].contains(&end.kind.as_str()), "seed {seed}: {end:?}"),
        }
    }
}

/// Tells the farm a word on a revision, and what the job ends with then.
fn overrule(world: &mut World, job: &JobId, revision: &str, word: Option<Verdict>) -> Option<RevisionId> {
    let event =
        Event::OverruleRequested { job: job.clone(), revision: revision.into(), word, by: Principal::Local };
    let answer = world.tell(event);
    assert!(matches!(answer, Some(Answer::Overruled { .. })), "{answer:?}");
    world.run(DAY);
    world.job(job).ended.and_then(|(_, end)| end.culprit)
}

#[test]
fn an_operators_word_outlives_restarts_and_can_be_taken_back() {
    let (mut overruled, mut doubted) = (0, 0);
    for seed in 0..40 {
        let mut world = check(seed, 2, Faults::default());
        let job: JobId = "1".parse().expect("an id");
        if world.culprit + 1 >= world.commits {
            continue;
        }
        overruled += 1;
        let (culprit, next) = (commit_id(world.culprit), commit_id(world.culprit + 1));
        let name = culprit.to_string();
        let found = overrule(&mut world, &job, &name[..12], Some(Verdict::Good));
        // The kernel that crashes without the next commit too may have been run: then the word is doubted.
        if found.is_none() {
            doubted += 1;
            let (_, end) = world.job(&job).ended.expect("every job ends");
            assert!(end.message.contains(&format!("{next} shows the crash as well")), "seed {seed}: {end:?}");
        } else {
            assert_eq!(found, Some(next), "seed {seed}");
        }
        let rendered = world.farm.rendered(&job).expect("ended");
        assert!(rendered.summary.contains("by an operator's word, not by runs"), "{}", rendered.summary);
        assert!(rendered.summary.contains("AGAINST its runs"), "{}", rendered.summary);
        let said = format!("# an operator says that {culprit} does not show the crash\n");
        assert!(rendered.log.contains(&said), "{}", rendered.log);
        world.restart();
        assert_eq!(world.job(&job).ended.and_then(|(_, end)| end.culprit), found, "seed {seed}");
        world.faults = Faults { restart_permille: 15, lost: 5, delay_ms: 500, ..Faults::default() };
        assert_eq!(overrule(&mut world, &job, &name, None), Some(culprit), "seed {seed}");
        let rendered = world.farm.rendered(&job).expect("ended");
        let back = format!("# what an operator said of {culprit} is taken back; the search goes on\n");
        let (at, back) = (rendered.log.find(&said), rendered.log.find(&back));
        assert!(at.is_some() && at < back, "{}", rendered.log);
        assert!(!rendered.summary.contains("operator"), "{}", rendered.summary);
        let views = world.job(&job).revisions;
        assert!(views.iter().all(|view| view.role != "overruled"), "seed {seed}: {views:?}");
        // What had been built is not built again.
        for (item, times) in &world.recorded {
            assert_eq!(*times, 1, "seed {seed}: {item} was counted {times} times");
        }
    }
    assert!(overruled > 30 && doubted < 4, "{overruled}, {doubted} doubted");
}

#[test]
fn a_revert_that_was_refused_is_refused_to_the_next_search_too() {
    for seed in 0..15 {
        let mut world = check(seed, 2, Faults { conflicts: 100, ..Faults::default() });
        let job: JobId = "1".parse().expect("an id");
        let name = commit_id(world.culprit).to_string();
        overrule(&mut world, &job, &name, Some(Verdict::Good));
        assert!(world.job(&job).ended.is_some(), "seed {seed}: it waits for a revert");
        assert_eq!(overrule(&mut world, &job, &name, None), Some(commit_id(world.culprit)), "seed {seed}");
    }
}

#[test]
fn a_word_in_the_middle_of_a_search_turns_it() {
    let (mut turned, mut believed) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, 40, 3, Faults::default());
        let job = world.submit("request");
        while world.job(&job).suspects_left.is_none() {
            world.run(Duration::from_secs(10));
        }
        world.run(Duration::from_secs(30));
        if world.job(&job).ended.is_some() || world.culprit < 4 {
            continue;
        }
        // Wrong, and against all runs: the operator is believed.
        let told = commit_id(world.culprit - 2).to_string();
        let event = Event::OverruleRequested {
            job: job.clone(),
            revision: told.clone(),
            word: Some(Verdict::Bad),
            by: Principal::Local,
        };
        let answer = world.tell(event);
        assert!(matches!(answer, Some(Answer::Overruled { .. })), "seed {seed}: {answer:?}");
        world.run(DAY);
        let (_, end) = world.job(&job).ended.expect("every job ends");
        turned += 1;
        // Where a reverted kernel contradicts the word, nobody is named; never what it rules out.
        match end.culprit.map(|id| id.to_string()) {
            Some(named) => assert_eq!(named, told, "seed {seed}: {end:?}"),
            None => assert_eq!(end.kind, "suspects", "seed {seed}: {end:?}"),
        }
        believed += u32::from(end.culprit.is_some());
    }
    assert!(turned > 5 && believed * 3 >= turned * 2, "{believed} of {turned}");
}

/// A wrong word can leave one commit only, whatever the runs say: the ending says what it rests on.
#[test]
fn an_ending_that_rests_on_a_word_says_so() {
    for seed in 0..10 {
        let mut world = check(seed, 2, Faults::default());
        let job: JobId = "1".parse().expect("an id");
        let good = farm_support::job().good.expect("the job names its good end");
        overrule(&mut world, &job, &good, Some(Verdict::Bad));
        let rendered = world.farm.rendered(&job).expect("ended");
        let good = commit_id(0);
        let line = format!("by an operator's word, not by runs: {} shows the crash", good.short());
        assert!(rendered.summary.contains(&line), "{}", rendered.summary);
        let unsay = format!("kulprit bisect overrule 1 {} unsay", good.short());
        assert!(rendered.summary.contains(&unsay), "{}", rendered.summary);
        let json: serde_json::Value = serde_json::from_str(&rendered.json).expect("it is JSON");
        let expected = serde_json::json!([{ "revision": good, "verdict": "bad" }]);
        assert_eq!(json["overruled"], expected);
    }
}

#[test]
fn words_that_cannot_be_taken_are_refused_and_change_nothing() {
    let mut world = check(3, 2, Faults::default());
    let facts = world.facts.len();
    for (job, revision, word, why) in [
        ("9", "0000000", Some(Verdict::Good), "UnknownJob"),
        ("1", "v6.1", Some(Verdict::Good), "neither the job's good end, nor a release tag"),
        ("1", "00000", Some(Verdict::Good), "neither the job's good end, nor a release tag"),
        ("1", "0000000", Some(Verdict::Good), "give more digits"),
        ("1", "ffffffffffff", Some(Verdict::Good), "none of those that job 1 tested"),
        ("1", &commit_id(40).to_string(), Some(Verdict::Good), "the bad end"),
        ("1", &farm_support::job().bad, Some(Verdict::Good), "the bad end"),
        ("1", &commit_id(world.culprit).to_string(), None, "nobody has overruled"),
    ] {
        let event = Event::OverruleRequested {
            job: job.parse().expect("an id"),
            revision: revision.into(),
            word,
            by: Principal::Local,
        };
        let answer = format!("{:?}", world.tell(event));
        assert!(answer.contains(why), "{revision}: {answer}");
    }
    assert_eq!(world.facts.len(), facts);
}

#[test]
fn a_full_disk_only_sets_its_agent_aside() {
    for seed in 0..10 {
        check(seed, 3, Faults { full_disks: 1, ..Faults::default() });
    }
}

#[test]
fn with_every_disk_full_a_job_waits_and_goes_on_when_there_is_room() {
    let mut world = World::new(5, 40, 2, Faults { full_disks: 2, ..Faults::default() });
    let job = world.submit("request");
    world.run(DAY);
    let waiting = world.job(&job);
    assert!(waiting.ended.is_none(), "{:?}", waiting.ended);
    assert!(world.farm.agents().iter().all(|agent| agent.state == "quarantined" && !agent.reason.is_empty()));
    world.faults.full_disks = 0;
    world.run(DAY);
    let (_, end) = world.job(&job).ended.expect("there is room now");
    assert_eq!(end.culprit, Some(commit_id(world.culprit)));
}

#[test]
fn a_restarted_coordinator_grants_once_all_agents_have_spoken() {
    let mut world = World::new(8, 40, 2, Faults::default());
    let job = world.submit("request");
    world.run(Duration::from_secs(60));
    world.kill(0);
    world.kill(1);
    world.restart();
    world.run(Duration::from_secs(3));
    assert!(world.job(&job).ended.is_none());
    assert_ne!(world.farm.last_attempt().0 & 0xffff_ffff, 0, "nothing was granted");
}

#[test]
fn a_restarted_coordinator_waits_for_an_agent_it_has_not_heard() {
    let mut world = World::new(8, 40, 2, Faults::default());
    world.submit("request");
    world.run(Duration::from_secs(60));
    world.faults.lost = 100;
    world.restart();
    world.run(Duration::from_secs(29));
    assert_eq!(world.farm.last_attempt().0 & 0xffff_ffff, 0, "granted to whom?");
    let went =
        |world: &World| world.facts.iter().filter(|fact| matches!(fact, Fact::AgentWent { .. })).count();
    assert_eq!(went(&world), 0);
    world.run(Duration::from_secs(2));
    assert_eq!(went(&world), 2);
}

#[test]
fn everything_at_once() {
    let faults = Faults {
        lost: 10,
        repeated: 10,
        delay_ms: 3000,
        agent_death_permille: 5,
        restart_permille: 5,
        infra: 0,
        full_disks: 1,
        conflicts: 30,
        idle: 20,
        ..Faults::default()
    };
    for seed in 0..150 {
        check(seed, 4, faults);
    }
}

/// The last line of the log that says how the bad end fared without the culprit.
fn reverted_line(world: &World, job: &JobId) -> Option<String> {
    let log = world.farm.log(job).expect("known");
    log.lines().find(|line| line.starts_with("# with it reverted on top of")).map(str::to_owned)
}

#[test]
fn the_bad_end_is_tried_without_the_culprit_where_that_applies() {
    let mut tried = [0, 0];
    for seed in 0..40 {
        let faults = Faults { conflicts: 50, idle: 30, restart_permille: 5, ..Faults::default() };
        let mut world = World::new(seed, 40, 3, faults);
        world.merges = true;
        let job = world.submit("request");
        world.run(DAY);
        let (_, end) = world.job(&job).ended.expect("it ends");
        assert_eq!(end.culprit, Some(commit_id(world.culprit)), "seed {seed}: {}", end.message);
        let applies = !world.culprit.is_multiple_of(7) && !faults.conflicts(world.culprit);
        let line = reverted_line(&world, &job);
        assert_eq!(line.is_some(), applies, "seed {seed}: {line:?}");
        assert!(line.is_none_or(|line| line.contains(": 0 of ")), "seed {seed}");
        tried[usize::from(applies)] += 1;
    }
    assert!(tried.iter().all(|times| *times > 5), "{tried:?}");
}

#[test]
fn a_revert_that_does_not_apply_is_said_so_and_costs_nothing() {
    let mut world = World::new(3, 40, 3, Faults { conflicts: 100, ..Faults::default() });
    world.merges = true;
    let job = world.submit("request");
    world.run(DAY);
    let log = world.farm.log(&job).expect("known");
    assert!(!world.orders.is_empty());
    let unpatched = |fact: &Fact| match fact {
        Fact::Judged { judged, .. } if matches!(judged.judgement.role, Role::Revert(_)) => {
            judged.build.is_none() && judged.runs.is_empty() && judged.judgement.verdict == Verdict::Skip
        }
        _ => true,
    };
    assert!(world.facts.iter().all(unpatched));
    let why = "cannot be judged (it conflicts in f.c)";
    assert!(log.lines().any(|line| line.starts_with("# revert of ") && line.ends_with(why)), "{log}");
}

#[test]
fn a_merge_is_not_reverted_and_git_is_not_asked() {
    let mut world = World::new(3, 40, 3, Faults::default());
    (world.merges, world.culprit) = (true, 14);
    let job = world.submit("request");
    world.run(DAY);
    assert_eq!(world.job(&job).ended.expect("it ends").1.culprit, Some(commit_id(14)));
    let line = format!(
        "# revert of {} on top of {}: cannot be judged (a merge cannot be reverted)",
        commit_id(14),
        commit_id(40)
    );
    let log = world.farm.log(&job).expect("known");
    assert!(log.lines().any(|it| it == line), "{log}");
}

#[test]
fn a_replay_names_commits_only() {
    for seed in 0..20 {
        let world = check(seed, 4, Faults { conflicts: 20, idle: 20, ..Faults::default() });
        let job = world.farm.jobs()[0].id.clone();
        let rendered = world.farm.rendered(&job).expect("known");
        assert!(rendered.log.contains("# revert of "), "{}", rendered.log);
        for line in rendered.replay.lines().filter(|line| line.starts_with("git bisect ")) {
            for id in line.split_whitespace().map(|word| word.trim_matches('\'')).filter(|it| it.len() == 40)
            {
                let id: RevisionId = id.parse().expect("an id");
                assert_eq!(commit_id(farm_support::index_of(&id)), id, "seed {seed}: {line}");
            }
        }
    }
}

#[test]
fn two_jobs_on_one_history_share_every_build_and_run() {
    let mut world = World::new(7, 40, 2, Faults::default());
    let (first, second) = (world.submit("one"), world.submit("two"));
    world.run(DAY);
    for job in [&first, &second] {
        let (_, end) = world.job(job).ended.expect("it ends");
        assert_eq!(end.culprit, Some(commit_id(world.culprit)));
    }
    assert!(world.built.values().all(|times| *times == 1), "{:?}", world.built);
}

#[test]
fn a_restart_builds_nothing_again_and_readopts_what_is_in_hand() {
    for seed in 0..20 {
        let mut world = World::new(seed, 40, 2, Faults::default());
        let job = world.submit("request");
        for _ in 0..6 {
            world.run(Duration::from_secs(67));
            world.restart();
        }
        world.run(DAY);
        assert!(world.job(&job).ended.is_some());
        assert!(world.built.values().all(|times| *times == 1), "seed {seed}: {:?}", world.built);
    }
}

#[test]
fn the_log_only_grows_over_restarts() {
    let mut world = World::new(3, 40, 2, Faults::default());
    let job = world.submit("request");
    let mut log = String::new();
    while world.job(&job).ended.is_none() {
        world.run(Duration::from_secs(100));
        world.restart();
        let longer = world.farm.log(&job).expect("known");
        assert!(longer.starts_with(&log), "before:\n{log}\nafter:\n{longer}");
        log = longer;
    }
    assert!(log.contains("is the first bad commit"), "{log}");
    assert!(log.contains(farm_support::RECIPIENTS), "{log}");
}

#[test]
fn the_reasons_for_every_step_outlive_restarts() {
    for (seed, agents) in [(3, 1), (4, 2), (5, 8)] {
        let mut world = World::new(seed, 200, agents, Faults::default());
        let job = world.submit("request");
        let mut told: Vec<Value> = Vec::new();
        while world.job(&job).ended.is_none() {
            world.run(Duration::from_secs(100));
            let before = picks(&world, &job);
            assert_eq!(before.get(..told.len()), Some(&told[..]), "seed {seed}");
            world.restart();
            told = picks(&world, &job);
            assert_eq!(told.get(..before.len()), Some(&before[..]), "seed {seed}");
        }
        let flat: Vec<&Value> = told.iter().flat_map(|picks| picks.as_array().expect("a list")).collect();
        let report: Value =
            serde_json::from_str(&world.farm.rendered(&job).expect("known").json).expect("JSON");
        for tested in report["tested"].as_array().expect("a list") {
            let picked = flat.iter().any(|pick| pick["revision"] == tested["revision"]);
            assert!(picked, "seed {seed}: nothing was said of {}", tested["revision"]);
        }
        let once: BTreeSet<String> = flat.iter().map(|pick| pick.to_string()).collect();
        assert_eq!(once.len(), flat.len(), "seed {seed}: something was told twice: {flat:?}");
        let rendered = world.farm.rendered(&job).expect("known");
        assert!(rendered.plot.contains("class=\"culprit\""), "{}", rendered.plot);
        assert!(rendered.log.contains("# the end: 0."), "{}", rendered.log);
    }
}

/// What each round of a job picked.
fn picks(world: &World, job: &JobId) -> Vec<Value> {
    let report: Value = serde_json::from_str(&world.farm.rendered(job).expect("known").json).expect("JSON");
    report["rounds"].as_array().expect("a list").iter().map(|round| round["picks"].clone()).collect()
}

/// A world whose one job has its finding and waits for what the report is to say.
fn reporting(seed: u64) -> (World, JobId) {
    let mut world = World::new(seed, 40, 2, Faults::default());
    let job = world.submit("request");
    while world.job(&job).stage != "reporting" {
        world.run(Duration::from_millis(250));
        assert!(world.job(&job).ended.is_none(), "it was never seen reporting");
    }
    (world, job)
}

#[test]
fn a_finding_does_not_wait_for_agents_that_are_gone() {
    let (mut world, job) = reporting(5);
    world.lose_agents();
    world.run(Duration::from_secs(14 * 60));
    assert!(world.job(&job).ended.is_none(), "they may come back");
    world.run(Duration::from_secs(2 * 60));
    let (_, end) = world.job(&job).ended.expect("it ends");
    assert_eq!(end.culprit, Some(commit_id(world.culprit)));
    let log = world.farm.log(&job).expect("known");
    assert!(log.contains("# maintainers were not asked for: no agent took it"), "{log}");
    assert!(log.contains("recipients (to): [\"person@x.org\"]"), "{log}");
}

#[test]
fn cancelling_a_report_keeps_its_finding() {
    let (mut world, job) = reporting(6);
    world.tell(Event::CancelRequested { job: job.clone(), by: Principal::Local });
    let (_, end) = world.job(&job).ended.expect("it ends");
    assert_eq!(end.culprit, Some(commit_id(world.culprit)));
    assert!(world.farm.log(&job).expect("known").contains("is the first bad commit"));
}

#[test]
fn a_repeated_submission_is_the_same_job() {
    let mut world = World::new(1, 10, 1, Faults::default());
    let (first, again) = (world.submit("same"), world.submit("same"));
    assert_eq!(first, again);
    world.restart();
    assert_eq!(world.submit("same"), first);
    assert_ne!(world.submit("other"), first);
}

/// Names of releases and the commits they name, as the walk gets them.
fn tagged(releases: &[(&str, u32)]) -> Vec<TaggedRelease> {
    let one = |(tag, index): &(&str, u32)| farm_support::tagged(*index, tag.parse().expect("a release"));
    releases.iter().map(one).collect()
}

#[test]
fn a_release_that_no_toolchain_can_build_is_no_end_of_the_walk() {
    for (toolchain, kind) in
        [(ToolchainChoice::Auto, "oldest-release-has-bug"), (ToolchainChoice::Image("gcc".into()), "culprit")]
    {
        let mut world = World::new(4, 40, 2, Faults::default());
        world.culprit = 3;
        world.releases = tagged(&[("v5.4", 20), ("v4.19", 5), ("v4.18", 1)]);
        let job = world.submit_job("request", Job { toolchain, good: None, ..job() });
        world.run(DAY);
        let (_, end) = world.job(&job).ended.expect("every job ends");
        assert_eq!(end.kind, kind, "{}", end.message);
    }
}

#[test]
fn one_toolchain_serves_a_whole_job_also_where_releases_are_walked() {
    let mut world = World::new(4, 40, 2, Faults::default());
    world.releases = tagged(&[("v6.8", 30), ("v6.6", 20), ("v5.4", 1)]);
    let (toolchain, good) = (ToolchainChoice::Auto, None);
    let job = world.submit_job("request", Job { toolchain, good, ..job() });
    world.run(DAY);
    assert_eq!(world.job(&job).ended.expect("every job ends").1.kind, "culprit");
    let images: Vec<_> = world.recorded.keys().filter(|key| matches!(key, ItemKey::Toolchain(_))).collect();
    assert_eq!(images, [&ItemKey::Toolchain("kulprit/gcc-10".into())]);
}

#[test]
fn a_later_job_looks_into_the_toolchain_again() {
    let mut world = World::new(4, 40, 2, Faults::default());
    for (request, times) in [("one", 1), ("two", 2)] {
        world.submit(request);
        world.run(DAY);
        assert_eq!(world.recorded[&ItemKey::Toolchain("gcc".into())], times);
    }
}

#[test]
fn what_no_agent_can_take_says_what_is_missing() {
    let mut world = World::new(4, 40, 2, Faults::default());
    let machine = Machine { memory_mib: 65536, ..job().machine };
    let job = world.submit_job("request", Job { machine, ..job() });
    world.run(Duration::from_secs(3600));
    let view = world.job(&job);
    assert!(view.ended.is_none());
    assert!(
        view.detail.contains("65536 MiB") && view.detail.contains("machine.memory_mib"),
        "{}",
        view.detail
    );
}

/// Somebody who watches must not learn of it when the first kernel is built.
#[test]
fn agents_that_boot_no_guests_are_named_while_they_build() {
    for (symptom, is_named) in [(Symptom::Crash, true), (Symptom::Build, false)] {
        let mut world = World::new(4, 40, 2, Faults::default());
        world.boots = false;
        let job = world.submit_job("request", Job { symptom, ..job() });
        let mut seen = Vec::new();
        for _ in 0..2000 {
            world.now = world.now + Duration::from_secs(1);
            world.step();
            seen.push(world.job(&job).detail);
        }
        let named = seen.iter().any(|it| it.contains("boot guests") && it.contains("no QEMU"));
        assert_eq!(named, is_named, "{symptom:?}: {seen:?}");
        assert!(seen.iter().all(|it| it.matches("no QEMU").count() < 2), "said once: {seen:?}");
    }
}

#[test]
fn a_deadline_is_never_in_the_past() {
    for seed in 0..10 {
        let mut world = World::new(seed, 40, 2, Faults { infra: 30, lost: 10, ..Faults::default() });
        world.submit("request");
        for _ in 0..4000 {
            world.now = world.now + Duration::from_millis(250);
            world.step();
            let now = world.now;
            world.tell(Event::Tick);
            assert!(world.farm.next_deadline().is_none_or(|at| at > now), "seed {seed}: it would spin");
        }
    }
}

#[test]
fn a_product_of_another_kind_is_an_infra_failure() {
    let mut world = World::new(4, 40, 1, Faults::default());
    world.submit("request");
    let agent: AgentId = "agent-0".parse().expect("a name");
    let assigned = (0..400).find_map(|_| {
        world.now = world.now + Duration::from_millis(250);
        world.step();
        world.farm.desired(&agent).assignments.into_iter().find(|it| matches!(it.item, ItemKey::Build(_)))
    });
    let assigned = assigned.expect("a build is granted");
    let outcome = ReproducerOutcome::Failed { message: "x".into() };
    world.tell(Event::Completed {
        agent,
        session: Session(u64::MAX),
        attempt: assigned.attempt,
        item: assigned.item.clone(),
        end: Box::new(AttemptEnd::Done(Product::Reproducer(outcome))),
    });
    assert!(world.farm.product(&assigned.item).is_none());
    let failed = |fact: &Fact| matches!(fact, Fact::AttemptFailed { item, .. } if *item == assigned.item);
    assert!(world.facts.iter().any(failed));
}

#[test]
fn what_no_job_wants_any_more_is_revoked() {
    let mut world = World::new(1, 40, 2, Faults::default());
    let job = world.submit("request");
    world.run(Duration::from_secs(30));
    world.tell(Event::CancelRequested { job: job.clone(), by: Principal::Local });
    for agent in ["agent-0", "agent-1"] {
        let agent = agent.parse().expect("a name");
        assert!(world.farm.desired(&agent).assignments.is_empty());
    }
    let (_, end) = world.job(&job).ended.expect("cancelled jobs have ended");
    assert_eq!(end.kind, "cancelled");
}

/// Its syncs may have been under way, or pass a coordinator's gate for a moment.
#[test]
fn a_revoked_agent_is_given_nothing_whatever_it_says() {
    let mut world = World::new(1, 40, 2, Faults::default());
    let member = "agent/agent-1".parse().expect("a member");
    world.run(Duration::from_secs(30));
    world.tell(Event::Access(Box::new(AccessEvent::Revoke { member, by: Principal::Local })));
    let job = world.submit("request");
    world.run(DAY);
    let (_, end) = world.job(&job).ended.expect("the other agent does it all");
    assert_eq!(end.culprit, Some(commit_id(world.culprit)));
    let by = |name: &str| {
        let of = |fact: &&Fact| matches!(fact, Fact::ItemFinished { agent, .. } if agent.as_str() == name);
        world.facts.iter().filter(of).count()
    };
    assert_eq!(by("agent-1"), 0);
    assert!(by("agent-0") > 0);
}

#[test]
fn facts_are_facts_and_not_leases() {
    let world = check(5, 2, Faults::default());
    let builds =
        world.facts.iter().filter(|fact| matches!(fact, Fact::ItemFinished { item: ItemKey::Build(_), .. }));
    // log2(40) rounds of two, the ends and the certificate.
    assert!((5..=16).contains(&builds.count()), "{} facts", world.facts.len());
}

fn without_reproducer(symptom: Symptom) -> Job {
    let mut job = Job { symptom, reproducer: Reproducer::nothing(), ..job() };
    if symptom == Symptom::Build {
        job.kernel.make_args.push(BREAKS.into());
    }
    job
}

#[test]
fn a_broken_build_or_boot_is_found_without_a_reproducer() {
    let faults = Faults { restart_permille: 20, infra: 10, ..Faults::default() };
    for (symptom, seed) in
        [Symptom::Build, Symptom::Boot].into_iter().flat_map(|it| (0..25).map(move |n| (it, n)))
    {
        let mut world = World::new(seed, 40, 1 + seed as usize % 4, faults);
        let id = world.submit_job("request", without_reproducer(symptom));
        world.run(DAY);
        let (_, end) = world.job(&id).ended.unwrap_or_else(|| panic!("{symptom:?} {seed}: no end"));
        // Among the revisions that fail otherwise, the culprit may be one that cannot be told.
        let hidden = symptom == Symptom::Build && world.culprit % 7 == 3;
        if !hidden {
            assert_eq!(
                end.culprit,
                Some(commit_id(world.culprit)),
                "{symptom:?} {seed}: {} {}",
                end.kind,
                end.message
            );
        } else {
            assert!(end.culprit.is_none_or(|it| it == commit_id(world.culprit)), "{symptom:?} {seed}");
        }
        let items = || world.recorded.keys();
        assert!(!items().any(|item| matches!(item, ItemKey::Reproducer(_))), "{symptom:?} {seed}");
        let words = [
            "first bad commit: ",
            if symptom == Symptom::Build { "failed building " } else { "boot failed: " },
        ];
        let log = world.farm.log(&id).expect("known");
        assert!(words.iter().all(|word| hidden || log.contains(word)), "{symptom:?} {seed}: {log}");
        if symptom == Symptom::Build {
            assert!(!items().any(|item| matches!(item, ItemKey::Run(..))), "{seed}: a build is booted");
        }
    }
}
