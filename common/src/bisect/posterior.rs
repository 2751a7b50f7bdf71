//! The posterior: how likely each commit is to be the culprit, given all that was seen.
//!
//! Commits that no test tells apart form a class, and the model is worked out once a class:
//! so it may be as rich as it likes. Nothing here remembers in which order things were seen.

use super::model::{self, Assumption, Rates};
use super::range::Range;
use super::titles::Titles;
use crate::job::Mode;

/// Which hypotheses a kernel contains. "Nothing in the range" is contained by every kernel that
/// descends from the good end; others forked off before it, and may or may not have the bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Behind the whole range.
    All,
    /// Before the range.
    Outside,
    Ancestors(u32),
    /// The tip with this commit reverted.
    AllBut(u32),
}

/// What was seen of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Test {
    /// More than one where revisions build to the same kernel.
    pub holds: Vec<Holds>,
    pub target: u32,
    pub ok: u32,
    /// Runs with each of the titles in doubt.
    pub others: Vec<u32>,
    /// Whether it shows the bug, where a person says so: nothing else counts then.
    pub told: Option<bool>,
    /// Fix: a clean commit that may never have had the bug.
    pub line: Option<u32>,
}

/// People err too, but more is believed of them than of the runs of many kernels, each of which may hide the bug.
const TOLD_WRONG: f64 = -100.0;
/// A change among kernels that are equal is no change: this much is believed of it.
const NO_OP: f64 = -25.0;
/// One kernel that shows both titles speaks against their being one bug.
const BOTH_TITLES: f64 = 0.3;

/// Ways to read the titles that are less likely do not steer the choice.
const READING_MIN: f64 = 0.005;

/// Beliefs, summing to 1.
#[derive(Clone, Debug)]
pub(super) struct Posterior {
    /// By commit, and last that none of the range is the culprit.
    pub weights: Vec<f64>,
    /// Which commits no test tells apart.
    pub classes: Vec<u32>,
    /// The rate of the bug, if the likeliest class holds the culprit.
    pub rates: Rates,
    /// For each title in doubt, the probability that it is the target's bug.
    pub aliases: Vec<f64>,
    /// For each way to read the titles, its part in the likelihood of each class.
    parts: Vec<Vec<f64>>,
}

impl Posterior {
    pub fn new(
        range: &Range,
        assumption: Assumption,
        prior: &[f64],
        tests: &[Test],
        titles: &Titles,
    ) -> Self {
        let (classes, members) = classes(range, tests);
        let mut mass = vec![0.0; members.len()];
        classes.iter().zip(prior).for_each(|(&class, prior)| mass[class as usize] += prior);
        let readings = readings(range, assumption, &members, tests, titles);
        let best = |weights: &[f64]| weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let max = readings.iter().map(|reading| best(&reading.classes)).fold(f64::NEG_INFINITY, f64::max);
        let mut likelihood = vec![0.0; members.len()];
        let mut aliases = vec![0.0; titles.len()];
        let mut rates = (0.0, Rates::prior(assumption));
        let part = |reading: &Reading| reading.classes.iter().map(|&ln| (ln - max).exp()).collect();
        let mut parts: Vec<Vec<f64>> = readings.iter().map(part).collect();
        for reading in &readings {
            for (class, &ln) in reading.classes.iter().enumerate() {
                let weight = (ln - max).exp();
                likelihood[class] += weight;
                let weight = weight * mass[class];
                aliases
                    .iter_mut()
                    .enumerate()
                    .filter(|(n, _)| reading.alias(*n))
                    .for_each(|(_, a)| *a += weight);
                if weight > rates.0 {
                    rates = (weight, reading.rates(range.mode, assumption, &members[class], tests));
                }
            }
        }
        let sum: f64 = likelihood.iter().zip(&mass).map(|(likelihood, mass)| likelihood * mass).sum();
        aliases.iter_mut().for_each(|alias| *alias /= sum);
        for part in &mut parts {
            let whole = likelihood.iter();
            part.iter_mut().zip(whole).for_each(|(part, whole)| *part /= whole.max(f64::MIN_POSITIVE));
        }
        let weights = classes
            .iter()
            .zip(prior)
            .map(|(&class, prior)| prior * likelihood[class as usize] / sum)
            .collect();
        Posterior { weights, classes, rates: rates.1, aliases, parts }
    }

    /// The likeliest commit and its probability; the first among equals. Nothing where it is
    /// likeliest that no commit of the range is it.
    pub fn best(&self) -> Option<(u32, f64)> {
        let best = |kept: (usize, f64), (at, &weight): (usize, &f64)| {
            if weight > kept.1 { (at, weight) } else { kept }
        };
        let (at, weight) = self.weights.iter().enumerate().fold((0, 0.0), best);
        (at + 1 < self.weights.len()).then_some((at as u32, weight))
    }

