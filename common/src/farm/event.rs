//! What the farm is told.

use super::fact::Resolution;
use super::item::ItemKey;
use crate::access::{AccessEvent, Principal};
use crate::artifact::Artifact;
use crate::history::{History, Revision};
use crate::id::{AgentId, Attempt, Digest, JobId, RevisionId, Session};
use crate::job::Job;
use crate::outcome::AttemptEnd;
use crate::patch::Patched;
use crate::report::CommitDetails;
use crate::verdict::Verdict;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub enum Event {
    /// An operator submits a job; `request` makes a repetition harmless.
    Submitted {
        request: String,
        job: Box<Job>,
        reproducer: Artifact,
        by: Principal,
    },
    /// Answers `Action::Resolve`.
    Resolved {
        job: JobId,
        result: Result<Box<Resolution>, Trouble>,
    },
    /// Answers `Action::LoadHistory`.
    HistoryLoaded {
        job: JobId,
        result: Result<Box<History>, Trouble>,
    },
    /// Answers `Action::Identify`.
    Identified {
        job: JobId,
        revision: RevisionId,
        result: Result<Revision, Trouble>,
    },
    /// Answers `Action::Trace`.
    Traced {
        job: JobId,
        traced: Traced,
    },
    /// Answers `Action::Patch`; without a tree, says why there is none.
    Patched {
        job: JobId,
        name: RevisionId,
        result: Result<Patched, String>,
    },
    /// Answers `Action::Describe`.
    Described {
        job: JobId,
        described: Described,
    },
    /// What became of artifacts, or is to.
    Artifacts(ArtifactsEvent),
    Synced(Sync),
    Completed {
        agent: AgentId,
        session: Session,
        attempt: Attempt,
        item: ItemKey,
        end: Box<AttemptEnd>,
    },
    CancelRequested {
        job: JobId,
        by: Principal,
    },
    /// An operator says what a revision is; without a word, takes back what was said. The revision
    /// is named by a release tag or the beginning of its id.
    OverruleRequested {
        job: JobId,
        revision: String,
        word: Option<Verdict>,
        by: Principal,
    },
    /// An operator sets an agent aside until it is released.
    QuarantineRequested {
        agent: AgentId,
        reason: String,
        by: Principal,
    },
    /// An operator lets an agent that was set aside work again.
    AgentReleaseRequested {
        agent: AgentId,
        by: Principal,
    },
    /// An operator has tried again what a job gave up: an item by its name, or what a revision lacks.
    ReleaseRequested {
        job: JobId,
        what: String,
        by: Principal,
    },
    /// Somebody joins, or an operator lets in or shuts out.
    Access(Box<AccessEvent>),
    /// A deadline has come; what is due is seen from `now`.
    Tick,
}

/// What became of artifacts, or is to. The answer is `Answer::Gone`.
#[derive(Clone, Debug)]
pub enum ArtifactsEvent {
    /// They were found to be missing, whoever needs them.
    Lost(BTreeSet<Digest>),
    /// They are to be removed, where no open job needs them.
    ToRemove { digests: BTreeSet<Digest>, by: Principal },
}

/// What a search goes by before anything has run: as much of it as could be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// Source files of the crash, innermost first.
    pub files: Vec<String>,
    /// What each commit of the range touches, in the order of the history; empty if that is not known.
    pub touched: Vec<Vec<String>>,
}

/// What the coordinator's hands add to a report: as much of it as could be had.
#[derive(Clone, Debug, Default)]
pub struct Described {
    pub culprit: Option<Culprit>,
    /// The crash's report, with source lines where they are known.
    pub report: Option<String>,
    /// What is missing, and why.
    pub notes: Vec<String>,
}

/// A culprit for the report.
#[derive(Clone, Debug)]
pub struct Culprit {
    pub details: CommitDetails,
    /// Its change, as `git show` prints it; none for a merge.
    pub patch: Option<String>,
}

/// Why the coordinator's hands could not do what the farm asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The person who wrote the job file can mend it.
    Invalid { field: String, message: String },
    /// Something of ours; the job ends as blocked.
    Failed(String),
}

/// What an agent says of itself: all of it, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    pub agent: AgentId,
    pub session: Session,
    /// Rises within a session; a late message is known by it.
    pub sequence: u64,
    pub info: AgentInfo,
    pub holding: Vec<Holding>,
    /// Kernels in its cache.
    pub have: Vec<Digest>,
    pub draining: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    pub host: String,
    pub version: String,
    pub slots: Vec<Slot>,
    /// `kvm`, `tcg` or empty.
    pub accelerator: String,
    /// Ids of the container images at hand.
    pub images: Vec<String>,
    pub can_build: bool,
    pub can_boot: bool,
    /// What keeps it from building or booting.
    pub problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub cores: u32,
    pub memory_mib: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub attempt: Attempt,
    pub item: ItemKey,
    pub slot: u32,
    pub activity: String,
}
