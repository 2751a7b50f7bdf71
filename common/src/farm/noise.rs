//! Second looks: a share of the runs that verdicts rest on is made again by another agent, and an
//! agent that keeps seeing what others do not see on the same kernels is found.
//!
//! Which runs are made again is decided before it is known what they saw, by a hash. So of a pair
//! of honest runs that differ, either was as likely to be the one that saw more, whatever the
//! kernel does and however often: a fair coin. Against that stands a bias towards the agent in
//! question, at several strengths. The mean of the likelihood ratios is a martingale under the
//! coin, so by Ville's inequality it ever reaches 1/α with a probability of at most α, however
//! often it is looked at and whatever made the farm look more closely (Shafer et al., "Test
//! martingales, Bayes factors and p-values", 2011).

use super::item::ItemKey;
use crate::id::{AgentId, Digest};
use crate::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The probability that an honest agent is ever set aside.
const FALSE_ALARM: f64 = 1e-4;
/// From here on an agent is looked at more closely; one honest agent in twenty ever comes so far.
const SUSPICION: f64 = 20.0;
const CLOSER: f64 = 10.0;
/// Of its pairs: machines of different speed may differ a little on the same bug, which is no
/// noise, and in time would be told apart as well.
const DIFFERENCE_MIN: f64 = 0.2;
/// How often a pair that differs shows the agent as the one that saw more, if it is noisy.
const BIASES: [f64; 5] = [0.6, 0.7, 0.8, 0.9, 0.99];
/// Numbers of runs that are made again; a search never asks for as many.
const AGAIN: u32 = 1 << 30;
/// Numbers of runs in the place of those of an agent that is not believed.
const INSTEAD: u32 = 1 << 20;

/// What is compared of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Quiet,
    Crash,
    /// It never came to an end: no boot, no start of the reproducer, or a hang.
    Stuck,
}

impl Sight {
    pub fn of(outcome: &Outcome) -> Sight {
        match outcome {
            Outcome::Ok => Sight::Quiet,
            Outcome::Crashed(_) => Sight::Crash,
            Outcome::BootFailed { .. } | Outcome::NoReproducerStart { .. } | Outcome::Hung { .. } => {
                Sight::Stuck
            }
        }
    }
}

/// Of one agent's runs beside another's.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    pairs: u32,
    crashes: Differences,
    stuck: Differences,
}

#[derive(Clone, Copy, Debug, Default)]
struct Differences {
    /// The agent saw it and the other did not.
    alone: u32,
    /// The other saw it and the agent did not.
    missed: u32,
}

impl Differences {
    fn add(&mut self, own: bool, others: bool) {
        self.alone += u32::from(own && !others);
        self.missed += u32::from(!own && others);
    }

    /// How much likelier it is under a bias than under a fair coin.
    fn ratio(&self) -> f64 {
        let of = |bias: f64| {
            let (alone, missed) = (f64::from(self.alone), f64::from(self.missed));
            (alone * (2.0 * bias).ln() + missed * (2.0 * (1.0 - bias)).ln()).exp()
        };
        BIASES.iter().map(|bias| of(*bias)).sum::<f64>() / BIASES.len() as f64
    }

    fn plus(self, other: Differences) -> Differences {
        Differences { alone: self.alone + other.alone, missed: self.missed + other.missed }
    }
}

/// Whose runs differ from those of others.
#[derive(Default)]
pub(super) struct Noise {
    ran_by: HashMap<ItemKey, (AgentId, Sight)>,
    tallies: BTreeMap<AgentId, BTreeMap<AgentId, Tally>>,
    /// Not believed until they are released.
    distrusted: BTreeSet<AgentId>,
    /// Runs that are no evidence, whatever their agent does later.
    disowned: BTreeSet<ItemKey>,
}

/// The run that is to be made for a second look at one.
pub(super) fn again(key: &ItemKey) -> Option<ItemKey> {
    match key {
        ItemKey::Run(runs, index) if *index < AGAIN => Some(ItemKey::Run(*runs, index | AGAIN)),
        _ => None,
    }
}

/// The run that this one is a second look at.
pub(super) fn first_of(key: &ItemKey) -> Option<ItemKey> {
    match key {
        ItemKey::Run(runs, index) if *index >= AGAIN => Some(ItemKey::Run(*runs, index & !AGAIN)),
        _ => None,
    }
}

/// The number of a run as the search counts them.
pub(super) fn number(index: u32) -> u32 {
    index % INSTEAD
}

impl Noise {
    /// Takes in what a run saw; says whether it makes a pair with an earlier one.
    pub fn saw(&mut self, key: &ItemKey, agent: &AgentId, outcome: &Outcome) -> bool {
        let sight = Sight::of(outcome);
        self.ran_by.insert(key.clone(), (agent.clone(), sight));
        if self.distrusted.contains(agent) {
            self.disowned.insert(key.clone());
            return false;
        }
        let Some(first) = first_of(key) else { return false };
        let Some((other, seen)) = self.ran_by.get(&first).cloned() else { return false };
        if other == *agent || self.distrusted.contains(&other) {
            return false;
        }
        self.compare(&other, agent, seen, sight);
        self.compare(agent, &other, sight, seen);
        true
    }

