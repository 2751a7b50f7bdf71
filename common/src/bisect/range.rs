//! The range under search: its graph, and what the verdicts leave of its suspects.

use super::ancestry::{Ancestry, Bits};
use crate::history::History;
use crate::id::RevisionId;
use crate::job::Mode;
use std::collections::BTreeMap;

/// The commits that may be the culprit, before any verdict: all of them.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub history: History,
    pub ancestry: Ancestry,
    pub mode: Mode,
    /// How many ancestors each commit has in the range.
    pub sizes: Vec<u32>,
    /// Fix across trees, where the tip does not descend from the old end: the commit at which
    /// the tip's line leaves what the two have in common.
    pub merge_base: Option<RevisionId>,
    /// For a visited commit, how near every other one is; see `learn_nearness`.
    nearness: BTreeMap<u32, Vec<f32>>,
}

/// How far a broken place reaches, as a share of the range (SEARCH.md, broken regions).
const REACH: f32 = 0.04;

/// Verdicts inside the range.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    /// Commits that show the crash.
    pub crashing: Vec<u32>,
    /// Commits that run their course without it.
    pub clean: Vec<u32>,
}

impl Range {
    /// `old` is the crashing end of a search for a fix.
    pub fn new(history: History, mode: Mode, old: &RevisionId) -> Self {
        let ancestry = Ancestry::new(&history);
        let sizes = ancestry.count(&Bits::full(history.len()));
        let descends = history.commits().iter().any(|commit| commit.outside.contains(old));
        let merge_base = if mode == Mode::Fix && !descends { line_leaves_at(&history) } else { None };
        Range { history, ancestry, mode, sizes, merge_base, nearness: BTreeMap::new() }
    }

    /// Keeps exp(−|Anc(u)△Anc(v)| / reach) for a visited u and every v: it takes a pass over
    /// the graph, and choices are made often.
    pub fn learn_nearness(&mut self, visited: u32) {
        if self.nearness.contains_key(&visited) {
            return;
        }
        let reach = REACH * self.sizes.len() as f32;
        let own = self.sizes[visited as usize];
        let common = self.ancestry.count(&self.ancestry.ancestors(visited));
        let near = |(&size, common): (&u32, u32)| (-((own + size - 2 * common) as f32) / reach).exp();
        self.nearness.insert(visited, self.sizes.iter().zip(common).map(near).collect());
    }

    /// Nothing, if it was never learnt.
    pub fn nearness(&self, visited: u32) -> &[f32] {
        self.nearness.get(&visited).map_or(&[], Vec::as_slice)
    }

    /// Clean commits that once had the bug. Fix only: a commit that never descended from a
    /// crashing one may be clean for never having had it.
    pub fn fixed(&self, verdicts: &Verdicts, ends: &[RevisionId]) -> Vec<u32> {
        let mut had_it = Bits::empty(self.ancestry.len());
        verdicts.crashing.iter().for_each(|&at| had_it.insert(at));
        for (index, commit) in (0u32..).zip(self.history.commits()) {
            let from_end = commit.outside.iter().any(|id| ends.contains(id));
            if from_end || commit.parents.iter().any(|&parent| had_it.get(parent)) {
                had_it.insert(index);
            }
        }
        verdicts.clean.iter().copied().filter(|&at| had_it.get(at)).collect()
    }

    /// The commits at which the change may have happened: ancestors of every commit behind
    /// the change, and of no commit before it. Never empty.
    pub fn suspects(&self, changed: &[u32], unchanged: &[u32]) -> Bits {
        let tip = self.history.tip();
        let (changed, unchanged) = self.consistent(changed, unchanged);
        let mut cleared = Bits::empty(self.ancestry.len());
        unchanged.iter().for_each(|&at| cleared.unite(&self.ancestry.ancestors(at)));
        let mut suspects = self.ancestry.ancestors(tip);
        changed.iter().for_each(|&at| suspects.intersect(&self.ancestry.ancestors(at)));
        suspects.subtract(&cleared);
        if suspects.is_empty() {
            // The change came on several lines at once. One of them is followed: its first
            // changed commit is an answer that its own parents can confirm.
            let first = changed.iter().copied().min().unwrap_or(tip);
            suspects = self.ancestry.ancestors(first);
            suspects.subtract(&cleared);
        }
        suspects
    }

    /// Leaves out clean verdicts that a crash contradicts: a crash was seen, while a clean
    /// commit may have been lucky. The tip is never left out, it defines the range.
    fn consistent(&self, changed: &[u32], unchanged: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let tip = self.history.tip();
        let reaches = |of: u32, ancestor: u32| self.ancestry.reaches(of, ancestor);
        match self.mode {
            Mode::Cause => {
                let kept = |&clean: &u32| clean != tip && !changed.iter().any(|&bad| reaches(clean, bad));
                (changed.to_vec(), unchanged.iter().copied().filter(kept).collect())
            }
            Mode::Fix => {
                let kept = |&clean: &u32| clean == tip || !unchanged.iter().any(|&bad| reaches(bad, clean));
                let unchanged = unchanged.iter().copied().filter(|&at| at != tip).collect();
                (changed.iter().copied().filter(kept).collect(), unchanged)
            }
        }
    }
}

/// Where the first parents of the tip leave the range.
fn line_leaves_at(history: &History) -> Option<RevisionId> {
    let mut commit = history.commit(history.tip());
    while let Some(&first) = commit.parents.first() {
        commit = history.commit(first);
    }
    commit.outside.first().copied()
}
