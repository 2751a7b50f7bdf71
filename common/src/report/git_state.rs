//! What `git bisect` would know: replays verdicts in git's words and does git's arithmetic.
//!
//! Several agents judge revisions out of git's order. Only those verdicts that git would
//! learn from, and can be told, become steps; the rest are asides. The log and the replay
//! text share this one reading, so they cannot disagree.

use super::{Record, Tested};
use crate::bisect::Role;
use crate::history::History;
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;
use std::collections::HashMap;

/// git's words for a revision. For a fix they are turned round: git calls the newer state bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Good,
    Bad,
    Skip,
}

impl Word {
    pub fn of(verdict: Verdict, mode: Mode) -> Word {
        match (verdict, mode) {
            (Verdict::Good, Mode::Cause) | (Verdict::Bad, Mode::Fix) => Word::Good,
            (Verdict::Bad, Mode::Cause) | (Verdict::Good, Mode::Fix) => Word::Bad,
            (Verdict::Skip, Mode::Cause | Mode::Fix) => Word::Skip,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Word::Good => "good",
            Word::Bad => "bad",
            Word::Skip => "skip",
        }
    }
}

/// Where a tested revision stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before `git bisect start`: the ends and the releases.
    Opening,
    /// A step of `git bisect`, with git's numbers from before its verdict. One that overrules
    /// an earlier verdict goes back to where git would be without that.
    Step { word: Word, left: usize, steps: u32, overrules: bool },
    /// It taught git nothing; a comment.
    Aside,
}

/// The newer and the older end, as `git bisect start` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub newer: RevisionId,
    pub older: RevisionId,
}

/// The range searched, once it is known.
pub fn range(record: &Record<'_>) -> Option<Range> {
    let (history, ends) = (record.history?, record.ends?);
    let older = match record.job.mode {
        Mode::Cause => ends.good.as_ref()?.id,
        Mode::Fix => ends.bad.id,
    };
    Some(Range { newer: history.commit(history.tip()).id, older })
}

/// The place of each tested revision; that of one never depends on later ones.
pub fn places(record: &Record<'_>) -> Vec<Place> {
    let history = record.history.filter(|_| range(record).is_some());
    let mut state = history.map(GitState::new);
    let mut started = false;
    let mut places = Vec::with_capacity(record.tested.len());
    for (at, tested) in record.tested.iter().enumerate() {
        let overrules = overrules(&record.tested[..at], &places, tested);
        if let Some(history) = history.filter(|_| overrules) {
            state = Some(rebuilt(history, record, &record.tested[..at], tested));
        }
        let place = match (opens(tested), &mut state) {
            _ if is_revert(tested) => Place::Aside,
            (true, _) if !started => Place::Opening,
            (true, _) | (false, None) => Place::Aside,
            (false, Some(state)) => state.step(tested, record.job.mode, overrules),
        };
        started |= matches!(place, Place::Step { .. });
        places.push(place);
    }
    places
}

/// The verdicts that hold in the end and that git can be told, in order: what a replay consists of.
pub fn lasting<'a>(record: &Record<'a>) -> Vec<(&'a Tested, Word)> {
    let Some(history) = record.history.filter(|_| range(record).is_some()) else { return vec![] };
    let overruled = places(record).iter().any(|place| matches!(place, Place::Step { overrules: true, .. }));
    let mut state = GitState::new(history);
    let effective = effective(record.tested).into_iter();
    let told = effective.filter(|tested| overruled || !is_stale(tested)).filter_map(|tested| {
        let word = Word::of(tested.judgement.verdict, record.job.mode);
        state.take(&tested.judgement.revision, word).then_some((tested, word))
    });
    told.collect()
}

