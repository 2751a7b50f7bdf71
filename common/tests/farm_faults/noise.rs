//! Agents whose runs see what no other's do: they are found, and from then on nothing that they saw
//! counts; agents that only have bad luck are left alone.

use crate::dice::Dice;
use crate::plan::{Noise, Plan, Sees};
use crate::stats::Stats;
use kulprit_common::crash::Crash;
use kulprit_common::farm::fact::Judged;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::AgentId;
use kulprit_common::outcome::{Outcome, Phase, Product, Run, SeenCrash};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of runs from here on are second looks.
const AGAIN: u32 = 1 << 30;
/// Pairs that only an agent itself saw something in, after which it has been found: more than a
/// probability of a false alarm of one in ten thousand takes.
const FOUND_BY: u32 = 25;

impl Noise {
    /// What a run saw, by whoever made it.
    pub fn on(&self, agent: usize, item: &ItemKey, product: Product, dice: &mut Dice) -> Product {
        let (ItemKey::Run(kernel, index), Product::Run(run)) = (item, product.clone()) else {
            return product;
        };
        let place = u64::from(*index) << 8 | u64::from(kernel.as_bytes()[31]);
        let outcome = if agent == self.agent && dice.chance(self.percent) {
            match self.sees {
                Sees::DeadBoots => Outcome::BootFailed { crashes: vec![], reason: "it says nothing".into() },
                Sees::Crashes => Outcome::Crashed(vec![unrelated("general protection fault in memcpy")]),
            }
        } else if Dice(place).chance(self.bad_luck) {
            Outcome::Crashed(vec![unrelated("INFO: rcu detected stall in worker_thread")])
        } else {
            return product;
        };
        Product::Run(Run { outcome, ..run })
    }
}

/// Of the boot, so that the search has no reason to ask whether it is the bug under another title.
fn unrelated(title: &str) -> SeenCrash {
    let crash = Crash { panicked: true, ..Crash::titled(title) };
    SeenCrash { phase: Phase::Boot, crash }
}

/// Whether a run saw nothing, a crash, or no end.
fn sight(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Crashed(_) => 1,
        Outcome::BootFailed { .. } | Outcome::NoReproducerStart { .. } | Outcome::Hung { .. } => 2,
    }
}

/// Of the noisy agent's runs beside those of others, since any agent was let go last.
#[derive(Default)]
struct Pairs {
    all: u32,
    alone: u32,
    missed: u32,
}

/// What the journal says of runs and of those who made them.
#[derive(Default)]
pub struct Looks {
    ran: BTreeMap<ItemKey, (AgentId, u8)>,
    distrusted: BTreeSet<AgentId>,
    disowned: BTreeSet<ItemKey>,
    pairs: Pairs,
}

impl Looks {
    pub fn finished(&mut self, plan: &Plan, item: &ItemKey, agent: &AgentId, product: &Product) {
        let Product::Run(run) = product else { return };
        self.ran.insert(item.clone(), (agent.clone(), sight(&run.outcome)));
        if self.distrusted.contains(agent) {
            self.disowned.insert(item.clone());
        }
        if let Some(noise) = &plan.noise {
            self.compare(noise, item);
        }
    }

    fn compare(&mut self, noise: &Noise, look: &ItemKey) {
        let ItemKey::Run(kernel, index) = look else { return };
        let Some(first) = index.checked_sub(AGAIN).map(|index| ItemKey::Run(*kernel, index)) else { return };
        let (Some(one), Some(two)) = (self.ran.get(&first), self.ran.get(look)) else { return };
        assert_ne!(one.0, two.0, "{look} is no second look: the same agent made both");
        let (own, other) = if noise.is(&one.0) { (one, two) } else { (two, one) };
        if !noise.is(&own.0) || self.distrusted.contains(&own.0) {
            return;
        }
        let sees = noise.sees as u8;
        self.pairs.all += 1;
        self.pairs.alone += u32::from(own.1 == sees && other.1 != sees);
        self.pairs.missed += u32::from(own.1 != sees && other.1 == sees);
        let Pairs { all, alone, missed } = self.pairs;
        let beyond_doubt = alone >= FOUND_BY + 10 * missed && 3 * alone >= all;
        assert!(!beyond_doubt, "of {all} pairs {} alone saw something in {alone}, and is not found", own.0);
    }

    /// The farm does not believe an agent any more.
    pub fn set_aside(&mut self, plan: &Plan, agent: &AgentId, stats: &mut Stats) {
        let is_noisy = plan.noise.as_ref().is_some_and(|noise| noise.is(agent));
        assert!(is_noisy, "{agent} was set aside, and is honest");
        stats.saw("noisy agent is found");
        self.distrusted.insert(agent.clone());
        let own = self.ran.iter().filter(|(_, (by, _))| by == agent).map(|(key, _)| key.clone());
        self.disowned.extend(own);
    }

    /// It is believed anew, and pairs with it count from nothing. What it saw before stays out.
    pub fn let_go(&mut self, agent: &AgentId) {
        self.distrusted.remove(agent);
        self.pairs = Pairs::default();
    }

    pub fn judged(&self, judged: &Judged, stats: &mut Stats) {
        let disowned = judged.runs.iter().find(|key| self.disowned.contains(key));
        assert_eq!(disowned, None, "a verdict rests on what a noisy agent saw: {judged:?}");
        if !self.disowned.is_empty() {
            stats.saw("verdict is reached without a noisy agent's runs");
        }
        // Second looks compare agents; the search counts a run once.
        let looks = judged.runs.iter().find(|key| matches!(key, ItemKey::Run(_, index) if *index >= AGAIN));
        assert_eq!(looks, None, "a second look was counted: {judged:?}");
    }
}

impl Noise {
    fn is(&self, agent: &AgentId) -> bool {
        agent.as_str() == format!("agent-{}", self.agent)
    }
}
