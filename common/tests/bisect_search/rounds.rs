//! What a search says of its own steps.

use crate::tables::words;
use crate::world::{Arrival, Graph, Saw, World, drive, id, number, outcome};
use kulprit_common::bisect::{Assumption, Bisection, Evidence, OUTLINE_MAX, Picked, Round, Step, Why};
use kulprit_common::id::Digest;
use std::num::NonZeroUsize;

/// On a line where the bug always shows, as git's own search goes about it.
fn exact(len: usize, culprit: usize) -> Vec<Round> {
    let world = World::new(Graph::line(len), |at, _| if at >= culprit { Saw::Target } else { Saw::Ok });
    let mut search = Bisection::new(world.question.clone()).assuming(Assumption::Exact);
    // A good end that is known to be good leaves no doubt about the range.
    for (at, runs) in [(world.graph.tip(), 2), (0, 10)] {
        let (revision, fingerprint) = (id(at), Digest::of(id(at).as_bytes()));
        search.record(Evidence::Built { revision, fingerprint });
        for index in 0..runs {
            search.record(Evidence::Run {
                revision: id(at),
                index,
                outcome: outcome((world.kernel)(at, index)),
            });
        }
    }
    for _ in 0..1000 {
        match search.next_step(NonZeroUsize::MIN) {
            Step::LoadHistory { good, bad } => {
                search.set_history(world.graph.history(number(&good), number(&bad)));
            }
            Step::Evaluate(candidates) | Step::Certify(candidates) => {
                let revision = candidates[0].revision;
                let fingerprint = Digest::of(revision.as_bytes());
                search.record(Evidence::Built { revision, fingerprint });
                for index in 0..candidates[0].runs {
                    let outcome = outcome((world.kernel)(number(&revision), index));
                    search.record(Evidence::Run { revision, index, outcome });
                }
            }
            Step::Done(finding) => {
                assert_eq!(words(&finding), format!("culprit {culprit}"));
                return search.rounds().to_vec();
            }
        }
    }
    panic!("the search does not end");
}

fn splits(rounds: &[Round]) -> impl Iterator<Item = &Picked> {
    rounds.iter().flat_map(|round| &round.picks).filter(|pick| pick.why == Why::Split)
}

fn unknown(round: &Round) -> f64 {
    round.belief.as_ref().map_or(0.0, |belief| belief.unknown_bits)
}

#[test]
fn without_noise_every_pick_promises_a_bit_and_keeps_its_word() {
    for culprit in [1, 17, 32, 64] {
        let rounds = exact(65, culprit);
        assert_eq!(splits(&rounds).count(), 6, "{rounds:#?}");
        for (before, behind) in rounds.iter().zip(&rounds[1..]) {
            let [pick] = &before.picks[..] else { panic!("one at a time: {before:#?}") };
            if pick.why == Why::Split {
                assert!((pick.bits.expect("known") - 1.0).abs() < 1e-6, "{pick:?}");
                assert!((unknown(before) - unknown(behind) - 1.0).abs() < 1e-3, "{before:?} {behind:?}");
                assert!((pick.shows.expect("known") - 0.5).abs() < 1e-3, "{pick:?}");
            }
        }
        let end = rounds.last().expect("the end");
        assert!(end.picks.is_empty() && unknown(end) < 0.01, "{end:?}");
        let belief = end.belief.as_ref().expect("a range");
        assert_eq!((belief.suspects, number(&belief.likeliest[0].revision)), (1, culprit));
    }
}

#[test]
fn what_is_said_is_plausible_on_any_way_to_the_end() {
    for (seed, width) in [(1, 1), (2, 1), (3, 4), (4, 4), (5, 16)] {
        let culprit = 40 + seed as usize * 31;
        let flaky = move |at: usize, index: u32| match (
            at >= culprit,
            (at as u64 * 7 + u64::from(index) * 5 + seed) % 10,
        ) {
            (true, 0..6) => Saw::Target,
            _ => Saw::Ok,
        };
        let ended = drive(&World::new(Graph::line(400), flaky), width, Arrival::Shuffled(seed));
        let mut expected = 0.0;
        for round in &ended.rounds {
            let Some(belief) = &round.belief else { continue };
            let sum = belief.outline.iter().map(|part| f64::from(*part)).sum::<f64>() + belief.nothing;
            assert!((sum - 1.0).abs() < 1e-4 && belief.outline.len() <= OUTLINE_MAX, "{round:?}");
            assert!(belief.suspects >= 1 && belief.unknown_bits <= 400f64.log2() + 1.0, "{round:?}");
            let falling = belief.likeliest.windows(2).all(|pair| pair[0].probability >= pair[1].probability);
            assert!(falling && belief.likeliest.len() <= 5, "{round:?}");
            for pick in &round.picks {
                let (bits, shows) = (pick.bits.expect("a range"), pick.shows.expect("a range"));
                assert!((0.0..=1.0).contains(&bits) && (0.0..=1.0).contains(&shows), "{pick:?}");
                assert!(bits <= belief.unknown_bits + 0.01, "{round:?}");
            }
            expected +=
                round.picks.iter().filter(|it| it.why == Why::Split).filter_map(|it| it.bits).sum::<f64>();
        }
        let mut of_range = ended.rounds.iter().filter(|round| round.belief.is_some());
        let learned =
            unknown(of_range.next().expect("a range")) - unknown(ended.rounds.last().expect("an end"));
        assert!((0.4 * learned..2.5 * learned).contains(&expected), "{expected} expected, {learned} learned");
        assert!(ended.rounds.last().is_some_and(|end| end.picks.is_empty()), "the end is said");
        // Every revision that was ever handed out was accounted for.
        let told: Vec<usize> =
            ended.rounds.iter().flat_map(|round| &round.picks).map(|pick| number(&pick.revision)).collect();
        assert!(ended.asked.iter().all(|at| told.contains(at)), "{:?} {told:?}", ended.asked);
    }
}

#[test]
fn rounds_that_are_recalled_are_not_told_again() {
    let world = World::new(Graph::line(65), |_, _| Saw::Target);
    let new = || {
        let mut search = Bisection::new(world.question.clone());
        for index in 0..20 {
            let (revision, outcome) = (id(world.graph.tip()), outcome(Saw::Target));
            search.record(Evidence::Run { revision, index, outcome });
        }
        search.next_step(NonZeroUsize::MIN);
        search.set_history(world.graph.history(0, world.graph.tip()));
        search
    };
    let width = NonZeroUsize::new(4).expect("four");
    let mut before = new();
    before.next_step(width);
    assert_eq!(before.rounds().len(), 1);
    assert!(before.rounds()[0].picks.len() > 1);
    before.next_step(width);
    assert_eq!(before.rounds().len(), 1, "nothing new was handed out");
    let mut behind = new();
    behind.recall_rounds(before.rounds().to_vec());
    behind.next_step(NonZeroUsize::MIN);
    behind.next_step(width);
    assert_eq!(behind.rounds(), before.rounds());
}
