//! The search inside the range: from beliefs to what is tried next, or to its end.

use super::bisection::Bisection;
use super::broken::{Visited, broken, doubtful};
use super::choice::{Field, Pick, Terms};
use super::looks::Flight;
use super::posterior::Holds;
use super::range::Range;
use super::{Counts, Finding, Step};
use crate::id::RevisionId;
use crate::job::Mode;

/// A culprit is certified from this probability on.
pub(super) const CERTAIN: f64 = 0.99;
/// Where nothing is left to try, the good end is called bad from this probability on: in short
/// ranges the prior alone makes it about one half.
const GOOD_END_LIKELY_BAD: f64 = 0.65;
/// Commits this likely are certified where nothing else is left to try, the likeliest first.
const LIKELY: f64 = 0.03;
/// Classes that together hold less than this do not steer the choice. What keeps a culprit
/// from being certain must steer, so this is well below 1 − `CERTAIN`.
const IDLE: f64 = 0.003;
/// A visit must tell this much in bits (SEARCH.md, stop), or this part of what is still unknown
/// where that is little: near the end few bits decide. It must tell more the longer the search
/// has gone on, doubled after so many looks: what looks like a gain and never comes is none.
const GAIN_MIN_BITS: f64 = 0.02;
const GAIN_MIN_PART: f64 = 1.0 / 80.0;
const PATIENCE_LOOKS: f64 = 20.0;
/// Reverts are considered for commits likelier than this, the likeliest first.
const REVERT_MIN: f64 = 0.01;
const REVERTS_MAX: usize = 24;
/// An agent that is free works ahead for the certificate of a commit among those that together
/// hold the first, and likelier than the second;
/// that is held to be worth the third in bits, times the commit's probability.
const AHEAD_SHARE: f64 = 0.8;
const AHEAD_MIN: f64 = 0.05;
const AHEAD_BITS: f64 = 0.3;

impl Bisection {
    pub(super) fn search_step(&mut self, width: usize) -> Step {
        self.renew_beliefs();
        let best = self.beliefs.as_ref().and_then(|beliefs| beliefs.posterior.best());
        let nothing = self.beliefs.as_ref().map_or(0.0, |beliefs| beliefs.posterior.nothing());
        if let Some(finding) =
            self.doubtful_good_end().filter(|_| nothing >= CERTAIN).map(|good| self.shows_at(good))
        {
            return Step::Done(finding);
        }
        if let Some((culprit, _)) = best.filter(|(_, probability)| *probability >= CERTAIN) {
            self.flights.clear();
            return self.certify(culprit, width);
        }
        self.refill(width);
        let picked = self.picked();
        if !picked.is_empty() {
            return Step::Evaluate(picked);
        }
        // What a certificate asks for may still make sure of one that outweighs all others.
        let likely = self.listed().into_iter().take_while(|(_, probability)| *probability >= LIKELY);
        for (commit, _) in likely {
            let step = self.certify(commit, width);
            if matches!(step, Step::Certify(_) | Step::Done(Finding::Culprit { .. })) {
                return step;
            }
        }
        match self.doubtful_good_end() {
            Some(good) if nothing >= GOOD_END_LIKELY_BAD => Step::Done(self.shows_at(good)),
            Some(_) | None => Step::Done(self.unresolved()),
        }
    }

    /// Drops flights that can teach nothing any more and adds the best kernels up to `width`.
    pub(super) fn refill(&mut self, width: usize) {
        self.renew_beliefs();
        let visited = self.visited();
        let Some(range) = &mut self.range else { return };
        if visited.iter().any(|visited| visited.silent.is_some() || visited.doubtful) {
            visited.iter().for_each(|visited| range.learn_places(visited.at));
        }
        let (Some(range), Some(beliefs)) = (&self.range, &self.beliefs) else { return };
        let weights = beliefs.posterior.live(IDLE);
        let unknown = entropy(&weights);
        let likely = beliefs.posterior.credible(AHEAD_SHARE);
        let runs = self.look_runs(&beliefs.posterior.rates);
        let terms = self.terms(range, &weights, &visited, runs);
        let readings = beliefs.posterior.by_reading(&weights);
        let mut field = Field::new(&terms, &weights, &readings);
        let mut flights: Vec<Flight> = Vec::new();
        let enough = self.look_runs(&self.plain_rates());
        for flight in &self.flights {
            let tells = match flight.ahead {
                Some(commit) => weights[commit as usize] > 0.0,
                None => field.tells(flight.holds),
            };
            if tells && !self.satisfied(flight, enough) {
                flights.push(flight.clone());
            }
        }
        flights.iter().for_each(|flight| field.split(flight.holds));
        let gain_min = GAIN_MIN_BITS.min(GAIN_MIN_PART * unknown) * self.impatience(width);
        let taken = |flights: &[Flight], holds: Holds| flights.iter().any(|flight| flight.holds == holds);
        while flights.len() < width {
            let tells = |pick: &Pick| pick.gain >= gain_min && !taken(&flights, pick.holds);
            let pick = field.best().filter(tells);
            let gain = pick.map_or(0.0, |pick| pick.gain);
            let ahead = if flights.is_empty() { None } else { self.ahead(&likely, &flights, gain) };
            let (holds, runs, ahead) = match (ahead, pick) {
                (Some((holds, commit, runs)), _) => (holds, runs, Some(commit)),
                (None, Some(pick)) => (pick.holds, runs, None),
                (None, None) => break,
            };
            flights.push(self.flight(holds, runs, ahead).expecting(gain));
            field.split(holds);
        }
        self.flights = flights;
    }

