//! A world's parameters, all of them from its seed.

use crate::dice::Dice;
use crate::kernels::Faults;
use kulprit_common::farm::Config;

/// What happens from time to time until the world calms down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Killed; it comes back with a later session.
    AgentDies,
    /// Forgets what it holds and speaks on in the same session.
    AgentForgets,
    /// Stopped for seconds or minutes, and continued.
    AgentStops,
    /// Cut off from one coordinator or from both.
    AgentCut,
    HalfCut,
    /// With notice: it drains.
    AgentPreempted,
    /// Gone for minutes without a word.
    AgentVanishes,
    /// Low on disk: it says that it cannot build.
    DiskLow,
    /// Whatever it tries fails for want of room.
    DiskFull,
    /// Its wall clock, or the coordinators', jumps by hours.
    WallJumps,
    CoordinatorDies,
    /// Stopped, while another may take over, and continued.
    CoordinatorStops,
    /// An operator overrules a revision, with the truth.
    Overruled,
    Cancelled,
    /// An operator sets an agent aside, and lets it work again minutes later.
    SetAside,
    /// An operator has tried again what a job gave up.
    Released,
}

const TROUBLES: [Trouble; 16] = [
    Trouble::AgentDies,
    Trouble::AgentForgets,
    Trouble::AgentStops,
    Trouble::AgentCut,
    Trouble::HalfCut,
    Trouble::AgentPreempted,
    Trouble::AgentVanishes,
    Trouble::DiskLow,
    Trouble::DiskFull,
    Trouble::WallJumps,
    Trouble::CoordinatorDies,
    Trouble::CoordinatorStops,
    Trouble::Overruled,
    Trouble::Cancelled,
    Trouble::SetAside,
    Trouble::Released,
];

#[derive(Clone, Debug)]
pub struct Plan {
    pub agents: usize,
    pub slots: usize,
    pub commits: u32,
    pub culprit: u32,
    pub jobs: usize,
    /// One job more, which no agent has the memory for.
    pub hungry: bool,
    pub kernels: Faults,
    /// Of messages, in percent.
    pub lost: u64,
    pub repeated: u64,
    /// Of messages, in permille: late by up to two minutes.
    pub late: u64,
    pub delay_ms: u64,
    /// The longest a batch takes to become durable.
    pub disk_ms: u64,
    pub build_ms: u64,
    pub run_ms: u64,
    /// Of attempts, in percent: they fail for no reason in the kernel.
    pub infra: u64,
    /// Of commits, in percent: their builds fail so on every agent, and the runs of half as many.
    pub poison: u64,
    pub noise: Option<Noise>,
    /// Each with the mean time between two of its kind.
    pub troubles: Vec<(Trouble, u64)>,
    /// From here on nothing goes wrong any more.
    pub calm_at: u64,
}

/// An agent that is not to be believed.
#[derive(Clone, Debug)]
pub struct Noise {
    pub agent: usize,
    /// Of its runs, in percent.
    pub percent: u64,
    pub sees: Sees,
    /// Of all agents' runs, in percent: they crash otherwise than is looked for.
    pub bad_luck: u64,
}

/// What a noisy agent makes up, as it is compared.
#[derive(Clone, Copy, Debug)]
pub enum Sees {
    Crashes = 1,
    DeadBoots = 2,
}

