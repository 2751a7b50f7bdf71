//! Searches with a command, driven without any command: runs spent against git's own number,
//! and answers against a planted culprit where the command is flaky.

use kulprit_common::command::{Ending, Exit, Plan, Repetition, Search, Step};
use kulprit_common::history::{Commit, History};
use kulprit_common::id::{RevisionId, TreeId};
use proptest::prelude::*;
use std::num::{NonZeroU32, NonZeroUsize};

fn id(at: usize) -> RevisionId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
    RevisionId::from_bytes(bytes)
}

/// The good end, which stands before every range.
const GOOD: RevisionId = RevisionId::from_bytes([0; 20]);

/// Each commit with its parents; those of the first are the good end.
fn history(parents: &[Vec<u32>]) -> History {
    let commit = |(at, parents): (usize, &Vec<u32>)| Commit {
        id: id(at),
        tree: TreeId::from_bytes([0; 20]),
        parents: parents.clone(),
        outside: if parents.is_empty() { vec![GOOD] } else { vec![] },
        time: at as i64,
        subject: format!("commit {at}"),
    };
    History::new(parents.iter().enumerate().map(commit).collect()).expect("a graph")
}

fn line(len: usize) -> Vec<Vec<u32>> {
    (0..len as u32).map(|at| at.checked_sub(1).into_iter().collect()).collect()
}

/// A line of development that merges a branch of three commits every ten.
fn merges(len: usize) -> Vec<Vec<u32>> {
    let parents = |at: u32| match (at, at % 10) {
        (0, _) => vec![],
        (_, 6) => vec![at - 4],
        (_, 9) if at >= 9 => vec![at - 1, at - 4],
        (_, _) => vec![at - 1],
    };
    (0..len as u32).map(parents).collect()
}

fn contains(history: &History, from: usize, ancestor: usize) -> bool {
    let mut reached = vec![false; history.len()];
    reached[from] = true;
    for at in (0..=from).rev() {
        if reached[at] {
            history.commit(at as u32).parents.iter().for_each(|&parent| reached[parent as usize] = true);
        }
    }
    reached[ancestor]
}

fn plan(jobs: usize, runs: u32, confidence: Option<f64>) -> Plan {
    let repetition = NonZeroU32::new(runs).map_or(Repetition::Auto, Repetition::Exactly);
    Plan { jobs: NonZeroUsize::new(jobs).expect("some"), repetition, confidence }
}

/// Chances that are the same in every test.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The reasons are of the revisions that were run, also where the search began to doubt.
#[test]
fn every_run_has_its_reason() {
    for (jobs, rate, confidence) in [(1, 1.0, None), (4, 1.0, Some(0.99)), (2, 0.5, Some(0.99))] {
        let (parents, culprit) = (line(64), 40);
        let search = Search::new(history(&parents), GOOD, id(63), plan(jobs, 0, confidence));
        let mut dice = Dice(11);
        let run = |at: Option<usize>| match at.is_some_and(|at| at >= culprit) && dice.roll() < rate {
            true => Exit::Bad,
            false => Exit::Good,
        };
        let (_, _, search) = follow(search, run);
        let lines = search.explained();
        for revision in search.tallies().keys() {
            let why = format!("why {}: ", revision.short());
            assert!(lines.iter().any(|line| line.starts_with(&why)), "{why} {lines:#?}");
        }
        let reasons = lines.iter().filter(|line| line.starts_with("why "));
        let known: Vec<String> = search.tallies().keys().map(|revision| revision.short()).collect();
        assert!(reasons.clone().all(|line| known.iter().any(|id| line.contains(id.as_str()))), "{lines:#?}");
        assert!(reasons.count() < 60 && lines.iter().all(|line| !line.contains("crash")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("the end: 0.")), "{lines:#?}");
    }
}

/// Follows a search to its end, every wanted run made before the next choice; gives the
/// ending, and the runs spent.
fn follow(mut search: Search, mut run: impl FnMut(Option<usize>) -> Exit) -> (Ending, usize, Search) {
    for _ in 0..20_000 {
        let wants = match search.step() {
            Step::Done(ending) => {
                let runs = search.runs();
                return (ending, runs, search);
            }
            Step::Run(wants) => wants,
        };
        assert!(!wants.is_empty(), "a search that goes on wants something");
        let want = wants.iter().find(|want| search.tally(&want.revision).total() < want.runs);
        let want = want.expect("something is still to be run");
        let at = search.history().find(&want.revision).map(|at| at as usize);
        search.record(want.revision, run(at));
    }
    panic!("the search does not end");
}

