//! From a finding to the report: what was committed, where in the source, who should hear of it.

use super::Farm;
use super::action::{Action, CrashAt};
use super::breakage::Inherited;
use super::event::Described;
use super::fact::JobEnd;
use super::item::{ItemKey, MaintainersWork, State, Work};
use super::jobs::{JobState, Stage, no_such_target};
use super::trace::Trace;
use super::wants::Wants;
use crate::bisect::Finding;
use crate::crash::{self, Crash, Match, Target};
use crate::id::{JobId, RevisionId};
use crate::job::Mode;
use crate::outcome::{BuildOutcome, Maintainers, Product};
use crate::recipients::Recipients;
use crate::report::{CommitDetails, ShownCrash};
use crate::signature;
use crate::time::Timestamp;
use std::time::Duration;

const TOO_LONG: &str = "it took too long";

/// How long a finding waits for what its report is to say. Whoever does the work by then may end it.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A finding on its way to the report.
pub(super) struct Reporting {
    pub finding: Finding,
    /// When to go on without what is not there.
    pub until: Timestamp,
    /// Title of the crash that the report shows.
    pub title: Option<String>,
    /// Absent until the coordinator's hands have answered.
    pub described: Option<Described>,
}

/// What the report adds to a finding.
#[derive(Default)]
pub(super) struct Additions {
    pub culprit: Option<CommitDetails>,
    pub crash: Option<ShownCrash>,
    pub recipients: Recipients,
    pub notes: Vec<String>,
}

/// An ending, with what its report adds.
pub(super) type Ended = (JobEnd, Additions);

impl JobState {
    /// When to go on, whatever is missing then.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        match (&self.stage, &self.trace) {
            (Stage::Reporting(reporting), _) => Some(reporting.until),
            (Stage::Searching { .. }, Trace::Asked { until }) => Some(*until),
            _ => None,
        }
    }
}

impl Farm {
    /// Asks for what the report is to say; an ending where there is nothing to ask for.
    pub(super) fn found(
        &self,
        now: Timestamp,
        state: &mut JobState,
        finding: Finding,
        actions: &mut Vec<Action>,
    ) -> Option<Ended> {
        if let Some(end) = no_such_target(&state.job.kernel.config, &finding) {
            return Some((end, Additions::default()));
        }
        let culprit = match &finding {
            Finding::Culprit { revision, .. } => Some(*revision),
            _ => None,
        };
        let (title, crash) = self.crash_of(state, &finding).unzip();
        if culprit.is_none() && crash.is_none() {
            return Some((JobEnd::Found(finding), Additions::default()));
        }
        let (job, repository) = (state.id.clone(), state.job.repository.clone());
        actions.push(Action::Describe { job, repository, culprit, crash });
        state.stage =
            Stage::Reporting(Box::new(Reporting { finding, until: now + PATIENCE, title, described: None }));
        None
    }

    pub(super) fn described(&mut self, id: &JobId, described: Described) {
        if let Some(JobState { stage: Stage::Reporting(reporting), .. }) = self.jobs.get_mut(id) {
            reporting.described = Some(described);
            self.dirty.insert(id.clone());
        }
    }

    /// Has jobs looked at again that have waited long enough for what the coordinator's hands do.
    pub(super) fn expire_waits(&mut self, now: Timestamp) {
        let late = self.jobs.values().filter(|job| job.waits_until().is_some_and(|until| until <= now));
        let late: Vec<JobId> = late.map(|job| job.id.clone()).collect();
        self.dirty.extend(late);
    }

    /// The ending, once all is there that the report is to say. What cannot be had leaves a note:
    /// the finding stands without it.
    pub(super) fn advance_report(
        &mut self,
        now: Timestamp,
        state: &mut JobState,
        wants: &mut Wants,
    ) -> Option<Ended> {
        let Stage::Reporting(reporting) = &state.stage else { return None };
        let late = reporting.until <= now;
        let finding = reporting.finding.clone();
        let described = match &reporting.described {
            Some(described) => described.clone(),
            None if late => Described { notes: vec![TOO_LONG.into()], ..Described::default() },
            None => return None,
        };
        let mut added = Additions { notes: described.notes, ..Additions::default() };
        let shown = reporting.title.clone().zip(described.report);
        added.crash = shown.map(|(title, report)| ShownCrash::new(title, report));
        if let Some(culprit) = described.culprit {
            added.recipients = Recipients::of_commit(&culprit.details.author, &culprit.details.message);
            let patch = culprit.patch.filter(|_| added.recipients.needs_maintainers());
            let file = added.crash.as_ref().and_then(|crash| crash.guilty_file.clone());
            let said = self.maintainers(state, &culprit.details, patch, file, late, wants)?;
            added.recipients.add_maintainers(&said.output);
            added.notes.extend(said.problem);
            added.culprit = Some(culprit.details);
        }
        Some((JobEnd::Found(finding), added))
    }

