//! How likely each part of the range is to hold the culprit, by all runs of a log.
//!
//! The model is the one of the search: a rate at which the bug shows, summed over; titles that
//! are the bug or are not, summed over; runs that met something else say next to nothing.

use super::likeness;
use super::log::{Kind, Log, Test, Word};
use super::scale::Scale;
use crate::crash::{self, Crash, Target};

/// Titles that are weighed both ways; readings double with each.
const TITLES_MAX: usize = 4;
/// A title seen where the reproducer had not started, or where the bug is not.
const BACKGROUND: f64 = 0.02;
/// Titles at the start beside the target: bugs of memory show under many.
const BESIDE_TARGET: f64 = 0.6;
/// A stranger, but every run of the reproducer meets it: something the reproducer does brings
/// it about, and one bug often shows under another title in another release.
const ALWAYS: f64 = 0.3;
/// A kernel with the bug keeps quiet in all its runs, whatever the rate.
const HIDDEN: f64 = 2e-5;
const FALSE_ALARM: f64 = 1e-3;
/// One unrelated bug comes or goes between two tests that have nothing else to do with it.
const SWITCH: f64 = 0.1;
/// Where the bug always shows, a run that met something else was likelier without it.
const OTHER_MIN: f64 = 0.05;
/// That no commit of the range is to blame.
const NOTHING: f64 = 0.002;

/// Hypotheses that nothing tells apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The commits that are more than the first, up to the second on the scale.
    pub from: u64,
    pub to: u64,
    /// The one commit it is, where that was tested.
    pub test: Option<usize>,
    pub probability: f64,
}

/// A title beside the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Title {
    pub name: String,
    pub background: bool,
    /// By its looks.
    pub prior: f64,
    /// That it is the target's bug, by all runs.
    pub same_bug: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub parts: Vec<Part>,
    pub titles: Vec<Title>,
    /// How often the bug shows where it is.
    pub rate: f64,
}

struct Kernel {
    place: u64,
    target: u32,
    ok: u32,
    /// By title in doubt.
    doubtful: Vec<u32>,
    /// Runs with titles beyond those.
    strange: u32,
}

impl Weights {
    /// By the first `upto` tests. `factor` makes a tested commit likelier or less likely.
    pub fn new(
        log: &Log,
        scale: &Scale,
        target: &Target,
        upto: usize,
        factor: impl Fn(usize) -> f64,
    ) -> Weights {
        let mut titles = titles(log, target, upto);
        let kernels = kernels(log, scale, target, &titles, upto);
        let mut parts = parts(log, scale, upto, factor);
        let (mut same, mut rate, mut sum) = (vec![0.0; titles.len()], 0.0, 0.0);
        let mut weights = vec![0.0; parts.len()];
        for reading in 0..1usize << titles.len() {
            let alias = |n: usize| reading >> n & 1 == 1;
            let own = reading_weight(&titles, &kernels, &alias);
            for (part, weight) in parts.iter().zip(&mut weights) {
                for (p, prior) in rates() {
                    let ln: f64 = kernels.iter().map(|it| it.weigh(log.kind, part, p, &alias)).sum();
                    let mass = part.probability * prior * own * ln.exp();
                    *weight += mass;
                    sum += mass;
                    rate += p * mass;
                    for (n, same) in same.iter_mut().enumerate().filter(|(n, _)| alias(*n)) {
                        debug_assert!(n < TITLES_MAX);
                        *same += mass;
                    }
                }
            }
        }
        // Where everything speaks against everything, nothing is known.
        let sum = if sum > 0.0 { sum } else { 1.0 };
        parts.iter_mut().zip(weights).for_each(|(part, weight)| part.probability = weight / sum);
        titles.iter_mut().zip(same).for_each(|(title, same)| title.same_bug = same / sum);
        Weights { parts, titles, rate: rate / sum }
    }

    /// That a verdict is right which says: the culprit is among these first commits, or not.
    pub fn claim(&self, place: u64, among: bool) -> f64 {
        let inside: f64 = self
            .parts
            .iter()
            .filter(|part| part.to <= place && part.to > 0)
            .map(|part| part.probability)
            .sum();
        let nothing: f64 = self.parts.iter().filter(|part| part.to == 0).map(|part| part.probability).sum();
        if among { inside + nothing } else { 1.0 - inside }
    }

