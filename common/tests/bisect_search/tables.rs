//! Searches written out by hand: a kernel, a width, the finding and its cost.

use crate::world::{Arrival, Dice, Ended, Graph, Saw, World, drive, id, number, question};
use kulprit_common::bisect::Finding;
use kulprit_common::job::Mode;
use kulprit_common::verdict::Verdict;

fn check(world: &World, width: usize, finding: &str) -> Ended {
    let ended = drive(world, width, Arrival::InOrder);
    assert_eq!(words(&ended.finding), finding, "{ended:#?}");
    for seed in 0..5 {
        let shuffled = drive(world, width, Arrival::Shuffled(seed));
        assert_eq!(words(&shuffled.finding), finding, "shuffled by {seed}: {shuffled:#?}");
    }
    ended
}

/// The finding in a few words.
pub fn words(finding: &Finding) -> String {
    match finding {
        Finding::Culprit { revision, .. } => format!("culprit {}", number(revision)),
        Finding::Suspects { suspects, .. } => {
            let sum: f64 = suspects.iter().map(|suspect| suspect.probability).sum();
            assert!((sum - 1.0).abs() < 1e-9);
            let numbers = suspects.iter().map(|suspect| number(&suspect.revision).to_string());
            format!("suspects {}", numbers.collect::<Vec<_>>().join(" "))
        }
        Finding::NotReproduced { .. } => "not reproduced".into(),
        Finding::BadEndBroken { .. } => "bad end broken".into(),
        Finding::GoodEndIsBad { .. } => "good end is bad".into(),
        Finding::OldestReleaseHasBug { tag, .. } => format!("oldest release {tag} has it"),
        Finding::NotFixed { .. } => "not fixed".into(),
        Finding::Blocked { by } => format!("blocked by {by}"),
    }
}

fn from(culprit: usize) -> impl Fn(usize, u32) -> Saw {
    move |at, _| if at >= culprit { Saw::Target } else { Saw::Ok }
}

#[test]
fn a_clean_line_costs_what_git_costs() {
    for (width, builds, runs) in [(1, 9, 22), (2, 11, 28), (4, 14, 36)] {
        let ended = check(&World::new(Graph::line(101), from(37)), width, "culprit 37");
        assert!(ended.builds <= builds && ended.runs <= runs, "{} builds, {} runs", ended.builds, ended.runs);
    }
    for culprit in [1, 2, 99, 100] {
        check(&World::new(Graph::line(101), from(culprit)), 1, &format!("culprit {culprit}"));
    }
    check(&World::new(Graph::line(2), from(1)), 3, "culprit 1");
}

#[test]
fn the_ends_are_verified() {
    let line = || Graph::line(20);
    let ended = check(&World::new(line(), |_, _| Saw::Ok), 1, "not reproduced");
    assert_eq!((ended.builds, ended.runs), (1, 20));
    assert_eq!(ended.asked, [19], "one at a time, the start comes first");
    assert!(check(&World::new(line(), |_, _| Saw::BootFailed), 1, "bad end broken").runs <= 10);
    check(&World::new(line(), |_, _| Saw::NoBuild), 2, "bad end broken");
    check(&World::new(line(), |_, _| Saw::Unavailable), 2, "blocked by the bad end: no disk");
    check(&World::new(line(), |_, _| Saw::Target), 4, "good end is bad");
    let broken_too = |at, run| if at == 0 && run > 0 { Saw::OtherAtBoot } else { Saw::Target };
    check(&World::new(line(), broken_too), 2, "good end is bad");
    let flaky = |at: usize, run: u32| if at > 4 && run % 20 == 13 { Saw::Target } else { Saw::Ok };
    let ended = drive(&World::new(line(), flaky), 1, Arrival::InOrder);
    assert_eq!(ended.judgements[0].verdict, Verdict::Bad, "one crash in 20 runs is a crash");
    let broken_good_end = |at, run| if at == 0 { Saw::NoBuild } else { from(7)(at, run) };
    check(&World::new(line(), broken_good_end), 1, "culprit 7");
    let broken_good_end = |at, run| if at == 0 { Saw::NoBuild } else { from(1)(at, run) };
    check(&World::new(line(), broken_good_end), 1, "suspects 1");
}

#[test]
fn every_crash_of_a_run_counts_in_whichever_phase() {
    let later = |at, _| if at >= 5 { Saw::TargetLater } else { Saw::Other };
    // Where only other crashes show, nothing can be told.
    check(&World::new(Graph::line(8), later), 2, "suspects 1 2 3 4 5");
    let later = |at, _| if at >= 5 { Saw::TargetLater } else { Saw::Ok };
    check(&World::new(Graph::line(8), later), 2, "culprit 5");
    let mut world = World::new(Graph::line(8), |at, _| if at >= 5 { Saw::TargetAtBoot } else { Saw::Ok });
    check(&world, 1, "bad end broken");
    world.question.target = Some(crate::world::TITLE.into());
    check(&world, 1, "culprit 5");
}

