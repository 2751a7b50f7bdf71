//! The way of a job: resolve, prepare, search, report. One function per stage.

use super::Farm;
use super::action::{Action, Answer};
use super::event::{Described, Trouble};
use super::fact::{Fact, JobEnd, Judged, Resolution};
use super::item::{BuildWork, Item, ItemKey, RunWork, State, Work};
use crate::artifact::Artifact;
use crate::bisect::{Bisection, Candidate, Evidence, Finding, Question, Role, Step};
use crate::history::{History, Revision};
use crate::id::{JobId, RevisionId};
use crate::job::{Job, Mode, ReproducerKind, ToolchainChoice};
use crate::outcome::{BuildOutcome, Product, ReproducerOutcome, ToolchainFacts};
use crate::report::{Ending, Record};
use crate::signature;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

pub(super) struct JobState {
    pub id: JobId,
    /// Order of submission.
    pub number: u64,
    pub job: Job,
    pub reproducer: Artifact,
    pub submitted: Timestamp,
    pub stage: Stage,
    pub resolution: Option<Resolution>,
    pub bisection: Option<Bisection>,
    /// Revisions outside the range whose trees were asked for.
    pub identified: BTreeMap<RevisionId, Option<Revision>>,
    pub candidates: Vec<Candidate>,
    pub wants: BTreeSet<ItemKey>,
    /// Evidence given to the bisection, once each.
    pub recorded: BTreeSet<(RevisionId, ItemKey)>,
    pub unavailable: BTreeMap<RevisionId, String>,
    /// Judgements of the bisection already seen.
    pub judgements_seen: usize,
    pub judged: Vec<Judged>,
}

pub(super) enum Stage {
    Resolving,
    Preparing,
    LoadingHistory,
    Searching { certifying: bool },
    Describing(Box<Finding>),
    Ended(Box<super::view::EndedJob>),
}

impl JobState {
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }
}

/// What a look at one candidate came to.
enum Pursuit {
    /// New evidence was recorded: ask the bisection again.
    Learned,
    /// Its items are in the queue or in hand.
    Waiting,
}

