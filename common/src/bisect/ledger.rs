//! All evidence so far, kept so that neither its order nor repetition matters, and counted
//! against the target by kernel: revisions with one fingerprint share their runs.

use super::titles::{Title, Titles};
use super::{Counts, Evidence};
use crate::crash::{self, Match, Target};
use crate::id::{Digest, RevisionId};
use crate::outcome::{Outcome, Phase};
use std::collections::{BTreeMap, BTreeSet};

/// Files of a trace that say where it happened; those behind them are generic.
const LEADING_FILES: usize = 3;

/// What a run says about the target. The order decides when one run is reported twice with
/// different outcomes: the one that says most holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Ok,
    Failed,
    Other,
    Target,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    fingerprint: Option<Digest>,
    build_failed: Option<String>,
    unavailable: Option<String>,
    runs: BTreeMap<u32, Vec<Outcome>>,
    classes: BTreeMap<u32, Class>,
    /// Of the kernel, with the runs of its other revisions.
    counts: Counts,
}

/// The evidence, by revision.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    bad: RevisionId,
    title: Option<String>,
    /// Given as a whole, never derived.
    known: Option<Target>,
    /// Where the crash happened in the source, innermost first, as far as was found out.
    trace: Vec<String>,
    target: Option<Target>,
    entries: BTreeMap<RevisionId, Entry>,
    twins: BTreeMap<Digest, BTreeSet<RevisionId>>,
}

impl Ledger {
    /// `bad` is where the target's frames, or the target itself, are taken from.
    pub fn new(bad: RevisionId, title: Option<String>) -> Self {
        let mut ledger = Ledger {
            bad,
            title,
            known: None,
            trace: Vec::new(),
            target: None,
            entries: BTreeMap::new(),
            twins: BTreeMap::new(),
        };
        ledger.target = ledger.derive_target();
        ledger
    }

    /// With a target that is known beforehand.
    pub fn of_target(bad: RevisionId, target: Target) -> Self {
        let mut ledger = Ledger::new(bad, Some(target.title.clone()));
        ledger.known = Some(target);
        ledger.target = ledger.derive_target();
        ledger
    }

    /// Says where in the source the crash happened; else that is taken from its report.
    pub fn learn_trace(&mut self, trace: Vec<String>) {
        self.trace = trace;
        self.renew_target();
    }

    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    pub fn record(&mut self, evidence: Evidence) {
        let revision = match evidence {
            Evidence::Built { revision, fingerprint } => {
                self.built(revision, fingerprint);
                revision
            }
            Evidence::BuildFailed { revision, message } => {
                keep_least(&mut self.entries.entry(revision).or_default().build_failed, message);
                revision
            }
            Evidence::Unavailable { revision, reason } => {
                keep_least(&mut self.entries.entry(revision).or_default().unavailable, reason);
                revision
            }
            Evidence::Run { revision, index, outcome } => {
                self.run(revision, index, outcome);
                revision
            }
        };
        if self.twins_of(&revision).any(|twin| *twin == self.bad) {
            self.renew_target();
        }
        self.recount(&revision);
    }

    fn recount(&mut self, revision: &RevisionId) {
        let mut classes: BTreeMap<u32, Class> = BTreeMap::new();
        let twins: Vec<RevisionId> = self.twins_of(revision).copied().collect();
        for (&index, &class) in twins.iter().flat_map(|twin| &self.entries[twin].classes) {
            let kept = classes.entry(index).or_insert(class);
            *kept = class.max(*kept);
        }
        let mut counts = Counts::default();
        for class in classes.into_values() {
            *match class {
                Class::Target => &mut counts.target,
                Class::Ok => &mut counts.ok,
                Class::Other => &mut counts.other,
                Class::Failed => &mut counts.failed,
            } += 1;
        }
        for twin in twins {
            self.entries.entry(twin).or_default().counts = counts;
        }
    }

