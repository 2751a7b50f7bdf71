//! Which kernels to try next: those that tell most about the culprit in their time, given
//! those in flight. On a line without noise a single pick is git's own.

use super::costs::Costs;
use super::posterior::Holds;
use super::range::Range;
use crate::job::Mode;

/// Steps of the table of gains.
const STEPS: usize = 4096;
/// Above this chance of showing the bug, noise does not move the best choice.
const NOISELESS: f64 = 0.99;
/// Scale of weights: sums over 2³⁰ commits stay below 2⁶³.
const SCALE: f64 = (1u64 << 32) as f64;

/// What a choice is made under.
pub(super) struct Terms<'a> {
    pub range: &'a Range,
    pub costs: Costs,
    /// Runs of one look, and the probability that they show the bug where it is.
    pub runs: u32,
    pub shows: f64,
    /// Chance of a silent visit by commit; empty where all is well.
    pub broken: Vec<f64>,
    /// Chance that a visit shows a title in doubt instead of the target; empty where none was
    /// seen. What such a visit tells is said by how the title is read: only what it would tell
    /// to one who knew that counts.
    pub doubtful: Vec<f64>,
    /// Commits whose kernel exists.
    pub built: Vec<bool>,
    pub usable: Vec<bool>,
    /// Reverts that may be tried, and whether the kernel exists.
    pub reverts: Vec<(u32, bool)>,
    /// Whether the good end may be looked at (again).
    pub good_end: bool,
}

/// The hypotheses that matter.
pub(super) struct Field<'a> {
    terms: &'a Terms<'a>,
    whole: Layer,
    /// With each way to read the titles as a cell of its own; where kernels show such titles.
    apart: Option<Layer>,
    /// All hypotheses weigh the same, and nothing disturbs: git's own case.
    even: bool,
    table: Vec<f64>,
}

/// The hypotheses, cut into cells by the kernels in flight.
struct Layer {
    cells: Vec<Cell>,
    total: u64,
    /// By commit, what a look at it tells in bits if it tells anything.
    gains: Vec<f64>,
}

struct Cell {
    /// By commit, 0 outside the cell.
    weights: Vec<u64>,
    /// That nothing in the range is the culprit.
    nothing: u64,
    total: u64,
    /// For every commit, the weight of the hypotheses that its kernel contains.
    inside: Vec<u64>,
}

/// A kernel worth trying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pick {
    pub holds: Holds,
    /// Expected bits.
    pub gain: f64,
}

impl<'a> Field<'a> {
    /// `weights` by commit, and last that it is none of them; 0 for what does not matter.
    /// `readings` are the same weights, shared out among the ways to read the titles.
    pub fn new(terms: &'a Terms<'a>, weights: &[f64], readings: &[Vec<f64>]) -> Self {
        let max = weights.iter().copied().fold(0.0, f64::max);
        let even = terms.shows >= NOISELESS
            && terms.broken.is_empty()
            && weights.iter().all(|&weight| weight == 0.0 || weight >= max * (1.0 - 1e-6));
        let cell = |weights: &[f64]| {
            let scaled = |&weight: &f64| {
                if even { u64::from(weight > 0.0) } else { (weight / max * SCALE) as u64 }
            };
            let mut weights: Vec<u64> = weights.iter().map(scaled).collect();
            let nothing = weights.pop().unwrap_or(0);
            Cell::new(terms.range, weights, nothing)
        };
        let shows = if even { 1.0 } else { terms.shows };
        let table = (0..=STEPS).map(|step| bits(step as f64 / STEPS as f64, shows)).collect();
        let len = terms.range.ancestry.len();
        let mut field = Field { terms, whole: Layer::empty(len), apart: None, even, table };
        field.whole = field.layer(vec![cell(weights)]);
        if readings.len() > 1 && !terms.doubtful.is_empty() {
            field.apart = Some(field.layer(readings.iter().map(|weights| cell(weights)).collect()));
        }
        field
    }

    fn layer(&self, cells: Vec<Cell>) -> Layer {
        let mut layer = Layer::empty(self.terms.range.ancestry.len());
        layer.total = cells.iter().map(|cell| cell.total).sum();
        for cell in cells.into_iter().filter(|cell| cell.total > 0) {
            self.weigh(&mut layer, &cell, 1.0);
            layer.cells.push(cell);
        }
        layer
    }

