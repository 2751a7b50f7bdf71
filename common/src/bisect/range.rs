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
    /// The commits that descend from the good end; all of them where that is not known.
    above_good: Option<Bits>,
    /// For a visited commit, where it lies as every other one sees it; see `learn_places`.
    places: BTreeMap<u32, Vec<(Place, u32)>>,
}

/// Where one commit lies as another sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An ancestor of the other, or the other itself.
    Below,
    Above,
    Beside,
}

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
        Range { history, ancestry, mode, sizes, merge_base, above_good: None, places: BTreeMap::new() }
    }

    /// Says which revision before the range is the good end.
    pub fn learn_good(&mut self, good: &RevisionId) {
        let mut above = Bits::empty(self.ancestry.len());
        for (index, commit) in (0u32..).zip(self.history.commits()) {
            if commit.outside.contains(good) || commit.parents.iter().any(|&parent| above.get(parent)) {
                above.insert(index);
            }
        }
        self.above_good = above.get(self.history.tip()).then_some(above);
    }

    /// Whether a commit descends from the good end, as far as that is known.
    pub fn holds_good(&self, at: u32) -> bool {
        self.above_good.as_ref().is_none_or(|above| above.get(at))
    }

    /// Keeps |Anc(u)△Anc(v)| for a visited u and every v, and which is whose ancestor: it takes
    /// a pass over the graph, and choices are made often.
    pub fn learn_places(&mut self, visited: u32) {
        if self.places.contains_key(&visited) {
            return;
        }
        let own = self.sizes[visited as usize];
        let common = self.ancestry.count(&self.ancestry.ancestors(visited));
        let place = |(&size, common): (&u32, u32)| {
            let place = match (common == own, common == size) {
                (true, _) => Place::Below,
                (false, true) => Place::Above,
                (false, false) => Place::Beside,
            };
            (place, own + size - 2 * common)
        };
        self.places.insert(visited, self.sizes.iter().zip(common).map(place).collect());
    }

    /// Nothing, if it was never learnt.
    pub fn places(&self, visited: u32) -> &[(Place, u32)] {
        self.places.get(&visited).map_or(&[], Vec::as_slice)
    }

    /// Clean commits that once had the bug. Fix only: a commit that never descended from a
    /// crashing one may be clean for never having had it.
    pub fn fixed(&self, verdicts: &Verdicts, ends: &[RevisionId]) -> Vec<u32> {
        let had_it = self.had_bug(verdicts, ends);
        verdicts.clean.iter().copied().filter(|&at| had_it.get(at)).collect()
    }

    /// Fix: the commits that descend from a crashing one.
    pub fn had_bug(&self, verdicts: &Verdicts, ends: &[RevisionId]) -> Bits {
        let mut had_it = Bits::empty(self.ancestry.len());
        verdicts.crashing.iter().for_each(|&at| had_it.insert(at));
        for (index, commit) in (0u32..).zip(self.history.commits()) {
            let from_end = commit.outside.iter().any(|id| ends.contains(id));
            if from_end || commit.parents.iter().any(|&parent| had_it.get(parent)) {
                had_it.insert(index);
            }
        }
        had_it
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Commit;
    use crate::id::TreeId;

    #[test]
    fn a_line_that_forked_off_before_the_good_end_does_not_hold_it() {
        let id = |at: u8| RevisionId::from_bytes([at; 20]);
        let commit = |at: u8, parents: &[u32], outside: &[u8]| Commit {
            id: id(at),
            tree: TreeId::from_bytes([0; 20]),
            parents: parents.to_vec(),
            outside: outside.iter().map(|&at| id(at)).collect(),
            time: 0,
            subject: String::new(),
        };
        let commits = vec![commit(0, &[], &[90]), commit(1, &[], &[91]), commit(2, &[0, 1], &[])];
        let history = History::new(commits).expect("parents first");
        let mut range = Range::new(history, Mode::Cause, &id(2));
        let held = |range: &Range| [0, 1, 2].map(|at| range.holds_good(at));
        assert_eq!(held(&range), [true; 3], "not known");
        range.learn_good(&id(91));
        assert_eq!(held(&range), [false, true, true]);
        range.learn_good(&id(92));
        assert_eq!(held(&range), [true; 3], "in another tree");
    }
}