fn flaky(
    history: &History,
    culprit: usize,
    rate: f64,
    seed: u64,
) -> impl FnMut(Option<usize>) -> Exit + use<> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    let has_bug: Vec<bool> = (0..history.len()).map(|at| contains(history, at, culprit)).collect();
    move |at| {
        let fails = at.is_some_and(|at| has_bug[at]) && dice.roll() < rate;
        if fails { Exit::Bad } else { Exit::Good }
    }
}

/// git's number of runs on a line (`approx_halfway` and `count_distance` of bisect.c), the
/// suspects being those after `good` up to `bad`.
fn git_runs(len: usize, culprit: usize) -> usize {
    let (mut good, mut bad, mut runs) = (-1i64, len as i64 - 1, 0);
    while bad - good > 1 {
        let suspects = bad - good;
        let off = |weight: i64| (2 * weight - suspects).abs();
        let close = (2..suspects).find(|&weight| off(weight) <= 1 || off(weight) < suspects / 1024);
        let weight = close.unwrap_or_else(|| (1..suspects).min_by_key(|&weight| off(weight)).unwrap_or(1));
        let at = good + weight;
        runs += 1;
        if at >= culprit as i64 { bad = at } else { good = at }
    }
    runs
}

fn is(ending: &Ending, culprit: usize) -> bool {
    matches!(ending, Ending::Culprit { revision, .. } if *revision == id(culprit))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_certain_command_costs_one_job_what_it_costs_git(len in 1usize..400, share in 0.0f64..1.0) {
        let culprit = (share * len as f64) as usize;
        let history = history(&line(len));
        let run = flaky(&history, culprit, 1.0, 1);
        let (ending, runs, _) = follow(Search::new(history, GOOD, id(len - 1), plan(1, 0, None)), run);
        prop_assert!(is(&ending, culprit), "{ending:?}");
        prop_assert_eq!(runs, git_runs(len, culprit));
    }
}

#[test]
fn skipped_revisions_are_gone_round() {
    for (from, to, found) in [(40, 60, true), (20, 68, true), (69, 71, false)] {
        let (history, culprit) = (history(&line(100)), 70);
        let mut command = flaky(&history, culprit, 1.0, 1);
        let skips = move |at: Option<usize>| match at {
            Some(at) if (from..to).contains(&at) => Exit::Skip,
            at => command(at),
        };
        let (ending, _, search) = follow(Search::new(history, GOOD, id(99), plan(1, 0, None)), skips);
        assert_eq!(is(&ending, culprit), found, "{from}..{to}: {ending:?}");
        let replay = search.replay(Some(&ending));
        assert!(replay.contains("git bisect skip"), "{replay}");
        if !found {
            let Ending::Suspects { suspects, .. } = &ending else { panic!("{ending:?}") };
            let mut listed: Vec<_> = suspects.iter().map(|suspect| suspect.revision).collect();
            listed.sort();
            assert_eq!(listed, [id(69), id(70), id(71)]);
        }
    }
}

#[test]
fn ends_that_are_not_what_they_should_be_are_named() {
    let ends = |rate: f64, good: Exit, confidence| {
        let history = history(&line(50));
        let mut command = flaky(&history, 0, rate, 3);
        let run = move |at: Option<usize>| if at.is_none() { good } else { command(at) };
        follow(Search::new(history, GOOD, id(49), plan(1, 0, confidence)), run).0
    };
    assert!(matches!(ends(0.0, Exit::Good, Some(0.9)), Ending::BadEndPasses { tally } if tally.good == 40));
    assert_eq!(ends(1.0, Exit::Bad, Some(0.99)), Ending::GoodEndFails { revision: GOOD });
    assert!(matches!(ends(1.0, Exit::Bad, None), Ending::Culprit { .. }), "the user is believed");
}

/// Right answers of `trials`, their mean number of runs, and those that were wrong.
fn measure(parents: &[Vec<u32>], rate: f64, plan: Plan, trials: u64) -> (u64, f64, u64) {
    let (mut right, mut wrong, mut spent) = (0, 0, 0);
    for seed in 0..trials {
        let history = history(parents);
        let culprit = (Dice(seed * 7919 + 5).roll() * history.len() as f64) as usize;
        let bad = id(history.len() - 1);
        let culprit =
            if contains(&history, history.len() - 1, culprit) { culprit } else { history.len() - 1 };
        let run = flaky(&history, culprit, rate, seed);
        let (ending, runs, _) = follow(Search::new(history, GOOD, bad, plan), run);
        right += u64::from(is(&ending, culprit));
        wrong += u64::from(matches!(ending, Ending::Culprit { .. }) && !is(&ending, culprit));
        spent += runs;
    }
    (right, spent as f64 / trials as f64, wrong)
}