    pub fn same_bug(&self, title: &str) -> Option<f64> {
        self.titles.iter().find(|it| it.name == title).map(|it| it.same_bug)
    }
}

/// Rates and how likely they are at first, as in the search: half of all bugs always show.
fn rates() -> impl Iterator<Item = (f64, f64)> {
    let steps = (1..20).map(|step| (f64::from(step) / 20.0, 0.5 / 19.0));
    steps.chain([(0.999, 0.5)])
}

pub fn is_target(target: &Target, title: &str) -> bool {
    crash::compare(target, &Crash::titled(title)) == crash::Match::Same
}

/// The other titles met most, with what speaks for and against them.
fn titles(log: &Log, target: &Target, upto: usize) -> Vec<Title> {
    let mut counted: Vec<(&str, u32)> = Vec::new();
    let tests = &log.tests[..upto];
    for (title, runs) in tests.iter().flat_map(Test::crashes) {
        if is_target(target, title) || likeness::is_harness(title) {
            continue;
        }
        match counted.iter_mut().find(|(known, _)| *known == title) {
            Some((_, sum)) => *sum += runs,
            None => counted.push((title, runs)),
        }
    }
    counted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    counted.truncate(TITLES_MAX);
    let at_start = |title: &str| {
        let start = tests.first().filter(|test| test.role == super::log::Role::Start);
        start.is_some_and(|test| test.crashes().iter().any(|(known, _)| *known == title))
    };
    let title = |(name, _): (&str, u32)| {
        let at_boot =
            |test: &Test| test.boot_crashes().iter().any(|(known, _)| known.split('\n').next() == Some(name));
        let free = |test: &Test| test.word.and_then(|word| log.shows(word)) == Some(false);
        let where_free = |test: &Test| free(test) && test.crashes().iter().any(|(known, _)| *known == name);
        let background = tests.iter().any(|test| at_boot(test) || where_free(test));
        let looks = likeness::prior(target, &crash_of(log, name));
        let looks = if at_start(name) { looks.max(BESIDE_TARGET) } else { looks };
        let showing = || tests.iter().filter(|test| test.crashes().iter().any(|(known, _)| *known == name));
        let always = showing().all(|test| test.crashes().len() == 1 && test.ok() == 0);
        let looks = if always { looks.max(ALWAYS) } else { looks };
        let prior = if background { BACKGROUND } else { looks };
        Title { name: name.into(), background, prior: prior.min(0.98), same_bug: 0.0 }
    };
    counted.into_iter().map(title).collect()
}

/// What is known of a title: all, where it is the one crash that the log prints.
fn crash_of(log: &Log, title: &str) -> crash::Crash {
    let printed = || {
        (log.crash.as_deref() == Some(title))
            .then(|| crash::parse(log.report.as_bytes()).into_iter().next())?
    };
    match printed() {
        Some(crash) => crash::Crash { title: title.into(), ..crash },
        None => Crash::titled(title),
    }
}

fn kernels(log: &Log, scale: &Scale, target: &Target, titles: &[Title], upto: usize) -> Vec<Kernel> {
    let kernel = |(test, place): (&Test, &Option<u64>)| {
        let crashes = test.crashes();
        let runs = |wanted: &dyn Fn(&str) -> bool| -> u32 {
            crashes.iter().filter(|(title, _)| wanted(title)).map(|(_, runs)| runs).sum()
        };
        let target_runs = runs(&|title| is_target(target, title));
        let doubtful: Vec<u32> = titles.iter().map(|it| runs(&|title| title == it.name)).collect();
        // Where a skipped revision stands among later ones is not known.
        let place = (*place)?;
        if test.word == Some(Word::Skip) {
            return None;
        }
        let known = target_runs + doubtful.iter().sum::<u32>();
        let harness = runs(&|title| !is_target(target, title) && likeness::is_harness(title));
        let strange = runs(&|_| true) - known - harness;
        Some(Kernel { place, target: target_runs, ok: test.ok(), doubtful, strange })
    };
    log.tests[..upto].iter().zip(&scale.places).filter_map(kernel).collect()
}

