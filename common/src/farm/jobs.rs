//! The way of a job: resolve, prepare, search, report. One function per stage.

use super::Farm;
use super::action::{Action, Answer};
use super::breakage::Inherited;
use super::config_work::{Settled, Working};
use super::event::Trouble;
use super::fact::{Fact, JobEnd, Judged, Resolution};
use super::item::ItemKey;
use super::kernels::kernel_of;
use super::pursue::Pursuit;
use super::reporting::{Additions, Ended, Reporting};
use super::trace::Trace;
use super::wants::Wants;
use crate::access::Principal;
use crate::artifact::Artifact;
use crate::bisect::{Bisection, Candidate, Finding, Question, Role, Round, Step};
use crate::config_work::ConfigWork;
use crate::history::{History, Revision, TaggedRelease};
use crate::id::{JobId, RevisionId};
use crate::job::{ConfigBase, Job, KernelBuild, ToolchainChoice};
use crate::outcome::Product;
use crate::patch::Patched;
use crate::report::{Ending, Record, Said};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::time::Duration;

/// Jobs that are taken further between two looks at what has arrived. A search may think for some
/// milliseconds.
const JOBS_AT_ONCE: usize = 8;

pub(super) struct JobState {
    pub id: JobId,
    /// Order of submission.
    pub number: u64,
    pub job: Job,
    /// How all its kernels are configured; as the job has it until the range is known.
    pub kernel: KernelBuild,
    pub reproducer: Artifact,
    pub submitted: Timestamp,
    pub stage: Stage,
    pub resolution: Option<Resolution>,
    pub bisection: Option<Bisection>,
    /// Revisions outside the range whose trees were asked for.
    pub identified: BTreeMap<RevisionId, Option<Revision>>,
    pub trace: Trace,
    /// Kernels that git makes the source of, by name; without an answer while it is asked.
    pub patched: BTreeMap<RevisionId, Option<Result<Patched, String>>>,
    pub inherited: Inherited,
    pub candidates: Vec<Candidate>,
    pub wants: BTreeSet<ItemKey>,
    /// Evidence given to the bisection, once each.
    pub recorded: BTreeSet<(RevisionId, ItemKey)>,
    pub unavailable: BTreeMap<RevisionId, String>,
    /// Judgements of the bisection already seen.
    pub judgements_seen: usize,
    pub judged: Vec<Judged>,
    pub said: Vec<Said>,
    /// The work on its configuration, while it lasts; after a restart it is found again.
    pub config_work: Option<ConfigWork>,
    /// What was made for it so far.
    pub config_items: BTreeSet<ItemKey>,
    pub settled: Option<Settled>,
    /// Rounds of the bisection, each with its place among what was judged.
    pub rounds: Vec<Round>,
}

pub(super) enum Stage {
    Resolving,
    Preparing,
    LoadingHistory,
    Searching { certifying: bool },
    Reporting(Box<Reporting>),
    Ended(Box<super::view::EndedJob>),
}

impl JobState {
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }
}