/// One world in so many is a big one.
pub const BIG_EVERY: u64 = 500;
/// And one has an agent that makes up what it sees.
const NOISY_EVERY: u64 = 25;

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut dice = Dice(seed ^ 0x6661_726d);
        match seed {
            _ if seed % BIG_EVERY == BIG_EVERY - 1 => Plan::big(&mut dice),
            _ if seed.is_multiple_of(NOISY_EVERY) => Plan::noisy(&mut dice),
            _ => Plan::small(&mut dice),
        }
    }

    fn small(dice: &mut Dice) -> Plan {
        let commits = 4 + dice.roll(20) as u32;
        let calm_at = 60_000 + dice.roll(40 * 60_000);
        Plan {
            agents: 1 + dice.roll(6) as usize,
            slots: 1 + dice.roll(3) as usize,
            commits,
            culprit: 1 + dice.roll(u64::from(commits) - 1) as u32,
            jobs: 1 + dice.roll(3) as usize,
            hungry: dice.chance(10),
            kernels: Faults {
                conflicts: one_of(dice, &[0, 0, 30, 100]),
                idle: one_of(dice, &[0, 0, 30]),
                ..Faults::default()
            },
            lost: one_of(dice, &[0, 2, 10, 30]),
            repeated: one_of(dice, &[0, 5, 30]),
            late: one_of(dice, &[0, 0, 10, 100]),
            delay_ms: one_of(dice, &[5, 100, 2000, 8000]),
            disk_ms: one_of(dice, &[1, 20, 3000]),
            build_ms: one_of(dice, &[2000, 30_000, 120_000]),
            run_ms: one_of(dice, &[500, 5000, 40_000]),
            infra: one_of(dice, &[0, 0, 0, 5, 20]),
            poison: one_of(dice, &[0, 0, 0, 10, 30]),
            noise: None,
            troubles: troubles(dice, 40, 15_000, 600_000),
            calm_at,
        }
    }

    /// A small one with work enough for the noise to be told from bad luck.
    fn noisy(dice: &mut Dice) -> Plan {
        let agents = 3 + dice.roll(4) as usize;
        let noise = Noise {
            agent: dice.roll(agents as u64) as usize,
            percent: one_of(dice, &[50, 70, 100]),
            sees: if dice.chance(50) { Sees::Crashes } else { Sees::DeadBoots },
            bad_luck: one_of(dice, &[0, 5, 15]),
        };
        Plan {
            agents,
            jobs: 6,
            hungry: false,
            kernels: Faults::default(),
            infra: 0,
            poison: 0,
            noise: Some(noise),
            run_ms: one_of(dice, &[500, 5000]),
            troubles: troubles(dice, 20, 60_000, 600_000),
            ..Plan::small(dice)
        }
    }

    fn big(dice: &mut Dice) -> Plan {
        let agents = 200 + dice.roll(201) as usize;
        Plan {
            agents,
            slots: 1,
            commits: 30,
            culprit: 1 + dice.roll(29) as u32,
            jobs: 8 + dice.roll(9) as usize,
            hungry: false,
            kernels: Faults::default(),
            lost: 2,
            repeated: 2,
            late: 2,
            delay_ms: 1000,
            disk_ms: 20,
            build_ms: 60_000,
            run_ms: 10_000,
            infra: 1,
            poison: 0,
            noise: None,
            troubles: troubles(dice, 80, 1000, 20_000),
            calm_at: 4 * 60_000,
        }
    }

    /// Whether an item may be given up for a fault that is no kernel's.
    pub fn may_give_up(&self) -> bool {
        self.infra > 0 || self.poison > 0 || self.noise.is_some()
    }

    /// Where an agent is noisy, every run gets a second look: so short a life shows enough of it then.
    pub fn config(&self) -> Config {
        let usual = Config::default();
        let second_looks = if self.noise.is_some() { 1.0 } else { usual.second_looks };
        Config { second_looks, ..usual }
    }
}

/// Each kind with this chance in percent, each with its own mean interval.
fn troubles(dice: &mut Dice, percent: u64, least: u64, most: u64) -> Vec<(Trouble, u64)> {
    let mut chosen = Vec::new();
    for trouble in TROUBLES {
        if dice.chance(percent) {
            let every = least + dice.roll(most - least);
            let rare = matches!(trouble, Trouble::Overruled | Trouble::Cancelled | Trouble::HalfCut);
            chosen.push((trouble, if rare { every * 4 } else { every }));
        }
    }
    chosen
}

fn one_of(dice: &mut Dice, choices: &[u64]) -> u64 {
    choices[dice.roll(choices.len() as u64) as usize]
}
