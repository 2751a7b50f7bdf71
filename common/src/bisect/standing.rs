//! What all evidence so far amounts to: verdicts, the suspects they leave, the log of them.

use super::ancestry::Bits;
use super::bisection::Bisection;
use super::judge::Start;
use super::range::{Range, Verdicts};
use super::{Candidate, Finding, Judgement, Role, Suspect};
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;

impl Bisection {
    /// The verdict on a revision by all evidence so far.
    pub(super) fn verdict(&self, revision: &RevisionId) -> Option<Verdict> {
        if let Some(word) = self.word(revision) {
            return Some(word);
        }
        let counts = self.ledger.counts(revision);
        let skip = self.given_up(revision).then_some(Verdict::Skip);
        if *revision == self.question.bad {
            return match self.start() {
                Start::Shows => Some(Verdict::Bad),
                Start::Quiet if counts.ok * 2 >= counts.total() => Some(Verdict::Good),
                Start::Quiet | Start::Broken => Some(Verdict::Skip),
                Start::Wants(_) => skip,
            };
        }
        // What the target is, and how often it shows, is known from the start only.
        if self.start_candidate().is_some() {
            return None;
        }
        let in_range = self.range.as_ref().is_some_and(|range| range.history.find(revision).is_some());
        let verdict = if in_range { self.range_verdict(&counts) } else { self.measure.verdict(&counts) };
        match verdict {
            Some(verdict @ (Verdict::Bad | Verdict::Good)) => Some(verdict),
            other @ (Some(Verdict::Skip) | None) => other.or(skip),
        }
    }

    /// Commits of the range behind the change and before it, as judged.
    fn sides(&self, range: &Range) -> (Vec<u32>, Vec<u32>) {
        let mut verdicts = Verdicts::default();
        for id in self.ledger.revisions() {
            let Some(at) = range.history.find(&id) else { continue };
            match self.verdict(&id) {
                Some(Verdict::Bad) => verdicts.crashing.push(at),
                Some(Verdict::Good) => verdicts.clean.push(at),
                Some(Verdict::Skip) | None => {}
            }
        }
        match range.mode {
            Mode::Cause => (verdicts.crashing, verdicts.clean),
            Mode::Fix => (range.fixed(&verdicts, &self.old_ends()), verdicts.crashing),
        }
    }

    pub(super) fn suspects(&self, range: &Range) -> Bits {
        let (changed, unchanged) = self.sides(range);
        range.suspects(&changed, &unchanged)
    }

    /// Fix: revisions outside the range that had the bug.
    pub(super) fn old_ends(&self) -> Vec<RevisionId> {
        std::iter::once(self.question.bad).chain(self.merge_base()).collect()
    }

    /// Appends the verdicts that fell with the latest evidence.
    pub(super) fn settle(&mut self) {
        if self.start_candidate().is_some() && self.start_finding().is_none() {
            return;
        }
        let unasked = self.ledger.revisions().filter(|id| !self.asked.iter().any(|(asked, _)| asked == id));
        let in_range =
            |id: &RevisionId| self.range.as_ref().is_some_and(|range| range.history.find(id).is_some());
        let unasked =
            unasked.filter(|id| in_range(id) && !self.inherited.contains(id)).map(|id| (id, Role::Search));
        let known: Vec<(RevisionId, Role)> = self.asked.iter().cloned().chain(unasked).collect();
        let unseen = self.overruled.keys().filter(|id| !known.iter().any(|(known, _)| known == *id));
        let unseen: Vec<_> = unseen.filter(|id| in_range(id)).map(|id| (*id, Role::Overruled)).collect();
        let all = known.into_iter().chain(unseen);
        for (revision, role) in all {
            let in_search = matches!(role, Role::Search | Role::Certify | Role::Revert(_) | Role::Overruled);
            if in_search && !self.ends_judged() {
                continue;
            }
            let Some(verdict) = self.verdict(&revision) else { continue };
            let role = if self.word(&revision).is_some() { Role::Overruled } else { role };
            if self.log.last(&revision) != Some(verdict) {
                let narrowed = self.narrows(&revision, &role, verdict);
                let counts = self.ledger.counts(&revision);
                self.log.push(Judgement { revision, role, verdict, counts, narrowed });
            }
        }
    }