impl Farm {
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        request: String,
        job: Job,
        reproducer: Artifact,
        actions: &mut Vec<Action>,
    ) {
        if let Some(id) = self.requests.get(&request) {
            let answer = Answer::Submitted { job: id.clone(), created: false };
            return actions.push(Action::Answer(answer));
        }
        let id: JobId = (self.submissions + 1).to_string().parse().expect("a number is a job id");
        let fact = Fact::JobSubmitted {
            id: id.clone(),
            request: request.clone(),
            at: now,
            job: Box::new(job.clone()),
            reproducer,
        };
        actions.push(Action::Record(fact));
        actions.push(Action::Answer(Answer::Submitted { job: id.clone(), created: true }));
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
            job,
            reproducer,
            submitted: at,
            stage: Stage::Resolving,
            resolution: None,
            bisection: None,
            identified: BTreeMap::new(),
            candidates: Vec::new(),
            wants: BTreeSet::new(),
            recorded: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            judgements_seen: 0,
            judged: Vec::new(),
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
            Err(trouble) => self.end(now, id, trouble.into(), None, actions),
        }
    }

    pub(super) fn set_resolution(&mut self, id: &JobId, resolution: Resolution) {
        let Some(state) = self.jobs.get_mut(id) else { return };
        let releases = resolution.releases.iter().map(|release| (release.tag.clone(), release.revision.id));
        state.bisection = Some(Bisection::new(Question {
            mode: state.job.mode,
            target: state.job.target.clone(),
            runs: state.job.runs.clone(),
            bad: resolution.bad.id,
            good: resolution.good.as_ref().map(|good| good.id),
            releases: releases.collect(),
        }));
        state.resolution = Some(resolution);
        state.stage = Stage::Preparing;
        self.dirty.insert(id.clone());
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
            Err(trouble) => self.end(now, id, trouble.into(), None, actions),
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
            Err(trouble) => self.end(now, id, trouble.into(), None, actions),
        }
    }

    pub(super) fn described(
        &mut self,
        now: Timestamp,
        id: &JobId,
        result: Result<Option<Described>, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.jobs.get(id) else { return };
        let Stage::Describing(finding) = &state.stage else { return };
        let finding = (**finding).clone();
        // The finding stands even where its description could not be had.
        self.end(now, id, JobEnd::Found(finding), result.ok().flatten(), actions);
    }

    pub(super) fn cancel(&mut self, now: Timestamp, id: &JobId, actions: &mut Vec<Action>) {
        let answer = match self.jobs.get(id).map(JobState::is_open) {
            None => Answer::UnknownJob,
            Some(false) => Answer::AlreadyEnded,
            Some(true) => {
                self.end(now, id, JobEnd::Cancelled, None, actions);
                Answer::Cancelled
            }
        };
        actions.push(Action::Answer(answer));
    }

    /// Takes every job that something has changed for as far as it goes.
    pub(super) fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some(id) = self.dirty.pop_first() {
            let Some(mut state) = self.jobs.remove(&id) else { continue };
            let ending = match state.stage {
                Stage::Preparing | Stage::Searching { .. } => self.advance_job(&mut state, actions),
                Stage::Resolving | Stage::LoadingHistory | Stage::Describing(_) | Stage::Ended(_) => None,
            };
            self.jobs.insert(id.clone(), state);
            if let Some(end) = ending {
                self.end(now, &id, end, None, actions);
            }
        }
    }

    /// One job, as far as it goes; an ending when it has come to one that needs no describing.
    fn advance_job(&mut self, state: &mut JobState, actions: &mut Vec<Action>) -> Option<JobEnd> {
        let mut wants = Wants::default();
        let ended = self.advance_search(state, &mut wants, actions);
        let keep = ended.is_none() && !matches!(state.stage, Stage::Describing(_));
        self.set_wants(state, if keep { wants } else { Wants::default() });
        ended
    }

    fn advance_search(
        &mut self,
        state: &mut JobState,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Option<JobEnd> {
        let executable = match self.executable(state, wants) {
            Ok(executable) => executable,
            Err(end) => return end,
        };
        if matches!(state.stage, Stage::Preparing) {
            state.stage = Stage::Searching { certifying: false };
        }
        let width = self.width();
        loop {
            let mut bisection = state.bisection.take().expect("a searching job has a bisection");
            let step = bisection.next_step(width);
            state.bisection = Some(bisection);
            self.see_judgements(state, actions);
            let candidates = match step {
                Step::Evaluate(candidates) | Step::Certify(candidates) if candidates.is_empty() => {
                    let by = "the search asks for nothing and has not ended: a bug of kulprit".into();
                    return Some(JobEnd::Found(Finding::Blocked { by }));
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
                Step::Done(finding) => return self.found(state, finding, actions),
            };
            wants.items.clear();
            let mut learned = false;
            for candidate in &candidates {
                match self.pursue(state, candidate, &executable, wants, actions) {
                    Ok(Pursuit::Learned) => learned = true,
                    Ok(Pursuit::Waiting) => {}
                    Err(end) => return Some(end),
                }
            }
            state.candidates = candidates;
            if !learned {
                return None;
            }
        }
    }

    /// Free width shared among the jobs that search.
    fn width(&self) -> NonZeroUsize {
        let open = self.jobs.values().filter(|job| matches!(job.stage, Stage::Searching { .. })).count();
        // The job being advanced is out of the map for the while.
        NonZeroUsize::new(self.slots().div_ceil(open + 1)).unwrap_or(NonZeroUsize::MIN)
    }

    /// The toolchain and the reproducer, or what to wait for, or why the job ends.
    fn executable(&self, state: &JobState, wants: &mut Wants) -> Result<Artifact, Option<JobEnd>> {
        let resolution = state.resolution.as_ref().ok_or(None)?;
        let facts = self.toolchain(state, &resolution.bad, wants)?.clone();
        if state.job.reproducer.kind != ReproducerKind::CSource {
            return Ok(state.reproducer);
        }
        let key = ItemKey::Reproducer(signature::reproducer_key(&state.job.reproducer, &facts.image_id));
        match self.products.get(&key) {
            Some(Product::Reproducer(ReproducerOutcome::Ready(artifact))) => Ok(*artifact),
            Some(Product::Reproducer(ReproducerOutcome::Failed { message })) => Err(Some(JobEnd::Invalid {
                field: "reproducer.c_source".into(),
                message: format!("{} does not compile: {message}", state.job.reproducer.name),
            })),
            Some(_) | None => {
                self.check_quarantine(&key)?;
                let work = Work::Reproducer {
                    reproducer: state.job.reproducer.clone(),
                    source: state.reproducer,
                    image_id: facts.image_id,
                };
                wants.add(key, work, format!("job {} reproducer", state.id));
                Err(None)
            }
        }
    }

    fn check_quarantine(&self, key: &ItemKey) -> Result<(), Option<JobEnd>> {
        match self.items.get(key).map(|item| &item.state) {
            Some(State::Quarantined(reason)) => {
                let by = format!("{key}: {reason}");
                Err(Some(JobEnd::Found(Finding::Blocked { by })))
            }
            Some(State::Ready | State::Leased(_)) | None => Ok(()),
        }
    }

    /// The image for a revision: the job's own, or the rules' for the range's older end, so
    /// that it never changes across a deciding pair; before a range is known, for the
    /// revision's own age.
    fn image(&self, state: &JobState, revision: &Revision) -> Option<String> {
        match &state.job.toolchain {
            ToolchainChoice::Image(image) => Some(image.clone()),
            ToolchainChoice::Auto => {
                let resolution = state.resolution.as_ref()?;
                let older = match (state.job.mode, &resolution.good) {
                    (Mode::Fix, _) => Some(&resolution.bad),
                    (Mode::Cause, Some(good)) => Some(good),
                    (Mode::Cause, None) => None,
                };
                let in_range = || {
                    let first = state.bisection.as_ref()?.history()?.commits().first()?;
                    let good = first.outside.first()?;
                    resolution.releases.iter().find(|release| release.revision.id == *good)
                };
                let release = match older {
                    Some(older) => older.release,
                    None => in_range().map_or(revision.release, |tag| Some(tag.release)),
                };
                self.config.rules.choose(release).map(str::to_owned)
            }
        }
    }

    fn toolchain(
        &self,
        state: &JobState,
        revision: &Revision,
        wants: &mut Wants,
    ) -> Result<&ToolchainFacts, Option<JobEnd>> {
        let Some(image) = self.image(state, revision) else {
            let message = format!("no rule serves revisions as old as {}; name an image", revision.id);
            return Err(Some(JobEnd::Invalid { field: "toolchain".into(), message }));
        };
        let key = ItemKey::Toolchain(image.clone());
        if let Some(Product::Toolchain(facts)) = self.products.get(&key) {
            return Ok(facts);
        }
        self.check_quarantine(&key)?;
        wants.add(key, Work::Toolchain { image }, format!("job {} toolchain", state.id));
        Err(None)
    }

    /// What is known of a revision, wherever it stands.
    pub(super) fn revision(state: &JobState, id: &RevisionId) -> Option<Revision> {
        let resolution = state.resolution.as_ref()?;
        let ends = std::iter::once(&resolution.bad)
            .chain(&resolution.good)
            .chain(resolution.releases.iter().map(|release| &release.revision));
        let known = ends.chain(state.identified.values().flatten()).find(|revision| revision.id == *id);
        known.cloned().or_else(|| {
            let history = state.bisection.as_ref()?.history()?;
            let commit = history.commit(history.find(id)?);
            let (id, tree, subject) = (commit.id, commit.tree, commit.subject.clone());
            Some(Revision { id, tree, subject, release: resolution.bad.release })
        })
    }

    /// Gives the bisection what is known of a candidate, and queues what is not.
    fn pursue(
        &mut self,
        state: &mut JobState,
        candidate: &Candidate,
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Result<Pursuit, JobEnd> {
        let id = candidate.revision;
        let Some(revision) = Self::revision(state, &id) else {
            if let std::collections::btree_map::Entry::Vacant(entry) = state.identified.entry(id) {
                entry.insert(None);
                let repository = state.job.repository.clone();
                actions.push(Action::Identify { job: state.id.clone(), repository, revision: id });
            }
            return Ok(Pursuit::Waiting);
        };
        let facts = match self.toolchain(state, &revision, wants) {
            Ok(facts) => facts.clone(),
            Err(None) => return Ok(Pursuit::Waiting),
            Err(Some(end)) => return Err(end),
        };
        let title = format!("job {} {} {}", state.id, id.short(), revision.subject);
        let build = ItemKey::Build(signature::build_key(&revision.tree, &state.job.kernel, &facts.image_id));
        let Some(product) = self.products.get(&build) else {
            let work = BuildWork {
                repository: state.job.repository.clone(),
                revision: id,
                tree: revision.tree,
                kernel: state.job.kernel.clone(),
                image_id: facts.image_id,
                timeout_s: state.job.timeouts.build_s,
            };
            return Ok(self.want_or_give_up(state, id, build, Work::Build(work), title, wants));
        };
        let Product::Build(product) = product else {
            return Ok(Pursuit::Waiting);
        };
        let (kernel, evidence) = match &product.outcome {
            BuildOutcome::Built(kernel) => {
                (Some(kernel.clone()), Evidence::Built { revision: id, fingerprint: kernel.fingerprint })
            }
            BuildOutcome::Failed { message } => {
                (None, Evidence::BuildFailed { revision: id, message: message.clone() })
            }
        };
        let mut learned = record_once(state, id, build, evidence);
        let Some(kernel) = kernel else {
            return Ok(if learned { Pursuit::Learned } else { Pursuit::Waiting });
        };
        let job = &state.job;
        let runs = signature::runs_key(
            &kernel.fingerprint,
            &executable.digest,
            &job.reproducer.args,
            &job.machine,
            &job.timeouts,
        );
        let work = RunWork {
            kernel: kernel.image,
            executable: *executable,
            kind: job.reproducer.kind,
            args: job.reproducer.args.clone(),
            machine: job.machine.clone(),
            timeouts: job.timeouts.clone(),
        };
        for index in 0..candidate.runs {
            let key = ItemKey::Run(runs, index);
            let pursuit = match self.products.get(&key) {
                Some(Product::Run(run)) => {
                    let outcome = run.outcome.clone();
                    learned |= record_once(state, id, key, Evidence::Run { revision: id, index, outcome });
                    continue;
                }
                Some(_) | None => {
                    let title = format!("{title} run {index}");
                    self.want_or_give_up(state, id, key, Work::Run(work.clone()), title, wants)
                }
            };
            learned |= matches!(pursuit, Pursuit::Learned);
        }
        Ok(if learned { Pursuit::Learned } else { Pursuit::Waiting })
    }

    fn want_or_give_up(
        &self,
        state: &mut JobState,
        revision: RevisionId,
        key: ItemKey,
        work: Work,
        title: String,
        wants: &mut Wants,
    ) -> Pursuit {
        let given_up = match self.items.get(&key).map(|item| &item.state) {
            Some(State::Quarantined(reason)) => Some(reason.clone()),
            Some(State::Ready | State::Leased(_)) | None => None,
        };
        // A quarantined item stays wanted, so that the farm remembers it until the job ends.
        wants.add(key.clone(), work, title);
        let Some(reason) = given_up else { return Pursuit::Waiting };
        state.unavailable.entry(revision).or_insert_with(|| reason.clone());
        if record_once(state, revision, key, Evidence::Unavailable { revision, reason }) {
            Pursuit::Learned
        } else {
            Pursuit::Waiting
        }
    }

    /// Turns new judgements into facts; one that a restored job already has is not new.
    fn see_judgements(&self, state: &mut JobState, actions: &mut Vec<Action>) {
        let Some(bisection) = &state.bisection else { return };
        let new = bisection.judgements()[state.judgements_seen..].to_vec();
        state.judgements_seen += new.len();
        for judgement in new {
            let known = state.judged.iter().any(|judged| {
                judged.judgement.revision == judgement.revision
                    && judged.judgement.verdict == judgement.verdict
                    && judged.judgement.role == judgement.role
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
            let build = builds.into_iter().find(|key| matches!(key, ItemKey::Build(_)));
            let judged = Judged {
                subject: Self::revision(state, &id).map(|revision| revision.subject).unwrap_or_default(),
                build,
                runs: runs.into_iter().filter(|key| self.products.contains_key(key)).collect(),
                unavailable: state.unavailable.get(&id).cloned(),
                judgement,
            };
            actions.push(Action::Record(Fact::Judged { id: state.id.clone(), judged: judged.clone() }));
            state.judged.push(judged);
        }
    }

    fn found(&self, state: &mut JobState, finding: Finding, actions: &mut Vec<Action>) -> Option<JobEnd> {
        if let Finding::Culprit { revision, .. } = &finding {
            let (job, repository) = (state.id.clone(), state.job.repository.clone());
            actions.push(Action::Describe { job, repository, revision: *revision });
            state.stage = Stage::Describing(Box::new(finding));
            return None;
        }
        Some(JobEnd::Found(finding))
    }

    /// Ends a job: renders what people read, records it, lets its items go.
    fn end(
        &mut self,
        now: Timestamp,
        id: &JobId,
        end: JobEnd,
        described: Option<Described>,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut state) = self.jobs.remove(id) else { return };
        let ended = self.render_end(now, &state, &end, described);
        actions.push(Action::Record(Fact::JobEnded {
            id: id.clone(),
            at: now,
            end: ended.end.clone(),
            rendered: Box::new(ended.rendered.clone()),
        }));
        self.set_wants(&mut state, Wants::default());
        state.stage = Stage::Ended(Box::new(ended));
        state.bisection = None;
        state.recorded.clear();
        self.jobs.insert(id.clone(), state);
        self.touch_open_jobs();
    }

    /// Machine time of what was judged: builds, runs.
    pub(super) fn machine_time(&self, state: &JobState) -> (Duration, Duration) {
        let keys: BTreeSet<&ItemKey> =
            state.judged.iter().flat_map(|judged| judged.build.iter().chain(&judged.runs)).collect();
        let (mut build, mut test) = (0, 0);
        for product in keys.into_iter().filter_map(|key| self.products.get(key)) {
            match product {
                Product::Build(product) => build += product.duration_ms,
                Product::Run(product) => test += product.duration_ms,
                Product::Toolchain(_) | Product::Reproducer(_) => {}
            }
        }
        (Duration::from_millis(build), Duration::from_millis(test))
    }

    /// Makes the queue hold what the job wants and nothing it no longer wants. What an agent
    /// has in hand stays known until the agent has let go of it.
    fn set_wants(&mut self, state: &mut JobState, wants: Wants) {
        for key in std::mem::take(&mut state.wants) {
            if wants.items.contains_key(&key) {
                continue;
            }
            let Some(item) = self.items.get_mut(&key) else { continue };
            item.wanted_by.remove(&state.id);
            if item.wanted_by.is_empty() && !matches!(item.state, State::Leased(_)) {
                self.items.remove(&key);
            }
        }
        for (key, (work, title)) in wants.items {
            if self.products.contains_key(&key) {
                continue;
            }
            state.wants.insert(key.clone());
            let claim = self.claims.remove(&key);
            let number = self.items_made;
            let item = self.items.entry(key).or_insert_with(|| Item {
                work,
                title,
                wanted_by: BTreeSet::new(),
                state: claim.map_or(State::Ready, State::Leased),
                failures: Vec::new(),
                number,
            });
            self.items_made += 1;
            item.wanted_by.insert(state.id.clone());
        }
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
            ending,
        })
    }
}

/// Gives the bisection a piece of evidence, once; says whether it was new.
fn record_once(state: &mut JobState, revision: RevisionId, key: ItemKey, evidence: Evidence) -> bool {
    let new = state.recorded.insert((revision, key));
    if new && let Some(bisection) = &mut state.bisection {
        bisection.record(evidence);
    }
    new
}

/// Items a job wants, with what making them takes.
#[derive(Default)]
pub(super) struct Wants {
    items: BTreeMap<ItemKey, (Work, String)>,
}

impl Wants {
    fn add(&mut self, key: ItemKey, work: Work, title: String) {
        self.items.entry(key).or_insert((work, title));
    }
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
    }
}
