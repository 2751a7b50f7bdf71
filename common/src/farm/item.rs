//! Items: the units of work, named by what they yield, so that equal ones are one.

use super::census::Purpose;
use crate::artifact::Artifact;
use crate::id::{AgentId, Attempt, Digest, JobId, RevisionId, Session, TreeId};
use crate::job::{KernelBuild, Machine, Reproducer, ReproducerKind, Timeouts};
use crate::outcome::{Infra, Product};
use crate::patch::Patch;
use crate::time::Timestamp;
use std::collections::BTreeSet;
use std::fmt;

/// What an item is called. The order is the order of service: what unblocks most comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKey {
    /// Looks into a container image, by its name.
    Toolchain(String),
    Reproducer(Digest),
    /// Who answers for a commit and for a file; a finding waits for it.
    Maintainers(Digest),
    /// One run: the digest names kernel, reproducer and machine.
    Run(Digest, u32),
    Build(Digest),
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ItemKey::Toolchain(image) => write!(f, "toolchain:{image}"),
            ItemKey::Reproducer(key) => write!(f, "reproducer:{}", key.short()),
            ItemKey::Maintainers(key) => write!(f, "maintainers:{}", key.short()),
            ItemKey::Run(key, index) => write!(f, "run:{}:{index}", key.short()),
            ItemKey::Build(key) => write!(f, "build:{}", key.short()),
        }
    }
}

impl Product {
    /// Whether this is what such an item yields.
    pub fn is_for(&self, key: &ItemKey) -> bool {
        matches!(
            (self, key),
            (Product::Toolchain(_), ItemKey::Toolchain(_))
                | (Product::Reproducer(_), ItemKey::Reproducer(_))
                | (Product::Maintainers(_), ItemKey::Maintainers(_))
                | (Product::Build(_), ItemKey::Build(_))
                | (Product::Run(_), ItemKey::Run(..))
        )
    }
}

/// What is to be done for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Toolchain { image: String },
    Reproducer { reproducer: Reproducer, source: Artifact, image_id: String },
    Maintainers(MaintainersWork),
    Build(BuildWork),
    Run(RunWork),
}

impl Work {
    /// The toolchain image it runs in, where it does.
    pub(super) fn image_id(&self) -> Option<&str> {
        match self {
            Work::Reproducer { image_id, .. } => Some(image_id),
            Work::Maintainers(work) => Some(&work.image_id),
            Work::Build(work) => Some(&work.image_id),
            Work::Toolchain { .. } | Work::Run(_) => None,
        }
    }

    /// The commits it is made from, where it needs any.
    pub fn source(&self) -> Option<WorkSource> {
        let (repository, revision, patches) = match self {
            Work::Maintainers(work) => (&work.repository, work.revision, Vec::new()),
            Work::Build(work) => (&work.repository, work.revision, work.patches.clone()),
            Work::Toolchain { .. } | Work::Reproducer { .. } | Work::Run(_) => return None,
        };
        Some(WorkSource { repository: repository.clone(), revision, patches })
    }
}

/// A revision, what is put into it or taken out, and the repository that has both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkSource {
    pub repository: String,
    pub revision: RevisionId,
    pub patches: Vec<Patch>,
}

/// Asks a revision's own tree who answers for what it changes, and for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintainersWork {
    pub repository: String,
    pub revision: RevisionId,
    pub tree: TreeId,
    /// The revision's change as a patch, where its people are too few.
    pub patch: Option<String>,
    /// Relative to the tree's top.
    pub file: Option<String>,
    pub image_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildWork {
    pub repository: String,
    pub revision: RevisionId,
    /// Applied to the revision in this order; `tree` is what comes of it.
    pub patches: Vec<Patch>,
    pub tree: TreeId,
    pub kernel: KernelBuild,
    pub image_id: String,
    pub timeout_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunWork {
    pub kernel: Artifact,
    /// What that kernel must say it is; empty where nobody knows.
    pub build_id: String,
    pub executable: Artifact,
    pub kind: ReproducerKind,
    pub args: Vec<String>,
    pub machine: Machine,
    pub timeouts: Timeouts,
}

/// An item somebody wants and that has not yielded yet.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub work: Work,
    /// For people: the job and the revision.
    pub title: String,
    pub wanted_by: BTreeSet<JobId>,
    pub purpose: Purpose,
    /// When it was first wanted.
    pub made: Timestamp,
    /// When it could last be granted.
    pub ready_since: Timestamp,
    pub state: State,
    pub failures: Vec<Failure>,
    /// Order of creation, for fairness among equals.
    pub number: u64,
    /// Of a certificate: its kernel's runs are spread over the agents.
    pub spread: bool,
}

impl Item {
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Leased(lease) => Some(lease),
            State::Ready | State::Quarantined(_) => None,
        }
    }

    pub fn free(&mut self, now: Timestamp) {
        self.state = State::Ready;
        self.ready_since = now;
    }

    pub fn is_wanted(&self) -> bool {
        !self.wanted_by.is_empty()
    }

    /// What an agent has in hand stays known, wanted or not, until that one lets go of it.
    pub fn is_of_use(&self) -> bool {
        self.is_wanted() || self.lease().is_some()
    }
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Ready,
    Leased(Lease),
    /// Given up on, with the reason.
    Quarantined(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub attempt: Attempt,
    pub agent: AgentId,
    pub session: Session,
    pub slot: u32,
    pub granted: Timestamp,
    /// When the item is free again unless the agent speaks.
    pub until: Timestamp,
    pub activity: String,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub agent: AgentId,
    pub at: Timestamp,
    /// The wait before the same agent may try again counts from here.
    pub retry_from: Timestamp,
    pub infra: Infra,
}
