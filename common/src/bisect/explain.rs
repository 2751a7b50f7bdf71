//! What the search says of itself: why each round of picks, what it was expected to tell, and
//! what was believed before it. Nothing here is read by the search.

use super::bisection::Bisection;
use super::choice;
use super::posterior::Holds;
use super::search::entropy;
use super::{Candidate, Role, Step, Suspect};
use crate::id::RevisionId;
use crate::job::Mode;

/// Points of a posterior's outline, at most.
pub const OUTLINE_MAX: usize = 120;
/// Likeliest commits that a round names.
const LIKELIEST_MAX: usize = 5;
/// The commits counted as suspects hold this part of what all commits hold.
const SUSPECTED: f64 = 0.99;
/// Commits with less than this part of an even share are not looked at.
const NEGLIGIBLE: f64 = 1e-4;

/// Why a kernel is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The crash must show at the bad end.
    Start,
    /// An end, or what two trees share, must be as the question has it.
    End,
    /// The walk over releases has come to it.
    Release,
    /// It tells most about the culprit for what it costs.
    Split,
    /// A free slot does what a likely culprit's certificate will need.
    Ahead,
    /// The certificate of the likeliest culprit lacks it.
    Certificate,
}

impl Why {
    pub const ALL: [Why; 6] = [Why::Start, Why::End, Why::Release, Why::Split, Why::Ahead, Why::Certificate];

    /// The word for JSON and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Start => "start",
            Why::End => "end",
            Why::Release => "release",
            Why::Split => "split",
            Why::Ahead => "ahead",
            Why::Certificate => "certificate",
        }
    }
}

/// A kernel that a round adds to those being tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    pub revision: RevisionId,
    pub role: Role,
    /// Runs of this kernel in all, as planned.
    pub runs: u32,
    pub why: Why,
    /// Expected to be learned about which commit it is, given what is being tried besides.
    /// Absent before the range is known.
    pub bits: Option<f64>,
    /// The probability that it shows the bug.
    pub shows: Option<f64>,
}

/// What is believed of the range.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief {
    /// Entropy of the posterior.
    pub unknown_bits: f64,
    /// The fewest commits that hold 99 % of what all commits hold.
    pub suspects: usize,
    /// In falling order.
    pub likeliest: Vec<Suspect>,
    /// The probability that none of the range is it.
    pub nothing: f64,
    /// The posterior summed up over equal pieces of the range, parents first.
    pub outline: Vec<f32>,
}

/// Something new was handed out, or, without picks, the search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// How many verdicts had fallen before.
    pub after: usize,
    pub picks: Vec<Picked>,
    /// Absent before the range is known.
    pub belief: Option<Belief>,
}

impl Bisection {
    /// Every round so far; only ever appended to.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// Gives a restored search the rounds that it had, so that it does not tell them again.
    pub fn recall_rounds(&mut self, rounds: Vec<Round>) {
        self.rounds = rounds;
    }

    /// Notes a step's reasons if it hands out what was not in hand, or ends the search.
    pub(super) fn explain(&mut self, step: &Step) {
        let (candidates, certifies) = match step {
            Step::Evaluate(candidates) => (&candidates[..], false),
            Step::Certify(candidates) => (&candidates[..], true),
            Step::Done(_) => (&[][..], false),
            Step::LoadHistory { .. } => return,
        };
        let fresh: Vec<&Candidate> = candidates.iter().filter(|it| self.is_fresh(it)).collect();
        let ended = matches!(step, Step::Done(_));
        if ended {
            self.renew_beliefs();
        }
        if ended || !fresh.is_empty() {
            let picks = fresh.into_iter().map(|candidate| self.picked_for(candidate, certifies)).collect();
            let round = Round { after: self.log.judgements().len(), picks, belief: self.believed() };
            let again = |last: &Round| last.picks.is_empty() && last.belief == round.belief;
            if !(ended && self.rounds.last().is_some_and(again)) {
                self.rounds.push(round);
            }
        }
        self.hand = candidates.iter().map(|it| (it.revision, it.role.clone())).collect();
    }