    fn ends_judged(&self) -> bool {
        let asked = |id: &RevisionId| self.asked.iter().any(|(asked, _)| asked == id);
        let good = self.question.good.is_none_or(|good| self.verdict(&good).is_some() || !asked(&good));
        good && self.verdict(&self.question.bad).is_some()
    }

    fn narrows(&self, revision: &RevisionId, role: &Role, verdict: Verdict) -> bool {
        let Some(range) = &self.range else { return true };
        match (role, range.history.find(revision)) {
            (Role::Start | Role::GoodEnd | Role::Release(_), _) => true,
            // git knows of no such kernel.
            (Role::Revert(_), _) => false,
            // git asks for the merge base of two trees before anything else.
            (Role::Search | Role::Certify | Role::Overruled, None) => range.merge_base == Some(*revision),
            (Role::Search | Role::Certify | Role::Overruled, Some(at)) => {
                let known_fixed = range.mode == Mode::Fix && self.sides(range).0.contains(&at);
                self.log.narrows(range, at, verdict, known_fixed)
            }
        }
    }

    pub(super) fn remember(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            self.inherited.remove(&candidate.revision);
            if !self.asked.iter().any(|(id, _)| *id == candidate.revision) {
                self.asked.push((candidate.revision, candidate.role.clone()));
            }
        }
    }

    pub(super) fn conclude(&mut self, culprit: RevisionId) {
        let Bisection { range: Some(range), log, ledger, .. } = self else { return };
        if let Some(at) = range.history.find(&culprit) {
            log.conclude(range, at, |revision| ledger.counts(revision));
        }
    }

    /// Why no single one of these commits could be named.
    pub(super) fn why_unresolved(&self, suspects: &[(u32, f64)]) -> String {
        let Some(range) = &self.range else { return "the range is not known".into() };
        let ids = suspects.iter().map(|&(at, _)| range.history.commit(at).id);
        let skipped: Vec<RevisionId> = ids.filter(|id| self.verdict(id) == Some(Verdict::Skip)).collect();
        let mut reasons: Vec<String> =
            skipped.iter().take(3).map(|id| format!("{} {}", id.short(), self.why_skipped(id))).collect();
        if skipped.len() > 3 {
            reasons.push(format!("and {} more", skipped.len() - 3));
        }
        match (reasons.is_empty(), range.mode) {
            (false, _) => format!("what would tell them apart could not be judged: {}", reasons.join("; ")),
            (true, Mode::Cause) => "no revision is left that would tell them apart".into(),
            (true, Mode::Fix) => "revisions without the crash among them may never have had the bug".into(),
        }
    }

    /// Why a revision could not be judged, fit to stand behind its name.
    pub(super) fn why_skipped(&self, revision: &RevisionId) -> String {
        let counts = self.ledger.counts(revision);
        match (self.ledger.build_failed(revision), self.ledger.unavailable(revision)) {
            (Some(message), _) => format!("does not build: {message}"),
            (None, Some(reason)) => format!("was not available: {reason}"),
            (None, None) => format!(
                "cannot be judged: of {} runs {} met another crash and {} failed",
                counts.total(),
                counts.other,
                counts.failed
            ),
        }
    }

    /// Suspects with their probabilities, which sum to 1.
    pub(super) fn suspected(&self, suspects: &[(u32, f64)], reason: String) -> Finding {
        let range = self.range.as_ref().expect("suspects stand in a range");
        let sum: f64 = suspects.iter().map(|(_, probability)| probability).sum();
        let suspect = |&(at, probability): &(u32, f64)| Suspect {
            revision: range.history.commit(at).id,
            probability: probability / sum,
        };
        Finding::Suspects { suspects: suspects.iter().map(suspect).collect(), reason }
    }
}
