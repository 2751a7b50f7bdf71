//! Titles in doubt: other crashes that may be the target's bug under another name.
//!
//! Both readings are densities over the same runs. Where a title shows at all is left out of
//! both; an unrelated one then has a rate of its own, which is paid for once and not once a
//! revision, or a few revisions would talk every title into being the target's.

use super::rate::ln_gamma;

/// That a title which shares frames or files with the target is the same bug, and that
/// another is (SEARCH.md, titles).
const ALIKE: f64 = 0.7;
const UNLIKE: f64 = 0.05;
/// That one seen before the reproducer started is, and what each further such run leaves of that:
/// once may be a run that was read wrongly, many times it plainly comes by itself.
const BACKGROUND: f64 = 0.02;
const BACKGROUND_AGAIN: f64 = 0.5;
const BACKGROUND_MIN: f64 = 1e-6;
/// Readings double with every title.
pub(super) const TITLES_MAX: usize = 3;

/// A title in doubt and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Title {
    pub name: String,
    pub alike: bool,
    /// Runs that it ended before the reproducer started.
    pub background: u32,
    /// Runs with it, and runs without among those of the kernels that showed it.
    pub runs: u32,
    pub others: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Titles(pub Vec<Title>);

impl Titles {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The logarithm of the belief in a reading, with the runs that unrelated titles explain.
    pub fn reading(&self, alias: impl Fn(usize) -> bool) -> f64 {
        let each = |(n, title): (usize, &Title)| {
            let prior = title.prior();
            if alias(n) { prior.ln() } else { (1.0 - prior).ln() + title.unrelated() }
        };
        self.0.iter().enumerate().map(each).sum()
    }
}

impl Title {
    fn prior(&self) -> f64 {
        match (self.background, self.alike) {
            (0, true) => ALIKE,
            (0, false) => UNLIKE,
            (runs, _) => {
                let again = i32::try_from(runs - 1).unwrap_or(i32::MAX);
                (BACKGROUND * BACKGROUND_AGAIN.powi(again)).max(BACKGROUND_MIN)
            }
        }
    }

    /// A rate with the prior Beta(½, ½), summed over.
    fn unrelated(&self) -> f64 {
        let (with, without) = (f64::from(self.runs) + 0.5, f64::from(self.others) + 0.5);
        ln_gamma(with) + ln_gamma(without) - ln_gamma(with + without) - std::f64::consts::PI.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unrelated_title_is_paid_for_once() {
        let title = |runs| Title { name: "A".into(), alike: false, background: 0, runs, others: 0 };
        let odds = |runs| {
            let titles = Titles(vec![title(runs)]);
            (titles.reading(|_| true) - titles.reading(|_| false)).exp()
        };
        assert!(odds(3) < 0.2 && odds(30) < 0.7, "{} {}", odds(3), odds(30));
    }

    #[test]
    fn a_title_that_comes_by_itself_is_not_the_bug_however_often_it_comes_with_it() {
        let odds = |background| {
            let titles =
                Titles(vec![Title { name: "A".into(), alike: true, background, runs: 40, others: 260 }]);
            (titles.reading(|_| true) - titles.reading(|_| false)).exp()
        };
        let plain = odds(0);
        assert!(odds(1) < plain / 100.0 && odds(2) < odds(1) && odds(12) < plain / 1e5);
        assert!(odds(500) > 0.0);
    }
}
