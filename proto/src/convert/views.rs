//! What operators see.

use super::job::mode_out;
use crate::v1;
use kulprit_common::farm::fact::{EndSummary, Rendered};
use kulprit_common::farm::quarantine::GivenUp;
use kulprit_common::farm::view::{AgentView, JobView, RevisionView, SlotView};

impl From<JobView> for v1::JobView {
    fn from(view: JobView) -> Self {
        let (ended_ms, end) = view.ended.map(|(at, end)| (at.0, end.into())).unzip();
        v1::JobView {
            id: view.id.to_string(),
            name: view.name,
            submitted_ms: view.submitted.0,
            ended_ms,
            stage: view.stage.into(),
            detail: view.detail,
            suspects_left: view.suspects_left.map(|count| count as u64),
            revisions: view.revisions.into_iter().map(Into::into).collect(),
            end,
            builds: view.builds,
            runs: view.runs,
            repository: view.repository,
            mode: mode_out(view.mode, view.symptom),
            given_up: view.given_up.into_iter().map(Into::into).collect(),
            ..Default::default()
        }
    }
}

/// Puts the renderings into a view.
impl v1::JobView {
    pub fn with_rendered(mut self, rendered: Rendered) -> Self {
        self.log = rendered.log;
        self.replay = rendered.replay;
        self.json = rendered.json;
        self.summary = rendered.summary;
        self.plot = rendered.plot;
        self
    }
}

impl From<GivenUp> for v1::GivenUp {
    fn from(it: GivenUp) -> Self {
        v1::GivenUp {
            item: it.item,
            revision: it.revision.map(|revision| revision.to_string()),
            reason: it.reason,
            since_ms: it.since.map(|at| at.0),
            failures: it.failures,
            agents: it.agents.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<EndSummary> for v1::JobEnd {
    fn from(end: EndSummary) -> Self {
        v1::JobEnd {
            kind: end.kind,
            culprit: end.culprit.map(|id| id.to_string()).unwrap_or_default(),
            message: end.message,
            field: end.field,
        }
    }
}

impl From<RevisionView> for v1::RevisionView {
    fn from(view: RevisionView) -> Self {
        v1::RevisionView {
            revision: view.revision.to_string(),
            subject: view.subject,
            role: view.role.into(),
            reverts: view.reverts.map(|commit| commit.to_string()),
            state: view.state.into(),
            runs_done: view.runs_done,
            runs_wanted: view.runs_wanted,
            runs_target: view.runs_target,
        }
    }
}

impl From<AgentView> for v1::AgentView {
    fn from(view: AgentView) -> Self {
        v1::AgentView {
            id: view.id.to_string(),
            host: view.host,
            version: view.version,
            accelerator: view.accelerator,
            state: view.state.into(),
            reason: view.reason,
            last_sync_ms: view.last_sync.map(|at| at.0),
            awaited: view.awaited,
            slots: view.slots.into_iter().map(Into::into).collect(),
            problems: view.problems,
            labels: view.labels,
            cannot_build: !view.can_build,
            cannot_boot: !view.can_boot,
            quarantined_ms: view.since.map(|at| at.0),
            quarantined_until_ms: view.until.map(|at| at.0),
        }
    }
}

impl From<SlotView> for v1::SlotView {
    fn from(view: SlotView) -> Self {
        v1::SlotView {
            cores: view.cores,
            memory_mib: view.memory_mib,
            work: view.work.map(|work| v1::SlotWork {
                attempt: work.attempt.0,
                item: work.item,
                title: work.title,
                activity: work.activity,
                since_ms: work.since.0,
            }),
        }
    }
}
