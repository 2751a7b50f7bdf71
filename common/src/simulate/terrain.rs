//! Where things lie in a history: regions that begin with one commit and end with another.

use super::dice::Dice;
use super::graph::Graph;

/// The commits that contain `begin` and not `end`.
#[derive(Clone, Debug)]
pub struct Region(Vec<bool>);

impl Region {
    pub fn holds(&self, at: u32) -> bool {
        self.0.get(at as usize).copied().unwrap_or(false)
    }

    fn new(graph: &Graph, begin: u32, end: u32) -> Self {
        let fixed = graph.descendants(end);
        Region(graph.descendants(begin).iter().zip(fixed).map(|(&has, fixed)| has && !fixed).collect())
    }

    fn len(&self) -> usize {
        self.0.iter().filter(|&&inside| inside).count()
    }
}

/// The first parents of the tip, oldest first: where regions end.
#[derive(Clone, Debug)]
pub struct Terrain {
    line: Vec<u32>,
}

/// Draws of a region before one that is too small is taken all the same.
const DRAWS_MAX: usize = 50;

impl Terrain {
    pub fn new(graph: &Graph) -> Self {
        let first = |at: &u32| graph.node(*at).parents.first().copied();
        let mut line: Vec<u32> = std::iter::successors(Some(graph.tip()), first).collect();
        line.reverse();
        Terrain { line }
    }

    /// A region somewhere, of a size between these shares of the graph.
    pub fn region(&self, graph: &Graph, shares: (f64, f64), dice: &mut Dice) -> Region {
        let share = dice.between(shares.0, shares.1);
        for _ in 0..DRAWS_MAX {
            let region = self.grow(graph, dice.index(graph.len()) as u32, share);
            if region.len() as f64 >= shares.0 * graph.len() as f64 {
                return region;
            }
        }
        self.grow(graph, self.line[0], share)
    }

    /// A region among what descends from `from`.
    pub fn region_below(&self, graph: &Graph, from: u32, shares: (f64, f64), dice: &mut Dice) -> Region {
        let share = dice.between(shares.0, shares.1);
        let below: Vec<u32> =
            (0u32..).zip(graph.descendants(from)).filter(|it| it.1).map(|it| it.0).collect();
        self.grow(graph, below[dice.index(below.len())], share)
    }

    /// A commit of the line that has the bug, is no tip, and is usable.
    pub fn between(
        &self,
        culprit: u32,
        has_bug: &[bool],
        usable: impl Fn(u32) -> bool,
        dice: &mut Dice,
    ) -> Option<u32> {
        let inner = &self.line[..self.line.len() - 1];
        let fit = |at: &u32| *at >= culprit && has_bug[*at as usize] && usable(*at);
        let fit: Vec<u32> = inner.iter().copied().filter(fit).collect();
        (!fit.is_empty()).then(|| fit[dice.index(fit.len())])
    }

    /// The region from `begin` to the first commit of the line that makes it large enough;
    /// the tip is never in it.
    fn grow(&self, graph: &Graph, begin: u32, share: f64) -> Region {
        let wanted = (share * graph.len() as f64) as usize;
        let has = graph.descendants(begin);
        let first = self.line.partition_point(|&at| !has[at as usize]);
        let (mut low, mut high) = (first, self.line.len().saturating_sub(1).max(first));
        while low < high {
            let middle = (low + high) / 2;
            let end = self.line[middle];
            if Region::new(graph, begin, end).len() >= wanted { high = middle } else { low = middle + 1 }
        }
        Region::new(graph, begin, self.line[low.min(self.line.len() - 1)])
    }
}
