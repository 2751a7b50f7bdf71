//! What a candidate's kernel is built from: a revision as it stands, or one that git patches
//! first, in the one configuration of the job. git is asked once for each; after a restart once
//! more, with the same answer.

use super::Farm;
use super::action::Action;
use super::fact::{Recipe, Resolution};
use super::jobs::JobState;
use super::wants::Wants;
use crate::bisect::{Bisection, Candidate, Role};
use crate::history::{Commit, Revision};
use crate::id::{JobId, RevisionId, TreeId};
use crate::job::{Fragment, Job, KernelBuild, Mode, SwitchedOff, ToolchainChoice};
use crate::patch::{KnownFix, Order, Patch, Patched};
use crate::signature::SharedKeys;
use crate::toolchain::{Release, Rules};
use std::collections::btree_map::Entry;

/// What a kernel is built from.
pub(super) struct Source {
    pub revision: RevisionId,
    pub patches: Vec<Patch>,
    pub tree: TreeId,
    /// Of the revision, or of the commit that is reverted.
    pub subject: String,
}

pub(super) enum Sourced {
    Ready(Source),
    /// git is asked.
    Waiting,
    /// There is no such source, for this reason.
    Refused(String),
}

/// What a candidate is called in titles.
pub(super) fn kernel_name(role: &Role, revision: &RevisionId) -> String {
    match role {
        Role::Revert(commit) => format!("revert of {}", commit.short()),
        Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Certify | Role::Overruled => {
            revision.short()
        }
    }
}

impl Farm {
    /// The source of a candidate's kernel, as far as git has said.
    pub(super) fn source(state: &mut JobState, candidate: &Candidate, actions: &mut Vec<Action>) -> Sourced {
        let id = candidate.revision;
        match candidate.role {
            Role::Revert(commit) => Self::reverted(state, id, &commit, actions),
            Role::Start
            | Role::GoodEnd
            | Role::Release(_)
            | Role::Search
            | Role::Certify
            | Role::Overruled => Self::plain(state, id, actions),
        }
    }

    fn plain(state: &mut JobState, id: RevisionId, actions: &mut Vec<Action>) -> Sourced {
        if let Some(revision) = Self::revision(state, &id) {
            let (tree, subject) = (revision.tree, revision.subject);
            if fixes_of(state).is_empty() {
                return Sourced::Ready(Source { revision: id, patches: Vec::new(), tree, subject });
            }
            return Self::ordered(state, id, id, None, subject, actions);
        }
        if let Entry::Vacant(entry) = state.identified.entry(id) {
            entry.insert(None);
            let repository = state.job.repository.clone();
            actions.push(Action::Identify { job: state.id.clone(), repository, revision: id });
        }
        Sourced::Waiting
    }

    /// The bad end without a commit; `name` is what the search calls it.
    fn reverted(
        state: &mut JobState,
        name: RevisionId,
        commit: &RevisionId,
        actions: &mut Vec<Action>,
    ) -> Sourced {
        let (Some(resolution), Some(known)) = (&state.resolution, commit_of(state, commit)) else {
            return Sourced::Refused(format!("{commit} is not in the range"));
        };
        match known.parents.len() + known.outside.len() {
            1 => {}
            0 => return Sourced::Refused("a commit without a parent cannot be reverted".into()),
            _ => return Sourced::Refused("a merge cannot be reverted".into()),
        }
        let (revision, subject) = (resolution.bad.id, known.subject.clone());
        Self::ordered(state, name, revision, Some(*commit), subject, actions)
    }

    /// What git makes of a revision: the known fixes put in where they are missing, and then the
    /// commit taken out.
    fn ordered(
        state: &mut JobState,
        name: RevisionId,
        revision: RevisionId,
        revert: Option<RevisionId>,
        subject: String,
        actions: &mut Vec<Action>,
    ) -> Sourced {
        let order = Order { revision, fixes: fixes_of(state).to_vec(), revert };
        match Self::ask(state, name, order, actions) {
            None => Sourced::Waiting,
            Some(Err(reason)) => Sourced::Refused(reason),
            Some(Ok(Patched { tree, patches, .. })) => {
                Sourced::Ready(Source { revision, patches, tree, subject })
            }
        }
    }

