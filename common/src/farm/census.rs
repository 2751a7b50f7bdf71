//! The farm counted, and what an item is for: for those who watch over it. Nothing is decided by it.

use super::Farm;
use super::item::{ItemKey, State};
use super::jobs::Stage;
use crate::id::{AgentId, Attempt, JobId, RevisionId};
use crate::time::Timestamp;
use crate::trace_parent::TraceParent;
use std::collections::BTreeMap;

/// Whom an item was first made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    pub job: JobId,
    /// Absent for what all revisions of a job need.
    pub revision: Option<RevisionId>,
}

impl Purpose {
    /// The topmost span of all that is done for the same.
    pub fn trace(&self) -> TraceParent {
        TraceParent::of(&self.job, self.revision.as_ref())
    }
}

/// A grant that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub item: ItemKey,
    pub attempt: Attempt,
    pub agent: AgentId,
    pub purpose: Purpose,
    /// When the item was first wanted.
    pub wanted: Timestamp,
    /// Since when it could be granted: it may have been in other hands before.
    pub ready: Timestamp,
    pub granted: Timestamp,
}

/// An attempt that ended without a word of its agent on how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub item: ItemKey,
    pub attempt: Attempt,
    pub at: Timestamp,
    pub how: Loss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The agent was not heard of for as long as the lease ran.
    RanOut,
    /// A later life of the agent knows nothing of it.
    NewLife,
    /// Nobody wanted the item any more, and the agent has let go of it.
    Unwanted,
}

/// How much there is of what. All that can be counted stands in it, be it none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Jobs by stage, ended ones included.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Items that have not yielded, by kind and state.
    pub items: BTreeMap<(&'static str, &'static str), u64>,
    /// Every agent in `agent list`, by what that calls its state.
    pub agents: BTreeMap<&'static str, u64>,
    /// Slots of agents that are there, and how many of them hold something.
    pub slots: u64,
    pub slots_busy: u64,
    /// Since when the item waits that has been ready for longest.
    pub oldest_ready: Option<Timestamp>,
}

impl ItemKey {
    pub const KINDS: [&'static str; 5] = ["toolchain", "reproducer", "maintainers", "run", "build"];

    /// What kind of work it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            ItemKey::Toolchain(_) => "toolchain",
            ItemKey::Reproducer(_) => "reproducer",
            ItemKey::Maintainers(_) => "maintainers",
            ItemKey::Run(..) => "run",
            ItemKey::Build(_) => "build",
        }
    }
}

const ITEM_STATES: [&str; 3] = ["ready", "leased", "quarantined"];
const AGENT_STATES: [&str; 5] = ["online", "draining", "quarantined", "lost", "revoked"];

impl Stage {
    const NAMES: [&'static str; 7] =
        ["resolving", "preparing", "loading-history", "searching", "certifying", "reporting", "ended"];

    pub(super) fn name(&self) -> &'static str {
        match self {
            Stage::Resolving => "resolving",
            Stage::Preparing => "preparing",
            Stage::LoadingHistory => "loading-history",
            Stage::Searching { certifying: false } => "searching",
            Stage::Searching { certifying: true } => "certifying",
            Stage::Reporting(_) => "reporting",
            Stage::Ended(_) => "ended",
        }
    }
}

impl Farm {
    /// Counts everything once.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        census.jobs.extend(Stage::NAMES.map(|name| (name, 0)));
        census.agents.extend(AGENT_STATES.map(|state| (state, 0)));
        for kind in ItemKey::KINDS {
            census.items.extend(ITEM_STATES.map(|state| ((kind, state), 0)));
        }
        for job in self.jobs.values() {
            *census.jobs.entry(job.stage.name()).or_default() += 1;
        }
        for (key, item) in self.items.all() {
            let state = match &item.state {
                State::Ready => "ready",
                State::Leased(_) => "leased",
                State::Quarantined(_) => "quarantined",
            };
            *census.items.entry((key.kind(), state)).or_default() += 1;
            census.slots_busy += u64::from(matches!(item.state, State::Leased(_)));
            if matches!(item.state, State::Ready) {
                let since = item.ready_since;
                census.oldest_ready = Some(census.oldest_ready.map_or(since, |oldest| oldest.min(since)));
            }
        }
        census.slots_busy += self.claims.len() as u64;
        for (_, state) in self.crew() {
            *census.agents.entry(state).or_default() += 1;
        }
        let present = self.agents.values().filter(|agent| agent.present);
        census.slots = present.map(|agent| agent.info.slots.len() as u64).sum();
        census
    }

    /// The grant of an item, while it stands.
    pub fn granted(&self, key: &ItemKey) -> Option<Granted> {
        let item = self.items.get(key)?;
        let lease = item.lease()?;
        Some(Granted {
            item: key.clone(),
            attempt: lease.attempt,
            agent: lease.agent.clone(),
            purpose: item.purpose.clone(),
            wanted: item.made,
            ready: item.ready_since,
            granted: lease.granted,
        })
    }
}
