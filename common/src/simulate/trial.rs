//! One trial: agents in virtual time, a kernel that answers, a policy that asks.

use super::world::{Answer, Request, Said};
use crate::bisect::Costs;
use serde::Serialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// What an agent can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    Revision(u32),
    /// The bad end with this commit reverted.
    Revert(u32),
}

/// A query, and how many informative or silent runs of it are wanted in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub query: Query,
    pub runs: u32,
}

/// What a policy does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// All that it wants, what is in flight included.
    Ask(Vec<Ask>),
    Done(Conclusion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Culprit,
    Suspects,
    NotReproduced,
    GoodEndIsBad,
    Blocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Suspected {
    pub index: u32,
    pub probability: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub ending: Ending,
    /// Most probable first; a culprit stands alone or leads.
    pub suspects: Vec<Suspected>,
}

/// Who decides what is tried.
pub trait Policy {
    fn next(&mut self, width: NonZeroUsize) -> Next;
    /// Takes what one run saw; never an infra failure.
    fn saw(&mut self, query: Query, run: u32, answer: &Answer);
    /// Takes that nothing can be had of this query.
    fn unavailable(&mut self, query: Query, reason: &str);
    /// Whether a query in hand needs no more runs.
    fn enough(&mut self, query: Query) -> bool;
}

/// Who answers.
pub trait Kernel {
    type Error;
    fn ask(&mut self, request: Request) -> Result<Answer, Self::Error>;
}

/// The fixed part of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub bad: u32,
    pub costs: Costs,
    pub agents: NonZeroUsize,
}

/// What a trial came to, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub conclusion: Conclusion,
    pub builds: u32,
    pub visits: u32,
    pub runs: u32,
    pub wall_s: f64,
    pub choose_ms_max: f64,
    pub choose_ms_sum: f64,
    pub choices: u32,
    pub picks: Vec<Vec<u32>>,
}

/// Batches with nothing but infra failures before a query is given up.
const INFRA_BATCHES_MAX: u32 = 3;
/// More visits than any search needs; ends one that would not end.
const VISITS_MAX: u32 = 5_000;

struct Visit {
    query: Query,
    /// Runs that count, wanted in all.
    wanted: u32,
    until_s: f64,
    infra_batches: u32,
    /// The answer that told that a revert applies.
    first: Option<Answer>,
}

#[derive(Default)]
struct Known {
    /// Runs asked for, and those of them that counted.
    asked: u32,
    counted: u32,
    /// Nothing more is to be had of it.
    dead: bool,
}

/// Runs one search to its end. `clock_ms` is real time, for what a choice takes.
pub fn run<K: Kernel>(
    setting: &Setting,
    policy: &mut dyn Policy,
    kernel: &mut K,
    clock_ms: &dyn Fn() -> f64,
) -> Result<Outcome, K::Error> {
    let mut trial =
        Trial { setting, now_s: 0.0, visits: Vec::new(), known: BTreeMap::new(), outcome: empty() };
    loop {
        let before = clock_ms();
        let next = policy.next(setting.agents);
        let took = clock_ms() - before;
        trial.outcome.choose_ms_max = trial.outcome.choose_ms_max.max(took);
        trial.outcome.choose_ms_sum += took;
        trial.outcome.choices += 1;
        let asks = match next {
            Next::Done(conclusion) => return Ok(trial.end(conclusion)),
            Next::Ask(_) if trial.outcome.visits >= VISITS_MAX => return Ok(trial.end(blocked())),
            Next::Ask(asks) => asks,
        };
        let learned = trial.start(&asks, policy, kernel)?;
        if learned {
            continue;
        }
        if trial.visits.is_empty() {
            return Ok(trial.end(blocked()));
        }
        trial.advance(policy, kernel)?;
    }
}

fn empty() -> Outcome {
    Outcome {
        conclusion: blocked(),
        builds: 0,
        visits: 0,
        runs: 0,
        wall_s: 0.0,
        choose_ms_max: 0.0,
        choose_ms_sum: 0.0,
        choices: 0,
        picks: Vec::new(),
    }
}

fn blocked() -> Conclusion {
    Conclusion { ending: Ending::Blocked, suspects: Vec::new() }
}

struct Trial<'a> {
    setting: &'a Setting,
    now_s: f64,
    visits: Vec<Visit>,
    known: BTreeMap<Query, Known>,
    outcome: Outcome,
}