fn parts(log: &Log, scale: &Scale, upto: usize, factor: impl Fn(usize) -> f64) -> Vec<Part> {
    let mut named: Vec<(u64, Option<usize>)> = Vec::new();
    for (at, test) in log.tests[..upto].iter().enumerate() {
        let Some(place) = scale.places[at].filter(|place| *place > 0) else { continue };
        let skipped = test.word == Some(Word::Skip);
        // The start may be newer than the range; the range's own end names it.
        let newer = log.range.is_some_and(|(newer, _)| place == scale.size && newer != test.revision);
        if !skipped && !newer && !named.iter().any(|(known, _)| *known == place) {
            named.push((place, Some(at)));
        }
    }
    if !named.iter().any(|(place, _)| *place == scale.size) {
        named.push((scale.size, None));
    }
    named.sort_unstable();
    let mut parts = vec![Part { from: 0, to: 0, test: None, probability: scale.size as f64 * NOTHING }];
    let mut from = 0;
    for (place, test) in named {
        let own = u64::from(test.is_some());
        if place - from > own {
            let (to, mass) = (place - own, (place - from - own) as f64);
            parts.push(Part { from, to, test: None, probability: mass });
        }
        if test.is_some() {
            parts.push(Part { from: place - 1, to: place, test, probability: test.map_or(1.0, &factor) });
        }
        from = place;
    }
    parts
}

impl Kernel {
    /// The logarithm of how likely its runs are, if the culprit is in this part.
    fn weigh(&self, kind: Kind, part: &Part, rate: f64, alias: &dyn Fn(usize) -> bool) -> f64 {
        let contains = part.to > 0 && part.to <= self.place;
        let has_bug = part.to == 0 || contains == (kind == Kind::Cause);
        let (mut shown, mut other) = (self.target, self.strange);
        for (n, runs) in self.doubtful.iter().enumerate() {
            if alias(n) { shown += runs } else { other += runs }
        }
        if !has_bug {
            return match shown {
                0 => 0.0,
                shown => FALSE_ALARM.ln() + f64::from(shown.min(5) - 1) * 0.1f64.ln(),
            };
        }
        let quiet = f64::from(self.ok) * (1.0 - rate).ln();
        let quiet = if shown == 0 { (quiet.exp() * (1.0 - HIDDEN) + HIDDEN).ln() } else { quiet };
        let other = (f64::from(other) * (1.0 - rate / 2.0).ln()).max(OTHER_MIN.ln());
        f64::from(shown) * rate.ln() + quiet + other
    }
}

/// How likely a reading of the titles is, with what unrelated ones pay for showing as they do.
fn reading_weight(titles: &[Title], kernels: &[Kernel], alias: &dyn Fn(usize) -> bool) -> f64 {
    let each = |(n, title): (usize, &Title)| {
        if alias(n) {
            return title.prior;
        }
        let showed: Vec<&Kernel> = kernels.iter().filter(|kernel| kernel.doubtful[n] > 0).collect();
        let with: u32 = showed.iter().map(|kernel| kernel.doubtful[n]).sum();
        let without: u32 = showed.iter().map(|it| it.target + it.ok + it.strange).sum();
        // It comes and goes where it will, if it was seen without the bug.
        let switches = if title.background { 0 } else { switches(kernels, n) };
        (1.0 - title.prior) * own_rate(with, without) * SWITCH.powi(switches)
    };
    titles.iter().enumerate().map(each).product()
}

/// How often, along the range, kernels that show a title and kernels that run through change
/// places.
fn switches(kernels: &[Kernel], n: usize) -> i32 {
    let mut placed: Vec<(u64, bool)> = kernels
        .iter()
        .filter(|it| it.doubtful[n] > 0 || it.ok > 0 && it.target == 0)
        .map(|it| (it.place, it.doubtful[n] > 0))
        .collect();
    placed.sort_unstable();
    placed.windows(2).filter(|pair| pair[0].1 != pair[1].1).count() as i32
}

/// A rate with the prior Beta(1/2, 1/2), summed over: a product of few factors.
fn own_rate(with: u32, without: u32) -> f64 {
    let mut weight = 1.0;
    for n in 0..with.min(200) {
        weight *= (f64::from(n) + 0.5) / f64::from(n + 1);
    }
    for n in 0..without.min(200) {
        weight *= (f64::from(n) + 0.5) / f64::from(with.min(200) + n + 1);
    }
    weight
}
