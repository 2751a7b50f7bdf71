//! The search: picks revisions, takes evidence, ends with a finding.
//!
//! The face is small on purpose: `next_step` says what to do now, `record` takes what was
//! seen. Who builds, boots and waits is not known here.

mod ancestry;
mod beliefs;
mod bisection;
mod broken;
mod certificate;
mod choice;
mod costs;
mod explain;
mod judge;
mod ledger;
mod log;
mod looks;
mod model;
mod overrule;
mod posterior;
mod prior;
mod range;
mod rate;
mod releases;
mod search;
mod standing;
mod titles;

pub use bisection::Bisection;
pub(crate) use certificate::quiet_runs_after;
pub use costs::Costs;
pub use explain::{Belief, OUTLINE_MAX, Picked, Round, Why};
pub use log::replay;
pub use model::Assumption;

use crate::id::{Digest, RevisionId};
use crate::job::{Mode, Runs};
use crate::outcome::Outcome;
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// What is searched for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub mode: Mode,
    /// The title of the crash; absent, the one seen most at the bad end.
    pub target: Option<String>,
    pub runs: Runs,
    /// Shows the crash. (Fix: the old end.)
    pub bad: RevisionId,
    /// Free of it. (Fix: the new end, always given.)
    pub good: Option<RevisionId>,
    /// Tags reachable from `bad`, newest first; walked for a cause without a good end.
    pub releases: Vec<(String, RevisionId)>,
}

/// Why a revision is evaluated; the log words its block by this.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The bad end: the crash must show here. (Fix: the old end.)
    Start,
    /// The good end as given. (Fix: the end where the crash is gone.)
    GoodEnd,
    /// A release tag on the walk back to a good end.
    Release(String),
    /// A pick of the search.
    Search,
    /// The culprit or one of its parents, for the certificate.
    Certify,
    /// The bad end with this commit reverted. The candidate's revision is a name that the
    /// search made up; evidence comes under it.
    Revert(RevisionId),
    /// Not evaluated: an operator says what it is.
    Overruled,
}

/// A revision to be built, if it is not, and booted until `runs` runs count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub revision: RevisionId,
    pub role: Role,
    /// Runs 0..runs are wanted; fewer than before means that the rest may be dropped.
    pub runs: u32,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Evaluate these; those handed out before stay in the list until they are judged or dropped.
    Evaluate(Vec<Candidate>),
    /// The same, for the certificate.
    Certify(Vec<Candidate>),
    /// The ends are known: load the commits reachable from `bad` and not from `good`. (Fix:
    /// `bad` is here the new end, where the change has happened, and `good` the crashing one.)
    LoadHistory {
        good: RevisionId,
        bad: RevisionId,
    },
    Done(Finding),
}

/// What was seen at a revision. Order of arrival must not matter to the finding, and a
/// repeated piece changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    Built {
        revision: RevisionId,
        fingerprint: Digest,
    },
    BuildFailed {
        revision: RevisionId,
        message: String,
    },
    Run {
        revision: RevisionId,
        index: u32,
        outcome: Outcome,
    },
    /// The farm gave up on the build or a run for reasons outside the kernel.
    Unavailable {
        revision: RevisionId,
        reason: String,
    },
}

impl Evidence {
    pub fn revision(&self) -> RevisionId {
        match self {
            Evidence::Built { revision, .. }
            | Evidence::BuildFailed { revision, .. }
            | Evidence::Run { revision, .. }
            | Evidence::Unavailable { revision, .. } => *revision,
        }
    }
}

/// A revision's runs, counted against the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub target: u32,
    pub ok: u32,
    /// Other crashes after the reproducer's start.
    pub other: u32,
    /// Boot failures, hangs, a reproducer that did not start.
    pub failed: u32,
}

/// A verdict on a revision, in the order the verdicts fell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub revision: RevisionId,
    pub role: Role,
    pub verdict: Verdict,
    pub counts: Counts,
    /// False where the verdict taught nothing that was not known when it fell (a parallel pick
    /// overtaken by another); such a step does not belong into a replay.
    pub narrowed: bool,
}

/// A candidate that may be the culprit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    pub revision: RevisionId,
    pub probability: f64,
}

/// The evidence a culprit stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub culprit: Counts,
    pub culprit_fingerprint: Digest,
    /// Those that could be run.
    pub parents: Vec<CertifiedParent>,
    /// The bad end with the culprit reverted, where that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted: Option<Counts>,
    /// Those of the pair that stand on an operator's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<RevisionId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedParent {
    pub revision: RevisionId,
    pub counts: Counts,
    pub fingerprint: Digest,
}

/// How a search ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Finding {
    Culprit {
        revision: RevisionId,
        certificate: Box<Certificate>,
    },
    /// One of these; `reason` says why no single one could be certified.
    Suspects {
        suspects: Vec<Suspect>,
        reason: String,
    },
    /// The crash does not show at the bad end.
    NotReproduced {
        counts: Counts,
    },
    /// The bad end itself cannot be judged: it does not build or boot.
    BadEndBroken {
        reason: String,
    },
    /// The good end shows the crash.
    GoodEndIsBad {
        revision: RevisionId,
    },
    /// The oldest release tried still shows the crash.
    OldestReleaseHasBug {
        revision: RevisionId,
        tag: String,
    },
    /// Fix: the new end still shows the crash.
    NotFixed {
        revision: RevisionId,
    },
    /// Something outside the kernel stands in the way.
    Blocked {
        by: String,
    },
}