#[test]
fn other_crashes_are_no_evidence() {
    // As in seed 001: the blamed commit's runs only ever met another crash.
    let kernel = |at, run| if (40..=44).contains(&at) { Saw::Other } else { from(60)(at, run) };
    check(&World::new(Graph::line(101), kernel), 1, "culprit 60");
    let kernel = |at, run| if (58..=61).contains(&at) { Saw::Other } else { from(60)(at, run) };
    check(&World::new(Graph::line(101), kernel), 1, "suspects 58 59 60 61 62");
    let kernel = |at, run| if run % 3 == 0 { Saw::BootFailed } else { from(60)(at, run) };
    check(&World::new(Graph::line(101), kernel), 2, "culprit 60");
}

#[test]
fn a_crash_that_comes_at_boot_too_is_not_taken_for_the_bug() {
    let mut right = 0;
    for seed in 0..20 {
        let kernel = move |at: usize, run: u32| {
            let mut dice = Dice(seed << 40 ^ (at as u64) << 16 ^ u64::from(run));
            match dice.roll(100) {
                0..20 if at >= 20 => Saw::OtherAtBoot,
                20..30 if at >= 20 => Saw::Other,
                _ if at >= 60 && dice.roll(100) < 30 => Saw::Target,
                _ => Saw::Ok,
            }
        };
        let mut world = World::new(Graph::line(101), kernel);
        world.question.target = Some(crate::world::TITLE.into());
        let ended = drive(&world, 2, Arrival::InOrder);
        right += u32::from(words(&ended.finding) == "culprit 60");
    }
    assert!(right >= 19, "{right} of 20");
}

#[test]
fn what_comes_at_boot_too_is_not_what_is_searched() {
    let kernel = |at, run| match run % 4 {
        0 => from(60)(at, run),
        1 => Saw::OtherAtBoot,
        _ => Saw::Other,
    };
    check(&World::new(Graph::line(101), kernel), 1, "culprit 60");
}

#[test]
fn what_the_certificate_needs_is_asked_more_often_than_what_the_search_does() {
    for culprit in [59, 60, 61, 62] {
        let kernel =
            |at, run| if (59..=61).contains(&at) && run < 6 { Saw::Other } else { from(culprit)(at, run) };
        let ended = drive(&World::new(Graph::line(101), kernel), 1, Arrival::InOrder);
        assert_eq!(words(&ended.finding), format!("culprit {culprit}"), "{ended:#?}");
    }
}

#[test]
fn what_is_not_available_is_never_a_verdict() {
    for gone in [59, 60] {
        let kernel = |at, run| if at == gone { Saw::Unavailable } else { from(60)(at, run) };
        let finding = if gone == 59 { "suspects 59 60" } else { "suspects 60 61" };
        let ended = check(&World::new(Graph::line(101), kernel), 2, finding);
        let Finding::Suspects { reason, .. } = ended.finding else { panic!("not suspects") };
        assert!(reason.contains("not available: no disk"), "{reason}");
    }
}

#[test]
fn a_broken_stretch_is_walked_around() {
    let kernel = |at, run| if (45..75).contains(&at) { Saw::NoBuild } else { from(20)(at, run) };
    let ended = check(&World::new(Graph::line(101), kernel), 1, "culprit 20");
    assert!(ended.builds <= 12, "{} builds", ended.builds);
    let kernel = |at, run| if (2000..3000).contains(&at) { Saw::NoBuild } else { from(2500)(at, run) };
    let ended = drive(&World::new(Graph::line(5001), kernel), 1, Arrival::InOrder);
    assert!(matches!(ended.finding, Finding::Suspects { .. }));
    assert!(ended.builds <= 80, "{} builds in a hopeless stretch", ended.builds);
}

#[test]
fn a_flaky_bug_is_found_and_certified_with_more_runs() {
    let mut right = 0;
    for seed in 0..40 {
        let kernel = move |at: usize, run: u32| {
            let shows = Dice(seed << 40 ^ (at as u64) << 16 ^ u64::from(run)).roll(100) < 50;
            if at >= 60 && shows { Saw::Target } else { Saw::Ok }
        };
        let ended = drive(&World::new(Graph::line(101), kernel), 2, Arrival::InOrder);
        if let Finding::Culprit { revision, certificate } = &ended.finding {
            right += u32::from(number(revision) == 60);
            assert!(certificate.parents[0].counts.ok >= 5, "{seed}: {certificate:?}");
        }
    }
    assert!(right >= 39, "{right} of 40");
}

#[test]
fn parents_of_a_merge_are_all_certified() {
    // 0 ─ 1 ─ 2 ─── 5(merge) ─ 6
    //  └─ 3 ─ 4 ──┘
    let parents = vec![vec![], vec![0], vec![1], vec![0], vec![3], vec![2, 4], vec![5]];
    let graph = Graph { parents };
    let ended = check(&World::new(graph.clone(), from(5)), 1, "culprit 5");
    let Finding::Culprit { certificate, .. } = ended.finding else { panic!("not a culprit") };
    assert_eq!(certificate.parents.len(), 2);
    let kernel = |at, _| if at == 4 || at >= 5 { Saw::Target } else { Saw::Ok };
    check(&World::new(graph, kernel), 2, "culprit 4");
}

