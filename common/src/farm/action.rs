//! What the farm wants done.

use super::census::{Lost, Purpose};
use super::fact::Fact;
use super::item::{ItemKey, Work};
use crate::access::AccessAnswer;
use crate::artifact::Artifact;
use crate::id::{Attempt, Digest, JobId, RevisionId};
use crate::job::{Backport, Mode};
use crate::patch::Order;
use std::collections::BTreeSet;

/// In the order given: a fact is durable before anything that follows it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Record(Fact),
    /// Find out what the job's revisions are; `releases` asks for the tags too.
    Resolve {
        job: JobId,
        repository: String,
        bad: String,
        good: Option<String>,
        mode: Mode,
        backports: Vec<Backport>,
    },
    LoadHistory {
        job: JobId,
        repository: String,
        good: RevisionId,
        bad: RevisionId,
    },
    Identify {
        job: JobId,
        repository: String,
        revision: RevisionId,
    },
    /// Find where in the source the crash happened, and what each of the commits touches.
    Trace {
        job: JobId,
        repository: String,
        /// Where the crash showed.
        revision: RevisionId,
        commits: Vec<RevisionId>,
        crash: CrashAt,
        /// Functions of the stack, innermost first.
        frames: Vec<String>,
    },
    /// Make the source of a kernel that is no revision as it stands; it goes by `name`.
    Patch {
        job: JobId,
        repository: String,
        name: RevisionId,
        order: Order,
    },
    /// Say what the culprit is, and give the crash's report source lines.
    Describe {
        job: JobId,
        repository: String,
        culprit: Option<RevisionId>,
        crash: Option<CrashAt>,
    },
    /// Tell those who watch that an attempt is over; nothing else follows from it.
    Lost(Lost),
    /// The answer to the event just handled.
    Answer(Answer),
}

/// A crash's report, and the kernel that printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashAt {
    pub report: String,
    pub vmlinux: Artifact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Submitted {
        job: JobId,
        created: bool,
    },
    Complete(CompleteAnswer),
    /// A later life of this agent has spoken; this one is to end.
    Superseded,
    Cancelled,
    Overruled {
        revision: RevisionId,
    },
    /// Why not, for people.
    Refused(String),
    AgentQuarantined,
    AgentReleased,
    /// These items may be tried again.
    Released {
        items: Vec<String>,
    },
    /// No agent of this name was ever heard of.
    UnknownAgent,
    /// There is no such job.
    UnknownJob,
    /// The job has ended already.
    AlreadyEnded,
    Access(AccessAnswer),
    /// These artifacts are not counted on any more; those to be removed now may be.
    Gone(BTreeSet<Digest>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompleteAnswer {
    Recorded,
    /// This very completion was taken before.
    Duplicate,
    /// The attempt no longer held the item; nothing changed.
    Stale,
}

/// An item in an agent's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub attempt: Attempt,
    pub slot: u32,
    pub item: ItemKey,
    pub work: Work,
    pub title: String,
    /// Absent where the coordinator is too old to say it.
    pub purpose: Option<Purpose>,
}

/// What an agent should be doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub assignments: Vec<Assignment>,
}