    /// git's answer to an order, once it is there.
    fn ask(
        state: &mut JobState,
        name: RevisionId,
        order: Order,
        actions: &mut Vec<Action>,
    ) -> Option<Result<Patched, String>> {
        match state.patched.entry(name) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                entry.insert(None);
                let repository = state.job.repository.clone();
                actions.push(Action::Patch { job: state.id.clone(), repository, name, order });
                None
            }
        }
    }

    pub(super) fn patched(&mut self, id: &JobId, name: RevisionId, result: Result<Patched, String>) {
        if let Some(state) = self.jobs.get_mut(id).filter(|state| state.is_open()) {
            state.patched.insert(name, Some(result));
            self.dirty.insert(id.clone());
        }
    }

    /// The subject of a revision, or of the commit that a kernel is without.
    pub(super) fn subject(state: &JobState, role: &Role, id: &RevisionId) -> String {
        let subject = match role {
            Role::Revert(commit) => commit_of(state, commit).map(|commit| commit.subject.clone()),
            Role::Start
            | Role::GoodEnd
            | Role::Release(_)
            | Role::Search
            | Role::Certify
            | Role::Overruled => Self::revision(state, id).map(|revision| revision.subject),
        };
        subject.unwrap_or_default()
    }

    /// How the kernel of this name was made.
    pub(super) fn recipe(&self, state: &JobState, role: &Role, name: &RevisionId, built: bool) -> Recipe {
        let (patches, mut remarks) = match state.patched.get(name) {
            Some(Some(Ok(patched))) => (patched.patches.clone(), patched.remarks.clone()),
            Some(_) | None => Default::default(),
        };
        if *role == Role::Start {
            remarks.extend(self.switched_off(state));
            remarks.extend(state.settled.as_ref().and_then(|settled| settled.configured.worked.remark()));
        }
        let facts = self.toolchain(state, &mut Wants::default()).ok().filter(|_| built);
        let shared = facts.zip(Self::revision(state, name)).map(|(facts, revision)| {
            let keys = SharedKeys::new(&state.kernel, &facts.image_id, fixes_of(state));
            keys.of(&revision.id, &revision.tree)
        });
        Recipe { patches, compiler: facts.map(|facts| facts.compiler()), remarks, shared }
    }

    /// What people should know of the configuration.
    fn switched_off<'a>(&self, state: &'a JobState) -> impl Iterator<Item = String> + use<'a> {
        self.rules_off(state).map(|rule| {
            let symbols = rule.disable.join(", ");
            format!("switched off in all kernels, since the range reaches below {}: {symbols}", rule.before)
        })
    }

    /// Symbols that are switched off since the range reaches so far back.
    pub(super) fn symbols_off(&self, state: &JobState) -> Vec<String> {
        self.rules_off(state).flat_map(|rule| rule.disable.clone()).collect()
    }

    fn rules_off<'a>(&self, state: &'a JobState) -> impl Iterator<Item = &'a SwitchedOff> + use<'a> {
        let resolution = state.resolution.as_ref();
        let release = resolution.and_then(|resolution| oldest(&self.config.rules, resolution, &state.job).1);
        state.job.repairs.switched_off(release)
    }
}

/// The oldest revision that a job may come to, and the release that it descends from: by it the
/// toolchain and the configuration of all its kernels are chosen.
pub(super) fn oldest<'a>(
    rules: &Rules,
    resolution: &'a Resolution,
    job: &Job,
) -> (&'a Revision, Option<Release>) {
    match (job.mode, &resolution.good) {
        (Mode::Fix, _) => (&resolution.bad, resolution.bad.release),
        (Mode::Cause, Some(good)) => (good, good.release),
        (Mode::Cause, None) => {
            let releases = resolution.releases.iter().map(|tagged| tagged.release);
            let any = job.toolchain != ToolchainChoice::Auto;
            let served = releases.filter(|release| any || rules.choose(Some(*release)).is_some());
            (&resolution.bad, served.min().or(resolution.bad.release))
        }
    }
}

/// How all kernels of a job are configured.
pub(super) fn kernel_of(rules: &Rules, resolution: &Resolution, job: &Job) -> KernelBuild {
    let (_, release) = oldest(rules, resolution, job);
    let mut kernel = job.kernel.clone();
    for rule in job.repairs.switched_off(release) {
        let text = rule.disable.iter().map(|symbol| format!("# {symbol} is not set\n")).collect();
        kernel.fragments.push(Fragment { name: format!("switched off below {}", rule.before), text });
    }
    kernel
}

pub(super) fn fixes_of(state: &JobState) -> &[KnownFix] {
    state.resolution.as_ref().map_or(&[], |resolution| &resolution.fixes)
}

fn commit_of<'a>(state: &'a JobState, id: &RevisionId) -> Option<&'a Commit> {
    let history = state.bisection.as_ref().and_then(Bisection::history)?;
    Some(history.commit(history.find(id)?))
}
