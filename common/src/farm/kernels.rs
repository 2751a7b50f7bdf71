//! Which source a candidate's kernel is built from: a revision as it stands, or one that git
//! patches first. git is asked once for each; after a restart once more, with the same answer.

use super::Farm;
use super::action::Action;
use super::fact::Recipe;
use super::jobs::JobState;
use super::pursue::Wants;
use crate::bisect::{Bisection, Candidate, Role};
use crate::history::Commit;
use crate::id::{JobId, RevisionId, TreeId};
use crate::patch::{Order, Patch, Patched};
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
        Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Certify => revision.short(),
    }
}

impl Farm {
    /// The source of a candidate's kernel, as far as git has said.
    pub(super) fn source(state: &mut JobState, candidate: &Candidate, actions: &mut Vec<Action>) -> Sourced {
        let id = candidate.revision;
        match candidate.role {
            Role::Revert(commit) => Self::reverted(state, id, &commit, actions),
            Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Certify => {
                Self::plain(state, id, actions)
            }
        }
    }

    fn plain(state: &mut JobState, id: RevisionId, actions: &mut Vec<Action>) -> Sourced {
        if let Some(revision) = Self::revision(state, &id) {
            let (tree, subject) = (revision.tree, revision.subject);
            return Sourced::Ready(Source { revision: id, patches: Vec::new(), tree, subject });
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
        match Self::ask(state, name, Order { revision, revert: Some(*commit) }, actions) {
            None => Sourced::Waiting,
            Some(Err(reason)) => Sourced::Refused(reason),
            Some(Ok(Patched { tree, patches })) => {
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
            Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Certify => {
                Self::revision(state, id).map(|revision| revision.subject)
            }
        };
        subject.unwrap_or_default()
    }

    /// How the kernel of this name was made.
    pub(super) fn recipe(&self, state: &JobState, name: &RevisionId, built: bool) -> Recipe {
        let patches = match state.patched.get(name) {
            Some(Some(Ok(patched))) => patched.patches.clone(),
            Some(_) | None => Vec::new(),
        };
        let facts = self.toolchain(state, &mut Wants::default()).ok().filter(|_| built);
        Recipe { patches, compiler: facts.map(|facts| facts.compiler()) }
    }
}

fn commit_of<'a>(state: &'a JobState, id: &RevisionId) -> Option<&'a Commit> {
    let history = state.bisection.as_ref().and_then(Bisection::history)?;
    Some(history.commit(history.find(id)?))
}
