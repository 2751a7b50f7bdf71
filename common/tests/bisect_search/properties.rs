//! What must hold for any graph, culprit, width and order of arrival.

use crate::tables::words;
use crate::world::{Arrival, Dice, Graph, Saw, World, drive, id};
use kulprit_common::bisect::{Bisection, Counts, Evidence, Finding, Question};
use kulprit_common::id::Digest;
use kulprit_common::job::Mode;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

fn graph() -> impl Strategy<Value = Graph> {
    proptest::collection::vec((0usize..6, 0usize..8, any::<bool>()), 2..60).prop_map(grow)
}

/// Forks and merges by these steps back; every commit descends from commit 0.
fn grow(steps: Vec<(usize, usize, bool)>) -> Graph {
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    for (back, other, merge) in steps {
        let last = parents.len() - 1;
        let mut own = vec![last.saturating_sub(back)];
        if merge && last.saturating_sub(other) != own[0] {
            own.push(last.saturating_sub(other));
        }
        parents.push(own);
    }
    // The tip takes in every open end, so that the whole graph is the range.
    let taken: BTreeSet<usize> = parents.iter().flatten().copied().collect();
    let open: Vec<usize> = (0..parents.len()).filter(|at| !taken.contains(at)).collect();
    parents.push(open);
    Graph { parents }
}

/// A graph and a culprit by seed.
pub fn scenario(seed: u64) -> (Graph, usize) {
    let mut dice = Dice(seed);
    let graph = grow((0..50).map(|_| (dice.roll(5), dice.roll(8), dice.roll(2) == 0)).collect());
    let culprit = 1 + dice.roll(graph.tip());
    (graph, culprit)
}