    /// What an operator's cancelling ends: a search has no result, a finding keeps its own.
    pub(super) fn cancelled(state: &JobState) -> Ended {
        match &state.stage {
            Stage::Reporting(reporting) => {
                let notes = vec!["cancelled by an operator while the report was written".into()];
                let described = reporting.described.clone().unwrap_or_default();
                let shown = reporting.title.clone().zip(described.report);
                let crash = shown.map(|(title, report)| ShownCrash::new(title, report));
                let culprit = described.culprit.map(|culprit| culprit.details);
                let people = |it: &CommitDetails| Recipients::of_commit(&it.author, &it.message);
                let recipients = culprit.as_ref().map(people).unwrap_or_default();
                let added = Additions { culprit, crash, recipients, notes };
                (JobEnd::Found(reporting.finding.clone()), added)
            }
            _ => (JobEnd::Cancelled, Additions::default()),
        }
    }

    /// What the culprit's own tree says of who answers for it; `None` while an agent is asked.
    fn maintainers(
        &self,
        state: &JobState,
        culprit: &CommitDetails,
        patch: Option<String>,
        file: Option<String>,
        late: bool,
        wants: &mut Wants,
    ) -> Option<Maintainers> {
        let unknown = |problem: Option<String>| Some(Maintainers { output: String::new(), problem });
        if patch.is_none() && file.is_none() {
            return unknown(None);
        }
        let because = |reason: &str| Some(format!("maintainers were not asked for: {reason}"));
        let Some(revision) = Self::revision(state, &culprit.revision) else {
            return unknown(because("the culprit's tree is not known"));
        };
        let image_id = match self.toolchain(state, wants) {
            Ok(facts) => facts.image_id.clone(),
            Err(None) if late => return unknown(because(TOO_LONG)),
            Err(None) => return None,
            Err(Some(_)) => return unknown(because("the toolchain is gone")),
        };
        let digest = signature::maintainers_key(&revision.tree, patch.as_deref(), file.as_deref(), &image_id);
        let key = ItemKey::Maintainers(digest);
        if let Some(Product::Maintainers(said)) = self.products.get(&key) {
            return Some(said.clone());
        }
        match self.items.get(&key).map(|item| &item.state) {
            Some(State::Quarantined(reason)) => return unknown(because(reason)),
            Some(State::Ready) | None if late => return unknown(because("no agent took it")),
            Some(State::Ready | State::Leased(_)) | None => {}
        }
        let work = MaintainersWork {
            repository: state.job.repository.clone(),
            revision: revision.id,
            tree: revision.tree,
            patch,
            file,
            image_id,
        };
        wants.add(key, Work::Maintainers(work), format!("job {} maintainers", state.id));
        None
    }

    /// Ends a job: renders what people read, records it, lets its items go.
    pub(super) fn end(&mut self, now: Timestamp, id: &JobId, ended: Ended, actions: &mut Vec<Action>) {
        let Some(mut state) = self.jobs.remove(id) else { return };
        let ended = self.render_end(now, &state, ended);
        actions.push(Action::Record(super::fact::Fact::JobEnded {
            id: id.clone(),
            at: now,
            end: ended.end.clone(),
            rendered: Box::new(ended.rendered.clone()),
        }));
        for key in state.wants.iter().chain(state.recorded.iter().map(|(_, key)| key)) {
            self.failures.remove(key);
        }
        self.set_wants(&mut state, Wants::default());
        state.stage = Stage::Ended(Box::new(ended));
        state.bisection = None;
        state.recorded.clear();
        state.inherited = Inherited::default();
        self.jobs.insert(id.clone(), state);
        // The next job tries again what this one gave up.
        if !self.jobs.values().any(JobState::is_open) {
            self.failures.clear();
        }
        self.touch_open_jobs();
    }

    /// The target crash for the report, and the kernel that showed it: at the culprit if there is
    /// one, else at the bad end.
    fn crash_of(&self, state: &JobState, finding: &Finding) -> Option<(String, CrashAt)> {
        let target = state.bisection.as_ref()?.target()?;
        let first = match finding {
            Finding::Culprit { revision, .. } if state.job.mode == Mode::Cause => Some(*revision),
            _ => None,
        };
        let bad = state.resolution.as_ref()?.bad.id;
        let mut at = [first, Some(bad)].into_iter().flatten();
        let shown = at.find_map(|revision| self.shown_at(state, target, &revision))?;
        Some((shown.0.title.clone(), shown.1))
    }

    /// The target crash as a run at a revision showed it.
    pub(super) fn shown_at(
        &self,
        state: &JobState,
        target: &Target,
        revision: &RevisionId,
    ) -> Option<(&Crash, CrashAt)> {
        let judged = &state.judged[state.settled_since()..];
        let mut of_revision = judged.iter().filter(|judged| judged.judgement.revision == *revision);
        of_revision.find_map(|judged| {
            let crash = judged.runs.iter().filter(|key| !self.noise.is_disowned(key)).find_map(|key| {
                let Some(Product::Run(run)) = self.products.get(key) else { return None };
                let mut seen = run.outcome.crashes().iter().map(|seen| &seen.crash);
                seen.find(|it| crash::compare(target, it) == Match::Same)
            })?;
            let vmlinux = match self.products.get(judged.build.as_ref()?) {
                Some(Product::Build(build)) => match &build.outcome {
                    BuildOutcome::Built(kernel) => kernel.vmlinux,
                    BuildOutcome::Failed { .. } => return None,
                },
                Some(_) | None => return None,
            };
            Some((crash, CrashAt { report: crash.report.clone(), vmlinux }))
        })
    }
}
