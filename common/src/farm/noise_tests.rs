//! Honest agents against noisy ones, in numbers.

use super::*;

struct Dice(u64);

impl Dice {
    fn chance(&mut self, p: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64) < p
    }
}

fn agent(index: usize) -> AgentId {
    format!("a{index}").parse().expect("a name")
}

fn crash() -> Outcome {
    Outcome::Crashed(vec![])
}

fn stuck() -> Outcome {
    Outcome::Hung { reason: String::new() }
}

/// A run of a kernel whose bug shows in `p` of the runs, by an agent that makes up what it sees in `noise`.
fn run(dice: &mut Dice, p: f64, noise: f64, made_up: fn() -> Outcome) -> Outcome {
    match (dice.chance(noise), dice.chance(p)) {
        (true, _) => made_up(),
        (false, true) => crash(),
        (false, false) => Outcome::Ok,
    }
}

/// Pairs of runs by `agents` agents, the first of which is noisy; how many pairs of its own it took
/// until one was found.
fn until_found(
    seed: u64,
    agents: usize,
    noise: f64,
    made_up: fn() -> Outcome,
    pairs_max: u32,
) -> Option<(AgentId, u32)> {
    let (mut dice, mut it) = (Dice(seed), Noise::default());
    for number in 0..pairs_max {
        let runs = Digest::of(&(seed << 32 | u64::from(number)).to_be_bytes());
        let first = number as usize % agents;
        let second = (first + 1 + number as usize / agents % (agents - 1)) % agents;
        let p = if number % 2 == 0 { 0.0 } else { 0.3 };
        let noise_of = |agent: usize| if agent == 0 { noise } else { 0.0 };
        let key = ItemKey::Run(runs, 0);
        it.saw(&key, &agent(first), &run(&mut dice, p, noise_of(first), made_up));
        let made = again(&key).expect("a first run");
        assert!(it.saw(&made, &agent(second), &run(&mut dice, p, noise_of(second), made_up)));
        if let Some((found, _)) = it.guilty() {
            return Some((found.clone(), it.tally(&agent(0)).pairs));
        }
    }
    None
}

#[test]
fn honest_agents_are_not_set_aside_and_rarely_looked_at_closely() {
    // 400 farms of 4 agents, each compared 500 times, at bugs that show in three runs of ten.
    let (mut suspected, mut all) = (0, 0);
    for seed in 0..400 {
        let (mut dice, mut it) = (Dice(seed), Noise::default());
        let mut close = BTreeSet::new();
        for number in 0..1000u32 {
            let key = ItemKey::Run(Digest::of(&number.to_be_bytes()), 0);
            let (first, second) = (number as usize % 4, (number as usize + 1 + number as usize / 4 % 3) % 4);
            it.saw(&key, &agent(first), &run(&mut dice, 0.3, 0.0, crash));
            it.saw(&again(&key).expect("a first run"), &agent(second), &run(&mut dice, 0.3, 0.0, crash));
            assert_eq!(it.guilty(), None, "farm {seed}, pair {number}");
            close.extend((0..4).filter(|&index| Noise::weight(&it.tally(&agent(index))) >= SUSPICION));
        }
        suspected += close.len();
        all += 4;
    }
    let share = suspected as f64 / f64::from(all);
    assert!(share < 1.0 / SUSPICION, "{suspected} of {all} honest agents were looked at more closely");
}

#[test]
fn an_agent_that_makes_up_four_runs_of_ten_is_found() {
    for (what, made_up) in [("crashes", crash as fn() -> Outcome), ("failed boots", stuck)] {
        for agents in [2, 4, 8] {
            let mut pairs: Vec<u32> = Vec::new();
            for seed in 0..200 {
                let found = until_found(seed, agents, 0.4, made_up, 4000);
                let (found, took) = found.unwrap_or_else(|| panic!("{what}: seed {seed} finds nobody"));
                assert_eq!(found, agent(0), "{what}: an honest agent was blamed in seed {seed}");
                pairs.push(took);
            }
            pairs.sort_unstable();
            let (half, most) = (pairs[100], pairs[180]);
            assert!(
                half <= 90 && most <= 150,
                "{what}, {agents} agents: half after {half} pairs, nine in ten after {most}"
            );
        }
    }
}

#[test]
fn a_slightly_luckier_machine_is_no_noise() {
    // A bug that shows in half of its runs and in three of ten of the others'.
    let (mut dice, mut it) = (Dice(1), Noise::default());
    for number in 0..3000u32 {
        let key = ItemKey::Run(Digest::of(&number.to_be_bytes()), 0);
        let p = if number % 2 == 0 { 0.0 } else { 1.0 };
        it.saw(&key, &agent(0), &run(&mut dice, p * 0.5, 0.0, crash));
        it.saw(&again(&key).expect("a first run"), &agent(1), &run(&mut dice, p * 0.3, 0.0, crash));
        assert_eq!(it.guilty(), None, "pair {number}");
    }
}

#[test]
fn the_share_is_kept_and_what_was_seen_decides_nothing() {
    let mut it = Noise::default();
    let keys: Vec<ItemKey> =
        (0..20_000u32).map(|index| ItemKey::Run(Digest::of(&(index / 8).to_be_bytes()), index % 8)).collect();
    for key in &keys {
        assert!(!it.is_chosen(key, 1.0), "nobody made it");
        it.saw(key, &agent(0), &Outcome::Ok);
    }
    for share in [0.0, 0.05, 0.5, 1.0] {
        let chosen: Vec<&ItemKey> = keys.iter().filter(|key| it.is_chosen(key, share)).collect();
        let part = chosen.len() as f64 / keys.len() as f64;
        assert!((part - share).abs() < 0.005, "{share}: {part}");
    }
    let before: Vec<bool> = keys.iter().map(|key| it.is_chosen(key, 0.05)).collect();
    keys.iter().for_each(|key| _ = it.saw(key, &agent(1), &crash()));
    let after: Vec<bool> = keys.iter().map(|key| it.is_chosen(key, 0.05)).collect();
    assert_eq!(before, after);
}

#[test]
fn who_is_not_believed_leaves_no_evidence_until_released() {
    let mut it = Noise::default();
    let key = |index| ItemKey::Run(Digest::of(b"k"), index);
    it.saw(&key(0), &agent(0), &crash());
    it.saw(&key(1), &agent(1), &Outcome::Ok);
    it.distrust(&agent(0));
    it.saw(&key(2), &agent(0), &crash());
    let instead = |index| ItemKey::Run(Digest::of(b"k"), index + INSTEAD);
    assert_eq!([0, 1, 2].map(|index| it.standing(key(index))), [instead(0), key(1), instead(2)]);
    it.saw(&instead(0), &agent(0), &crash());
    assert_eq!(it.standing(key(0)), ItemKey::Run(Digest::of(b"k"), 2 * INSTEAD));
    it.forgive(&agent(0));
    it.saw(&key(3), &agent(0), &crash());
    assert_eq!(it.standing(key(3)), key(3), "it is believed again");
    assert!(it.is_disowned(&key(0)), "not for what it saw before");
    assert_eq!(number(2 * INSTEAD + 7), 7);
}
