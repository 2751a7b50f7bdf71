//! How often the bug shows where it is present, and how many quiet runs that asks for.

use super::Counts;

/// Pseudo-counts: the logs we know reproduce 198 times of 198, so the prior leans to "always"
/// and gives way after a few quiet runs.
const PRIOR_TARGET: f64 = 1.0;
const PRIOR_OK: f64 = 0.25;
/// A quiet bug may be called absent this often, for one step of the search.
const MISS_SEARCH: f64 = 0.003;
/// The same for each parent of a culprit (SEARCH.md, certificate).
const MISS_CERTIFICATE: f64 = 0.005;
/// The certificate believes in this quantile of the rate.
const QUANTILE: f64 = 0.05;

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

    /// Quiet runs that the certificate asks of each parent.
    pub fn runs_for_certificate(self, max: u32) -> u32 {
        quiet_runs(MISS_CERTIFICATE, self.lower_bound(), 2, max.saturating_mul(3))
    }

    fn lower_bound(self) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        // 40 halvings are more digits than the count of runs can use.
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if beta_cdf(middle, self.target, self.ok) < QUANTILE { low = middle } else { high = middle }
        }
        low
    }
}

fn quiet_runs(miss: f64, rate: f64, min: u32, max: u32) -> u32 {
    let runs = (miss.ln() / (1.0 - rate).max(f64::MIN_POSITIVE).ln()).ceil();
    // A float that is too large, or not a number, saturates; the bound below then holds.
    (runs as u32).clamp(min.min(max), max)
}

/// The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction
/// (Numerical Recipes §6.4).
fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(1.0 - x, b, a) / b
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let nonzero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            fraction *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-12 {
            break;
        }
    }
    fraction
}

/// ln Γ(x) for x > 0, by Stirling's series after shifting x upwards.
fn ln_gamma(x: f64) -> f64 {
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
    fn the_beta_function_has_its_known_values() {
        for (x, a, b, expected) in [
            (0.5, 2.0, 2.0, 0.5),
            (0.2, 1.0, 1.0, 0.2),
            (0.3, 2.0, 1.0, 0.09),
            (0.9, 5.0, 1.0, 0.59049),
            (0.25, 1.0, 3.0, 1.0 - 0.421875),
        ] {
            assert!((beta_cdf(x, a, b) - expected).abs() < 1e-9, "I_{x}({a}, {b})");
        }
    }

    #[test]
    fn a_rarer_bug_asks_for_more_quiet_runs() {
        for (target, ok, good, certificate) in
            [(0, 0, 4, 26), (3, 0, 3, 5), (20, 0, 2, 2), (100, 0, 2, 2), (50, 50, 9, 10), (5, 45, 10, 30)]
        {
            let rate = rate(target, ok);
            assert_eq!(
                (rate.runs_for_good(10), rate.runs_for_certificate(10)),
                (good, certificate),
                "{target} of {}",
                target + ok
            );
        }
    }

    #[test]
    fn a_budget_of_one_run_is_kept() {
        assert_eq!(rate(0, 0).runs_for_good(1), 1);
        assert_eq!(rate(1, 1000).runs_for_good(1), 1);
    }
}
