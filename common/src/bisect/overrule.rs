//! What a person says of a revision, against its runs or without any.

use super::bisection::Bisection;
use super::posterior::{Holds, Test};
use super::range::Range;
use super::{Judgement, Role};
use crate::id::RevisionId;
use crate::verdict::Verdict;

impl Bisection {
    /// Takes a person's word on a revision, or takes it back. The runs of its kernel stay known, and
    /// count for nothing as long as the word stands.
    pub fn overrule(&mut self, revision: RevisionId, word: Option<Verdict>) {
        match word {
            Some(verdict) => self.overruled.insert(revision, verdict),
            None => self.overruled.remove(&revision),
        };
        self.beliefs = None;
        self.settle();
        // A verdict is never taken back: where nothing is known any more, that is what is said.
        if self.verdict(&revision).is_none()
            && self.log.last(&revision).is_some_and(|last| last != Verdict::Skip)
        {
            let (role, counts) = (Role::Overruled, self.ledger.counts(&revision));
            self.log.push(Judgement { revision, role, verdict: Verdict::Skip, counts, narrowed: false });
        }
    }

    /// A person's word on a revision. The bad end is what is searched for: there is none on it.
    pub(super) fn word(&self, revision: &RevisionId) -> Option<Verdict> {
        self.overruled.get(revision).copied().filter(|_| *revision != self.question.bad)
    }

    /// The word on a kernel, given the revisions that build to it.
    pub(super) fn word_on(&self, revisions: &[RevisionId]) -> Option<Verdict> {
        revisions.iter().find_map(|revision| self.word(revision))
    }

    /// What a word tells: as much as a test that nobody doubts. A skip tells nothing.
    pub(super) fn told(word: Verdict, holds: Vec<Holds>, titles: usize) -> Option<Test> {
        let told = match word {
            Verdict::Bad => true,
            Verdict::Good => false,
            Verdict::Skip => return None,
        };
        Some(Test { holds, target: 0, ok: 0, others: vec![0; titles], told: Some(told), line: None })
    }

    /// Words on revisions that were never run.
    pub(super) fn told_unseen(&self, range: &Range, titles: usize) -> Vec<Test> {
        let seen: Vec<RevisionId> = self.ledger.revisions().collect();
        let unseen = self.overruled.iter().filter(|(revision, _)| !seen.contains(revision));
        let test = |(revision, &word): (&RevisionId, &Verdict)| {
            Self::told(word, vec![self.holds(range, revision)?], titles)
        };
        unseen.filter_map(test).collect()
    }
}