impl Farm {
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        request: String,
        job: Job,
        reproducer: Artifact,
        by: Principal,
        actions: &mut Vec<Action>,
    ) {
        if let Some(id) = self.requests.get(&request) {
            let answer = Answer::Submitted { job: id.clone(), created: false };
            return actions.push(Action::Answer(answer));
        }
        let job = Job { repairs: job.repairs.or_farms(&self.config.repairs), ..job };
        let id: JobId = (self.submissions + 1).to_string().parse().expect("a number is a job id");
        let fact = Fact::JobSubmitted {
            id: id.clone(),
            request: request.clone(),
            at: now,
            job: Box::new(job.clone()),
            reproducer,
            by,
        };
        actions.push(Action::Record(fact));
        actions.push(Action::Answer(Answer::Submitted { job: id.clone(), created: true }));
        // An image may have been made anew under its name since it was looked into. While
        // another job relies on what was found, it stands.
        if !self.jobs.values().any(JobState::is_open) {
            self.products.retain(|key, _| !matches!(key, ItemKey::Toolchain(_)));
        }
        self.add_job(id.clone(), request, now, job, reproducer);
        actions.extend(self.ask_to_resolve(&id));
    }

    pub(super) fn add_job(
        &mut self,
        id: JobId,
        request: String,
        at: Timestamp,
        job: Job,
        reproducer: Artifact,
    ) {
        self.submissions += 1;
        self.requests.insert(request, id.clone());
        let state = JobState {
            id: id.clone(),
            number: self.submissions,
            kernel: job.kernel.clone(),
            job,
            reproducer,
            submitted: at,
            stage: Stage::Resolving,
            resolution: None,
            bisection: None,
            identified: BTreeMap::new(),
            trace: Trace::Unasked,
            patched: BTreeMap::new(),
            inherited: Inherited::default(),
            candidates: Vec::new(),
            wants: BTreeSet::new(),
            recorded: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            judgements_seen: 0,
            judged: Vec::new(),
            said: Vec::new(),
            config_work: None,
            config_items: BTreeSet::new(),
            settled: None,
            rounds: Vec::new(),
        };
        self.jobs.insert(id, state);
    }

    pub(super) fn ask_to_resolve(&self, id: &JobId) -> Option<Action> {
        let job = &self.jobs.get(id)?.job;
        Some(Action::Resolve {
            job: id.clone(),
            repository: job.repository.clone(),
            bad: job.bad.clone(),
            good: job.good.clone(),
            mode: job.mode,
            backports: job.repairs.backports().to_vec(),
        })
    }

    pub(super) fn resolved(
        &mut self,
        now: Timestamp,
        id: &JobId,
        result: Result<Box<Resolution>, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        if !matches!(self.jobs.get(id), Some(JobState { stage: Stage::Resolving, .. })) {
            return;
        }
        match result {
            Ok(resolution) => {
                actions.push(Action::Record(Fact::JobResolved {
                    id: id.clone(),
                    resolution: resolution.clone(),
                }));
                self.set_resolution(id, *resolution);
            }
            Err(trouble) => self.end(now, id, (trouble.into(), Additions::default()), actions),
        }
    }

    pub(super) fn set_resolution(&mut self, id: &JobId, resolution: Resolution) {
        let Some(mut state) = self.jobs.remove(id) else { return };
        self.begin(&mut state, resolution);
        self.jobs.insert(id.clone(), state);
        self.dirty.insert(id.clone());
    }

    /// Begins the search anew; what was built and run is found again.
    pub(super) fn begin_anew(&self, state: &mut JobState) {
        state.recorded.clear();
        // What was refused has to be told to the new search too.
        state.unavailable.clear();
        state.candidates.clear();
        state.judgements_seen = 0;
        state.trace = Trace::Unasked;
        state.inherited = Inherited::default();
        if let Some(resolution) = state.resolution.clone() {
            self.begin(state, resolution);
        }
    }

    fn begin(&self, state: &mut JobState, resolution: Resolution) {
        // What no toolchain can build is no end to be found.
        let served = |release: &&TaggedRelease| {
            state.job.toolchain != ToolchainChoice::Auto
                || self.config.rules.choose(Some(release.release)).is_some()
        };
        let releases = resolution.releases.iter().filter(served);
        let releases = releases.map(|release| (release.tag.clone(), release.revision.id));
        let symptom = state.job.symptom;
        let settled = state.settled.as_ref().map(|settled| &settled.configured);
        let mut bisection = Bisection::new(Question {
            mode: state.job.mode,
            target: symptom.target(settled.map(|it| it.title.as_str()).or(state.job.target.as_deref())),
            runs: symptom.runs(&state.job.runs),
            bad: resolution.bad.id,
            good: resolution.good.as_ref().map(|good| good.id),
            releases: releases.collect(),
        })
        .allow_reverts()
        .assuming(symptom.assumption());
        let mut kernel = kernel_of(&self.config.rules, &resolution, &state.job);
        kernel.fragments.extend(settled.and_then(|it| it.worked.fragment.clone()));
        state.kernel = kernel;
        state.words().into_iter().for_each(|(revision, word)| bisection.overrule(revision, Some(word)));
        state.bisection = Some(bisection);
        state.resolution = Some(resolution);
        state.stage = Stage::Preparing;
    }

    pub(super) fn history_loaded(
        &mut self,
        now: Timestamp,
        id: &JobId,
        result: Result<Box<History>, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.jobs.get_mut(id) else { return };
        if !matches!(state.stage, Stage::LoadingHistory) {
            return;
        }
        match result {
            Ok(history) => {
                if let Some(bisection) = &mut state.bisection {
                    bisection.set_history(*history);
                }
                state.stage = Stage::Searching { certifying: false };
                self.dirty.insert(id.clone());
            }
            Err(trouble) => self.end(now, id, (trouble.into(), Additions::default()), actions),
        }
    }

    pub(super) fn identified(
        &mut self,
        now: Timestamp,
        id: &JobId,
        revision: RevisionId,
        result: Result<Revision, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.jobs.get_mut(id).filter(|state| state.is_open()) else { return };
        match result {
            Ok(found) => {
                state.identified.insert(revision, Some(found));
                self.dirty.insert(id.clone());
            }
            Err(trouble) => self.end(now, id, (trouble.into(), Additions::default()), actions),
        }
    }

    pub(super) fn cancel(&mut self, now: Timestamp, id: &JobId, by: Principal, actions: &mut Vec<Action>) {
        let answer = match self.jobs.get(id).map(JobState::is_open) {
            None => Answer::UnknownJob,
            Some(false) => Answer::AlreadyEnded,
            Some(true) => {
                actions.push(Action::Record(Fact::CancelRequested { id: id.clone(), at: now, by }));
                let ended = Self::cancelled(&self.jobs[id]);
                self.end(now, id, ended, actions);
                Answer::Cancelled
            }
        };
        actions.push(Action::Answer(answer));
    }

    /// Takes jobs that something has changed for as far as they go: some of them, in turns, so that
    /// calls need not wait until all searches of a busy farm have thought.
    pub(super) fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for _ in 0..JOBS_AT_ONCE {
            let after = self.advanced.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.dirty.range((after, Bound::Unbounded)).next().or(self.dirty.first());
            let Some(id) = next.cloned() else { return };
            self.dirty.remove(&id);
            self.advanced = Some(id.clone());
            let Some(mut state) = self.jobs.remove(&id) else { continue };
            let ending = match state.stage {
                Stage::Preparing | Stage::Searching { .. } | Stage::Reporting(_) => {
                    self.advance_job(now, &mut state, actions)
                }
                Stage::Resolving | Stage::LoadingHistory | Stage::Ended(_) => None,
            };
            self.jobs.insert(id.clone(), state);
            if let Some(ended) = ending {
                self.end(now, &id, ended, actions);
            }
        }
    }

    /// One job, as far as it goes; its ending when it has come to one.
    fn advance_job(
        &mut self,
        now: Timestamp,
        state: &mut JobState,
        actions: &mut Vec<Action>,
    ) -> Option<Ended> {
        let mut wants = Wants::default();
        let mut ended = None;
        if !matches!(state.stage, Stage::Reporting(_)) {
            ended = self.advance_search(now, state, &mut wants, actions);
        }
        if matches!(state.stage, Stage::Reporting(_)) {
            wants = Wants::default();
            ended = self.advance_report(now, state, &mut wants);
        }
        if ended.is_none() && matches!(state.stage, Stage::Searching { .. }) {
            self.want_second_looks(state, &mut wants);
        }
        self.set_wants(state, if ended.is_none() { wants } else { Wants::default() });
        ended
    }

    fn advance_search(
        &mut self,
        now: Timestamp,
        state: &mut JobState,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Option<Ended> {
        let plain = |end: JobEnd| Some((end, Additions::default()));
        let executable = match self.executable(state, wants) {
            Ok(executable) => executable,
            Err(end) => return end.and_then(plain),
        };
        if matches!(state.stage, Stage::Preparing) {
            state.stage = Stage::Searching { certifying: false };
        }
        self.inherit(state);
        let width = self.width();
        loop {
            self.see_judgements(state, actions);
            match self.work_on_config(state, &executable, wants, actions) {
                Working::No => {}
                Working::Waiting => return None,
                Working::Renewed => {
                    state.stage = Stage::Searching { certifying: false };
                    continue;
                }
            }
            if self.awaits_trace(now, state, actions) {
                let candidates = Self::in_hand(state);
                match self.pursue_all(state, &candidates, &executable, wants, actions) {
                    Ok(Pursuit::Learned) => continue,
                    Ok(Pursuit::Waiting) => return None,
                    Err(end) => return plain(end),
                }
            }
            let costs = self.costs(state);
            let mut bisection = state.bisection.take().expect("a searching job has a bisection");
            if let Some(costs) = costs {
                bisection.set_costs(costs);
            }
            let step = bisection.next_step(width);
            state.bisection = Some(bisection);
            self.see_judgements(state, actions);
            see_rounds(state, actions);
            let mut candidates = match step {
                Step::Evaluate(candidates) | Step::Certify(candidates) if candidates.is_empty() => {
                    let by = "the search asks for nothing and has not ended: a bug of kulprit".into();
                    return plain(JobEnd::Found(Finding::Blocked { by }));
                }
                Step::Evaluate(candidates) => {
                    state.stage = Stage::Searching { certifying: false };
                    candidates
                }
                Step::Certify(candidates) => {
                    state.stage = Stage::Searching { certifying: true };
                    candidates
                }
                Step::LoadHistory { good, bad } => {
                    state.stage = Stage::LoadingHistory;
                    let repository = state.job.repository.clone();
                    actions.push(Action::LoadHistory { job: state.id.clone(), repository, good, bad });
                    return None;
                }
                Step::Done(finding) => return self.found(now, state, finding, actions),
            };
            // Kernels of other revisions would be built once more with what the work comes to.
            if state.is_unsettled() && candidates.iter().any(|it| it.role == Role::Start) {
                candidates.retain(|candidate| candidate.role == Role::Start);
            }
            let pursuit = self.pursue_all(state, &candidates, &executable, wants, actions);
            if matches!(state.stage, Stage::Searching { certifying: true }) {
                wants.interleave();
            }
            state.candidates = candidates;
            match pursuit {
                Ok(Pursuit::Learned) => {}
                Ok(Pursuit::Waiting) => return None,
                Err(end) => return plain(end),
            }
        }
    }

    /// Makes `wants` what these candidates take, and nothing else.
    fn pursue_all(
        &mut self,
        state: &mut JobState,
        candidates: &[Candidate],
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Result<Pursuit, JobEnd> {
        wants.items.clear();
        let mut learned = false;
        for candidate in candidates {
            let pursuit = self.pursue(state, candidate, executable, wants, actions)?;
            learned |= matches!(pursuit, Pursuit::Learned);
        }
        Ok(if learned { Pursuit::Learned } else { Pursuit::Waiting })
    }

    /// Free width shared among the jobs that search.
    pub(super) fn width(&self) -> NonZeroUsize {
        let open = self.jobs.values().filter(|job| matches!(job.stage, Stage::Searching { .. })).count();
        // The job being advanced is out of the map for the while.
        NonZeroUsize::new(self.slots().div_ceil(open + 1)).unwrap_or(NonZeroUsize::MIN)
    }

    /// Turns new judgements into facts; one that a restored job already has is not new.
    fn see_judgements(&mut self, state: &mut JobState, actions: &mut Vec<Action>) {
        let Some(bisection) = &state.bisection else { return };
        let new = bisection.judgements()[state.judgements_seen..].to_vec();
        state.judgements_seen += new.len();
        for judgement in new {
            let since = state.judged_since(&judgement.revision).max(state.settled_since());
            let known = state.judged[since..].iter().any(|judged| {
                judged.judgement.revision == judgement.revision
                    && judged.judgement.verdict == judgement.verdict
                    && judged.judgement.role == judgement.role
                    && !judged.runs.iter().any(|key| self.noise.is_disowned(key))
            });
            if known {
                continue;
            }
            let id = judgement.revision;
            let items = |state: &JobState| -> Vec<ItemKey> {
                let of = state.recorded.iter().filter(|(revision, _)| *revision == id);
                of.map(|(_, key)| key.clone()).collect()
            };
            let (runs, builds): (Vec<_>, Vec<_>) =
                items(state).into_iter().partition(|key| matches!(key, ItemKey::Run(..)));
            let made = |key: &ItemKey| self.products.contains_key(key);
            let build = builds.into_iter().find(|key| matches!(key, ItemKey::Build(_)) && made(key));
            let given_up = items(state).into_iter().filter(|key| self.given_up_reason(key).is_some());
            let judged = Judged {
                given_up: given_up.collect(),
                subject: Self::subject(state, &judgement.role, &id),
                recipe: self.recipe(state, &judgement.role, &id, build.is_some()),
                build,
                runs: runs.into_iter().filter(made).collect(),
                unavailable: state.unavailable.get(&id).cloned(),
                judgement,
            };
            actions.push(Action::Record(Fact::Judged {
                id: state.id.clone(),
                judged: Box::new(judged.clone()),
            }));
            self.note_breakage(state, &judged);
            state.judged.push(judged);
        }
    }

    /// Machine time of what was judged, and of the work on the configuration: builds, runs.
    pub(super) fn machine_time(&self, state: &JobState) -> (Duration, Duration) {
        let judged = state.judged.iter().flat_map(|judged| judged.build.iter().chain(&judged.runs));
        let worked = state.settled.iter().flat_map(|settled| &settled.configured.items);
        let keys: BTreeSet<&ItemKey> = judged.chain(worked).collect();
        let (mut build, mut test) = (0, 0);
        for product in keys.into_iter().filter_map(|key| self.products.get(key)) {
            match product {
                Product::Build(product) => build += product.duration_ms,
                Product::Run(product) => test += product.duration_ms,
                Product::Toolchain(_) | Product::Reproducer(_) | Product::Maintainers(_) => {}
            }
        }
        (Duration::from_millis(build), Duration::from_millis(test))
    }

    /// Renders with `ending`, or as far as the job has come.
    pub(super) fn with_record<T>(
        &self,
        state: &JobState,
        ending: Option<&Ending>,
        render: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        let tested = self.tested(state);
        let ends = self.ends(state);
        render(&Record {
            id: &state.id,
            job: &state.job,
            host: &self.config.host,
            started: state.submitted,
            ends: ends.as_ref(),
            history: state.bisection.as_ref().and_then(Bisection::history),
            tested: &tested,
            rounds: &state.rounds,
            said: &state.said,
            configured: state.settled.as_ref().map(|settled| &settled.configured.worked),
            ending,
        })
    }
}

/// Turns new rounds into facts.
fn see_rounds(state: &mut JobState, actions: &mut Vec<Action>) {
    let Some(bisection) = &state.bisection else { return };
    for round in &bisection.rounds()[state.rounds.len()..] {
        // After a restart verdicts fall in another order than they were journalled in.
        let round = Round { after: state.judged.len(), ..round.clone() };
        actions.push(Action::Record(Fact::Explained { id: state.id.clone(), round: round.clone() }));
        state.rounds.push(round);
    }
}

/// A bad end that does not build since its Makefile has no such configuration: that is the job
/// file's mistake and not the kernel's.
pub(super) fn no_such_target(config: &ConfigBase, finding: &Finding) -> Option<JobEnd> {
    let (ConfigBase::Target(targets), Finding::BadEndBroken { reason }) = (config, finding) else {
        return None;
    };
    let lacks = |target: &&str| {
        let no_rule = ["'", "`"].map(|quote| format!("No rule to make target {quote}{target}'"));
        // For these names there is a rule, which then finds no file.
        let a_file = target.ends_with("_defconfig") || target.ends_with(".config");
        no_rule.iter().any(|text| reason.contains(text))
            || (a_file && reason.contains(&format!(": {target}] Error ")))
    };
    let target = targets.split_whitespace().find(lacks)?;
    let message = format!("{target:?} is no target of the kernel's Makefile at the bad end");
    Some(JobEnd::Invalid { field: "config.make_target".into(), message })
}

impl From<Trouble> for JobEnd {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Invalid { field, message } => JobEnd::Invalid { field, message },
            Trouble::Failed(by) => JobEnd::Found(Finding::Blocked { by }),
        }
    }
}

