//! How often the bug shows where it is present, and how many quiet runs that asks for.

use super::Counts;

/// Pseudo-counts: the logs we know reproduce 198 times of 198, so the prior leans to "always"
/// and gives way after a few quiet runs.
const PRIOR_TARGET: f64 = 1.0;
const PRIOR_OK: f64 = 0.25;
/// A quiet bug may be called absent this often, for one step of the search.
const MISS_SEARCH: f64 = 0.003;

/// The Beta posterior of the reproduce rate, pooled over kernels that showed the bug.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    target: f64,
    ok: f64,
}

impl Rate {
    pub fn pooled(counts: impl IntoIterator<Item = Counts>) -> Self {
        let prior = Rate { target: PRIOR_TARGET, ok: PRIOR_OK };
        counts.into_iter().fold(prior, |rate, counts| Rate {
            target: rate.target + f64::from(counts.target),
            ok: rate.ok + f64::from(counts.ok),
        })
    }

    pub fn mean(self) -> f64 {
        self.target / (self.target + self.ok)
    }

    /// Quiet runs that make a revision Good.
    pub fn runs_for_good(self, max: u32) -> u32 {
        quiet_runs(MISS_SEARCH, self.mean(), 2, max)
    }
}

fn quiet_runs(miss: f64, rate: f64, min: u32, max: u32) -> u32 {
    let runs = (miss.ln() / (1.0 - rate).max(f64::MIN_POSITIVE).ln()).ceil();
    // A float that is too large, or not a number, saturates; the bound below then holds.
    (runs as u32).clamp(min.min(max), max)
}

/// ln Γ(x) for x > 0, by Stirling's series after shifting x upwards.
pub(super) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let series = inverse / 12.0 - inverse.powi(3) / 360.0 + inverse.powi(5) / 1260.0;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(target: u32, ok: u32) -> Rate {
        Rate::pooled([Counts { target, ok, ..Counts::default() }])
    }

    #[test]
    fn the_gamma_function_has_its_known_values() {
        for (x, expected) in
            [(1.0, 1.0f64), (5.0, 24.0), (0.5, std::f64::consts::PI.sqrt()), (11.0, 3_628_800.0)]
        {
            assert!((ln_gamma(x) - expected.ln()).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn a_rarer_bug_asks_for_more_quiet_runs() {
        for (target, ok, good) in [(0, 0, 4), (3, 0, 3), (20, 0, 2), (100, 0, 2), (50, 50, 9), (5, 45, 10)] {
            assert_eq!(rate(target, ok).runs_for_good(10), good, "{target} of {}", target + ok);
        }
    }

    #[test]
    fn a_budget_of_one_run_is_kept() {
        assert_eq!(rate(0, 0).runs_for_good(1), 1);
        assert_eq!(rate(1, 1000).runs_for_good(1), 1);
    }
}