    fn compare(&mut self, agent: &AgentId, other: &AgentId, own: Sight, others: Sight) {
        let tally = self.tallies.entry(agent.clone()).or_default().entry(other.clone()).or_default();
        tally.pairs += 1;
        tally.crashes.add(own == Sight::Crash, others == Sight::Crash);
        tally.stuck.add(own == Sight::Stuck, others == Sight::Stuck);
    }

    /// Over all others that are believed.
    fn tally(&self, agent: &AgentId) -> Tally {
        let all = self.tallies.get(agent).into_iter().flatten();
        let believed = all.filter(|(other, _)| !self.distrusted.contains(*other));
        believed.fold(Tally::default(), |sum, (_, it)| Tally {
            pairs: sum.pairs + it.pairs,
            crashes: sum.crashes.plus(it.crashes),
            stuck: sum.stuck.plus(it.stuck),
        })
    }

    /// How much likelier what is known of an agent is if it is noisy.
    fn weight(tally: &Tally) -> f64 {
        (tally.crashes.ratio() + tally.stuck.ratio()) / 2.0
    }

    /// An agent that is noisy beyond doubt, and why.
    pub fn guilty(&self) -> Option<(AgentId, String)> {
        let believed = self.tallies.keys().filter(|agent| !self.distrusted.contains(*agent));
        let weighed = believed.map(|agent| (agent, self.tally(agent)));
        let beyond_doubt = weighed.filter(|(_, tally)| {
            let more = |it: Differences| f64::from(it.alone) - f64::from(it.missed);
            let differs = more(tally.crashes).max(more(tally.stuck)) / f64::from(tally.pairs.max(1));
            Noise::weight(tally) * FALSE_ALARM >= 1.0 && differs >= DIFFERENCE_MIN
        });
        // Where two stand out, what one did may weigh on the other.
        let worst = beyond_doubt.max_by(|a, b| Noise::weight(&a.1).total_cmp(&Noise::weight(&b.1)));
        worst.map(|(agent, tally)| (agent.clone(), reason(&tally)))
    }

    /// Whether a run is to be made again, by its name alone and what is known of its agent.
    pub fn is_chosen(&self, key: &ItemKey, share: f64) -> bool {
        let (ItemKey::Run(runs, index), Some((agent, _))) = (key, self.ran_by.get(key)) else { return false };
        let closer = self.tallies.contains_key(agent) && Noise::weight(&self.tally(agent)) >= SUSPICION;
        let share = if closer { (share * CLOSER).min(1.0) } else { share };
        *index < INSTEAD && place(runs, *index) < share
    }

    pub fn ran_by(&self, key: &ItemKey) -> Option<&AgentId> {
        self.ran_by.get(key).map(|(agent, _)| agent)
    }

    /// From here on nothing that the agent saw is believed.
    pub fn distrust(&mut self, agent: &AgentId) {
        self.distrusted.insert(agent.clone());
        let own = self.ran_by.iter().filter(|(_, (by, _))| by == agent).map(|(key, _)| key.clone());
        self.disowned.extend(own);
    }

    /// It is believed anew, and what it is compared by counts from nothing. What it saw before
    /// stays out.
    pub fn forgive(&mut self, agent: &AgentId) {
        self.distrusted.remove(agent);
        self.tallies.remove(agent);
        self.tallies.values_mut().for_each(|others| _ = others.remove(agent));
    }

    pub fn is_disowned(&self, key: &ItemKey) -> bool {
        self.disowned.contains(key)
    }

    /// The run that counts as this one: another, where its agent is not believed.
    pub fn standing(&self, key: ItemKey) -> ItemKey {
        let mut key = key;
        while let ItemKey::Run(runs, index) = &key
            && self.disowned.contains(&key)
        {
            key = ItemKey::Run(*runs, index + INSTEAD);
        }
        key
    }
}

/// Where a run stands between 0 and 1, the same for ever.
fn place(runs: &Digest, index: u32) -> f64 {
    let bytes = runs.as_bytes();
    let mut mixed = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in bytes.chunks(8) {
        let part = chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        mixed = (mixed ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 31;
    }
    mixed = mixed.wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

fn reason(tally: &Tally) -> String {
    let words = |what: &str, it: Differences| {
        (it.alone > it.missed)
            .then(|| format!("in {} only it saw {what}, in {} only the other did", it.alone, it.missed))
    };
    let said = [words("a crash", tally.crashes), words("no end of the run", tally.stuck)];
    let said: Vec<String> = said.into_iter().flatten().collect();
    format!(
        "its runs disagree with those of others: of {} that another agent made again, {}",
        tally.pairs,
        said.join("; ")
    )
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
