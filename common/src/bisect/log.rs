//! The verdicts in the order they fell, and the part of them that git can follow.

use super::range::Range;
use super::{Counts, Judgement, Role};
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;

/// The judgements that `git bisect` can replay to the same end, in order: those that narrowed
/// the range, each revision by its last one only.
///
/// A judgement is never taken back; where later evidence overrules one, another with a new
/// verdict (Skip, if nothing is known instead) follows for the same revision.
pub fn replay(judgements: &[Judgement]) -> Vec<&Judgement> {
    let searched =
        |judgement: &Judgement| matches!(judgement.role, Role::Search | Role::Certify | Role::Overruled);
    effective(judgements).filter(|judgement| judgement.narrowed && searched(judgement)).collect()
}

/// Each revision's last judgement, in order.
fn effective(judgements: &[Judgement]) -> impl Iterator<Item = &Judgement> {
    let overruled = |at: usize, revision| judgements[at + 1..].iter().any(|later| later.revision == revision);
    judgements
        .iter()
        .enumerate()
        .filter(move |(at, judgement)| !overruled(*at, judgement.revision))
        .map(|(_, judgement)| judgement)
}

/// What a verdict says about the change that is searched for; nothing for a skip.
pub(super) fn changed(mode: Mode, verdict: Verdict) -> Option<bool> {
    match (mode, verdict) {
        (_, Verdict::Skip) => None,
        (Mode::Cause, Verdict::Bad) | (Mode::Fix, Verdict::Good) => Some(true),
        (Mode::Cause, Verdict::Good) | (Mode::Fix, Verdict::Bad) => Some(false),
    }
}

/// The judgements, append-only.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Vec<Judgement>);

impl Log {
    pub fn judgements(&self) -> &[Judgement] {
        &self.0
    }

    pub fn last(&self, revision: &RevisionId) -> Option<Verdict> {
        self.0
            .iter()
            .rev()
            .find(|judgement| judgement.revision == *revision)
            .map(|judgement| judgement.verdict)
    }

    pub fn push(&mut self, judgement: Judgement) {
        self.0.push(judgement);
    }

    /// Whether a verdict inside the range moves what git would know now.
    pub fn narrows(&self, range: &Range, at: u32, verdict: Verdict, known_fixed: bool) -> bool {
        let known = self.known(range);
        let reaches = |of: u32, ancestor: u32| range.ancestry.reaches(of, ancestor);
        let below_end = reaches(known.end, at);
        let cleared = known.cleared.iter().any(|&good| reaches(good, at));
        match changed(range.mode, verdict) {
            Some(true) => below_end && !cleared && (range.mode == Mode::Cause || known_fixed),
            Some(false) => !cleared && !reaches(at, known.end),
            None => below_end && !cleared,
        }
    }

    /// Makes the replay end with this culprit: overrules what contradicts it, and adds it and
    /// its parents inside the range where they are missing.
    pub fn conclude(&mut self, range: &Range, culprit: u32, counts: impl Fn(&RevisionId) -> Counts) {
        let wrong = |judgement: &Judgement| {
            let at = range.history.find(&judgement.revision)?;
            let claims = changed(range.mode, judgement.verdict)?;
            (judgement.narrowed && claims != range.ancestry.reaches(at, culprit))
                .then_some(judgement.revision)
        };
        let overruled: Vec<RevisionId> = effective(&self.0).filter_map(wrong).collect();
        for revision in overruled {
            self.append(revision, Verdict::Skip, counts(&revision), false);
        }
        let (before, behind) = match range.mode {
            Mode::Cause => (Verdict::Good, Verdict::Bad),
            Mode::Fix => (Verdict::Bad, Verdict::Good),
        };
        let commit = range.history.commit(culprit);
        // With every parent named, also those outside, git finds no merge base left to ask for.
        let outside = commit.outside.iter().filter(|id| self.last(id) == Some(before));
        let inside = commit.parents.iter().map(|&parent| range.history.commit(parent).id);
        let parents: Vec<_> = inside.chain(outside.copied()).map(|parent| (parent, before)).collect();
        let end = (culprit != range.history.tip()).then_some((commit.id, behind));
        for (revision, verdict) in parents.into_iter().chain(end) {
            let stands =
                |judgement: &&Judgement| (judgement.revision, judgement.verdict) == (revision, verdict);
            if !replay(&self.0).iter().any(stands) {
                self.append(revision, verdict, counts(&revision), true);
            }
        }
    }

    fn append(&mut self, revision: RevisionId, verdict: Verdict, counts: Counts, narrowed: bool) {
        self.0.push(Judgement { revision, role: Role::Certify, verdict, counts, narrowed });
    }

    fn known(&self, range: &Range) -> Known {
        let mut known = Known { end: range.history.tip(), cleared: Vec::new() };
        for judgement in effective(&self.0).filter(|judgement| judgement.narrowed) {
            let Some(at) = range.history.find(&judgement.revision) else { continue };
            match changed(range.mode, judgement.verdict) {
                Some(true) => known.end = at,
                Some(false) => known.cleared.push(at),
                None => {}
            }
        }
        known
    }
}

/// What git would hold after the replay so far.
struct Known {
    end: u32,
    cleared: Vec<u32>,
}
