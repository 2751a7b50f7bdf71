//! What artifacts the farm knows, which of them open jobs need, and what it forgets with those that go.

use super::Farm;
use super::action::{Action, Answer};
use super::event::ArtifactsEvent;
use super::fact::Fact;
use super::item::{ItemKey, Work};
use super::jobs::JobState;
use crate::access::Principal;
use crate::artifact::Artifact;
use crate::id::{AgentId, Attempt, Digest, JobId};
use crate::outcome::{Build, BuildOutcome, Product, ReproducerOutcome};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What an artifact is to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// As a job was submitted with it.
    Reproducer,
    /// Compiled.
    Executable,
    Kernel,
    Vmlinux,
    KernelConfig,
    BuildLog,
    Console,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Reproducer => "reproducer",
            Content::Executable => "executable",
            Content::Kernel => "kernel",
            Content::Vmlinux => "vmlinux",
            Content::KernelConfig => "config",
            Content::BuildLog => "build log",
            Content::Console => "console",
        })
    }
}

/// An artifact that facts name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub artifact: Artifact,
    pub content: Content,
    /// Open jobs that need it.
    pub needed_by: BTreeSet<JobId>,
}

/// Artifacts that what was yielded consists of.
pub fn of_product(product: &Product) -> Vec<(Content, Artifact)> {
    match product {
        Product::Toolchain(_) | Product::Maintainers(_) => Vec::new(),
        Product::Reproducer(ReproducerOutcome::Ready(executable)) => {
            vec![(Content::Executable, *executable)]
        }
        Product::Reproducer(ReproducerOutcome::Failed { .. }) => Vec::new(),
        Product::Build(Build { outcome, log, .. }) => {
            let kernel = match outcome {
                BuildOutcome::Built(kernel) => vec![
                    (Content::Kernel, kernel.image),
                    (Content::Vmlinux, kernel.vmlinux),
                    (Content::KernelConfig, kernel.config),
                ],
                BuildOutcome::Failed { .. } => Vec::new(),
            };
            kernel.into_iter().chain([(Content::BuildLog, *log)]).collect()
        }
        Product::Run(run) => vec![(Content::Console, run.console)],
    }
}

/// What whoever does the work has to fetch.
pub fn of_work(work: &Work) -> Vec<(Content, Artifact)> {
    match work {
        Work::Toolchain { .. } | Work::Maintainers(_) | Work::Build(_) => Vec::new(),
        Work::Reproducer { source, .. } => vec![(Content::Reproducer, *source)],
        Work::Run(run) => vec![(Content::Kernel, run.kernel), (Content::Executable, run.executable)],
    }
}

impl Farm {
    /// Everything that the journal's facts name, by digest.
    pub fn known_artifacts(&self) -> BTreeMap<Digest, Known> {
        let mut known = BTreeMap::new();
        let mut note = |content, artifact: Artifact, job: Option<&JobId>| {
            let fresh = || Known { artifact, content, needed_by: BTreeSet::new() };
            let entry = known.entry(artifact.digest).or_insert_with(fresh);
            entry.needed_by.extend(job.cloned());
        };
        for product in self.products.values() {
            of_product(product).into_iter().for_each(|(content, it)| note(content, it, None));
        }
        for job in self.jobs.values() {
            note(Content::Reproducer, job.reproducer, job.is_open().then_some(&job.id));
        }
        for job in self.jobs.values().filter(|job| job.is_open()) {
            let own = self.reproducer_key(job);
            for product in items_of(job).into_iter().chain(&own).filter_map(|key| self.products.get(key)) {
                of_product(product).into_iter().for_each(|(content, it)| note(content, it, Some(&job.id)));
            }
        }
        // What a search had made it may come back to, also where it has not said so since a restart.
        if let Some(oldest) = self.jobs.values().filter(|job| job.is_open()).min_by_key(|job| job.number) {
            let since = |key: &ItemKey| self.yielded.get(key).is_some_and(|at| *at >= oldest.number);
            for (_, product) in self.products.iter().filter(|(key, _)| since(key)) {
                of_product(product).into_iter().for_each(|(content, it)| note(content, it, Some(&oldest.id)));
            }
        }
        for (_, item) in self.items.all() {
            for job in &item.wanted_by {
                of_work(&item.work).into_iter().for_each(|(content, it)| note(content, it, Some(job)));
            }
        }
        known
    }

    /// What an agent has to fetch for an attempt that it holds; `None` where it does not hold it.
    pub fn artifacts_for(&self, agent: &AgentId, attempt: Attempt) -> Option<Vec<Artifact>> {
        let (_, item, _) = self.items.held_by(agent).find(|(_, _, lease)| lease.attempt == attempt)?;
        Some(of_work(&item.work).into_iter().map(|(_, artifact)| artifact).collect())
    }

    pub(super) fn artifacts(&mut self, now: Timestamp, event: ArtifactsEvent, actions: &mut Vec<Action>) {
        let (gone, by) = match event {
            ArtifactsEvent::Lost(digests) => (digests, Principal::Local),
            ArtifactsEvent::ToRemove { digests, by } => (self.not_needed(digests), by),
        };
        let items = self.resting_on(&gone);
        if !items.is_empty() {
            actions.push(Action::Record(Fact::ProductsForgotten { at: now, items: items.clone(), by }));
            self.forget_products(&items);
        }
        actions.push(Action::Answer(Answer::Gone(gone)));
    }

    /// Takes back what was yielded; whoever wants it again has it made again.
    pub(super) fn forget_products(&mut self, items: &[ItemKey]) {
        for key in items {
            self.products.remove(key);
            self.yielded.remove(key);
        }
        self.touch_open_jobs();
    }

    fn not_needed(&self, digests: BTreeSet<Digest>) -> BTreeSet<Digest> {
        let known = self.known_artifacts();
        let is_needed = |digest: &Digest| known.get(digest).is_some_and(|it| !it.needed_by.is_empty());
        let held: BTreeSet<Digest> =
            self.items.all().flat_map(|(_, item)| of_work(&item.work)).map(|(_, it)| it.digest).collect();
        digests.into_iter().filter(|digest| !is_needed(digest) && !held.contains(digest)).collect()
    }

    /// Products that are of no use without these: what was seen stays known without its console, but a kernel
    /// that is not there cannot be booted.
    fn resting_on(&self, digests: &BTreeSet<Digest>) -> Vec<ItemKey> {
        let needs = |content| match content {
            Content::Executable | Content::Kernel | Content::Vmlinux => true,
            Content::Reproducer | Content::KernelConfig | Content::BuildLog | Content::Console => false,
        };
        let rests = |product: &Product| {
            of_product(product).iter().any(|(content, it)| needs(*content) && digests.contains(&it.digest))
        };
        let resting = self.products.iter().filter(|(_, product)| rests(product));
        let mut items: Vec<ItemKey> = resting.map(|(key, _)| key.clone()).collect();
        items.sort();
        items
    }
}

/// Every item that a job has to do with.
fn items_of(job: &JobState) -> BTreeSet<&ItemKey> {
    let judged = job.judged.iter().flat_map(|judged| judged.build.iter().chain(&judged.runs));
    let settled = job.settled.iter().flat_map(|settled| &settled.configured.items);
    let recorded = job.recorded.iter().map(|(_, key)| key);
    job.wants.iter().chain(judged).chain(settled).chain(recorded).chain(&job.config_items).collect()
}