impl Trial<'_> {
    /// Sends free agents out, and calls back those whose query is no longer wanted. Says
    /// whether something was learned at once: a revert that does not apply.
    fn start<K: Kernel>(
        &mut self,
        asks: &[Ask],
        policy: &mut dyn Policy,
        kernel: &mut K,
    ) -> Result<bool, K::Error> {
        self.visits.retain(|visit| asks.iter().any(|ask| ask.query == visit.query));
        let mut picked = Vec::new();
        let mut learned = false;
        for ask in asks {
            if let Some(visit) = self.visits.iter_mut().find(|visit| visit.query == ask.query) {
                visit.wanted = ask.runs;
                continue;
            }
            let known = self.known.entry(ask.query).or_default();
            if known.dead || self.visits.len() >= self.setting.agents.get() {
                continue;
            }
            let mut first = None;
            if matches!(ask.query, Query::Revert(_)) && known.asked == 0 {
                let answer = kernel.ask(request(self.setting.bad, ask.query, 0))?;
                if answer.said == Said::RevertConflict {
                    known.dead = true;
                    policy.unavailable(ask.query, "the revert conflicts");
                    learned = true;
                    continue;
                }
                first = Some(answer);
            }
            picked.push(match ask.query {
                Query::Revision(index) | Query::Revert(index) => index,
            });
            let built = known.asked > 0;
            self.outcome.builds += u32::from(!built);
            self.outcome.visits += 1;
            let costs = &self.setting.costs;
            let until_s = self.now_s + if built { costs.revisit_s } else { costs.build_s } + costs.visit_s;
            let visit = Visit { query: ask.query, wanted: ask.runs, until_s, infra_batches: 0, first };
            self.visits.push(visit);
        }
        if !picked.is_empty() {
            self.outcome.picks.push(picked);
        }
        Ok(learned)
    }

    /// Lets time pass to the next ends of batches, and takes what they saw.
    fn advance<K: Kernel>(&mut self, policy: &mut dyn Policy, kernel: &mut K) -> Result<(), K::Error> {
        self.now_s = self.visits.iter().map(|visit| visit.until_s).fold(f64::INFINITY, f64::min);
        let now_s = self.now_s;
        let (due, later): (Vec<Visit>, Vec<Visit>) =
            std::mem::take(&mut self.visits).into_iter().partition(|visit| visit.until_s <= now_s);
        self.visits = later;
        for mut visit in due {
            if self.batch(&mut visit, policy, kernel)? {
                visit.until_s = self.now_s + self.setting.costs.visit_s;
                self.visits.push(visit);
            }
        }
        Ok(())
    }

    /// One batch of runs; says whether the visit goes on with another.
    fn batch<K: Kernel>(
        &mut self,
        visit: &mut Visit,
        policy: &mut dyn Policy,
        kernel: &mut K,
    ) -> Result<bool, K::Error> {
        let known = self.known.entry(visit.query).or_default();
        let counted_before = known.counted;
        for _ in 0..self.setting.costs.runs_per_visit {
            let answer = match visit.first.take() {
                Some(answer) => answer,
                None => kernel.ask(request(self.setting.bad, visit.query, known.asked))?,
            };
            known.asked += 1;
            match answer.said {
                Said::RevertConflict => {
                    known.dead = true;
                    policy.unavailable(visit.query, "the revert conflicts");
                    return Ok(false);
                }
                Said::BuildFailed { .. } => {
                    known.dead = true;
                    policy.saw(visit.query, known.counted, &answer);
                    return Ok(false);
                }
                Said::Infra { .. } => self.outcome.runs += 1,
                Said::Ok | Said::Crashed(_) | Said::BootFailed { .. } => {
                    self.outcome.runs += 1;
                    policy.saw(visit.query, known.counted, &answer);
                    known.counted += 1;
                }
            }
            if known.counted >= visit.wanted || known.counted > counted_before && policy.enough(visit.query) {
                return Ok(false);
            }
        }
        if known.counted == counted_before {
            visit.infra_batches += 1;
            if visit.infra_batches >= INFRA_BATCHES_MAX {
                known.dead = true;
                policy.unavailable(visit.query, "every run was lost");
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn end(mut self, conclusion: Conclusion) -> Outcome {
        self.outcome.conclusion = conclusion;
        self.outcome.wall_s = self.now_s;
        self.outcome
    }
}

fn request(bad: u32, query: Query, run: u32) -> Request {
    match query {
        Query::Revision(index) => Request { index, run, revert: None },
        Query::Revert(commit) => Request { index: bad, run, revert: Some(commit) },
    }
}

/// The answer's kernel, by its fingerprint or else by itself.
pub(super) fn fingerprint(query: Query, answer: &Answer) -> crate::id::Digest {
    let name = answer.fingerprint.clone().unwrap_or_else(|| format!("{query:?}"));
    crate::id::Digest::of(name.as_bytes())
}