    /// The good end, if it has shown the target, or a crash that may be the target's bug. One that
    /// could not be judged, or kept quiet, is never called bad.
    fn doubtful_good_end(&self) -> Option<RevisionId> {
        let shows =
            |good: &RevisionId| self.ledger.counts(good).target > 0 || !self.ledger.others(good).is_empty();
        self.question.good.filter(shows)
    }

    /// How much more than at first a visit must tell, by what was spent: a wider search may spend more.
    /// A kernel that said nothing counts twice, since those around it will hardly say more.
    fn impatience(&self, width: usize) -> f64 {
        let look = |counts: Counts| {
            let silent = counts.informative() == 0;
            1 + u32::from(silent) + counts.total() / self.measure.max
        };
        let own = |revisions: &Vec<RevisionId>| !revisions.iter().all(|id| self.inherited.contains(id));
        let kernels = self.ledger.kernels().into_iter().filter(own);
        let looks: u32 = kernels.map(|revisions| look(self.ledger.counts(&revisions[0]))).sum();
        let patience = PATIENCE_LOOKS * (width as f64).sqrt();
        1.0 + (f64::from(looks) / patience).powi(2)
    }

    fn terms<'a>(&self, range: &'a Range, weights: &[f64], visited: &[Visited], runs: u32) -> Terms<'a> {
        let len = range.history.len();
        let (mut built, mut usable) = (vec![false; len], vec![true; len]);
        for id in self.ledger.revisions() {
            let Some(at) = range.history.find(&id) else { continue };
            built[at as usize] = true;
            usable[at as usize] = self.usable(&id);
        }
        self.mute(range).into_iter().for_each(|at| usable[at as usize] = false);
        let mut reverts: Vec<(u32, bool)> = Vec::new();
        if self.reverts_allowed && range.mode == Mode::Cause {
            let mut likely: Vec<u32> =
                (0..len as u32).filter(|&at| weights[at as usize] >= REVERT_MIN).collect();
            likely.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
            for at in likely.into_iter().take(REVERTS_MAX) {
                let id = self.reverted(at);
                if self.usable(&id) {
                    reverts.push((at, self.ledger.counts(&id).total() > 0));
                }
            }
        }
        Terms {
            range,
            costs: self.costs,
            runs,
            shows: 1.0 - self.rates().miss(self.assumption, runs),
            broken: broken(range, visited),
            doubtful: doubtful(range, visited),
            built,
            usable,
            reverts,
            good_end: self.question.mode == Mode::Cause
                && self.question.good.is_some_and(|good| self.usable(&good)),
        }
    }

    /// Work for the certificate of a likely commit, where that is worth more than the gain.
    fn ahead(&self, likely: &[(u32, f64)], flights: &[Flight], gain: f64) -> Option<(Holds, u32, u32)> {
        for &(commit, probability) in likely.iter().take(REVERTS_MAX) {
            if probability < AHEAD_MIN || probability * AHEAD_BITS <= gain {
                return None;
            }
            let members = self.unproven(commit);
            let open =
                members.into_iter().find(|(holds, _)| !flights.iter().any(|flight| flight.holds == *holds));
            if let Some((holds, runs)) = open {
                return Some((holds, commit, runs));
            }
        }
        None
    }
}

/// Bits that are unknown of weights that need not sum to 1.
pub(super) fn entropy(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    weights.iter().filter(|weight| **weight > 0.0).map(|weight| -weight / sum * (weight / sum).log2()).sum()
}