    /// Whether a candidate is neither in hand nor, after a restart, in hand again.
    fn is_fresh(&self, candidate: &Candidate) -> bool {
        let Candidate { revision, role, runs } = candidate;
        let told = |pick: &Picked| pick.revision == *revision && pick.role == *role && pick.runs >= *runs;
        !self.hand.iter().any(|(id, as_role)| id == revision && as_role == role)
            && !self.rounds.iter().flat_map(|round| &round.picks).any(told)
    }

    fn picked_for(&self, candidate: &Candidate, certifies: bool) -> Picked {
        let Candidate { revision, role, runs } = candidate.clone();
        let flight = self.flights.iter().find(|flight| self.id_of(flight.holds) == Some(revision));
        let why = match (&role, flight) {
            _ if certifies => Why::Certificate,
            (Role::Start, _) => Why::Start,
            (Role::Release(_), _) => Why::Release,
            (_, Some(flight)) if flight.ahead.is_some() => Why::Ahead,
            (_, Some(_)) => Why::Split,
            (_, None) => Why::End,
        };
        let more = runs.saturating_sub(self.ledger.counts(&revision).total()).max(1);
        let visible = 1.0 - self.rates().miss(self.assumption, more);
        let share = self.share(&revision);
        let bits = match flight.filter(|_| why == Why::Split) {
            Some(flight) => Some(flight.gain),
            None => share.map(|share| choice::bits(share, visible)),
        };
        Picked { revision, role, runs, why, bits, shows: share.map(|share| share * visible) }
    }

    /// The probability that a kernel has the bug.
    fn share(&self, revision: &RevisionId) -> Option<f64> {
        let (Some(range), Some(beliefs)) = (&self.range, &self.beliefs) else { return None };
        let (commits, nothing) = (&beliefs.posterior.weights, beliefs.posterior.nothing());
        let inside = match self.holds(range, revision)? {
            Holds::All => 1.0,
            Holds::Outside => nothing,
            Holds::AllBut(commit) => 1.0 - commits[commit as usize],
            Holds::Ancestors(of) => {
                let ancestors = range.ancestry.ancestors(of);
                nothing + ancestors.iter().map(|at| commits[at as usize]).sum::<f64>()
            }
        };
        let inside = inside.clamp(0.0, 1.0);
        Some(if range.mode == Mode::Cause { inside } else { 1.0 - inside })
    }

    fn believed(&self) -> Option<Belief> {
        let (range, beliefs) = (self.range.as_ref()?, self.beliefs.as_ref()?);
        let (nothing, weights) = (beliefs.posterior.nothing(), &beliefs.posterior.weights);
        let commits = &weights[..weights.len() - 1];
        let least = NEGLIGIBLE / commits.len() as f64;
        let mut listed: Vec<(u32, f64)> =
            (0u32..).zip(commits.iter().copied()).filter(|(_, weight)| *weight > least).collect();
        listed.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (mut held, wanted) = (0.0, SUSPECTED * (1.0 - nothing));
        let enough = listed.iter().position(|(_, weight)| {
            held += weight;
            held >= wanted
        });
        let likeliest = listed
            .iter()
            .take(LIKELIEST_MAX)
            .map(|&(at, probability)| Suspect { revision: range.history.commit(at).id, probability });
        Some(Belief {
            unknown_bits: entropy(weights),
            suspects: enough.map_or(listed.len(), |at| at + 1),
            likeliest: likeliest.collect(),
            nothing,
            outline: outline(commits),
        })
    }
}

/// Sums over equal pieces of the range.
fn outline(commits: &[f64]) -> Vec<f32> {
    let pieces = commits.len().min(OUTLINE_MAX);
    let mut sums = vec![0.0; pieces];
    for (at, weight) in commits.iter().enumerate() {
        sums[at * pieces / commits.len()] += weight;
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