    pub fn nothing(&self) -> f64 {
        self.weights.last().copied().unwrap_or(0.0)
    }

    /// Weights, shared out among the ways to read the titles; those that hardly matter are left out.
    pub fn by_reading(&self, weights: &[f64]) -> Vec<Vec<f64>> {
        let share = |part: &Vec<f64>| -> Vec<f64> {
            weights.iter().zip(&self.classes).map(|(weight, &class)| weight * part[class as usize]).collect()
        };
        let shares: Vec<Vec<f64>> = self.parts.iter().map(share).collect();
        shares.into_iter().filter(|share| share.iter().sum::<f64>() >= READING_MIN).collect()
    }

    /// The likeliest commits that together hold this share, likeliest first.
    pub fn credible(&self, share: f64) -> Vec<(u32, f64)> {
        let commits = &self.weights[..self.weights.len() - 1];
        let min = share.min(1.0 - share) / commits.len() as f64;
        let mut listed: Vec<(u32, f64)> =
            (0u32..).zip(commits.iter().copied()).filter(|(_, weight)| *weight >= min).collect();
        listed.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut sum = 0.0;
        let enough = listed.iter().position(|(_, weight)| {
            sum += weight;
            sum >= share
        });
        listed.truncate(enough.map_or(listed.len(), |at| at + 1));
        listed
    }

    /// The weights without the least likely classes, which together hold less than `idle`.
    pub fn live(&self, idle: f64) -> Vec<f64> {
        let classes = self.classes.iter().max().map_or(0, |&max| max as usize + 1);
        let mut masses: Vec<(f64, usize)> = (0..classes).map(|class| (0.0, class)).collect();
        for (&class, &weight) in self.classes.iter().zip(&self.weights) {
            masses[class as usize].0 += weight;
        }
        masses.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut dead = vec![false; classes];
        let mut sum = 0.0;
        for (mass, class) in masses {
            sum += mass;
            dead[class] = sum < idle;
        }
        let weigh = |(&class, &weight): (&u32, &f64)| if dead[class as usize] { 0.0 } else { weight };
        self.classes.iter().zip(&self.weights).map(weigh).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Without,
    With,
    /// Equal kernels, of which only some contain it.
    Torn,
    /// It has the bug, or not, as it may have had by where it forked off.
    Open,
}

/// The class of each hypothesis, and each class's place in every test.
fn classes(range: &Range, tests: &[Test]) -> (Vec<u32>, Vec<Vec<Member>>) {
    let len = range.history.len();
    let mut classes = vec![0u32; len + 1];
    let mut members: Vec<Vec<Member>> = vec![Vec::new()];
    let mut states = vec![0u8; len + 1];
    for test in tests {
        states.fill(0);
        let mut open = false;
        for holds in &test.holds {
            match *holds {
                Holds::All => states.iter_mut().for_each(|state| *state += 1),
                Holds::Outside => states[len] += 1,
                Holds::Ancestors(of) => {
                    states[len] += 1;
                    open |= !range.holds_good(of);
                    range.ancestry.ancestors(of).iter().for_each(|at| states[at as usize] += 1);
                }
                Holds::AllBut(commit) => {
                    states.iter_mut().for_each(|state| *state += 1);
                    states[commit as usize] -= 1;
                }
            }
        }
        let all = test.holds.len() as u8;
        let mut renamed = vec![u32::MAX; members.len() * 4];
        let mut refined: Vec<Vec<Member>> = Vec::new();
        for (at, (class, &state)) in classes.iter_mut().zip(&states).enumerate() {
            let (code, member) = match state {
                _ if at == len && open => (3, Member::Open),
                0 => (0, Member::Without),
                state if state == all => (1, Member::With),
                _ => (2, Member::Torn),
            };
            let name = &mut renamed[*class as usize * 4 + code];
            if *name == u32::MAX {
                *name = refined.len() as u32;
                let mut places = members[*class as usize].clone();
                places.push(member);
                refined.push(places);
            }
            *class = *name;
        }
        members = refined;
    }
    (classes, members)
}

/// One way to read the titles in doubt.
struct Reading {
    /// Bit n: the n-th title is the target's bug.
    aliases: usize,
    /// By class, the logarithm of its likelihood.
    classes: Vec<f64>,
}

fn readings(
    range: &Range,
    assumption: Assumption,
    members: &[Vec<Member>],
    tests: &[Test],
    titles: &Titles,
) -> Vec<Reading> {
    let reading = |aliases: usize| {
        let reading = Reading { aliases, classes: Vec::new() };
        let with: Vec<Vec<f64>> =
            tests.iter().map(|test| model::likelihood(assumption, reading.shown(test), test.ok)).collect();
        let own = titles.reading(|n| reading.alias(n)) + reading.mixed(tests);
        let forks = reading.forks(range, tests);
        let class = |places: &Vec<Member>| {
            let mut rates = Rates::prior(assumption);
            let (mut shown, mut quiet, mut ln) = (0, 0, own);
            let mut lines = Vec::new();
            for ((place, test), with) in places.iter().zip(tests).zip(&with) {
                if let Some(told) = test.told {
                    let fits = has_bug(range.mode, *place, u32::from(told)).is_none_or(|shows| shows == told);
                    ln += if fits { 0.0 } else { TOLD_WRONG };
                    continue;
                }
                if let (Some(at), Member::Without) = (test.line, place) {
                    lines.push(at);
                    continue;
                }
                match has_bug(range.mode, *place, reading.shown(test)) {
                    Some(true) => rates.learn(with),
                    Some(false) => {
                        shown += reading.shown(test);
                        quiet += test.ok;
                    }
                    None => ln += NO_OP,
                }
            }
            if !lines.is_empty() {
                ln += model::forks(0, own_lot(range, &lines, |at, other| (other, at)).count());
            }
            if places.contains(&Member::Open) {
                ln += forks;
            }
            ln + rates.ln_sum() + model::false_alarms(assumption, shown, quiet)
        };
        let classes = members.iter().map(class).collect();
        Reading { classes, ..reading }
    };
    (0..1usize << titles.len()).map(reading).collect()
}

impl Reading {
    fn alias(&self, title: usize) -> bool {
        self.aliases >> title & 1 == 1
    }

