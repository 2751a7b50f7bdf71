//! What a job's candidates come to: evidence that is already there is recorded, the rest wanted.

use super::Farm;
use super::action::Action;
use super::census::Purpose;
use super::complete::state_after;
use super::fact::{JobEnd, Resolution};
use super::item::{BuildWork, Item, ItemKey, RunWork, State, Work};
use super::jobs::JobState;
use super::kernels::{Source, Sourced, kernel_name, oldest};
use super::wants::{Making, Want, Wants};
use crate::artifact::Artifact;
use crate::bisect::{Candidate, Evidence, Finding};
use crate::history::Revision;
use crate::id::{Digest, RevisionId};
use crate::job::{Job, KernelBuild, ReproducerKind, Symptom, ToolchainChoice};
use crate::outcome::{BuildOutcome, Kernel, Product, ReproducerOutcome, ToolchainFacts};
use crate::signature;
use std::collections::BTreeSet;

/// What a look at one candidate came to.
pub(super) enum Pursuit {
    /// New evidence was recorded: ask the bisection again.
    Learned,
    /// Its items are in the queue or in hand.
    Waiting,
}

impl Farm {
    /// The toolchain and the reproducer, or what to wait for, or why the job ends.
    pub(super) fn executable(&self, state: &JobState, wants: &mut Wants) -> Result<Artifact, Option<JobEnd>> {
        let facts = self.toolchain(state, wants)?.clone();
        if state.job.reproducer.kind != ReproducerKind::CSource {
            return Ok(state.reproducer);
        }
        let key = reproducer_key(&state.job, &facts);
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

    /// What its reproducer is called, once its toolchain is known.
    pub(super) fn reproducer_key(&self, state: &JobState) -> Option<ItemKey> {
        let facts = self.toolchain(state, &mut Wants::default()).ok()?;
        (state.job.reproducer.kind == ReproducerKind::CSource).then(|| reproducer_key(&state.job, facts))
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

    /// The one image of a job: its own, or the rules' for the oldest revision that it may come
    /// to. A crash may show under one compiler only, so runs under two never stand side by side.
    pub(super) fn image(&self, resolution: &Resolution, job: &Job) -> Result<String, JobEnd> {
        if let ToolchainChoice::Image(image) = &job.toolchain {
            return Ok(image.clone());
        }
        let rules = &self.config.rules;
        let (older, release) = oldest(rules, resolution, job);
        rules.choose(release).map(str::to_owned).ok_or_else(|| {
            let message = format!("no rule serves revisions as old as {}; name an image", older.id);
            JobEnd::Invalid { field: "toolchain".into(), message }
        })
    }

    /// What the job's toolchain is, or what to wait for, or why the job ends.
    pub(super) fn toolchain(
        &self,
        state: &JobState,
        wants: &mut Wants,
    ) -> Result<&ToolchainFacts, Option<JobEnd>> {
        let resolution = state.resolution.as_ref().ok_or(None)?;
        let image = self.image(resolution, &state.job)?;
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
    pub(super) fn pursue(
        &mut self,
        state: &mut JobState,
        candidate: &Candidate,
        executable: &Artifact,
        wants: &mut Wants,
        actions: &mut Vec<Action>,
    ) -> Result<Pursuit, JobEnd> {
        let id = candidate.revision;
        let source = match Self::source(state, candidate, actions) {
            Sourced::Ready(source) => source,
            Sourced::Waiting => return Ok(Pursuit::Waiting),
            Sourced::Refused(reason) => return Ok(refuse(state, id, reason)),
        };
        let facts = match self.toolchain(state, wants) {
            Ok(facts) => facts.clone(),
            Err(None) => return Ok(Pursuit::Waiting),
            Err(Some(end)) => return Err(end),
        };
        let title = format!("job {} {} {}", state.id, kernel_name(&candidate.role, &id), source.subject);
        let digest = signature::build_key(&source.tree, &state.kernel, &facts.image_id);
        let build = ItemKey::Build(digest);
        let Some(product) = self.products.get(&build) else {
            let (kernel, image) = (state.kernel.clone(), facts.image_id);
            let work = |job: &Job| (Work::Build(Self::build_work(job, source, kernel, image)), title);
            return Ok(self.want_or_give_up(state, id, build, work, wants));
        };
        let Product::Build(product) = product else {
            return Ok(Pursuit::Waiting);
        };
        let symptom = state.job.symptom;
        let evidence = symptom.of_build(id, &digest, &product.outcome, candidate.runs);
        let kernel = match &product.outcome {
            BuildOutcome::Built(kernel) if symptom != Symptom::Build => Some(kernel.clone()),
            BuildOutcome::Built(_) | BuildOutcome::Failed { .. } => None,
        };
        let mut learned = record_once(state, id, build, evidence.clone());
        if symptom == Symptom::Build && candidate.runs > 1 {
            let more = ItemKey::Run(digest, candidate.runs);
            learned |= record_once(state, id, more, evidence);
        }
        let Some(kernel) = kernel else {
            return Ok(if learned { Pursuit::Learned } else { Pursuit::Waiting });
        };
        let (runs, work) = Self::run_work(state, &kernel, executable);
        for index in 0..candidate.runs {
            let key = self.noise.standing(ItemKey::Run(runs, index));
            let pursuit = match self.products.get(&key) {
                Some(Product::Run(run)) => {
                    let outcome = symptom.of_run(&run.outcome);
                    let evidence = vec![Evidence::Run { revision: id, index, outcome }];
                    learned |= record_once(state, id, key, evidence);
                    continue;
                }
                Some(_) | None => {
                    let work = |_: &Job| (Work::Run(work.clone()), format!("{title} run {index}"));
                    self.want_or_give_up(state, id, key, work, wants)
                }
            };
            learned |= matches!(pursuit, Pursuit::Learned);
        }
        Ok(if learned { Pursuit::Learned } else { Pursuit::Waiting })
    }

    pub(super) fn build_work(job: &Job, source: Source, kernel: KernelBuild, image_id: String) -> BuildWork {
        BuildWork {
            repository: job.repository.clone(),
            revision: source.revision,
            patches: source.patches,
            tree: source.tree,
            kernel,
            image_id,
            timeout_s: job.timeouts.build_s,
        }
    }

    /// What a run of a kernel takes, and the key of all such runs.
    pub(super) fn run_work(state: &JobState, kernel: &Kernel, executable: &Artifact) -> (Digest, RunWork) {
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
            build_id: kernel.build_id.clone(),
            executable: *executable,
            kind: job.reproducer.kind,
            args: job.reproducer.args.clone(),
            machine: job.machine.clone(),
            timeouts: job.timeouts.clone(),
        };
        (runs, work)
    }

    fn want_or_give_up(
        &self,
        state: &mut JobState,
        revision: RevisionId,
        key: ItemKey,
        work: impl FnOnce(&Job) -> (Work, String),
        wants: &mut Wants,
    ) -> Pursuit {
        let given_up = match self.items.get(&key).map(|item| &item.state) {
            Some(State::Quarantined(reason)) => Some(reason.clone()),
            Some(State::Ready | State::Leased(_)) => {
                wants.keep(key);
                return Pursuit::Waiting;
            }
            None => None,
        };
        // A quarantined item stays wanted, so that the farm remembers it until the job ends.
        let (work, title) = work(&state.job);
        wants.add_for(revision, key.clone(), work, title);
        let Some(reason) = given_up else { return Pursuit::Waiting };
        state.unavailable.entry(revision).or_insert_with(|| reason.clone());
        if record_once(state, revision, key, vec![Evidence::Unavailable { revision, reason }]) {
            Pursuit::Learned
        } else {
            Pursuit::Waiting
        }
    }

    /// Makes the queue hold what the job wants and nothing it no longer wants. What an agent
    /// has in hand stays known until the agent has let go of it.
    pub(super) fn set_wants(&mut self, state: &mut JobState, wants: Wants) {
        let before = std::mem::take(&mut state.wants);
        for key in before.iter().filter(|key| !wants.items.contains_key(key)) {
            self.items.change(key, |item| _ = item.wanted_by.remove(&state.id));
        }
        for (key, Want { making, spread, .. }) in wants.in_order() {
            match (self.items.get(&key), making) {
                (Some(known), _) => {
                    if !known.wanted_by.contains(&state.id) {
                        self.items.change(&key, |item| _ = item.wanted_by.insert(state.id.clone()));
                    }
                }
                (None, Some(_)) if self.products.contains_key(&key) => continue,
                (None, Some(making)) => self.queue(state, key.clone(), making, spread),
                // It left the queue meanwhile: the next look asks for it with all it takes.
                (None, None) => {
                    self.dirty.insert(state.id.clone());
                    continue;
                }
            }
            state.wants.insert(key);
        }
    }

    /// Puts an item in the queue that was not there.
    fn queue(&mut self, state: &JobState, key: ItemKey, making: Making, spread: bool) {
        let Making { work, title, revision } = making;
        let claim = self.claims.remove(&key);
        let failures = self.failures.get(&key).cloned().unwrap_or_default();
        let number = self.items_made;
        self.items_made += 1;
        let item = Item {
            work,
            title,
            wanted_by: BTreeSet::from([state.id.clone()]),
            purpose: Purpose { job: state.id.clone(), revision },
            made: self.handled,
            ready_since: self.handled,
            state: match (state_after(&failures, &self.config), claim) {
                (State::Ready, Some(claim)) => State::Leased(claim),
                (state, _) => state,
            },
            failures,
            number,
            spread,
        };
        // It was given up before it was asked for: the job has to hear of that.
        if matches!(item.state, State::Quarantined(_)) {
            self.dirty.insert(state.id.clone());
        }
        self.items.put(key, item);
    }
}

fn reproducer_key(job: &Job, facts: &ToolchainFacts) -> ItemKey {
    ItemKey::Reproducer(signature::reproducer_key(&job.reproducer, &facts.image_id))
}

/// Tells the bisection, once, that there will be no kernel of this name.
fn refuse(state: &mut JobState, revision: RevisionId, reason: String) -> Pursuit {
    if state.unavailable.insert(revision, reason.clone()).is_some() {
        return Pursuit::Waiting;
    }
    if let Some(bisection) = &mut state.bisection {
        bisection.record(Evidence::Unavailable { revision, reason });
    }
    Pursuit::Learned
}

/// Gives the bisection what an item says, once; says whether it was new.
fn record_once(state: &mut JobState, revision: RevisionId, key: ItemKey, evidence: Vec<Evidence>) -> bool {
    let new = state.recorded.insert((revision, key));
    if new && let Some(bisection) = &mut state.bisection {
        evidence.into_iter().for_each(|evidence| bisection.record(evidence));
    }
    new
}
