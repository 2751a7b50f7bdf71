//! What people see of the farm: jobs, revisions, agents and their slots, as values. How agents come to
//! theirs stands in `crew`.

use super::Farm;
use super::fact::{EndSummary, JobEnd, Judged, Rendered};
use super::item::{ItemKey, Work};
use super::jobs::{JobState, Stage, role_name};
use super::kernels::kernel_name;
use super::noise;
use super::quarantine::GivenUp;
use super::reporting::Ended;
use crate::bisect::{Bisection, Role};
use crate::id::{AgentId, Attempt, JobId, RevisionId};
use crate::job::{Mode, Symptom};
use crate::outcome::{BuildOutcome, Product};
use crate::report::{self, Built, Ending, Ends, RunLine, Tested};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub struct EndedJob {
    pub at: Timestamp,
    pub end: EndSummary,
    pub rendered: Rendered,
}

#[derive(Clone, Debug)]
pub struct JobView {
    pub id: JobId,
    pub name: String,
    pub repository: String,
    pub mode: Mode,
    pub symptom: Symptom,
    pub submitted: Timestamp,
    pub ended: Option<(Timestamp, EndSummary)>,
    pub stage: &'static str,
    /// What it does or waits for.
    pub detail: String,
    pub suspects_left: Option<usize>,
    pub revisions: Vec<RevisionView>,
    /// Builds and runs that its verdicts rest on.
    pub builds: u32,
    pub runs: u32,
    /// What it gave up, by item.
    pub given_up: Vec<GivenUp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionView {
    pub revision: RevisionId,
    pub subject: String,
    pub role: &'static str,
    /// The commit without which this kernel is built; `revision` then is a made-up name.
    pub reverts: Option<RevisionId>,
    pub state: &'static str,
    pub runs_done: u32,
    pub runs_wanted: u32,
    pub runs_target: u32,
}

#[derive(Clone, Debug)]
pub struct AgentView {
    pub id: AgentId,
    pub host: String,
    pub version: String,
    pub accelerator: String,
    pub state: &'static str,
    pub reason: String,
    /// Since when it is in quarantine, and until when it is by itself.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// None since the coordinator started.
    pub last_sync: Option<Timestamp>,
    /// What it held before the restart may still be in its hands: it has not said yet.
    pub awaited: bool,
    pub slots: Vec<SlotView>,
    pub problems: Vec<String>,
    /// What its join token said of it.
    pub labels: Vec<String>,
    pub can_build: bool,
    pub can_boot: bool,
}

#[derive(Clone, Debug)]
pub struct SlotView {
    pub cores: u32,
    pub memory_mib: u64,
    pub work: Option<SlotWork>,
}

#[derive(Clone, Debug)]
pub struct SlotWork {
    pub attempt: Attempt,
    pub item: String,
    pub title: String,
    pub activity: String,
    pub since: Timestamp,
}

impl Farm {
    /// Every job, newest first.
    pub fn jobs(&self) -> Vec<JobView> {
        let mut states: Vec<&JobState> = self.jobs.values().collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.number));
        states.into_iter().map(|state| self.view(state)).collect()
    }

    pub fn job(&self, id: &JobId) -> Option<JobView> {
        self.jobs.get(id).map(|state| self.view(state))
    }

    /// Whether the job is there and has not ended.
    pub fn is_under_way(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(JobState::is_open)
    }

    /// The bisection log as far as it goes: what was returned before stays its beginning.
    pub fn log(&self, id: &JobId) -> Option<String> {
        self.jobs.get(id).map(|state| match &state.stage {
            Stage::Ended(ended) => ended.rendered.log.clone(),
            _ => self.with_record(state, None, report::text::render),
        })
    }

    /// All renderings of a job.
    pub fn rendered(&self, id: &JobId) -> Option<Rendered> {
        self.jobs.get(id).map(|state| match &state.stage {
            Stage::Ended(ended) => ended.rendered.clone(),
            _ => self.render(state, None),
        })
    }

    fn render(&self, state: &JobState, ending: Option<&Ending>) -> Rendered {
        self.with_record(state, ending, |record| Rendered {
            log: report::text::render(record),
            replay: report::replay::render(record),
            json: report::json::render(record).to_string(),
            summary: report::summary::render(record),
            plot: report::plot::render(record),
        })
    }

    fn view(&self, state: &JobState) -> JobView {
        let ended = match &state.stage {
            Stage::Ended(ended) => Some((ended.at, ended.end.clone())),
            _ => None,
        };
        let keys = |pick: fn(&Judged) -> usize| state.judged.iter().map(pick).sum::<usize>();
        JobView {
            id: state.id.clone(),
            name: state.job.name.clone(),
            repository: state.job.repository.clone(),
            mode: state.job.mode,
            symptom: state.job.symptom,
            submitted: state.submitted,
            ended,
            stage: state.stage.name(),
            detail: self.detail(state),
            suspects_left: state.bisection.as_ref().and_then(Bisection::suspects_left),
            revisions: self.revisions(state),
            builds: u32::try_from(keys(|judged| usize::from(judged.build.is_some()))).unwrap_or(u32::MAX),
            runs: u32::try_from(keys(|judged| judged.runs.len())).unwrap_or(u32::MAX),
            given_up: self.given_up(state).into_values().collect(),
        }
    }

    /// What a job waits for, when nothing of it is in anybody's hands; or why what is in hands now
    /// will be of no use.
    fn detail(&self, state: &JobState) -> String {
        if let Some(why) = self.boots_nowhere(state) {
            return why;
        }
        let waiting = |key: &&ItemKey| self.items.get(key).is_some_and(|item| item.lease().is_none());
        // No job waits for a second look.
        let own = state.wants.iter().filter(|key| noise::first_of(key).is_none());
        let (idle, busy): (Vec<_>, Vec<_>) = own.partition(waiting);
        if !state.is_open() || idle.is_empty() || !busy.is_empty() {
            return String::new();
        }
        if self.grace_until.is_some() {
            return "waiting for agents to say what they hold from before the restart".into();
        }
        let present: Vec<_> = self.agents.iter().filter(|(_, agent)| agent.present).collect();
        if present.is_empty() {
            return "waiting for an agent: none is connected".into();
        }
        // Where others take work, one that drains is not what a job waits for.
        let nobody = !present.iter().any(|(_, agent)| agent.takes_work());
        let problems: Vec<String> = present
            .iter()
            .flat_map(|(id, agent)| {
                let rest = agent.rest.iter().map(|rest| format!("set aside: {}", rest.reason));
                let drains = (nobody && agent.draining).then(|| "draining".to_owned());
                let all = agent.info.problems.iter().cloned().chain(rest).chain(drains);
                all.map(move |problem| format!("{id}: {problem}"))
            })
            .collect();
        if let Some(failure) = idle.iter().find_map(|key| self.items.get(key)?.failures.last()) {
            return format!("retrying after {}: {}", failure.infra.class.as_str(), failure.infra.reason);
        }
        let unfit = idle.iter().find_map(|key| self.unfit(&self.items.get(key)?.work));
        match (problems.is_empty(), unfit) {
            (false, _) => format!("waiting: {}", problems.join("; ")),
            (true, Some(lack)) => format!("waiting for an agent {lack}"),
            (true, None) => "waiting for a free slot".into(),
        }
    }

    /// Kernels can be built by agents none of which could boot them.
    fn boots_nowhere(&self, state: &JobState) -> Option<String> {
        let present: Vec<_> = self.agents.iter().filter(|(_, agent)| agent.present).collect();
        let some_can = present.iter().any(|(_, agent)| agent.info.can_boot);
        if !state.is_open() || state.job.symptom == Symptom::Build || present.is_empty() || some_can {
            return None;
        }
        // What is wrong with all of them alike is said of the first.
        let mut seen = BTreeSet::new();
        let all = present.iter().flat_map(|(id, agent)| agent.info.problems.iter().map(move |it| (id, it)));
        let new = all.filter(|(_, problem)| seen.insert(*problem));
        let said: String = new.map(|(id, problem)| format!("; {id}: {problem}")).collect();
        Some(format!("waiting for an agent that can boot guests{said}"))
    }

    /// What no agent that is there has, for work none of them can ever take.
    fn unfit(&self, work: &Work) -> Option<String> {
        let mut present = self.agents.values().filter(|agent| agent.present);
        if let Work::Run(work) = work {
            let needed = u64::from(work.machine.memory_mib);
            let fits = present.any(|agent| agent.info.slots.iter().any(|it| it.memory_mib >= needed));
            return (!fits).then(|| {
                format!("with {needed} MiB to a slot: lower machine.memory_mib, or raise --slot-memory-mib")
            });
        }
        let image = work.image_id()?;
        let fits = present.any(|agent| agent.info.images.iter().any(|id| id == image));
        (!fits).then(|| format!("with the toolchain image {image}"))
    }

    fn revisions(&self, state: &JobState) -> Vec<RevisionView> {
        let mut views: Vec<RevisionView> = Vec::new();
        for judged in &state.judged {
            let counts = judged.judgement.counts;
            let runs = counts.target + counts.ok + counts.other + counts.failed;
            views.retain(|view| view.revision != judged.judgement.revision);
            // What was said and taken back is no verdict any more.
            let is_word = judged.judgement.role == Role::Overruled;
            if is_word && !state.words().contains_key(&judged.judgement.revision) {
                continue;
            }
            views.push(RevisionView {
                revision: judged.judgement.revision,
                subject: judged.subject.clone(),
                role: role_name(&judged.judgement.role),
                reverts: reverts(&judged.judgement.role),
                state: match judged.judgement.verdict {
                    Verdict::Good => "good",
                    Verdict::Bad => "bad",
                    Verdict::Skip => "skip",
                },
                runs_done: runs,
                runs_wanted: runs,
                runs_target: counts.target,
            });
        }
        if !matches!(state.stage, Stage::Searching { .. }) {
            return views;
        }
        let wanted = state.wants.iter().filter_map(|key| self.items.get(key));
        let in_hand: Vec<&str> =
            wanted.filter(|item| item.lease().is_some()).map(|item| item.title.as_str()).collect();
        for candidate in &state.candidates {
            let built = state
                .recorded
                .iter()
                .any(|(revision, key)| *revision == candidate.revision && matches!(key, ItemKey::Build(_)));
            let done = state
                .recorded
                .iter()
                .filter(|(revision, key)| *revision == candidate.revision && matches!(key, ItemKey::Run(..)));
            let done = u32::try_from(done.count()).unwrap_or(u32::MAX);
            let name = kernel_name(&candidate.role, &candidate.revision);
            let leased = in_hand.iter().any(|title| title.contains(&name));
            views.retain(|view| view.revision != candidate.revision || view.state != "queued");
            views.push(RevisionView {
                revision: candidate.revision,
                subject: Self::subject(state, &candidate.role, &candidate.revision),
                role: role_name(&candidate.role),
                reverts: reverts(&candidate.role),
                state: match (built, leased) {
                    (true, _) => "booting",
                    (false, true) => "building",
                    (false, false) => "queued",
                },
                runs_done: done,
                runs_wanted: candidate.runs,
                runs_target: 0,
            });
        }
        views
    }

    pub(super) fn ends(&self, state: &JobState) -> Option<Ends> {
        let resolution = state.resolution.as_ref()?;
        let (good, good_tag) = match &resolution.good {
            Some(good) => (Some(good.clone()), None),
            None => {
                let of = |release: &&crate::history::TaggedRelease, verdict: Verdict| {
                    state.judged.iter().any(|judged| {
                        judged.judgement.revision == release.revision.id
                            && judged.judgement.verdict == verdict
                            && matches!(judged.judgement.role, Role::Release(_))
                    })
                };
                let found = resolution.releases.iter().find(|release| of(release, Verdict::Good));
                (found.map(|release| release.revision.clone()), found.map(|release| release.tag.clone()))
            }
        };
        Some(Ends { bad: resolution.bad.clone(), good, good_tag })
    }

    pub(super) fn tested(&self, state: &JobState) -> Vec<Tested> {
        state.judged.iter().map(|judged| self.tested_one(state, judged)).collect()
    }

    fn tested_one(&self, state: &JobState, judged: &Judged) -> Tested {
        let build = judged.build.as_ref().and_then(|key| self.products.get(key));
        let built = match build {
            Some(Product::Build(build)) => match &build.outcome {
                BuildOutcome::Built(kernel) => Built::Kernel { fingerprint: kernel.fingerprint },
                BuildOutcome::Failed { message } => Built::Failed { message: message.clone() },
            },
            Some(_) | None => {
                let reason = judged.unavailable.clone().unwrap_or_else(|| "not built".into());
                Built::Unavailable { reason }
            }
        };
        let runs = judged.runs.iter().filter_map(|key| match self.products.get(key) {
            Some(Product::Run(run)) => Some(RunLine::Saw(run.outcome.clone())),
            Some(_) | None => None,
        });
        let gave_up = judged.unavailable.iter().map(|reason| RunLine::Infra(reason.clone()));
        let runs = match built {
            Built::Kernel { .. } => runs.chain(gave_up).collect(),
            Built::Failed { .. } | Built::Unavailable { .. } => Vec::new(),
        };
        Tested {
            subject: judged.subject.clone(),
            judgement: judged.judgement.clone(),
            compiler: self.compiler_of(state, judged),
            patches: judged.recipe.patches.clone(),
            remarks: judged.recipe.remarks.clone(),
            build: built,
            runs,
        }
    }

    /// The `compiler:` line of the toolchain a revision was built with. Old journals do not say;
    /// there the build's key tells.
    fn compiler_of(&self, state: &JobState, judged: &Judged) -> String {
        if let Some(compiler) = &judged.recipe.compiler {
            return compiler.clone();
        }
        let Some(revision) = Self::revision(state, &judged.judgement.revision) else { return String::new() };
        let facts = self.products.values().filter_map(|product| match product {
            Product::Toolchain(facts) => Some(facts),
            Product::Reproducer(_) | Product::Maintainers(_) | Product::Build(_) | Product::Run(_) => None,
        });
        let key_with = |image_id: &str| {
            let key = crate::signature::build_key(&revision.tree, &state.job.kernel, image_id);
            Some(ItemKey::Build(key)) == judged.build
        };
        facts
            .filter(|facts| key_with(&facts.image_id))
            .map(|facts| facts.compiler())
            .min()
            .unwrap_or_default()
    }

    pub(super) fn render_end(&self, now: Timestamp, state: &JobState, (end, added): Ended) -> EndedJob {
        let rendered = match &end {
            JobEnd::Found(finding) => {
                let (build_time, test_time) = self.machine_time(state);
                let ending = Ending {
                    at: now,
                    finding: finding.clone(),
                    culprit: added.culprit,
                    crash: added.crash,
                    build_time,
                    test_time,
                    recipients: added.recipients,
                    notes: added.notes.into_iter().chain(state.inherited.note()).collect(),
                };
                self.render(state, Some(&ending))
            }
            JobEnd::Invalid { .. } | JobEnd::Cancelled => {
                let mut rendered = self.render(state, None);
                let summary = end.summary(state.job.symptom);
                rendered.log.push_str(&format!("error: {}\n", summary.message));
                rendered.summary = format!("{}: {}\n", summary.kind, summary.message);
                rendered
            }
        };
        EndedJob { at: now, end: end.summary(state.job.symptom), rendered }
    }
}

fn reverts(role: &Role) -> Option<RevisionId> {
    match role {
        Role::Revert(commit) => Some(*commit),
        Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Certify | Role::Overruled => {
            None
        }
    }
}