    /// Cuts the cells by a kernel that is being tried; it gains nothing from then on.
    pub fn split(&mut self, by: Holds) {
        let mut whole = std::mem::replace(&mut self.whole, Layer::empty(0));
        self.split_layer(&mut whole, by);
        self.whole = whole;
        if let Some(mut apart) = self.apart.take() {
            self.split_layer(&mut apart, by);
            self.apart = Some(apart);
        }
    }

    fn split_layer(&self, layer: &mut Layer, by: Holds) {
        for cell in std::mem::take(&mut layer.cells) {
            let inside = cell.inside(by);
            if inside == 0 || inside == cell.total {
                layer.cells.push(cell);
                continue;
            }
            self.weigh(layer, &cell, -1.0);
            for half in cell.halves(by, self.terms.range) {
                self.weigh(layer, &half, 1.0);
                layer.cells.push(half);
            }
        }
    }

    /// Whether a kernel would tell anything about what matters.
    pub fn tells(&self, holds: Holds) -> bool {
        self.whole.cells.iter().any(|cell| (1..cell.total).contains(&cell.inside(holds)))
    }

    /// What tells most in its time, or nothing that is worth a visit.
    pub fn best(&self) -> Option<Pick> {
        let rate = |pick: &Pick| pick.gain / self.seconds(pick.holds);
        let mut best = self.best_revision();
        let others = self.terms.reverts.iter().map(|&(commit, _)| Holds::AllBut(commit));
        for holds in others.chain(self.terms.good_end.then_some(Holds::Outside)) {
            let of_cell = |cell: &Cell| self.of_cell(&self.whole, cell, cell.inside(holds));
            let gain = self.whole.cells.iter().map(of_cell).sum();
            let pick = Pick { holds, gain };
            // Rounding must not decide between equals: revisions come first.
            if best.as_ref().is_none_or(|best| rate(&pick) > rate(best) * (1.0 + 1e-9)) {
                best = Some(pick);
            }
        }
        best.filter(|pick| pick.gain > 1e-9)
    }

    fn best_revision(&self) -> Option<Pick> {
        let informative = |&at: &u32| self.terms.usable[at as usize] && self.whole.gains[at as usize] > 1e-9;
        let candidates: Vec<u32> = (0..self.terms.range.history.tip()).filter(informative).collect();
        let score = |at: u32| self.gain(at) / self.seconds(Holds::Ancestors(at));
        let best = candidates.iter().copied().map(score).fold(0.0, f64::max);
        let halves = candidates.iter().any(|&at| self.near_half(at));
        let good_enough =
            |&at: &u32| if halves { self.near_half(at) } else { score(at) >= best * (1.0 - 1e-9) };
        let suspect = |at: u32| self.whole.cells.iter().any(|cell| cell.weights[at as usize] > 0);
        let weight = |at: u32| self.whole.cells.iter().map(|cell| cell.inside[at as usize]).sum::<u64>();
        let pick =
            candidates.into_iter().filter(good_enough).min_by_key(|&at| (!suspect(at), weight(at), at))?;
        Some(Pick { holds: Holds::Ancestors(pick), gain: self.gain(pick) })
    }

    /// git's own notion of the middle: on long ranges it does not insist on the exact half,
    /// and it never asks this of a commit that stands alone (`approx_halfway` in bisect.c).
    fn near_half(&self, at: u32) -> bool {
        let ([cell], true) = (&self.whole.cells[..], self.even) else { return false };
        let weight = cell.inside[at as usize];
        let (weight, total) = (weight as i64, cell.total as i64);
        let off = (2 * weight - total).abs();
        weight > 1 && (off <= 1 || off < total / 1024)
    }

    fn gain(&self, at: u32) -> f64 {
        let mut gain = self.whole.gains[at as usize];
        if let Some(apart) = &self.apart {
            let doubtful = self.terms.doubtful[at as usize];
            gain += doubtful * (apart.gains[at as usize] - gain);
        }
        gain * (1.0 - self.broken_at(at))
    }

