//! The certificate: the likeliest commit against each of its parents, and against the bad end
//! without it, run by run.

use super::beliefs::Beliefs;
use super::bisection::Bisection;
use super::looks::{self, is_silent};
use super::model::{self, Rates};
use super::posterior::Holds;
use super::search::CERTAIN;
use super::{Assumption, Candidate, Certificate, CertifiedParent, Finding, Role, Step};
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;

/// A member that has the bug keeps quiet this often for all its runs (SEARCH.md, certificate).
const MISS: f64 = 0.005;
/// The same where it is the only witness.
const MISS_ALONE: f64 = 0.001;
/// The rate is not lower than assumed with this probability, where a finding rests on one kernel.
const RATE_SURE: f64 = 0.95;
/// Quiet runs asked of a member, in budgets of one revision.
const QUIET_BUDGETS_MAX: u32 = 10;
/// A member that says nothing in this many runs cannot be judged. For a commit likelier than `LEADS`
/// that is more than in the search, which has other kernels to turn to: one that answers one run in
/// four says something in 19 of 20.
const SILENT_RUNS_MAX: u32 = 10;
const LEADS: f64 = 0.2;
/// A culprit that shows the bug is run until it has shown it so often, if a false alarm or two would
/// still make others likely.
const SHOWN_RUNS_MAX: u32 = 4;

/// How far one member of the certificate is.
enum Proof {
    Holds,
    /// This many runs in all are wanted.
    Wants(u32),
    /// It will not come to hold; the text stands behind the revision's name.
    Fails(String),
}

impl Bisection {
    /// Asks for the runs the certificate lacks, or ends the search with it.
    pub(super) fn certify(&mut self, culprit: u32, width: usize) -> Step {
        let pair = self.pair(culprit);
        if let Some(reason) = self.inseparable(&pair) {
            return self.uncertified(culprit, reason);
        }
        let mut wanted = Vec::new();
        let mut failed: Option<String> = None;
        for (revision, shows) in pair.members() {
            match self.prove(&revision, shows, &pair) {
                Proof::Holds => {}
                Proof::Wants(runs) => wanted.push(Candidate { revision, role: Role::Certify, runs }),
                Proof::Fails(how) => failed = failed.or(Some(format!("{revision} {how}"))),
            }
        }
        let reverted = self.prove_reverted(culprit, failed.is_some());
        if let Proof::Wants(runs) = reverted {
            let (revision, role) = (self.reverted(culprit), Role::Revert(pair.culprit));
            self.reverts.insert(revision, culprit);
            wanted.push(Candidate { revision, role, runs });
        }
        // A member that cannot be run is made up for by the revert, and by nothing else.
        if let (Some(reason), Proof::Fails(_)) = (&failed, &reverted) {
            return self.uncertified(culprit, reason.clone());
        }
        if !wanted.is_empty() {
            wanted.truncate(width);
            return Step::Certify(wanted);
        }
        match self.certificate(&pair, culprit) {
            Some(certificate) if self.is_certain(culprit) => {
                Step::Done(Finding::Culprit { revision: pair.culprit, certificate: Box::new(certificate) })
            }
            Some(_) => match self.once_more(&pair) {
                Some(candidate) => Step::Certify(vec![candidate]),
                None => {
                    self.uncertified(culprit, "its certificate holds, but others are still likely".into())
                }
            },
            None => self.uncertified(
                culprit,
                "it or a parent was run without its kernel's fingerprint being known".into(),
            ),
        }
    }

    /// With its certificate, a culprit is certain among those that would be listed beside it.
    fn is_certain(&self, culprit: u32) -> bool {
        let listed = self.listed();
        let sum: f64 = listed.iter().map(|(_, weight)| weight).sum();
        listed.iter().any(|&(commit, weight)| commit == culprit && weight >= CERTAIN * sum)
    }

    /// Another look at a culprit that has shown the bug, where its certificate is not all that is wanted.
    fn once_more(&self, pair: &Pair) -> Option<Candidate> {
        let counts = self.ledger.counts(&pair.culprit);
        let shows = (1..SHOWN_RUNS_MAX).contains(&counts.target) && self.word(&pair.culprit).is_none();
        if !shows || self.question.mode != Mode::Cause {
            return None;
        }
        let Proof::Wants(runs) = self.more(&pair.culprit, 1, pair.silent_max) else { return None };
        Some(Candidate { revision: pair.culprit, role: Role::Certify, runs })
    }

    /// Whether a member of the certificate has shown enough, though not all its runs are in.
    pub(super) fn member_shows_enough(&self, revision: &RevisionId) -> bool {
        let counts = self.ledger.counts(revision);
        counts.target >= SHOWN_RUNS_MAX || is_silent(&counts, SILENT_RUNS_MAX)
    }