    fn shown(&self, test: &Test) -> u32 {
        let aliases = test.others.iter().enumerate().filter(|(n, _)| self.alias(*n));
        test.target + aliases.map(|(_, runs)| runs).sum::<u32>()
    }

    fn mixed(&self, tests: &[Test]) -> f64 {
        let both = |test: &&Test| test.target > 0 && self.shown(test) > test.target;
        tests.iter().filter(both).count() as f64 * BOTH_TITLES.ln()
    }

    /// What kernels that forked off before the good end say of its being bad. Those whose lot
    /// follows from another's say nothing.
    fn forks(&self, range: &Range, tests: &[Test]) -> f64 {
        let (mut with, mut without): (Vec<u32>, Vec<u32>) = Default::default();
        for test in tests {
            let forked = |holds: &Holds| match *holds {
                Holds::Ancestors(of) if !range.holds_good(of) => Some(of),
                Holds::Ancestors(_) | Holds::All | Holds::Outside | Holds::AllBut(_) => None,
            };
            let Some(of) = test.holds.iter().find_map(forked) else { continue };
            match (self.shown(test), test.ok) {
                (0, 0) => {}
                (0, _) => without.push(of),
                (_, _) => with.push(of),
            }
        }
        let with = own_lot(range, &with, |at, other| (at, other)).count();
        model::forks(with, own_lot(range, &without, |at, other| (other, at)).count())
    }

    fn rates(&self, mode: Mode, assumption: Assumption, places: &[Member], tests: &[Test]) -> Rates {
        let mut rates = Rates::prior(assumption);
        for (place, test) in places.iter().zip(tests).filter(|(_, test)| test.told.is_none()) {
            if has_bug(mode, *place, self.shown(test)) == Some(true) {
                rates.learn(&model::likelihood(assumption, self.shown(test), test.ok));
            }
        }
        rates
    }
}

/// Those kernels whose lot does not follow from another's: `order` says which of two would have
/// to descend from the other for that.
fn own_lot<'a>(
    range: &'a Range,
    kernels: &'a [u32],
    order: impl Fn(u32, u32) -> (u32, u32) + 'a,
) -> impl Iterator<Item = u32> + 'a {
    let follows = move |at: u32, other: u32| {
        let (above, below) = order(at, other);
        at != other && range.ancestry.reaches(above, below)
    };
    kernels.iter().copied().filter(move |&at| !kernels.iter().any(|&other| follows(at, other)))
}

/// Whether a kernel shows the bug if the commit is the one; nothing where neither fits.
fn has_bug(mode: Mode, place: Member, shown: u32) -> Option<bool> {
    match place {
        Member::Open => Some(shown > 0),
        Member::With => Some(mode == Mode::Cause),
        Member::Without => Some(mode == Mode::Fix),
        Member::Torn => None,
    }
}
