//! Broken regions: how likely a visit is to say nothing, by what visits nearby said.

use super::range::Range;

/// Broken with this probability, before anything was seen nearby (b₀ in SEARCH.md).
const PRIOR: f64 = 0.05;
/// Weight of a revision in the same place.
const WEIGHT: f64 = 4.0;

/// A revision whose runs are known, and the share of them that said nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visited {
    pub at: u32,
    pub silent: f64,
}

/// b̂(v) of SEARCH.md for every commit; empty where all is well. `Range::learn_nearness` must
/// have been told of the visits.
pub(super) fn broken(range: &Range, visited: &[Visited]) -> Vec<f64> {
    if visited.iter().all(|visited| visited.silent == 0.0) {
        return Vec::new();
    }
    let mut sums = vec![(PRIOR, 1.0); range.ancestry.len()];
    for visited in visited {
        for (sum, &near) in sums.iter_mut().zip(range.nearness(visited.at)) {
            let weight = WEIGHT * f64::from(near);
            sum.0 += weight * visited.silent;
            sum.1 += weight;
        }
    }
    sums.into_iter().map(|(silent, all)| silent / all).collect()
}