    /// Revisions with evidence of any kind, by id.
    pub fn revisions(&self) -> impl Iterator<Item = RevisionId> + '_ {
        self.entries.keys().copied()
    }

    /// The runs of a revision's kernel; each index counts once.
    pub fn counts(&self, revision: &RevisionId) -> Counts {
        self.entries.get(revision).map(|entry| entry.counts).unwrap_or_default()
    }

    /// Every kernel, each with the revisions that build to it.
    pub fn kernels(&self) -> Vec<Vec<RevisionId>> {
        let first = |id: &&RevisionId| self.twins_of(id).next() == Some(*id);
        self.entries.keys().filter(first).map(|id| self.twins_of(id).copied().collect()).collect()
    }

    /// The counts of every kernel, twins once.
    pub fn kernel_counts(&self) -> impl Iterator<Item = Counts> + '_ {
        self.kernels().into_iter().map(|revisions| self.counts(&revisions[0]))
    }

    /// How many runs of a revision's kernel met which other titles instead of the target, the
    /// reproducer having started.
    pub fn others(&self, revision: &RevisionId) -> BTreeMap<String, u32> {
        let mut titles: BTreeMap<String, u32> = BTreeMap::new();
        if self.counts(revision).other == 0 {
            return titles;
        }
        let mut seen = BTreeSet::new();
        for entry in self.twins_of(revision).filter_map(|twin| self.entries.get(twin)) {
            for (index, outcomes) in &entry.runs {
                if entry.classes.get(index) != Some(&Class::Other) || !seen.insert(index) {
                    continue;
                }
                let crashes = outcomes.iter().flat_map(|outcome| outcome.crashes());
                let crashes = crashes.filter(|seen| seen.phase == Phase::Reproducer);
                let names: BTreeSet<&String> = crashes.map(|seen| &seen.crash.title).collect();
                names.into_iter().for_each(|name| *titles.entry(name.clone()).or_default() += 1);
            }
        }
        titles
    }

    /// The other titles met in most runs, at most `max`, with what speaks for and against
    /// their being the target's bug.
    pub fn titles_in_doubt(&self, max: usize) -> Titles {
        let mut titles: BTreeMap<String, Title> = BTreeMap::new();
        for revisions in self.kernels() {
            let counts = self.counts(&revisions[0]);
            for (name, runs) in self.others(&revisions[0]) {
                let fresh = || Title { name: name.clone(), alike: false, background: 0, runs: 0, others: 0 };
                let title = titles.entry(name.clone()).or_insert_with(fresh);
                title.runs += runs;
                title.others += counts.informative() + counts.other - runs;
            }
        }
        let mut titles: Vec<Title> = titles.into_values().collect();
        titles.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| a.name.cmp(&b.name)));
        titles.truncate(max);
        for title in &mut titles {
            (title.alike, title.background) = self.likeness(&title.name);
        }
        Titles(titles)
    }

    /// Whether crashes of this title look like the target, and in how many runs they came
    /// without the reproducer.
    fn likeness(&self, title: &str) -> (bool, u32) {
        let Some(target) = &self.target else { return (false, 0) };
        let (mut alike, mut background) = (false, 0);
        for revisions in self.kernels() {
            // Twins may have the same run; it counts once.
            let mut runs: BTreeMap<u32, bool> = BTreeMap::new();
            for (index, outcomes) in revisions.iter().flat_map(|twin| &self.entries[twin].runs) {
                let crashes = outcomes.iter().flat_map(|outcome| outcome.crashes());
                for seen in crashes.filter(|seen| seen.crash.title == title) {
                    alike |= looks_like(target, &seen.crash);
                    *runs.entry(*index).or_default() |= seen.phase != Phase::Reproducer;
                }
            }
            background += runs.into_values().map(u32::from).sum::<u32>();
        }
        (alike, background)
    }

    pub fn fingerprint(&self, revision: &RevisionId) -> Option<Digest> {
        self.entries.get(revision)?.fingerprint
    }

    pub fn build_failed(&self, revision: &RevisionId) -> Option<&str> {
        self.entries.get(revision)?.build_failed.as_deref()
    }

    pub fn unavailable(&self, revision: &RevisionId) -> Option<&str> {
        self.entries.get(revision)?.unavailable.as_deref()
    }

    /// The revisions known to build to the same kernel, itself included, by id.
    fn twins_of<'a>(&'a self, revision: &'a RevisionId) -> impl Iterator<Item = &'a RevisionId> {
        let fingerprint = self.fingerprint(revision);
        let twins = fingerprint.and_then(|fingerprint| self.twins.get(&fingerprint));
        let alone = twins.is_none().then_some(revision);
        twins.into_iter().flatten().chain(alone)
    }

    fn built(&mut self, revision: RevisionId, fingerprint: Digest) {
        let kept = &mut self.entries.entry(revision).or_default().fingerprint;
        // Two fingerprints for one revision would be a build that is not reproducible; the
        // lesser one is kept, whichever came first.
        match *kept {
            Some(old) if old <= fingerprint => return,
            Some(_) | None => {}
        }
        let old = kept.replace(fingerprint);
        self.twins.entry(fingerprint).or_default().insert(revision);
        if let Some(twins) = old.and_then(|old| self.twins.get_mut(&old)) {
            twins.remove(&revision);
            if let Some(twin) = twins.first().copied() {
                self.recount(&twin);
            }
        }
    }

    fn run(&mut self, revision: RevisionId, index: u32, outcome: Outcome) {
        let class = classify(self.target.as_ref(), &outcome);
        let entry = self.entries.entry(revision).or_default();
        let outcomes = entry.runs.entry(index).or_default();
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
            let kept = entry.classes.entry(index).or_insert(class);
            *kept = class.max(*kept);
        }
    }

    fn renew_target(&mut self) {
        let target = self.derive_target();
        if target == self.target {
            return;
        }
        self.target = target;
        for entry in self.entries.values_mut() {
            for (index, outcomes) in &entry.runs {
                let class = outcomes.iter().map(|outcome| classify(self.target.as_ref(), outcome)).max();
                entry.classes.extend(class.map(|class| (*index, class)));
            }
        }
        let all: Vec<RevisionId> = self.entries.keys().copied().collect();
        all.iter().for_each(|revision| self.recount(revision));
    }

    fn derive_target(&self) -> Option<Target> {
        let mut target = match &self.title {
            Some(_) if self.known.is_some() => self.known.clone(),
            Some(title) => Some(self.describe(title)),
            None => self.most_frequent().map(|title| self.describe(&title)),
        };
        if let Some(target) = target.as_mut().filter(|_| !self.trace.is_empty()) {
            target.files.clone_from(&self.trace);
        }
        target
    }

    /// The target of this title, with what the first crash of that title at the bad end adds.
    fn describe(&self, title: &str) -> Target {
        let plain = Target { title: title.to_string(), alt_titles: vec![], frames: vec![], files: vec![] };
        let crashes = || self.start_runs().flat_map(|outcome| outcome.crashes()).map(|seen| &seen.crash);
        let exact = crashes().find(|crash| crash.title == title);
        let Some(crash) =
            exact.or_else(|| crashes().find(|crash| crash::compare(&plain, crash) == Match::Same))
        else {
            return plain;
        };
        let titles = std::iter::once(&crash.title).chain(&crash.alt_titles);
        Target {
            alt_titles: titles.filter(|other| *other != title).cloned().collect(),
            frames: crash.frames.clone(),
            files: crash.files.clone(),
            ..plain
        }
    }

    /// The title that most runs at the bad end show after the reproducer's start, and none before
    /// it if there is such a one; among equals the one that comes earlier in its runs, then the
    /// lesser by letters.
    fn most_frequent(&self) -> Option<String> {
        let mut titles: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for outcome in self.start_runs() {
            let mut seen = BTreeSet::new();
            let crashes = outcome.crashes().iter().filter(|seen| seen.phase == Phase::Reproducer);
            for (position, crash) in crashes.enumerate() {
                if seen.insert(&crash.crash.title) {
                    let (runs, positions) = titles.entry(&crash.crash.title).or_default();
                    *runs += 1;
                    *positions += position;
                }
            }
        }
        let crashes = || self.start_runs().flat_map(|outcome| outcome.crashes());
        let before: BTreeSet<&str> = crashes()
            .filter(|seen| seen.phase != Phase::Reproducer)
            .map(|seen| seen.crash.title.as_str())
            .collect();
        let best = titles
            .into_iter()
            .min_by_key(|&(title, (runs, at))| (before.contains(title), usize::MAX - runs, at, title))?;
        Some(best.0.to_string())
    }

    /// The outcomes at the bad end's kernel, by index.
    fn start_runs(&self) -> impl Iterator<Item = &Outcome> {
        let entries = self.twins_of(&self.bad).filter_map(|twin| self.entries.get(twin));
        let runs = entries.flat_map(|entry| &entry.runs);
        let mut runs: Vec<(u32, &Outcome)> = runs
            .flat_map(|(&index, outcomes)| outcomes.iter().map(move |outcome| (index, outcome)))
            .collect();
        runs.sort_by_key(|&(index, _)| index);
        runs.into_iter().map(|(_, outcome)| outcome)
    }
}

