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
    sums: Sums<'a>,
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
    /// By place, what a look at it tells in bits if it tells anything.
    gains: Vec<f64>,
}

struct Cell {
    /// By place, 0 outside the cell.
    weights: Vec<u64>,
    /// That nothing in the range is the culprit.
    nothing: u64,
    total: u64,
    /// By place, the weight of the hypotheses that its kernel contains.
    inside: Vec<u64>,
}

/// The commits that matter, each with its place: hypotheses, and kernels that contain some of
/// them and not all. The longer the search, the fewer.
struct Places {
    commits: Vec<u32>,
    /// By commit its place, or one of the two below.
    of: Vec<u32>,
}

/// The places of kernels that contain no hypothesis, and that contain all of them.
const NONE: u32 = u32::MAX;
const ALL: u32 = u32::MAX - 1;

/// What makes cells, with room to do so.
struct Sums<'a> {
    range: &'a Range,
    places: Places,
    weights: Vec<u64>,
    sums: Vec<u64>,
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
        let scaled = |weights: &[f64]| -> (Vec<u64>, u64) {
            let scaled = |&weight: &f64| {
                if even { u64::from(weight > 0.0) } else { (weight / max * SCALE) as u64 }
            };
            let mut weights: Vec<u64> = weights.iter().map(scaled).collect();
            let nothing = weights.pop().unwrap_or(0);
            (weights, nothing)
        };
        let shows = if even { 1.0 } else { terms.shows };
        let table = (0..=STEPS).map(|step| bits(step as f64 / STEPS as f64, shows)).collect();
        let (weights, nothing) = scaled(weights);
        let mut sums = Sums::new(terms.range, &weights, nothing);
        let whole = sums.whole_cell(&weights, nothing);
        let doubtful = readings.len() > 1 && !terms.doubtful.is_empty();
        let readings: Vec<Cell> = readings
            .iter()
            .filter(|_| doubtful)
            .map(|weights| {
                let (weights, nothing) = scaled(weights);
                sums.whole_cell(&weights, nothing)
            })
            .collect();
        let mut field = Field { terms, sums, whole: Layer::empty(0), apart: None, even, table };
        field.whole = field.layer(vec![whole]);
        if doubtful {
            field.apart = Some(field.layer(readings));
        }
        field
    }

    fn layer(&self, cells: Vec<Cell>) -> Layer {
        let mut layer = Layer::empty(self.sums.places.commits.len());
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

    fn split_layer(&mut self, layer: &mut Layer, by: Holds) {
        for mut outer in std::mem::take(&mut layer.cells) {
            let inside = outer.inside(by, &self.sums.places);
            if inside != 0 && inside != outer.total {
                self.weigh(layer, &outer, -1.0);
                let inner = outer.cut_off(by, &mut self.sums);
                self.weigh(layer, &inner, 1.0);
                self.weigh(layer, &outer, 1.0);
                layer.cells.push(inner);
            }
            layer.cells.push(outer);
        }
    }

    /// Whether a kernel would tell anything about what matters.
    pub fn tells(&self, holds: Holds) -> bool {
        self.whole.cells.iter().any(|cell| (1..cell.total).contains(&cell.inside(holds, &self.sums.places)))
    }

    /// What tells most in its time, or nothing that is worth a visit.
    pub fn best(&self) -> Option<Pick> {
        let rate = |pick: &Pick| pick.gain / self.seconds(pick.holds);
        let mut best = self.best_revision();
        let others = self.terms.reverts.iter().map(|&(commit, _)| Holds::AllBut(commit));
        for holds in others.chain(self.terms.good_end.then_some(Holds::Outside)) {
            let of_cell =
                |cell: &Cell| self.of_cell(&self.whole, cell, cell.inside(holds, &self.sums.places));
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
        let commits = &self.sums.places.commits;
        let informative = |&place: &usize| {
            let at = commits[place];
            let usable = at != self.terms.range.history.tip() && self.terms.usable[at as usize];
            usable && self.whole.gains[place] > 1e-9
        };
        let candidates: Vec<usize> = (0..commits.len()).filter(informative).collect();
        let score = |place: usize| self.gain(place) / self.seconds(Holds::Ancestors(commits[place]));
        let best = candidates.iter().copied().map(score).fold(0.0, f64::max);
        let halves = candidates.iter().any(|&place| self.near_half(place));
        let good_enough = |&place: &usize| {
            if halves { self.near_half(place) } else { score(place) >= best * (1.0 - 1e-9) }
        };
        let suspect = |place: usize| self.whole.cells.iter().any(|cell| cell.weights[place] > 0);
        let weight = |place: usize| self.whole.cells.iter().map(|cell| cell.inside[place]).sum::<u64>();
        let pick = candidates.into_iter().filter(good_enough);
        let pick = pick.min_by_key(|&place| (!suspect(place), weight(place), place))?;
        Some(Pick { holds: Holds::Ancestors(commits[pick]), gain: self.gain(pick) })
    }

    /// git's own notion of the middle: on long ranges it does not insist on the exact half,
    /// and it never asks this of a commit that stands alone (`approx_halfway` in bisect.c).
    fn near_half(&self, place: usize) -> bool {
        let ([cell], true) = (&self.whole.cells[..], self.even) else { return false };
        let weight = cell.inside[place];
        let (weight, total) = (weight as i64, cell.total as i64);
        let off = (2 * weight - total).abs();
        weight > 1 && (off <= 1 || off < total / 1024)
    }

    fn gain(&self, place: usize) -> f64 {
        let at = self.sums.places.commits[place];
        let mut gain = self.whole.gains[place];
        if let Some(apart) = &self.apart {
            let doubtful = self.terms.doubtful[at as usize];
            gain += doubtful * (apart.gains[place] - gain);
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

    /// Adds what a cell makes of the gain of every place.
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

impl Places {
    /// `inside` is the weight of the hypotheses that each commit's kernel contains, of `total`.
    fn new(weights: &[u64], inside: &[u64], total: u64) -> Self {
        let mut places = Places { commits: Vec::new(), of: Vec::with_capacity(weights.len()) };
        for (at, (&weight, &inside)) in (0u32..).zip(weights.iter().zip(inside)) {
            let place = match inside {
                _ if weight > 0 || (1..total).contains(&inside) => {
                    places.commits.push(at);
                    places.commits.len() as u32 - 1
                }
                0 => NONE,
                _ => ALL,
            };
            places.of.push(place);
        }
        places
    }
}

impl<'a> Sums<'a> {
    /// For the hypotheses that weigh anything.
    fn new(range: &'a Range, weights: &[u64], nothing: u64) -> Self {
        let total = weights.iter().sum::<u64>() + nothing;
        let mut inside = range.ancestry.sum(weights);
        for (at, inside) in (0u32..).zip(&mut inside) {
            *inside += held_nothing(range, at, nothing);
        }
        let places = Places::new(weights, &inside, total);
        inside.fill(0);
        Sums { range, places, weights: vec![0; weights.len()], sums: inside }
    }

    fn whole_cell(&mut self, weights: &[u64], nothing: u64) -> Cell {
        let weights = self.places.commits.iter().map(|&at| weights[at as usize]).collect();
        self.cell(weights, nothing)
    }

    fn cell(&mut self, weights: Vec<u64>, nothing: u64) -> Cell {
        let total = weights.iter().sum::<u64>() + nothing;
        let commits = &self.places.commits;
        commits.iter().zip(&weights).for_each(|(&at, &weight)| self.weights[at as usize] = weight);
        if let (Some(&first), Some(&last)) = (commits.first(), commits.last()) {
            let span = first as usize..last as usize + 1;
            self.range.ancestry.sum_within(span, &self.weights, &mut self.sums);
        }
        let inside = |&at: &u32| self.sums[at as usize] + held_nothing(self.range, at, nothing);
        let inside = commits.iter().map(inside).collect();
        commits.iter().for_each(|&at| self.weights[at as usize] = 0);
        Cell { weights, nothing, total, inside }
    }
}

/// Kernels that forked off before a good end may have its bug or not, so they are no way to learn
/// whether it is bad.
fn held_nothing(range: &Range, at: u32, nothing: u64) -> u64 {
    if nothing > 0 && range.holds_good(at) { nothing } else { 0 }
}

impl Cell {
    fn inside(&self, holds: Holds, places: &Places) -> u64 {
        match holds {
            Holds::All => self.total,
            Holds::Outside => self.nothing,
            Holds::Ancestors(at) => match places.of[at as usize] {
                NONE => 0,
                ALL => self.total,
                place => self.inside[place as usize],
            },
            Holds::AllBut(commit) => self.total - self.weight(commit, places),
        }
    }

    fn weight(&self, commit: u32, places: &Places) -> u64 {
        self.weights.get(places.of[commit as usize] as usize).copied().unwrap_or(0)
    }

    /// Cuts off what a kernel contains of the cell, which is neither all nor nothing; the rest stays.
    fn cut_off(&mut self, by: Holds, sums: &mut Sums<'_>) -> Cell {
        let (range, places) = (sums.range, &sums.places);
        let mut weights = vec![0; self.weights.len()];
        match by {
            Holds::All => std::mem::swap(&mut weights, &mut self.weights),
            Holds::Outside => {}
            Holds::Ancestors(of) => {
                let ancestors = range.ancestry.ancestors(of);
                for (place, _) in places.commits.iter().enumerate().filter(|(_, at)| ancestors.get(**at)) {
                    weights[place] = std::mem::take(&mut self.weights[place]);
                }
            }
            Holds::AllBut(commit) => {
                std::mem::swap(&mut weights, &mut self.weights);
                if let Some(kept) = weights.get_mut(places.of[commit as usize] as usize) {
                    self.weights[places.of[commit as usize] as usize] = std::mem::take(kept);
                }
            }
        }
        let nothing = match by {
            Holds::Ancestors(of) if !range.holds_good(of) => 0,
            Holds::Ancestors(_) | Holds::All | Holds::AllBut(_) | Holds::Outside => {
                std::mem::take(&mut self.nothing)
            }
        };
        let inner = sums.cell(weights, nothing);
        self.inside.iter_mut().zip(&inner.inside).for_each(|(all, inner)| *all -= inner);
        self.total -= inner.total;
        inner
    }
}