/// Whether a step was taken on an earlier, different verdict that must now be taken back.
/// A skip says nothing that could be wrong.
fn overrules(before: &[Tested], places: &[Place], tested: &Tested) -> bool {
    let judgement = &tested.judgement;
    let earlier = before.iter().zip(places).rfind(|(other, place)| {
        other.judgement.revision == judgement.revision && matches!(place, Place::Step { .. })
    });
    earlier.is_some_and(|(other, _)| {
        other.judgement.verdict != judgement.verdict && other.judgement.verdict != Verdict::Skip
    })
}

/// git's state from all verdicts that still hold, but for the revision that is judged anew.
/// What taught nothing when it fell may teach something now, so all are tried.
fn rebuilt<'a>(history: &'a History, record: &Record<'_>, before: &[Tested], anew: &Tested) -> GitState<'a> {
    let mut state = GitState::new(history);
    for tested in effective(before) {
        if tested.judgement.revision != anew.judgement.revision {
            state.take(&tested.judgement.revision, Word::of(tested.judgement.verdict, record.job.mode));
        }
    }
    state
}

/// Of each searched revision the verdict that holds, from when on it holds; one that was
/// overtaken counts from when it came up again.
fn effective(tested: &[Tested]) -> Vec<&Tested> {
    let mut last: HashMap<RevisionId, usize> = HashMap::new();
    for (at, one) in tested.iter().enumerate().filter(|(_, one)| !opens(one) && !is_revert(one)) {
        let held = last.get(&one.judgement.revision).map(|&at| &tested[at]);
        if held.is_none_or(|held| held.judgement.verdict != one.judgement.verdict || is_stale(held)) {
            last.insert(one.judgement.revision, at);
        }
    }
    let mut at: Vec<usize> = last.into_values().collect();
    at.sort_unstable();
    at.into_iter().map(|at| &tested[at]).collect()
}

/// Overtaken by another pick when it fell.
fn is_stale(tested: &Tested) -> bool {
    tested.judgement.role == Role::Search && !tested.judgement.narrowed
}

/// git knows of no such revision.
fn is_revert(tested: &Tested) -> bool {
    matches!(tested.judgement.role, Role::Revert(_))
}

fn opens(tested: &Tested) -> bool {
    match tested.judgement.role {
        Role::Start | Role::GoodEnd | Role::Release(_) => true,
        Role::Search | Role::Certify | Role::Revert(_) | Role::Overruled => false,
    }
}

/// The set of commits git still suspects: reachable from the last bad one and from no good one.
#[derive(Clone, Debug)]
pub struct GitState<'a> {
    history: &'a History,
    bad: u32,
    suspect: Vec<bool>,
    skipped: Vec<bool>,
}

impl<'a> GitState<'a> {
    /// As after `git bisect start <tip> <good end>`.
    pub fn new(history: &'a History) -> Self {
        let (all, none) = (vec![true; history.len()], vec![false; history.len()]);
        GitState { history, bad: history.tip(), suspect: all, skipped: none }
    }

    /// The newest commit known bad.
    pub fn bad(&self) -> RevisionId {
        self.history.commit(self.bad).id
    }