/// Looks at every crash of a run, in whichever phase: the bug may show behind another crash,
/// and a bug of the boot shows before the reproducer starts.
fn classify(target: Option<&Target>, outcome: &Outcome) -> Class {
    let same =
        |target| outcome.crashes().iter().any(|seen| crash::compare(target, &seen.crash) == Match::Same);
    if target.is_some_and(same) {
        return Class::Target;
    }
    match outcome {
        Outcome::Ok => Class::Ok,
        Outcome::Crashed(_) => Class::Other,
        Outcome::BootFailed { .. } | Outcome::NoReproducerStart { .. } | Outcome::Hung { .. } => {
            Class::Failed
        }
    }
}

/// Whether a crash shares what leads the target's trace: frames in order, or a file.
fn looks_like(target: &Target, crash: &crash::Crash) -> bool {
    let leading = |files: &[String]| files.iter().take(LEADING_FILES).cloned().collect::<Vec<_>>();
    let files = leading(&crash.files);
    crash::compare(target, crash) != Match::Unrelated
        || leading(&target.files).iter().any(|file| files.contains(file))
        || target.frames.first().is_some_and(|top| crash.frames.contains(top))
}

fn keep_least(kept: &mut Option<String>, new: String) {
    *kept = Some(match kept.take() {
        Some(old) => old.min(new),
        None => new,
    });
}
