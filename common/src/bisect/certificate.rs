//! The certificate: the single suspect against each of its parents, run by run.

use super::bisection::Bisection;
use super::{Candidate, Certificate, CertifiedParent, Counts, Finding, Role, Step};
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;

/// How far one side of the deciding pair is.
enum Proof {
    Holds,
    /// This many runs in all are wanted.
    Wants(u32),
    /// It will not come to hold; the text stands behind the revision's name.
    Fails(String),
}

impl Bisection {
    /// Asks for the runs the certificate lacks, or ends the search with it.
    pub(super) fn certify(&self, culprit: u32, width: usize) -> Step {
        let pair = self.pair(culprit);
        let failed = |reason: String| Step::Done(self.suspected(&[culprit], reason));
        if let Some(reason) = self.inseparable(&pair) {
            return failed(reason);
        }
        let mut wanted = Vec::new();
        for (revision, shows) in pair.members() {
            match self.prove(&revision, shows, &pair) {
                Proof::Holds => {}
                Proof::Wants(runs) => wanted.push(Candidate { revision, role: Role::Certify, runs }),
                Proof::Fails(how) => return failed(format!("{revision} {how}")),
            }
        }
        if !wanted.is_empty() {
            wanted.truncate(width);
            return Step::Certify(wanted);
        }
        match self.certificate(&pair) {
            Some(certificate) => Step::Done(Finding::Culprit { revision: pair.culprit, certificate }),
            None => failed("it or a parent was run without its kernel's fingerprint being known".into()),
        }
    }

    fn pair(&self, culprit: u32) -> Pair {
        let history = self.history().expect("a culprit stands in a range");
        let commit = history.commit(culprit);
        let mut inside: Vec<RevisionId> =
            commit.parents.iter().map(|&parent| history.commit(parent).id).collect();
        inside.dedup();
        let mode = self.question.mode;
        Pair { culprit: commit.id, inside, outside: commit.outside.clone(), mode }
    }

    /// Why no runs could ever tell the culprit from its parents.
    fn inseparable(&self, pair: &Pair) -> Option<String> {
        if pair.parents().next().is_none() {
            return Some(format!("{} has no parent to compare it with", pair.culprit));
        }
        let own = self.ledger.fingerprint(&pair.culprit)?;
        let equal = pair.parents().find(|parent| self.ledger.fingerprint(parent) == Some(own))?;
        Some(format!("{} and its parent {equal} build to the same kernel", pair.culprit))
    }

    /// Whether a revision of the pair shows the crash, or keeps quiet, for long enough.
    fn prove(&self, revision: &RevisionId, shows: bool, pair: &Pair) -> Proof {
        let counts = self.ledger.counts(revision);
        let max = self.measure.max;
        let quiet_runs = self.measure.rate.runs_for_certificate(max);
        let verdict = self.verdict(revision);
        match (verdict, shows) {
            // More than one budget on the crashing side would only sharpen the rate.
            (Some(Verdict::Bad), true) => self.want_more(revision, counts.informative(), quiet_runs.min(max)),
            (Some(Verdict::Good), false) => self.want_more(revision, counts.ok, quiet_runs),
            (Some(Verdict::Bad), false) => Proof::Fails("shows the crash as well".into()),
            (Some(Verdict::Good), true) if self.may_lack_bug(revision, pair) => Proof::Holds,
            (Some(Verdict::Good), true) => Proof::Fails("does not show the crash".into()),
            (Some(Verdict::Skip), _) => Proof::Fails(self.why_skipped(revision)),
            (None, _) => Proof::Wants(self.measure.wanted(&counts)),
        }
    }

    fn want_more(&self, revision: &RevisionId, have: u32, needed: u32) -> Proof {
        let counts = self.ledger.counts(revision);
        let given_up = self.ledger.unavailable(revision);
        if have >= needed {
            Proof::Holds
        } else if let Some(reason) = given_up {
            Proof::Fails(format!("was not available for enough runs: {reason}"))
        } else if counts.total() >= self.measure.max.saturating_mul(4) {
            Proof::Fails(format!("ran its course only {have} times in {} runs", counts.total()))
        } else {
            Proof::Wants(counts.total() + needed - have)
        }
    }

    /// Fix: a merge may bring in a line that forked off before the bug came, as long as it
    /// has another parent with the bug.
    fn may_lack_bug(&self, parent: &RevisionId, pair: &Pair) -> bool {
        pair.mode == Mode::Fix
            && pair.outside.contains(parent)
            && pair.parents().any(|other| self.verdict(&other) == Some(Verdict::Bad))
    }

    fn certificate(&self, pair: &Pair) -> Option<Certificate> {
        let counts = |revision: &RevisionId| -> Counts { self.ledger.counts(revision) };
        let parent = |revision: RevisionId| {
            let fingerprint = self.ledger.fingerprint(&revision)?;
            Some(CertifiedParent { revision, counts: counts(&revision), fingerprint })
        };
        Some(Certificate {
            culprit: counts(&pair.culprit),
            culprit_fingerprint: self.ledger.fingerprint(&pair.culprit)?,
            parents: pair.parents().map(parent).collect::<Option<_>>()?,
        })
    }
}

/// The suspect and its parents.
struct Pair {
    culprit: RevisionId,
    inside: Vec<RevisionId>,
    outside: Vec<RevisionId>,
    mode: Mode,
}

impl Pair {
    fn parents(&self) -> impl Iterator<Item = RevisionId> {
        self.inside.iter().chain(&self.outside).copied()
    }

    /// Each member, and whether it must show the crash.
    fn members(&self) -> impl Iterator<Item = (RevisionId, bool)> {
        let culprit_shows = self.mode == Mode::Cause;
        let parents = self.parents().map(move |parent| (parent, !culprit_shows));
        std::iter::once((self.culprit, culprit_shows)).chain(parents)
    }
}