    /// Commits git still suspects, parents first.
    pub fn suspects(&self) -> impl Iterator<Item = RevisionId> + '_ {
        let commits = self.history.commits().iter().zip(&self.suspect);
        commits.filter(|(_, suspect)| **suspect).map(|(commit, _)| commit.id)
    }

    fn step(&mut self, tested: &Tested, mode: Mode, overrules: bool) -> Place {
        let judgement = &tested.judgement;
        if is_stale(tested) && !overrules {
            return Place::Aside;
        }
        let word = Word::of(judgement.verdict, mode);
        let before = self.arithmetic(&judgement.revision);
        match before {
            Some((left, steps)) if self.take(&judgement.revision, word) => {
                Place::Step { word, left, steps, overrules }
            }
            Some(_) | None => Place::Aside,
        }
    }

    /// Revisions left after testing `next`, and steps: the numbers of git's `Bisecting:` line.
    ///
    /// From `bisect_next_all` of git's bisect.c: all − reaches − 1, where `reaches` counts the
    /// suspects that the tested commit reaches.
    pub fn arithmetic(&self, next: &RevisionId) -> Option<(usize, u32)> {
        let reached = self.reached(self.history.find(next)?);
        let all = self.suspect.iter().filter(|suspect| **suspect).count();
        let reaches =
            reached.iter().zip(&self.suspect).filter(|(reached, suspect)| **reached && **suspect).count();
        Some((all.saturating_sub(reaches + 1), estimate_steps(all)))
    }

    /// Takes a verdict if git would learn from it and could hold it; says whether it did.
    pub fn take(&mut self, revision: &RevisionId, word: Word) -> bool {
        let Some(at) = self.history.find(revision) else { return false };
        let inside = self.suspect[at as usize] && at != self.bad;
        match word {
            Word::Skip => inside && !std::mem::replace(&mut self.skipped[at as usize], true),
            Word::Bad if inside => {
                let reached = self.reached(at);
                self.keep(|i| reached[i]);
                self.bad = at;
                true
            }
            Word::Bad => false,
            Word::Good => {
                let reached = self.reached(at);
                let learns = (0..reached.len()).any(|i| reached[i] && self.suspect[i]);
                let contradicts = reached[self.bad as usize];
                if learns && !contradicts {
                    self.keep(|i| !reached[i]);
                }
                learns && !contradicts
            }
        }
    }

    fn keep(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        for (i, suspect) in self.suspect.iter_mut().enumerate() {
            *suspect &= wanted(i);
        }
    }

    /// The commit and its ancestors within the range.
    fn reached(&self, from: u32) -> Vec<bool> {
        let mut reached = vec![false; self.history.len()];
        reached[from as usize] = true;
        for i in (0..=from).rev() {
            if reached[i as usize] {
                for &parent in &self.history.commit(i).parents {
                    reached[parent as usize] = true;
                }
            }
        }
        reached
    }
}

/// git's `estimate_bisect_steps`.
pub fn estimate_steps(all: usize) -> u32 {
    if all < 3 {
        return 0;
    }
    let n = all.ilog2();
    let e = 1 << n;
    if e < 3 * (all - e) { n } else { n - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Commit;
    use crate::id::TreeId;

    fn id(n: u8) -> RevisionId {
        RevisionId::from_bytes([n; 20])
    }

    /// 0 - 1 - 3 - 4 with 2 on a branch beside 1, merged by 3.
    fn merged() -> History {
        let commit = |n: u8, parents: &[u32]| Commit {
            id: id(n),
            tree: TreeId::from_bytes([n; 20]),
            parents: parents.to_vec(),
            outside: vec![],
            time: 0,
            subject: String::new(),
        };
        History::new(vec![
            commit(0, &[]),
            commit(1, &[0]),
            commit(2, &[0]),
            commit(3, &[1, 2]),
            commit(4, &[3]),
        ])
        .expect("a valid graph")
    }

    #[test]
    fn only_what_git_learns_from_is_taken() {
        let history = merged();
        let mut git = GitState::new(&history);
        let steps = [
            (4, Word::Good, false, "contradicts the bad end"),
            (9, Word::Bad, false, "is not in the range"),
            (1, Word::Good, true, "clears 0 and 1"),
            (0, Word::Bad, false, "is cleared already"),
            (2, Word::Skip, true, "is skipped"),
            (2, Word::Skip, false, "is skipped already"),
            (3, Word::Bad, true, "leaves 2 and 3"),
            (4, Word::Bad, false, "is known"),
            (2, Word::Good, true, "leaves 3"),
        ];
        for (n, word, taken, why) in steps {
            assert_eq!(git.take(&id(n), word), taken, "{n} {why}");
        }
        assert_eq!(git.suspects().collect::<Vec<_>>(), [id(3)]);
    }

    #[test]
    fn steps_are_estimated_as_git_does() {
        let expected = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (12, 3), (15_020, 13)];
        for (all, steps) in expected {
            assert_eq!(estimate_steps(all), steps, "{all}");
        }
    }
}
