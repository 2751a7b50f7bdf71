//! What follows from the evidence: tests of kernels, and how likely each commit is by them.

use super::ancestry::Bits;
use super::bisection::Bisection;
use super::model::{self, Rates};
use super::posterior::{Holds, Posterior, Test};
use super::prior;
use super::range::{Range, Verdicts};
use super::releases::{self, Walk};
use super::titles::{TITLES_MAX, Titles};
use super::{Finding, Suspect};
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;
use std::collections::BTreeMap;

/// Classes that together hold less than this are not listed as suspects.
const UNLISTED: f64 = 0.01;
/// That none of the range is the culprit: with a good end as given, and with one that is
/// known to be good from the walk over releases.
const GOOD_END_BAD: f64 = 0.1;
const RELEASE_BAD: f64 = 0.001;
/// From this probability on, runs with another title count as showing the bug.
const ALIAS_CERTAIN: f64 = 0.95;

/// What follows from the evidence, kept until there is more.
#[derive(Clone, Debug)]
pub(super) struct Beliefs {
    pub posterior: Posterior,
    pub titles: Titles,
}

impl Bisection {
    /// Works out the beliefs anew if there is new evidence.
    pub(super) fn renew_beliefs(&mut self) {
        if self.beliefs.is_some() || self.range.is_none() {
            return;
        }
        self.renew_prior();
        let Some(range) = &self.range else { return };
        let titles = self.ledger.titles_in_doubt(TITLES_MAX);
        let tests = self.tests(range, &titles);
        let prior = self.prior.as_ref().map(|(_, prior)| &prior[..]).unwrap_or_default();
        let posterior = Posterior::new(range, self.assumption, prior, &tests, &titles);
        self.beliefs = Some(Beliefs { posterior, titles });
    }

    fn renew_prior(&mut self) {
        let Some(range) = &self.range else { return };
        let files = self.ledger.target().map(|target| target.files.clone()).unwrap_or_default();
        if self.prior.as_ref().is_some_and(|(known, _)| *known == files) {
            return;
        }
        let nothing = match (self.question.mode, self.question.good) {
            (Mode::Cause, Some(_)) => GOOD_END_BAD,
            (Mode::Cause, None) if !self.tags.is_empty() => RELEASE_BAD,
            (Mode::Cause, None) | (Mode::Fix, _) => 0.0,
        };
        let mut weights = prior::weights(&range.history, self.ledger.target());
        weights.iter_mut().for_each(|weight| *weight *= 1.0 - nothing);
        weights.push(nothing);
        self.prior = Some((files, weights));
    }

    /// One test for every kernel that was run.
    fn tests(&self, range: &Range, titles: &Titles) -> Vec<Test> {
        let (never, _) = self.lines_without_bug(range);
        let mut tests = Vec::new();
        for revisions in self.ledger.kernels() {
            let mut holds: Vec<Holds> = revisions.iter().filter_map(|id| self.holds(range, id)).collect();
            // A parent outside with a kernel of the range is the certificate's business.
            if holds.iter().any(|holds| *holds != Holds::Outside) {
                holds.retain(|holds| *holds != Holds::Outside);
            }
            if let Some(word) = self.word_on(&revisions) {
                tests.extend(Self::told(word, holds, titles.0.len()).filter(|test| !test.holds.is_empty()));
                continue;
            }
            let counts = self.ledger.counts(&revisions[0]);
            let others = self.ledger.others(&revisions[0]);
            let others: Vec<u32> =
                titles.0.iter().map(|title| others.get(&title.name).copied().unwrap_or(0)).collect();
            let silent = counts.informative() == 0 && others.iter().all(|&runs| runs == 0);
            if holds.is_empty() || silent {
                continue;
            }
            let line = never.iter().copied().find(|&at| revisions.contains(&range.history.commit(at).id));
            tests.push(Test { holds, target: counts.target, ok: counts.ok, others, line, told: None });
        }
        tests.extend(self.told_unseen(range, titles.0.len()));
        tests
    }