    fn uncertified(&self, culprit: u32, reason: String) -> Step {
        let mut listed = self.listed();
        if listed.is_empty() {
            listed.push((culprit, 1.0));
        }
        Step::Done(self.suspected(&listed, reason))
    }

    /// What the certificate of a commit still lacks, as kernels and quiet runs.
    pub(super) fn unproven(&self, commit: u32) -> Vec<(Holds, u32)> {
        let Some(range) = &self.range else { return Vec::new() };
        let pair = self.pair(commit);
        let mut open = Vec::new();
        let mut add = |holds: Holds, revision: &RevisionId, proof: Proof| {
            if let Proof::Wants(runs) = proof {
                open.push((holds, runs.saturating_sub(self.ledger.counts(revision).total()).max(1)));
            }
        };
        add(Holds::AllBut(commit), &self.reverted(commit), self.prove_reverted(commit, false));
        for (revision, shows) in pair.members() {
            if let Some(at) = range.history.find(&revision) {
                add(Holds::Ancestors(at), &revision, self.prove(&revision, shows, &pair));
            }
        }
        open
    }

    fn pair(&self, culprit: u32) -> Pair {
        let history = self.history().expect("a culprit stands in a range");
        let commit = history.commit(culprit);
        let mut inside: Vec<RevisionId> =
            commit.parents.iter().map(|&parent| history.commit(parent).id).collect();
        inside.dedup();
        let mode = self.question.mode;
        let silent_max = self.silent_max(culprit);
        Pair { culprit: commit.id, inside, outside: commit.outside.clone(), mode, silent_max }
    }

    fn silent_max(&self, culprit: u32) -> u32 {
        let leads = |beliefs: &Beliefs| beliefs.posterior.weights[culprit as usize] >= LEADS;
        if self.beliefs.as_ref().is_some_and(leads) { SILENT_RUNS_MAX } else { looks::SILENT_RUNS_MAX }
    }

    /// Why no runs could ever tell the culprit from its parents.
    fn inseparable(&self, pair: &Pair) -> Option<String> {
        if pair.parents().next().is_none() && !self.outside_is_good {
            return Some(format!("{} has no parent to compare it with", pair.culprit));
        }
        let own = self.ledger.fingerprint(&pair.culprit)?;
        let equal = pair.parents().find(|parent| self.ledger.fingerprint(parent) == Some(own))?;
        Some(format!("{} and its parent {equal} build to the same kernel", pair.culprit))
    }

    /// Whether a revision of the pair shows the crash, or keeps quiet, for long enough.
    fn prove(&self, revision: &RevisionId, shows: bool, pair: &Pair) -> Proof {
        match (self.word(revision), shows) {
            (Some(Verdict::Bad), true) | (Some(Verdict::Good), false) => return Proof::Holds,
            (Some(word), _) => return Proof::Fails(format!("is {word} by an operator's word")),
            (None, _) => {}
        }
        let counts = self.ledger.counts(revision);
        if self.outside_is_good && pair.outside.contains(revision) {
            return Proof::Holds;
        }
        if shows {
            return match counts.target {
                0 if self.shows_alias(revision) => Proof::Holds,
                0 if self.may_lack_bug(revision, pair) => Proof::Holds,
                0 if counts.ok >= self.quiet_runs() => Proof::Fails("does not show the crash".into()),
                0 => self.more(revision, 1, pair.silent_max),
                _ => Proof::Holds,
            };
        }
        match (counts.target, self.quiet_runs()) {
            (0, quiet) if counts.ok >= quiet => Proof::Holds,
            (0, quiet) => self.more(revision, quiet - counts.ok, pair.silent_max),
            (_, _) => Proof::Fails("shows the crash as well".into()),
        }
    }

    /// Whether the bad end keeps quiet without the commit. Where the finding rests on this
    /// kernel `alone`, no more is granted than the rate is sure to be.
    fn prove_reverted(&self, culprit: u32, alone: bool) -> Proof {
        if !self.reverts_allowed || self.question.mode == Mode::Fix {
            return Proof::Fails("is not reverted here".into());
        }
        let revision = self.reverted(culprit);
        let counts = self.ledger.counts(&revision);
        match (counts.target, if alone { self.quiet_runs_alone() } else { self.quiet_runs() }) {
            (0, quiet) if counts.ok >= quiet => Proof::Holds,
            (0, quiet) => self.more(&revision, quiet - counts.ok, self.silent_max(culprit)),
            (_, _) => Proof::Fails("shows the crash as well when reverted".into()),
        }
    }