#[test]
fn equal_kernels_share_their_runs() {
    let mut world = World::new(Graph::line(101), from(60));
    world.fingerprint = Box::new(|at| if at < 60 { 0 } else { 1 });
    let ended = check(&world, 1, "culprit 60");
    // Four at the start, and at the other kernel as many as a bug that has shown so often hides from
    // once in 200.
    assert!(ended.runs <= 12, "{} runs for two kernels", ended.runs);
    // A root has no parent that could separate it.
    let parents = vec![vec![], vec![0], vec![], vec![1, 2], vec![3]];
    let mut world = World::new(Graph { parents }, |at, _| if at >= 2 { Saw::Target } else { Saw::Ok });
    world.question = question(4, Some(1));
    check(&world, 1, "suspects 2");
    // A parent outside the range with the culprit's own kernel.
    let parents = vec![vec![], vec![0], vec![1, 0], vec![2]];
    let mut world = World::new(Graph { parents }, from(2));
    world.question.good = Some(id(1));
    world.fingerprint = Box::new(|at| if at == 0 { 2 } else { at as u64 });
    let Finding::Suspects { reason, .. } = check(&world, 1, "suspects 2").finding else { panic!("suspects") };
    assert!(reason.contains("build to the same kernel"), "{reason}");
}

#[test]
fn releases_are_walked_back() {
    let tags = |numbers: &[usize]| {
        let tag = |(n, &at): (usize, &usize)| (format!("v5.{}", 9 - n), id(at));
        numbers.iter().enumerate().map(tag).collect::<Vec<_>>()
    };
    let mut world = World::new(Graph::line(101), from(37));
    world.question = question(100, None);
    world.question.releases = tags(&[90, 60, 30, 10]);
    for width in [1, 2, 4] {
        check(&world, width, "culprit 37");
    }
    let ended = check(&world, 1, "culprit 37");
    assert_eq!(ended.asked[..4], [100, 90, 60, 30]);
    world.question.releases = tags(&[90, 60, 40]);
    check(&world, 3, "oldest release v5.7 has it");
    world.question.releases = vec![];
    assert!(words(&drive(&world, 1, Arrival::InOrder).finding).starts_with("blocked"));
}

#[test]
fn a_fix_is_searched_with_the_words_turned() {
    let fixed_at = |fix: usize| move |at: usize, _| if at >= fix { Saw::Ok } else { Saw::Target };
    let fix = |graph: Graph, kernel| {
        let mut world = World::new(graph, kernel);
        world.question.mode = Mode::Fix;
        (world.question.bad, world.question.good) = (id(0), Some(id(world.graph.tip())));
        world
    };
    for width in [1, 3] {
        check(&fix(Graph::line(101), fixed_at(37)), width, "culprit 37");
    }
    check(&fix(Graph::line(101), fixed_at(200)), 1, "not fixed");
    check(&fix(Graph::line(101), fixed_at(0)), 1, "not reproduced");
}

#[test]
fn a_line_that_never_had_the_bug_is_not_a_fix() {
    // 0 ─ 1(old end) ─ 2 ─── 5(merge) ─ 6(fix) ─ 7
    //  └─ 3 ─ 4 ───────────┘           the bug came with 1
    let parents = vec![vec![], vec![0], vec![1], vec![0], vec![3], vec![2, 4], vec![5], vec![6]];
    let kernel = |at, _| if [1, 2, 5].contains(&at) { Saw::Target } else { Saw::Ok };
    let mut world = World::new(Graph { parents }, kernel);
    world.question.mode = Mode::Fix;
    (world.question.bad, world.question.good) = (id(1), Some(id(7)));
    for width in [1, 2, 4] {
        check(&world, width, "culprit 6");
    }
}

#[test]
fn a_fix_on_a_line_beside_the_old_end_is_found_there() {
    // The old end is 0; the line 1 to 19 forked off before it, has the bug, and brings the fix with 7.
    let mut parents = vec![vec![], vec![]];
    parents.extend((2..20).map(|at| vec![at - 1]));
    parents.push(vec![0]);
    parents.extend((21..40).map(|at| vec![at - 1]));
    parents.push(vec![39, 19]);
    parents.extend((41..50).map(|at| vec![at - 1]));
    let graph = Graph { parents };
    let fixed: Vec<bool> = (0..50).map(|at| graph.ancestors(at).contains(&7)).collect();
    let mut world = World::new(graph, |at, _| if fixed[at] { Saw::Ok } else { Saw::Target });
    world.question.mode = Mode::Fix;
    (world.question.bad, world.question.good) = (id(0), Some(id(49)));
    for width in [1, 2, 4] {
        let ended = check(&world, width, "culprit 7");
        assert!(ended.builds <= 20, "{} revisions", ended.builds);
    }
}
