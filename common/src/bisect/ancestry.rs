//! Ancestor sets of a history as bits. Pure graph: nothing here knows what was tested.
//!
//! Only merges keep a set of their own, and most of them only what they have beyond a parent;
//! every other commit adds itself to its parent's. So 100,000 commits need a few MB.

use crate::history::History;

/// A set of commits, by index in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub fn empty(len: usize) -> Self {
        Bits(vec![0; len.div_ceil(64)])
    }

    pub fn full(len: usize) -> Self {
        let mut bits = Bits(vec![u64::MAX; len.div_ceil(64)]);
        if !len.is_multiple_of(64) {
            *bits.0.last_mut().expect("a length that is not a multiple of 64 is not 0") >>= 64 - len % 64;
        }
        bits
    }

    pub fn get(&self, index: u32) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 == 1
    }

    pub fn insert(&mut self, index: u32) {
        self.0[index as usize / 64] |= 1 << (index % 64);
    }

    pub fn intersect(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }

    pub fn unite(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    pub fn subtract(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// The words that are not zero lie in here.
    fn span(&self) -> std::ops::Range<usize> {
        let first = self.0.iter().position(|&word| word != 0).unwrap_or(0);
        let end = self.0.iter().rposition(|&word| word != 0).map_or(first, |last| last + 1);
        first..end
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Root,
    /// The only parent inside the range.
    Chain(u32),
    /// Where the set stands in `merges`.
    Merge(u32),
}

#[derive(Clone, Debug)]
enum Merge {
    /// It has the ancestors of the parent with most of them, and these beside, ascending. The
    /// whole set is kept too where this follows on `BEYOND_MAX` merges without.
    Small { parent: u32, added: Vec<u32>, whole: Option<Bits>, beyond: u32 },
    /// It brings in more than a set has words.
    Large(Bits),
}

/// Merges in a row without a set of their own: walking down them takes as long as uniting with one.
const BEYOND_MAX: u32 = 32;

/// Who descends from whom, `v` itself counted among the ancestors of `v`.
#[derive(Clone, Debug)]
pub(super) struct Ancestry {
    kinds: Vec<Kind>,
    merges: Vec<Merge>,
}

impl Ancestry {
    pub fn new(history: &History) -> Self {
        let mut ancestry = Ancestry { kinds: Vec::with_capacity(history.len()), merges: Vec::new() };
        for (index, commit) in (0u32..).zip(history.commits()) {
            let kind = match commit.parents[..] {
                [] => Kind::Root,
                [parent] => Kind::Chain(parent),
                _ => {
                    let merge = ancestry.merge(index, &commit.parents, history.len());
                    ancestry.merges.push(merge);
                    Kind::Merge(u32::try_from(ancestry.merges.len() - 1).expect("fewer merges than commits"))
                }
            };
            ancestry.kinds.push(kind);
        }
        ancestry
    }

    fn merge(&self, index: u32, parents: &[u32], len: usize) -> Merge {
        let mut all = Bits::empty(len);
        let mut largest: Option<(usize, u32, Bits)> = None;
        for &parent in parents {
            let mut below = Bits::empty(len);
            self.unite_ancestors(parent, &mut below);
            all.unite(&below);
            let size = below.count();
            if largest.as_ref().is_none_or(|&(most, ..)| size > most) {
                largest = Some((size, parent, below));
            }
        }
        all.insert(index);
        let added: Option<(u32, Vec<u32>)> = largest.and_then(|(_, parent, below)| {
            let mut beyond = all.clone();
            beyond.subtract(&below);
            (beyond.count() <= beyond.0.len().max(64)).then(|| (parent, beyond.iter().collect()))
        });
        let Some((parent, added)) = added else { return Merge::Large(all) };
        let beyond = (self.beyond(parent) + 1) % (BEYOND_MAX + 1);
        Merge::Small { parent, added, whole: (beyond == 0).then_some(all), beyond }
    }

    /// How many merges in a row, from this commit down, have no set of their own.
    fn beyond(&self, of: u32) -> u32 {
        let mut at = of;
        loop {
            match self.kinds[at as usize] {
                Kind::Root => return 0,
                Kind::Chain(parent) => at = parent,
                Kind::Merge(merge) => match self.merges[merge as usize] {
                    Merge::Small { beyond, .. } => return beyond,
                    Merge::Large(_) => return 0,
                },
            }
        }
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn ancestors(&self, of: u32) -> Bits {
        let mut bits = Bits::empty(self.len());
        self.unite_ancestors(of, &mut bits);
        bits
    }

    /// Whether `ancestor` is `of` or one of its ancestors.
    pub fn reaches(&self, of: u32, ancestor: u32) -> bool {
        let mut at = of;
        while at > ancestor {
            match self.kinds[at as usize] {
                Kind::Root => return false,
                Kind::Chain(parent) => at = parent,
                Kind::Merge(merge) => match &self.merges[merge as usize] {
                    Merge::Large(whole) | Merge::Small { whole: Some(whole), .. } => {
                        return whole.get(ancestor);
                    }
                    Merge::Small { parent, added, whole: None, .. } => {
                        if added.binary_search(&ancestor).is_ok() {
                            return true;
                        }
                        at = *parent;
                    }
                },
            }
        }
        at == ancestor
    }

    /// For every commit, how many of its ancestors are in `mask`.
    pub fn count(&self, mask: &Bits) -> Vec<u32> {
        let span = mask.span();
        let words = &mask.0[span.clone()];
        let mut counts: Vec<u32> = Vec::with_capacity(self.len());
        for (index, kind) in (0u32..).zip(&self.kinds) {
            counts.push(match *kind {
                Kind::Root => u32::from(mask.get(index)),
                Kind::Chain(parent) => counts[parent as usize] + u32::from(mask.get(index)),
                Kind::Merge(merge) => match &self.merges[merge as usize] {
                    Merge::Small { parent, added, .. } => {
                        counts[*parent as usize]
                            + added.iter().map(|&at| u32::from(mask.get(at))).sum::<u32>()
                    }
                    Merge::Large(whole) => {
                        let row = &whole.0[span.clone()];
                        row.iter().zip(words).map(|(a, b)| (a & b).count_ones()).sum()
                    }
                },
            });
        }
        counts
    }

    /// For every commit, the sum of its ancestors' weights.
    pub fn sum(&self, weights: &[u64]) -> Vec<u64> {
        let mut sums = vec![0; self.len()];
        self.sum_within(0..self.len(), weights, &mut sums);
        sums
    }

    /// The same for the commits of a span below which nothing weighs anything: there the sums are 0.
    pub fn sum_within(&self, span: std::ops::Range<usize>, weights: &[u64], sums: &mut [u64]) {
        for at in span {
            let own = weights[at];
            sums[at] = match self.kinds[at] {
                Kind::Root => own,
                Kind::Chain(parent) => sums[parent as usize] + own,
                Kind::Merge(merge) => match &self.merges[merge as usize] {
                    Merge::Small { parent, added, .. } => {
                        sums[*parent as usize] + added.iter().map(|&at| weights[at as usize]).sum::<u64>()
                    }
                    Merge::Large(whole) => whole.iter().map(|at| weights[at as usize]).sum(),
                },
            };
        }
    }

    fn unite_ancestors(&self, of: u32, into: &mut Bits) {
        let mut at = of;
        loop {
            match self.kinds[at as usize] {
                Kind::Root => return into.insert(at),
                Kind::Chain(parent) => {
                    into.insert(at);
                    at = parent;
                }
                Kind::Merge(merge) => match &self.merges[merge as usize] {
                    Merge::Large(whole) | Merge::Small { whole: Some(whole), .. } => {
                        return into.unite(whole);
                    }
                    Merge::Small { parent, added, whole: None, .. } => {
                        added.iter().for_each(|&at| into.insert(at));
                        at = *parent;
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Commit;
    use crate::id::{RevisionId, TreeId};
    use proptest::prelude::*;

    fn history(parents: &[Vec<u32>]) -> History {
        let commit = |(at, parents): (u32, &Vec<u32>)| {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&at.to_be_bytes());
            let (id, tree) = (RevisionId::from_bytes(bytes), TreeId::from_bytes([0; 20]));
            let subject = String::new();
            Commit { id, tree, parents: parents.clone(), outside: vec![], time: 0, subject }
        };
        History::new((0..).zip(parents).map(commit).collect()).expect("parents first")
    }

    proptest! {
        /// Against sets built the plain way.
        #[test]
        fn sets_and_counts_are_those_of_the_graph(
            steps in proptest::collection::vec(proptest::collection::vec(1u32..90, 0..4), 1..300),
            mask in proptest::collection::vec(any::<bool>(), 300),
        ) {
            let parents: Vec<Vec<u32>> = (0u32..)
                .zip(&steps)
                .map(|(at, back)| back.iter().filter_map(|&back| at.checked_sub(back)).collect())
                .collect();
            let ancestry = Ancestry::new(&history(&parents));
            let mut bits = Bits::empty(parents.len());
            (0u32..).zip(&mask).take(parents.len()).filter(|(_, set)| **set).for_each(|(at, _)| bits.insert(at));
            let counts = ancestry.count(&bits);
            let weights: Vec<u64> = (0..parents.len() as u64).map(|at| at * 3 + 1).collect();
            let sums = ancestry.sum(&weights);
            let mut plain: Vec<std::collections::BTreeSet<u32>> = Vec::new();
            for (at, parents) in (0u32..).zip(&parents) {
                let mut set = std::collections::BTreeSet::from([at]);
                parents.iter().for_each(|&parent| set.extend(&plain[parent as usize]));
                prop_assert!(ancestry.ancestors(at).iter().eq(set.iter().copied()));
                prop_assert!((0..=at).all(|other| ancestry.reaches(at, other) == set.contains(&other)));
                let inside = set.iter().filter(|&&at| mask[at as usize]).count();
                prop_assert_eq!(counts[at as usize] as usize, inside);
                prop_assert_eq!(sums[at as usize], set.iter().map(|&at| u64::from(at) * 3 + 1).sum::<u64>());
                plain.push(set);
            }
        }
    }
}