#[test]
fn a_flaky_command_is_seen_through() {
    let (right, runs, wrong) = measure(&merges(300), 0.3, plan(2, 0, None), 10);
    assert!(right >= 9 && wrong == 0, "{right} right, {wrong} wrong of 10");
    assert!(runs < 250.0, "{runs} runs");
    let (right, ..) = measure(&merges(300), 0.3, plan(1, 0, None), 20);
    assert!(right <= 8, "what git spends cannot be enough: {right} of 20");
}

#[test]
fn a_number_of_runs_is_kept() {
    let history = history(&line(60));
    let run = flaky(&history, 21, 1.0, 1);
    let (ending, _, search) = follow(Search::new(history, GOOD, id(59), plan(1, 4, None)), run);
    assert!(is(&ending, 21), "{ending:?}");
    let passed = search.tallies().values().filter(|tally| tally.bad == 0);
    assert!(
        passed.clone().count() > 2 && passed.clone().all(|tally| tally.good >= 4),
        "{:?}",
        search.tallies()
    );
}

#[test]
fn one_run_each_is_believed_by_many_jobs_too() {
    let history = history(&line(200));
    let run = flaky(&history, 150, 1.0, 1);
    let (ending, runs, _) = follow(Search::new(history, GOOD, id(199), plan(4, 1, None)), run);
    assert!(is(&ending, 150), "{ending:?}");
    assert!(runs <= 20, "{runs}");
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    for (name, parents) in [("line", line(300)), ("merges", merges(300))] {
        for rate in [1.0, 0.9, 0.5, 0.3, 0.1] {
            for (jobs, runs, confidence) in [
                (1, 0, None),
                (1, 0, Some(0.9)),
                (1, 0, Some(0.99)),
                (2, 0, None),
                (4, 0, None),
                (1, 5, None),
                (2, 1, None),
            ] {
                let (right, spent, wrong) = measure(&parents, rate, plan(jobs, runs, confidence), 100);
                println!(
                    "{name:<7} p={rate:<4} jobs {jobs} runs {runs} confidence {confidence:?}: right {right} wrong {wrong} runs {spent:.1}"
                );
            }
        }
    }
}

/// Half of all commands never waver, the others do at any rate: over those, what is claimed
/// after one run a revision must come true as often as it says.
#[test]
fn the_probability_is_honest() {
    let trials = 120;
    let (mut claimed, mut right) = (0.0, 0.0);
    for seed in 0..trials {
        let history = history(&line(120));
        let mut dice = Dice(seed * 31 + 7);
        let culprit = (dice.roll() * 120.0) as usize;
        let rate = if seed % 2 == 0 { 1.0 } else { dice.roll() };
        let run = flaky(&history, culprit, rate, seed);
        let (ending, ..) = follow(Search::new(history, GOOD, id(119), plan(1, 0, None)), run);
        let Ending::Culprit { probability, .. } = &ending else { panic!("{ending:?}") };
        claimed += probability / trials as f64;
        right += f64::from(is(&ending, culprit)) / trials as f64;
    }
    assert!((claimed - right).abs() < 0.1, "claimed {claimed}, right {right}");
}

#[test]
fn a_replay_holds_nothing_that_the_answer_contradicts() {
    for seed in 0..10 {
        let history = history(&merges(200));
        let run = flaky(&history, 77, 0.4, seed);
        let (ending, _, search) = follow(Search::new(history, GOOD, id(199), plan(2, 0, None)), run);
        let Ending::Culprit { revision, .. } = &ending else { continue };
        let culprit = search.history().find(revision).expect("in the range") as usize;
        let replay = search.replay(Some(&ending));
        for line in replay
            .lines()
            .filter(|line| line.starts_with("git bisect good ") || line.starts_with("git bisect bad "))
        {
            let (word, name) = line["git bisect ".len()..].split_once(' ').expect("two words");
            let at = search.history().find(&name.parse().expect("an id")).expect("in the range") as usize;
            assert_eq!(contains(search.history(), at, culprit), word == "bad", "{line}");
        }
        assert!(replay.contains(&format!("# first bad commit: [{revision}]")));
    }
}