    fn more(&self, revision: &RevisionId, runs: u32, silent_max: u32) -> Proof {
        let counts = self.ledger.counts(revision);
        if let Some(reason) = self.ledger.unavailable(revision) {
            return Proof::Fails(match counts.total() {
                0 => self.why_skipped(revision),
                _ => format!("was not available for enough runs: {reason}"),
            });
        }
        if self.given_up(revision) || is_silent(&counts, silent_max) {
            Proof::Fails(self.why_skipped(revision))
        } else if self.is_spent(&counts) {
            let informative = counts.informative();
            Proof::Fails(format!("ran its course only {informative} times in {} runs", counts.total()))
        } else {
            Proof::Wants(counts.total() + self.costs.whole_batches(runs))
        }
    }

    /// Quiet runs after which a member is held to be free of the bug.
    fn quiet_runs(&self) -> u32 {
        quiet_runs(&self.rates(), self.assumption, self.measure.max)
    }

    /// The same by the least rate that is still to be expected (SEARCH.md, certificate).
    fn quiet_runs_alone(&self) -> u32 {
        let max = self.measure.max.saturating_mul(QUIET_BUDGETS_MAX);
        let quiet = 1.0 - self.rates().at_least(self.assumption, RATE_SURE);
        let enough = |runs: &u32| quiet.powi(i32::try_from(*runs).unwrap_or(i32::MAX)) <= MISS_ALONE;
        // A batch takes its time however few of its runs are used.
        (self.quiet_runs().max(self.costs.whole_batches(1)).min(max)..=max).find(enough).unwrap_or(max)
    }

    /// Fix: a merge may bring in a line that forked off before the bug came, as long as it
    /// has another parent with the bug.
    fn may_lack_bug(&self, parent: &RevisionId, pair: &Pair) -> bool {
        pair.mode == Mode::Fix
            && pair.outside.contains(parent)
            && self.verdict(parent) == Some(Verdict::Good)
            && pair.parents().any(|other| self.verdict(&other) == Some(Verdict::Bad))
    }

    fn certificate(&self, pair: &Pair, culprit: u32) -> Option<Certificate> {
        let parent = |revision: RevisionId| {
            let counts = self.ledger.counts(&revision);
            let fingerprint = self.ledger.fingerprint(&revision);
            fingerprint.map(|fingerprint| CertifiedParent { revision, counts, fingerprint })
        };
        let reverted = self.ledger.counts(&self.reverted(culprit));
        let reverted = (reverted.total() > 0).then_some(reverted);
        let parents: Vec<Option<CertifiedParent>> = pair.parents().map(parent).collect();
        let overruled: Vec<RevisionId> =
            pair.members().map(|(id, _)| id).filter(|id| self.word(id).is_some()).collect();
        let unproven =
            pair.parents().zip(&parents).any(|(id, parent)| parent.is_none() && !overruled.contains(&id));
        if reverted.is_none() && !self.outside_is_good && unproven {
            return None;
        }
        let fingerprint = self.ledger.fingerprint(&pair.culprit);
        Some(Certificate {
            culprit: self.ledger.counts(&pair.culprit),
            culprit_fingerprint: fingerprint.or_else(|| {
                let stands = reverted.is_some() || overruled.contains(&pair.culprit);
                self.ledger.fingerprint(&self.question.bad).filter(|_| stands)
            })?,
            parents: parents.into_iter().flatten().collect(),
            reverted,
            overruled,
        })
    }
}

/// Quiet runs that hardly happen to a kernel with the bug, as far as the rates are known.
fn quiet_runs(rates: &Rates, assumption: Assumption, max: u32) -> u32 {
    let max = max.saturating_mul(QUIET_BUDGETS_MAX);
    let min = if assumption == Assumption::Exact { 1 } else { 2 };
    (min.min(max)..=max).find(|&runs| rates.miss(assumption, runs) <= MISS).unwrap_or(max)
}

/// The same for one kernel that showed the bug, by its own runs alone.
pub(crate) fn quiet_runs_after(shown: u32, quiet: u32, max: u32) -> u32 {
    let assumption = Assumption::Flaky;
    let mut rates = Rates::prior(assumption);
    rates.learn(&model::likelihood(assumption, shown, quiet));
    quiet_runs(&rates, assumption, max)
}

/// The suspect and its parents.
struct Pair {
    culprit: RevisionId,
    inside: Vec<RevisionId>,
    outside: Vec<RevisionId>,
    mode: Mode,
    /// Runs that may say nothing before a member is given up.
    silent_max: u32,
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