/// The word for a role in views and the journal.
pub fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Start => "start",
        Role::GoodEnd => "good-end",
        Role::Release(_) => "release",
        Role::Search => "search",
        Role::Certify => "certify",
        Role::Revert(_) => "revert",
        Role::Overruled => "overruled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_the_makefile_does_not_know_is_the_job_files_mistake() {
        let broken = "it does not build: *** No rule to make target 'no_such_defconfig'.  Stop.";
        let no_file =
            "it does not build: make[2]: *** [scripts/kconfig/Makefile:94: no_such_defconfig] Error 1";
        let own = "it does not build: make[1]: *** [scripts/kconfig/Makefile:94: defconfig] Error 1";
        for (targets, reason, blamed) in [
            ("no_such_defconfig", broken, true),
            ("defconfig no_such_defconfig", broken, true),
            ("defconfig", broken, false),
            ("no_such_defconfig", no_file, true),
            ("defconfig", own, false),
            ("no_such_defconfig", "it does not build: mm/mmap.c:3: error: expected ';'", false),
        ] {
            let finding = Finding::BadEndBroken { reason: reason.into() };
            let end = no_such_target(&ConfigBase::Target(targets.into()), &finding);
            assert_eq!(end.is_some(), blamed, "{targets} {reason}");
        }
    }
}
