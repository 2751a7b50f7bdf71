//! What the journal keeps. A farm is restored from these alone; leases are not among them.

use super::item::ItemKey;
use crate::access::{AccessFact, Principal};
use crate::artifact::Artifact;
use crate::bisect::{Finding, Judgement, Round};
use crate::config_work::Worked;
use crate::history::{Revision, TaggedRelease};
use crate::id::{AgentId, Attempt, Digest, JobId, RevisionId};
use crate::job::{Job, Symptom};
use crate::outcome::{Infra, Product};
use crate::patch::{KnownFix, Patch};
use crate::report::ending;
use crate::time::Timestamp;
use crate::verdict::Verdict;

#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A coordinator came to life; the epoch is the upper half of every attempt it grants.
    EpochStarted {
        epoch: u32,
    },
    JobSubmitted {
        id: JobId,
        request: String,
        at: Timestamp,
        job: Box<Job>,
        reproducer: Artifact,
        by: Principal,
    },
    /// An operator ends a job before it is done.
    CancelRequested {
        id: JobId,
        at: Timestamp,
        by: Principal,
    },
    Access(AccessFact),
    JobResolved {
        id: JobId,
        resolution: Box<Resolution>,
    },
    ItemFinished {
        item: ItemKey,
        attempt: Attempt,
        agent: AgentId,
        at: Timestamp,
        product: Box<Product>,
    },
    AttemptFailed {
        item: ItemKey,
        attempt: Attempt,
        agent: AgentId,
        at: Timestamp,
        infra: Infra,
    },
    /// An agent that was not there is, and may be given work from now on.
    AgentCame {
        agent: AgentId,
        at: Timestamp,
    },
    /// An agent has not been heard of for so long that it works on nothing any more.
    AgentWent {
        agent: AgentId,
        at: Timestamp,
    },
    Quarantine(QuarantineFact),
    /// A verdict fell, on these items.
    Judged {
        id: JobId,
        judged: Box<Judged>,
    },
    /// An operator said what a revision is, or took it back. A job that had ended goes on.
    Overruled {
        id: JobId,
        at: Timestamp,
        revision: RevisionId,
        word: Option<Verdict>,
        by: Principal,
    },
    /// A search said why it tries what it does.
    Explained {
        id: JobId,
        round: Round,
    },
    /// A job's configuration was worked on. From here on all its kernels have it.
    Configured {
        id: JobId,
        configured: Configured,
    },
    /// What these items had yielded is not in the store any more: whoever wants them has them made again.
    ProductsForgotten {
        at: Timestamp,
        items: Vec<ItemKey>,
        by: Principal,
    },
    JobEnded {
        id: JobId,
        at: Timestamp,
        end: EndSummary,
        rendered: Box<Rendered>,
    },
}

/// Who was set aside and what was let go by more than failures and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuarantineFact {
    /// An operator, or the farm itself, set an agent aside until it is released.
    /// Where it `disowns` it, nothing that the agent's runs saw is evidence any more.
    AgentSetAside { agent: AgentId, at: Timestamp, reason: String, by: Principal, disowns: bool },
    /// An operator let an agent work again; its failures count from nothing.
    AgentReleased { agent: AgentId, at: Timestamp, by: Principal },
    /// An operator had items tried again that a job gave up. Where it had ended, it goes on.
    ItemsReleased { id: JobId, at: Timestamp, items: Vec<ItemKey>, by: Principal },
}

/// What the work on a configuration came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Of the crash that it went by, which stays the one that is searched for.
    pub title: String,
    pub worked: Worked,
    /// The builds and runs it took.
    pub items: Vec<ItemKey>,
}

/// What the names in a job mean, fixed once: a branch that moves later changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub bad: Revision,
    pub good: Option<Revision>,
    /// Newest first; only where the good end is to be found.
    pub releases: Vec<TaggedRelease>,
    pub fixes: Vec<KnownFix>,
}

/// A verdict with the items it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub judgement: Judgement,
    pub subject: String,
    /// Absent where the farm gave up on the build.
    pub build: Option<ItemKey>,
    pub runs: Vec<ItemKey>,
    /// Why the farm gave up on the revision, where it did.
    pub unavailable: Option<String>,
    /// Items that it lacks since they were given up.
    pub given_up: Box<[ItemKey]>,
    pub recipe: Recipe,
}

/// How a judged kernel was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Applied to the revision; to the bad end, where a revert was judged.
    pub patches: Vec<Patch>,
    /// The toolchain's `gcc …, ld …`; absent in old journals and where nothing was built.
    pub compiler: Option<String>,
    /// What else people should know of it.
    pub remarks: Vec<String>,
    /// Under this key other jobs know the kernel again; see `signature::shared_key`.
    pub shared: Option<Digest>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEnd {
    Found(Finding),
    /// The job file, or what it names, is at fault.
    Invalid {
        field: String,
        message: String,
    },
    Cancelled,
}

/// A job's renderings, kept once it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub log: String,
    pub replay: String,
    pub json: String,
    pub summary: String,
    /// An SVG; empty where nothing was to be drawn.
    pub plot: String,
}

/// An ending as listings and the journal keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndSummary {
    /// See `JobEnd::kind`.
    pub kind: String,
    pub culprit: Option<RevisionId>,
    pub message: String,
    /// Of the job file, where that is at fault.
    pub field: String,
}

impl JobEnd {
    pub fn summary(&self, symptom: Symptom) -> EndSummary {
        let (culprit, field, message) = match self {
            JobEnd::Invalid { field, message } => (None, field.clone(), message.clone()),
            JobEnd::Cancelled => (None, String::new(), "cancelled by an operator".into()),
            JobEnd::Found(finding) => {
                let culprit = match finding {
                    Finding::Culprit { revision, .. } => Some(*revision),
                    _ => None,
                };
                (culprit, String::new(), reason(finding, symptom))
            }
        };
        EndSummary { kind: self.kind().into(), culprit, message, field }
    }

    /// The ending's name in listings, JSON and the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            JobEnd::Invalid { .. } => "invalid",
            JobEnd::Cancelled => "cancelled",
            JobEnd::Found(finding) => ending::kind(finding),
        }
    }
}

/// Why a search ended as it did, in one line.
fn reason(finding: &Finding, symptom: Symptom) -> String {
    let noun = symptom.noun();
    match finding {
        Finding::Culprit { revision, .. } => format!("{revision} is the culprit"),
        Finding::Suspects { suspects, reason } => format!("one of {} revisions: {reason}", suspects.len()),
        Finding::NotReproduced { .. } => format!("the {noun} does not show at the bad end"),
        Finding::BadEndBroken { reason } => format!("the bad end cannot be judged: {reason}"),
        Finding::GoodEndIsBad { revision } => format!("the good end {revision} shows the {noun}"),
        Finding::OldestReleaseHasBug { tag, .. } => {
            format!("the oldest release tried, {tag}, shows the {noun}")
        }
        Finding::NotFixed { revision } => format!("{revision} still shows the {noun}"),
        Finding::Blocked { by } => by.clone(),
    }
}
