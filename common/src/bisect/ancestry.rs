//! Ancestor sets of a history as bits. Pure graph: nothing here knows what was tested.
//!
//! Only merges keep a set of their own; every other commit adds itself to its parent's, so
//! that 30,000 commits with a tenth of merges need some 10 MB.

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

    pub fn count_common(&self, other: &Bits) -> usize {
        self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones() as usize).sum()
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
    /// Where the set stands in `rows`.
    Merge(u32),
}

/// Who descends from whom, `v` itself counted among the ancestors of `v`.
#[derive(Clone, Debug)]
pub(super) struct Ancestry {
    kinds: Vec<Kind>,
    rows: Vec<Bits>,
}

impl Ancestry {
    pub fn new(history: &History) -> Self {
        let mut ancestry = Ancestry { kinds: Vec::with_capacity(history.len()), rows: Vec::new() };
        for (index, commit) in (0u32..).zip(history.commits()) {
            let kind = match commit.parents[..] {
                [] => Kind::Root,
                [parent] => Kind::Chain(parent),
                _ => {
                    let mut row = Bits::empty(history.len());
                    commit.parents.iter().for_each(|&parent| ancestry.unite_ancestors(parent, &mut row));
                    row.insert(index);
                    ancestry.rows.push(row);
                    Kind::Merge(u32::try_from(ancestry.rows.len() - 1).expect("fewer merges than commits"))
                }
            };
            ancestry.kinds.push(kind);
        }
        ancestry
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
                Kind::Merge(row) => return self.rows[row as usize].get(ancestor),
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
                Kind::Merge(row) => {
                    let row = &self.rows[row as usize].0[span.clone()];
                    row.iter().zip(words).map(|(a, b)| (a & b).count_ones()).sum()
                }
            });
        }
        counts
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
                Kind::Merge(row) => return into.unite(&self.rows[row as usize]),
            }
        }
    }
}
