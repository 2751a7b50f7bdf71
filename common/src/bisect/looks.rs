//! Looks at kernels: what is in flight, when it has shown enough, and what is worth another.

use super::bisection::Bisection;
use super::broken::Visited;
use super::model::{Assumption, HIDDEN, Rates};
use super::posterior::Holds;
use super::{Candidate, Counts, Role};
use crate::id::{Digest, RevisionId};
use crate::verdict::Verdict;

/// A look's quiet runs may miss the bug this often (SEARCH.md, choice).
const MISS_LOOK: f64 = 0.003;
const LOOK_RUNS_MIN: u32 = 2;
/// A look that has shown the bug ends with this many runs, and a kernel that has shown it this
/// often needs no other: one crash may be a false alarm, and a second run costs little.
const SHOWN_RUNS: u32 = 2;
/// This many runs that all say nothing end a look.
pub(super) const SILENT_RUNS_MAX: u32 = 3;
/// Runs at one kernel, in budgets of one revision, before it is left alone; and those of them
/// that say nothing. A bug that shows once in twenty runs hides from 100 in half a per cent.
const BUDGETS_MAX: u32 = 16;
const SILENT_BUDGETS_MAX: u32 = 4;

/// A kernel that is being tried.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub holds: Holds,
    /// Quiet runs of this look, and what had been seen before it.
    oks: u32,
    before: Counts,
    /// Runs in all after which the look ends, whatever they said.
    total: u32,
    /// For the certificate of this commit.
    pub ahead: Option<u32>,
    /// Bits that it was expected to tell when it was picked, unless it was picked for a certificate.
    pub gain: f64,
}

impl Flight {
    pub fn expecting(self, gain: f64) -> Self {
        Flight { gain, ..self }
    }
}

impl Bisection {
    /// Quiet runs of one look.
    pub(super) fn look_runs(&self, rates: &Rates) -> u32 {
        let max = self.measure.max;
        if self.assumption == Assumption::Exact {
            return 1;
        }
        let min = LOOK_RUNS_MIN.min(max);
        (min..=max).find(|&runs| rates.miss(self.assumption, runs) <= MISS_LOOK).unwrap_or(max)
    }

    /// Whether another look at a kernel may say something.
    pub(super) fn usable(&self, id: &RevisionId) -> bool {
        let counts = self.ledger.counts(id);
        !self.given_up(id)
            && self.word(id).is_none()
            && counts.target < SHOWN_RUNS
            && (counts.target > 0 || self.rates().miss(self.assumption, counts.ok) > HIDDEN)
            && !is_silent(&counts, SILENT_RUNS_MAX)
            && !self.is_spent(&counts)
    }

    /// Whether a kernel has had all the runs that it may have.
    pub(super) fn is_spent(&self, counts: &Counts) -> bool {
        let max = self.measure.max;
        counts.total() >= max.saturating_mul(BUDGETS_MAX)
            || counts.silent() > counts.informative()
                && counts.total() >= max.saturating_mul(SILENT_BUDGETS_MAX)
    }

    pub(super) fn flight(&self, holds: Holds, runs: u32, ahead: Option<u32>) -> Flight {
        let counts = self.id_of(holds).map(|id| self.ledger.counts(&id)).unwrap_or_default();
        let total = counts.total() + self.costs.whole_batches(runs);
        Flight { holds, oks: runs, before: counts, total, ahead, gain: 0.0 }
    }

    /// Whether a look has seen what it can; `enough` are the quiet runs that a look takes by now.
    pub(super) fn satisfied(&self, flight: &Flight, enough: u32) -> bool {
        let Some(id) = self.id_of(flight.holds) else { return true };
        let counts = self.ledger.counts(&id);
        let wanted = match flight.ahead {
            Some(_) => flight.oks,
            None => flight.oks.min(enough),
        };
        let shown =
            counts.target > flight.before.target && counts.total() >= flight.before.total() + SHOWN_RUNS;
        self.given_up(&id)
            || self.word(&id).is_some()
            || shown
            || counts.ok >= flight.before.ok + wanted
            || is_silent(&counts, SILENT_RUNS_MAX)
            || counts.total() >= flight.total
    }

    /// Whether a revision that was asked for has shown enough, though not all its runs are in.
    pub fn enough(&self, revision: &RevisionId) -> bool {
        if *revision == self.question.bad && self.start_candidate().is_some() {
            return false;
        }
        if let Some(flight) = self.flights.iter().find(|flight| self.id_of(flight.holds) == Some(*revision)) {
            return self.satisfied(flight, self.look_runs(&self.plain_rates()));
        }
        let counts = self.ledger.counts(revision);
        let certifying = self.hand.iter().any(|(id, role)| id == revision && *role == Role::Certify);
        *revision == self.question.bad
            || self.word(revision).is_some()
            || self.given_up(revision)
            || if certifying {
                self.member_shows_enough(revision)
            } else {
                counts.target >= SHOWN_RUNS || is_silent(&counts, SILENT_RUNS_MAX)
            }
    }

    pub(super) fn id_of(&self, holds: Holds) -> Option<RevisionId> {
        let range = self.range.as_ref()?;
        match holds {
            Holds::All => Some(self.question.bad),
            Holds::Outside => self.question.good,
            Holds::Ancestors(at) => Some(range.history.commit(at).id),
            Holds::AllBut(commit) => Some(self.reverted(commit)),
        }
    }

    /// The name of the bad end with a commit of the range reverted.
    pub(super) fn reverted(&self, commit: u32) -> RevisionId {
        let mut text = b"reverted".to_vec();
        text.extend(self.question.bad.as_bytes());
        if let Some(range) = &self.range {
            text.extend(range.history.commit(commit).id.as_bytes());
        }
        let digest = Digest::of(&text);
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&digest.as_bytes()[..20]);
        RevisionId::from_bytes(bytes)
    }

    pub(super) fn picked(&mut self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for flight in &self.flights {
            let (Some(revision), Some(range)) = (self.id_of(flight.holds), &self.range) else { continue };
            let role = match flight.holds {
                Holds::All => Role::Start,
                Holds::Outside => Role::GoodEnd,
                Holds::Ancestors(_) => Role::Search,
                Holds::AllBut(commit) => {
                    self.reverts.insert(revision, commit);
                    Role::Revert(range.history.commit(commit).id)
                }
            };
            candidates.push(Candidate { revision, role, runs: flight.total });
        }
        candidates
    }

    /// Every revision of the range whose runs say how well it works.
    pub(super) fn visited(&self) -> Vec<Visited> {
        let Some(range) = &self.range else { return Vec::new() };
        let visit = |id: RevisionId| {
            let at = range.history.find(&id)?;
            let counts = self.ledger.counts(&id);
            let silent = match (self.given_up(&id), counts.total()) {
                (true, _) => Some(0),
                (false, 0) => return None,
                (false, _) => (counts.informative() == 0).then_some(counts.silent()),
            };
            let doubtful = counts.target == 0 && !self.ledger.others(&id).is_empty();
            Some(Visited { at, silent, doubtful })
        };
        self.ledger.revisions().filter_map(visit).collect()
    }

    pub(super) fn range_verdict(&self, counts: &Counts) -> Option<Verdict> {
        if counts.target > 0 { Some(Verdict::Bad) } else { self.measure.verdict(counts) }
    }
}

pub(super) fn is_silent(counts: &Counts, runs_max: u32) -> bool {
    counts.informative() == 0 && counts.silent() >= runs_max
}