    /// Fix: clean commits that may never have had the bug, and all that surely once had it.
    fn lines_without_bug(&self, range: &Range) -> (Vec<u32>, Bits) {
        let mut verdicts = Verdicts::default();
        if range.mode == Mode::Cause {
            return (Vec::new(), Bits::empty(range.ancestry.len()));
        }
        for id in self.ledger.revisions() {
            let Some(at) = range.history.find(&id) else { continue };
            let counts = self.ledger.counts(&id);
            let word = self.word(&id);
            if word == Some(Verdict::Bad) || word.is_none() && counts.target > 0 {
                verdicts.crashing.push(at)
            } else if word == Some(Verdict::Good) || word.is_none() && counts.ok > 0 {
                verdicts.clean.push(at)
            }
        }
        let had_it = range.had_bug(&verdicts, &self.old_ends());
        let tip = range.history.tip();
        let never = verdicts.clean.into_iter().filter(|&at| at != tip && !had_it.get(at));
        (never.collect(), had_it)
    }

    /// Fix: commits beside the old end that have a clean one below them, and are as clean.
    pub(super) fn mute(&self, range: &Range) -> Vec<u32> {
        let (never, had_it) = self.lines_without_bug(range);
        let reaches = |of: u32, ancestor: u32| range.ancestry.reaches(of, ancestor);
        let on_line = |at: &u32| !had_it.get(*at) && never.iter().any(|&clean| reaches(*at, clean));
        (0..range.history.tip()).filter(on_line).collect()
    }

    pub(super) fn holds(&self, range: &Range, id: &RevisionId) -> Option<Holds> {
        if let Some(&commit) = self.reverts.get(id) {
            return Some(Holds::AllBut(commit));
        }
        if let Some(at) = range.history.find(id) {
            return Some(Holds::Ancestors(at));
        }
        if *id == self.question.bad {
            // Fix: the old end stands before the range.
            return Some(if range.mode == Mode::Cause { Holds::All } else { Holds::Outside });
        }
        let before = self.question.good == Some(*id)
            || self.merge_base() == Some(*id)
            || range.history.commits().iter().any(|commit| commit.outside.contains(id))
            || matches!(releases::walk(&self.tags, |tag| self.verdict(tag)), Walk::Found { good, .. } if good == *id);
        before.then_some(Holds::Outside)
    }

    /// The rates as the kernels that surely have the bug show them; for when the beliefs are
    /// older than the evidence.
    pub(super) fn plain_rates(&self) -> Rates {
        let mut rates = Rates::prior(self.assumption);
        for revisions in self.ledger.kernels() {
            let counts = self.ledger.counts(&revisions[0]);
            if counts.target > 0 && self.word_on(&revisions).is_none() {
                rates.learn(&model::likelihood(self.assumption, counts.target, counts.ok));
            }
        }
        rates
    }

    pub(super) fn rates(&self) -> Rates {
        match &self.beliefs {
            Some(beliefs) => beliefs.posterior.rates.clone(),
            None => self.plain_rates(),
        }
    }

    /// The commits that still matter, likeliest first.
    pub(super) fn listed(&self) -> Vec<(u32, f64)> {
        let Some(beliefs) = &self.beliefs else { return Vec::new() };
        let mut live = beliefs.posterior.live(UNLISTED);
        live.pop();
        let mut listed: Vec<(u32, f64)> = (0u32..).zip(live).filter(|(_, weight)| *weight > 0.0).collect();
        listed.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        listed
    }

    /// The commits listed where no culprit could be named, and why.
    pub(super) fn unresolved(&self) -> Finding {
        let listed = self.listed();
        self.suspected(&listed, self.why_unresolved(&listed))
    }

    /// What is believed of each commit: the suspects with their probabilities, likeliest
    /// first, as far as they matter. Nothing before the range is known.
    pub fn beliefs(&mut self) -> Vec<Suspect> {
        self.renew_beliefs();
        let Some(range) = &self.range else { return Vec::new() };
        let suspect = |(at, probability)| Suspect { revision: range.history.commit(at).id, probability };
        self.listed().into_iter().map(suspect).collect()
    }

    /// Whether a crash that is not called so is believed to be the target's bug at a revision.
    pub(super) fn shows_alias(&self, revision: &RevisionId) -> bool {
        let Some(beliefs) = &self.beliefs else { return false };
        let others: BTreeMap<String, u32> = self.ledger.others(revision);
        let believed = beliefs.titles.0.iter().zip(&beliefs.posterior.aliases);
        believed.into_iter().any(|(title, &alias)| alias >= ALIAS_CERTAIN && others.contains_key(&title.name))
    }
}
