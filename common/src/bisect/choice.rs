//! Which revisions to try next: those that split the suspects best, given those in flight.
//!
//! Every suspect weighs the same. On a line without skips a single pick is git's own.

use super::ancestry::{Ancestry, Bits};
use super::range::Range;

/// A region where nothing works: trying here again is held to be hopeless from this
/// probability on, if the gain has also fallen below `GAIN_MIN_BITS`.
const HOPELESS: f64 = 0.9;
const GAIN_MIN_BITS: f64 = 0.05;
/// Broken with this probability, before anything was seen nearby (b₀ in SEARCH.md).
const BROKEN_PRIOR: f64 = 0.05;
/// Weight of a revision in the same place.
const BROKEN_WEIGHT: f64 = 4.0;

/// A revision whose runs are known, and the share of them that said nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visited {
    pub at: u32,
    pub silent: f64,
}

/// The suspects, cut into cells by the revisions in flight.
pub(super) struct Field<'a> {
    range: &'a Range,
    suspects: &'a Bits,
    /// Share of visits that would say nothing, per commit; empty where all is well.
    broken: Vec<f64>,
    /// n·log₂ n for the sizes that occur.
    entropy: Vec<f64>,
    cells: Vec<Cell>,
    gains: Vec<f64>,
}

struct Cell {
    mask: Bits,
    size: u32,
    /// For every commit, how many of its ancestors are in the cell.
    counts: Vec<u32>,
}

impl<'a> Field<'a> {
    pub fn new(range: &'a Range, suspects: &'a Bits, visited: &[Visited]) -> Self {
        let size = u32::try_from(suspects.count()).expect("fewer suspects than commits");
        let counts = range.ancestry.count(suspects);
        let xlog2x = |n: u32| if n < 2 { 0.0 } else { f64::from(n) * f64::from(n).log2() };
        let mut field = Field {
            range,
            suspects,
            broken: broken(range, visited),
            entropy: (0..=size).map(xlog2x).collect(),
            cells: Vec::new(),
            gains: vec![0.0; range.ancestry.len()],
        };
        let cell = Cell { mask: suspects.clone(), size, counts };
        field.weigh(&cell, 1.0);
        field.cells.push(cell);
        field
    }

    /// Cuts the cells by a revision that is being tried; it gains nothing from then on.
    pub fn split(&mut self, by: u32) {
        let below = self.range.ancestry.ancestors(by);
        for cell in std::mem::take(&mut self.cells) {
            let inside = cell.counts[by as usize];
            if inside == 0 || inside == cell.size {
                self.cells.push(cell);
                continue;
            }
            self.weigh(&cell, -1.0);
            for half in cell.halves(&below, &self.range.ancestry) {
                // A cell of one suspect has nothing left to tell.
                if half.size > 1 {
                    self.weigh(&half, 1.0);
                    self.cells.push(half);
                }
            }
        }
    }

    /// The best revision among the usable ones, or none that is worth its visit.
    pub fn best(&self, usable: impl Fn(u32) -> bool) -> Option<u32> {
        // Any cut at all gains more than this, and rounding much less.
        let informative = |&at: &u32| self.gains[at as usize] > 0.5 && usable(at);
        let candidates: Vec<u32> = (0..self.range.history.tip()).filter(informative).collect();
        let score = |at: u32| self.gains[at as usize] * (1.0 - self.broken_at(at));
        let best = candidates.iter().copied().map(score).fold(0.0, f64::max);
        let halves = candidates.iter().any(|&at| self.near_half(at));
        let good_enough =
            |&at: &u32| if halves { self.near_half(at) } else { score(at) >= best * (1.0 - 1e-9) };
        let weight = |at: u32| self.cells.iter().map(|cell| cell.counts[at as usize]).sum::<u32>();
        let pick = candidates
            .into_iter()
            .filter(good_enough)
            .min_by_key(|&at| (!self.suspects.get(at), weight(at), at))?;
        let hopeless = self.broken_at(pick) >= HOPELESS && score(pick) / self.total() < GAIN_MIN_BITS;
        (!hopeless).then_some(pick)
    }

    /// git's own notion of the middle, where the field is whole and clean: on long ranges it
    /// does not insist on the exact half, and it never asks this of a commit that stands
    /// alone (`approx_halfway` in bisect.c).
    fn near_half(&self, at: u32) -> bool {
        let [cell] = &self.cells[..] else { return false };
        if !self.broken.is_empty() || cell.size < self.total() as u32 {
            return false;
        }
        let weight = cell.counts[at as usize];
        let off = (2 * i64::from(weight) - i64::from(cell.size)).abs();
        weight > 1 && (off <= 1 || off < i64::from(cell.size) / 1024)
    }

    fn total(&self) -> f64 {
        (self.entropy.len() - 1) as f64
    }

    fn broken_at(&self, at: u32) -> f64 {
        self.broken.get(at as usize).copied().unwrap_or(0.0)
    }

    /// Adds what a cell makes of every commit's gain, in bits times suspects.
    fn weigh(&mut self, cell: &Cell, sign: f64) {
        let whole = self.entropy[cell.size as usize];
        for (gain, &inside) in self.gains.iter_mut().zip(&cell.counts) {
            let outside = self.entropy[(cell.size - inside) as usize];
            *gain += sign * (whole - self.entropy[inside as usize] - outside);
        }
    }
}

impl Cell {
    fn halves(self, below: &Bits, ancestry: &Ancestry) -> [Cell; 2] {
        let mut inner = self.mask.clone();
        inner.intersect(below);
        let inner_counts = ancestry.count(&inner);
        let inner_size = u32::try_from(inner.count()).expect("fewer suspects than commits");
        let mut outer = self.mask;
        outer.subtract(below);
        let outer_counts = self.counts.iter().zip(&inner_counts).map(|(all, inner)| all - inner).collect();
        [
            Cell { mask: inner, size: inner_size, counts: inner_counts },
            Cell { mask: outer, size: self.size - inner_size, counts: outer_counts },
        ]
    }
}

/// b̂(v) of SEARCH.md: failures are spatial, so a visit near one is likely to be another.
fn broken(range: &Range, visited: &[Visited]) -> Vec<f64> {
    if visited.iter().all(|visited| visited.silent == 0.0) {
        return Vec::new();
    }
    let mut sums = vec![(BROKEN_PRIOR, 1.0); range.ancestry.len()];
    for visited in visited {
        for (sum, &near) in sums.iter_mut().zip(range.nearness(visited.at)) {
            let weight = BROKEN_WEIGHT * f64::from(near);
            sum.0 += weight * visited.silent;
            sum.1 += weight;
        }
    }
    sums.into_iter().map(|(silent, all)| silent / all).collect()
}