fn cause_of(graph: &Graph, culprit: usize) -> Vec<bool> {
    (0..graph.parents.len()).map(|at| graph.ancestors(at).contains(&culprit)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_clean_culprit_is_found(graph in graph(), at: prop::sample::Index, width in 1usize..9, seed: u64) {
        let culprit = 1 + at.index(graph.tip());
        let bug = cause_of(&graph, culprit);
        let world = World::new(graph, |at, _| if bug[at] { Saw::Target } else { Saw::Ok });
        let expected = format!("culprit {culprit}");
        prop_assert_eq!(words(&drive(&world, width, Arrival::InOrder).finding), expected.clone());
        prop_assert_eq!(words(&drive(&world, width, Arrival::Shuffled(seed)).finding), expected);
    }

    #[test]
    fn a_clean_fix_is_found(graph in graph(), at: prop::sample::Index, width in 1usize..9, seed: u64) {
        let fix = 1 + at.index(graph.tip());
        let fixed = cause_of(&graph, fix);
        let mut world = World::new(graph, |at, _| if fixed[at] { Saw::Ok } else { Saw::Target });
        world.question.mode = Mode::Fix;
        (world.question.bad, world.question.good) = (id(0), Some(id(world.graph.tip())));
        let ended = drive(&world, width, Arrival::Shuffled(seed));
        prop_assert_eq!(words(&ended.finding), format!("culprit {fix}"));
    }

    /// Where a quarter of all kernels say nothing, the culprit is found or stands among the suspects, in
    /// every order and at every width, and is found where it and its parents can be run. Which
    /// suspects stand beside it may depend on when the search gave up, and so on what it tried.
    #[test]
    fn silent_revisions_never_mislead(
        graph in graph(), at: prop::sample::Index, seed: u64, silent in proptest::collection::vec(0usize..12, 62),
    ) {
        let culprit = 1 + at.index(graph.tip());
        let bug = cause_of(&graph, culprit);
        let tip = graph.tip();
        let kernel = |at: usize, run: u32| match silent[at] {
            0 if at != tip => Saw::Other,
            1 if at != tip => Saw::BootFailed,
            2 if at != tip => Saw::Unavailable,
            3 if run % 3 == 1 => Saw::BootFailed,
            _ if bug[at] => Saw::Target,
            _ => Saw::Ok,
        };
        // 3 says nothing in a third of its runs only.
        let runs = |at: &usize| *at == tip || silent[*at] >= 3;
        let decided = graph.parents[culprit].iter().chain([&culprit]).all(runs);
        let world = World::new(graph, kernel);
        for (width, arrival) in [(1, Arrival::InOrder), (1, Arrival::Shuffled(seed)), (3, Arrival::Shuffled(seed))] {
            let ended = drive(&world, width, arrival);
            match &ended.finding {
                Finding::Culprit { revision, .. } => prop_assert_eq!(*revision, id(culprit)),
                Finding::Suspects { suspects, .. } => {
                    prop_assert!(!decided, "the culprit and its parents could be run: {:#?}", ended);
                    prop_assert!(suspects.iter().any(|suspect| suspect.revision == id(culprit)));
                }
                // It shows another crash in every run, which may be the bug for all one can tell.
                Finding::GoodEndIsBad { .. } if silent[0] == 0 => {
                    prop_assert!(!decided, "the culprit and its parents could be run: {:#?}", ended);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// Kernels that follow no hypothesis at all: the search ends all the same, and a culprit
    /// it names was seen to crash while its parents were not.
    #[test]
    fn nonsense_ends_too(graph in graph(), seed: u64, width in 1usize..5, fix: bool) {
        let kernel = |at: usize, run: u32| {
            let kind = Dice(seed ^ at as u64).roll(8);
            match Dice(seed ^ (at as u64) << 20 ^ u64::from(run)).roll(10) {
                _ if kind == 0 => Saw::NoBuild,
                0..3 => Saw::Ok,
                3 => Saw::Other,
                roll if roll < 4 + kind => Saw::Target,
                _ => Saw::Ok,
            }
        };
        let mut world = World::new(graph, kernel);
        world.fingerprint = Box::new(move |at| Dice(seed ^ at as u64).roll(20) as u64);
        if fix {
            world.question.mode = Mode::Fix;
            (world.question.bad, world.question.good) = (id(0), Some(id(world.graph.tip())));
        }
        let ended = drive(&world, width, Arrival::Shuffled(seed));
        if let Finding::Culprit { certificate, .. } = ended.finding {
            let shows = certificate.culprit.target > 0;
            prop_assert!(shows != fix);
            // Fix: a parent may show the bug under what is believed to be another title of it.
            let crashed = |counts: &Counts| counts.target > 0 || fix && counts.other > 0;
            prop_assert!(certificate.parents.iter().any(|parent| crashed(&parent.counts) == fix));
        }
    }

    #[test]
    fn evidence_nobody_asked_for_is_harmless(seed: u64, pieces in 0usize..60) {
        let graph = Graph::line(12);
        let mut dice = Dice(seed);
        let question = Question { good: Some(id(0)), ..crate::world::question(11, None) };
        let mut search = Bisection::new(question);
        for piece in 0..pieces {
            let revision = id(dice.roll(20));
            search.record(match dice.roll(5) {
                0 => Evidence::Built { revision, fingerprint: Digest::of(&[dice.roll(9) as u8]) },
                1 => Evidence::BuildFailed { revision, message: "no".into() },
                2 => Evidence::Unavailable { revision, reason: "no".into() },
                _ => {
                    let saw = [Saw::Ok, Saw::Target, Saw::Other, Saw::BootFailed][dice.roll(4)];
                    Evidence::Run { revision, index: dice.roll(30) as u32, outcome: crate::world::outcome(saw) }
                }
            });
            if piece == pieces / 2 {
                search.set_history(graph.history(0, 11));
            }
            search.next_step(NonZeroUsize::MIN);
        }
    }
}

/// A bug that shows half of the time: orders of arrival agree on the finding.
#[test]
fn the_order_of_arrival_does_not_matter_to_a_flaky_bug() {
    let mut agreed = 0;
    for seed in 0..20u64 {
        let kernel = |at: usize, run: u32| {
            let shows = Dice(seed << 40 ^ (at as u64) << 16 ^ u64::from(run)).roll(10) < 6;
            if at >= 23 && shows { Saw::Target } else { Saw::Ok }
        };
        let world = World::new(Graph::line(40), kernel);
        let found = |arrival| words(&drive(&world, 3, arrival).finding);
        agreed += usize::from((0..4).all(|order| found(Arrival::Shuffled(order)) == "culprit 23"));
    }
    assert!(agreed >= 19, "{agreed} of 20");
}