    fn seconds(&self, holds: Holds) -> f64 {
        let built = match holds {
            Holds::Ancestors(at) => self.terms.built[at as usize],
            Holds::AllBut(commit) => self.terms.reverts.contains(&(commit, true)),
            Holds::All | Holds::Outside => true,
        };
        self.terms.costs.visit(built, self.terms.runs)
    }

    fn broken_at(&self, at: u32) -> f64 {
        self.terms.broken.get(at as usize).copied().unwrap_or(0.0)
    }

    /// Adds what a cell makes of every commit's gain.
    fn weigh(&self, layer: &mut Layer, cell: &Cell, sign: f64) {
        let mut gains = std::mem::take(&mut layer.gains);
        for (gain, &inside) in gains.iter_mut().zip(&cell.inside) {
            if inside != 0 && inside != cell.total {
                *gain += sign * self.of_cell(layer, cell, inside);
            }
        }
        layer.gains = gains;
    }

    /// Bits that a kernel with this weight of a cell inside tells about the cell.
    fn of_cell(&self, layer: &Layer, cell: &Cell, inside: u64) -> f64 {
        let bug = match self.terms.range.mode {
            Mode::Cause => inside,
            Mode::Fix => cell.total - inside,
        };
        let share = bug as f64 / cell.total as f64;
        let told = if self.even {
            bits(share, 1.0)
        } else {
            let (whole, rest) = ((share * STEPS as f64) as usize, (share * STEPS as f64).fract());
            let next = self.table[(whole + 1).min(STEPS)];
            self.table[whole] + rest * (next - self.table[whole])
        };
        told * cell.total as f64 / layer.total as f64
    }
}

/// What is learned by runs that show the bug with probability `shows` where it is, if it is
/// there with probability `share`.
pub(super) fn bits(share: f64, shows: f64) -> f64 {
    let entropy =
        |p: f64| if p <= 0.0 || p >= 1.0 { 0.0 } else { -p * p.log2() - (1.0 - p) * (1.0 - p).log2() };
    (entropy(share * shows) - share * entropy(shows)).max(0.0)
}

impl Layer {
    fn empty(len: usize) -> Self {
        Layer { cells: Vec::new(), total: 0, gains: vec![0.0; len] }
    }
}

impl Cell {
    /// Kernels that forked off before a good end may have its bug or not, so they are no way
    /// to learn whether it is bad.
    fn new(range: &Range, weights: Vec<u64>, nothing: u64) -> Self {
        let total = weights.iter().sum::<u64>() + nothing;
        let mut inside = range.ancestry.sum(&weights);
        if nothing > 0 {
            let held = (0u32..).zip(&mut inside).filter(|(at, _)| range.holds_good(*at));
            held.for_each(|(_, inside)| *inside += nothing);
        }
        Cell { weights, nothing, total, inside }
    }

    fn inside(&self, holds: Holds) -> u64 {
        match holds {
            Holds::All => self.total,
            Holds::Outside => self.nothing,
            Holds::Ancestors(at) => self.inside[at as usize],
            Holds::AllBut(commit) => self.total - self.weights[commit as usize],
        }
    }

    fn halves(self, by: Holds, range: &Range) -> [Cell; 2] {
        let mut inner = vec![0; self.weights.len()];
        match by {
            Holds::All => inner.clone_from(&self.weights),
            Holds::Outside => {}
            Holds::Ancestors(of) => {
                for at in range.ancestry.ancestors(of).iter() {
                    inner[at as usize] = self.weights[at as usize];
                }
            }
            Holds::AllBut(commit) => {
                inner.clone_from(&self.weights);
                inner[commit as usize] = 0;
            }
        }
        let outer: Vec<u64> = self.weights.iter().zip(&inner).map(|(all, inner)| all - inner).collect();
        let nothing = match by {
            Holds::Ancestors(of) if !range.holds_good(of) => 0,
            Holds::Ancestors(_) | Holds::All | Holds::AllBut(_) | Holds::Outside => self.nothing,
        };
        let inner = Cell::new(range, inner, nothing);
        let inside = self.inside.iter().zip(&inner.inside).map(|(all, inner)| all - inner).collect();
        let total = self.total - inner.total;
        [inner, Cell { weights: outer, nothing: self.nothing - nothing, total, inside }]
    }
}
