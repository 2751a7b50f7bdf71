//! How often a bug shows: the rate on a grid, so that anything a kernel may do can be weighed
//! by it and the rate summed over at the end.

use super::rate::ln_gamma;

/// Rates considered: steps of 1/32, and "always".
const STEPS: usize = 32;
const ALWAYS: f64 = 0.9999;
/// "Always" is believed this much at first: the logs we know reproduce 198 times of 198.
const ALWAYS_PRIOR: f64 = 0.5;
/// A kernel that has the bug and hides it, whatever the rate elsewhere: ten quiet runs of one
/// kernel are not ten independent ones.
pub(super) const HIDDEN: f64 = 0.00003;
/// A clean kernel shows the target with Beta(1, this): once in a thousand runs at first.
const FALSE_ALARM: f64 = 1000.0;

/// What is assumed of bug and runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assumption {
    /// The rate is unknown, kernels may hide the bug, and a crash may be a false alarm.
    Flaky,
    /// The bug shows in every run where it is, and nowhere else: what git assumes.
    Exact,
}

/// Beliefs in each rate of the grid, as logarithms; need not be normalised.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rates(pub Vec<f64>);

/// The grid's rates.
pub(super) fn grid(assumption: Assumption) -> Vec<f64> {
    match assumption {
        Assumption::Exact => vec![1.0 - 1e-12],
        Assumption::Flaky => {
            let steps = (1..STEPS).map(|step| step as f64 / STEPS as f64);
            // Bugs below one run in 32 exist; they are told from "not there" with patience only.
            std::iter::once(0.01).chain(steps).chain([0.985, ALWAYS]).collect()
        }
    }
}

/// For each rate, the logarithm of the probability of what one kernel with the bug showed.
pub(super) fn likelihood(assumption: Assumption, shown: u32, quiet: u32) -> Vec<f64> {
    let hidden = match (assumption, shown) {
        (Assumption::Flaky, 0) => HIDDEN,
        (Assumption::Flaky | Assumption::Exact, _) => 0.0,
    };
    let at = |rate: f64| {
        let ln = f64::from(shown) * rate.ln() + f64::from(quiet) * (-rate).ln_1p();
        if hidden > 0.0 && quiet > 0 { ((1.0 - hidden) * ln.exp() + hidden).ln() } else { ln }
    };
    grid(assumption).into_iter().map(at).collect()
}

/// The logarithm of the probability that clean kernels show the target `shown` times: the
/// rate of false alarms is summed over too, so it is learned.
pub(super) fn false_alarms(assumption: Assumption, shown: u32, quiet: u32) -> f64 {
    match assumption {
        Assumption::Exact => f64::from(shown) * (1e-12f64).ln(),
        Assumption::Flaky => {
            // B(1+s, n+q)/B(1, n), as products of few factors.
            let (shown, quiet) = (f64::from(shown), f64::from(quiet));
            let mut ln = 0.0;
            let mut step = 0.0;
            while step < shown {
                ln += ((1.0 + step) / (FALSE_ALARM + quiet + 1.0 + step)).ln();
                step += 1.0;
            }
            ln + (FALSE_ALARM / (FALSE_ALARM + quiet)).ln()
        }
    }
}

/// The logarithm of the probability that of kernels which forked off before a bad good end just
/// these have its bug, and those lack it. Where the bug came and where they forked off are as
/// good as drawn from one line, so whether a further one has it is told by those before.
pub(super) fn forks(with: usize, without: usize) -> f64 {
    let (with, without) = (with as f64 + 1.0, without as f64 + 1.0);
    ln_gamma(with) + ln_gamma(without) - ln_gamma(with + without)
}

impl Rates {
    pub fn prior(assumption: Assumption) -> Self {
        let rates = grid(assumption);
        let others = (1.0 - ALWAYS_PRIOR) / (rates.len().max(2) - 1) as f64;
        let last = rates.len() - 1;
        Rates((0..rates.len()).map(|at| if at == last { ALWAYS_PRIOR.ln() } else { others.ln() }).collect())
    }

    pub fn learn(&mut self, likelihood: &[f64]) {
        self.0.iter_mut().zip(likelihood).for_each(|(belief, ln)| *belief += ln);
    }

    /// The logarithm of the sum of all beliefs.
    pub fn ln_sum(&self) -> f64 {
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        max + self.0.iter().map(|ln| (ln - max).exp()).sum::<f64>().ln()
    }

    /// The rate that is not undercut with this probability.
    pub fn at_least(&self, assumption: Assumption, sure: f64) -> f64 {
        let sum = self.ln_sum();
        let mut below = 0.0;
        let mut terms = grid(assumption).into_iter().zip(&self.0);
        let reached = terms.find(|(_, ln)| {
            below += (*ln - sum).exp();
            below > 1.0 - sure
        });
        reached.map_or(1.0, |(rate, _)| rate)
    }

    /// The probability that this many runs stay quiet where the bug is.
    pub fn miss(&self, assumption: Assumption, runs: u32) -> f64 {
        let sum = self.ln_sum();
        let exponent = i32::try_from(runs).unwrap_or(i32::MAX);
        let terms = grid(assumption).into_iter().zip(&self.0);
        terms.map(|(rate, ln)| (ln - sum).exp() * (1.0 - rate).powi(exponent)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(shown: u32, quiet: u32) -> Rates {
        let mut rates = Rates::prior(Assumption::Flaky);
        rates.learn(&likelihood(Assumption::Flaky, shown, quiet));
        rates
    }

    #[test]
    fn the_rate_is_learned() {
        for (shown, quiet, low, high) in [
            (4, 0, 0.9, 1.0),
            (20, 0, 0.98, 1.0),
            (50, 50, 0.45, 0.55),
            (2, 18, 0.08, 0.2),
            (100, 0, 0.99, 1.0),
        ] {
            let mean = 1.0 - seen(shown, quiet).miss(Assumption::Flaky, 1);
            assert!((low..=high).contains(&mean), "{shown} of {}: {mean}", shown + quiet);
            let least = seen(shown, quiet).at_least(Assumption::Flaky, 0.95);
            assert!((mean / 6.0..mean + 0.01).contains(&least), "{shown} of {}: {least}", shown + quiet);
        }
    }

    #[test]
    fn quiet_runs_of_one_kernel_never_make_sure() {
        let many = likelihood(Assumption::Flaky, 0, 500);
        assert!(many.iter().all(|&ln| (ln.exp() - HIDDEN).abs() < HIDDEN || ln.exp() > HIDDEN));
        assert!(likelihood(Assumption::Exact, 0, 2)[0] < -50.0);
    }

    #[test]
    fn forks_that_agree_are_hardly_held_against_a_good_end() {
        let close = |found: f64, expected: f64| assert!((found.exp() - expected).abs() < 1e-6, "{found}");
        (0..12).for_each(|kernels| close(forks(0, kernels), 1.0 / (kernels as f64 + 1.0)));
        (0..12).for_each(|kernels| close(forks(kernels, 0), 1.0 / (kernels as f64 + 1.0)));
        assert!(forks(3, 3) < forks(6, 0) - 2.0);
    }

    #[test]
    fn false_alarms_become_likelier_once_seen() {
        let once = false_alarms(Assumption::Flaky, 1, 100);
        let twice = false_alarms(Assumption::Flaky, 2, 100);
        assert!(once < -6.5 && twice - once > once);
    }
}
