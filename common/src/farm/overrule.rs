//! An operator's word on a revision: a fact of its own, and the search begins anew with it.

use super::Farm;
use super::action::{Action, Answer};
use super::fact::Fact;
use super::jobs::{JobState, Stage};
use crate::access::Principal;
use crate::id::{JobId, RevisionId};
use crate::report::{Said, standing};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// A name of fewer digits is too short to be meant.
const DIGITS_MIN: usize = 7;

/// What an operator asks for: a word, or that it be taken back.
pub(super) struct Asked {
    pub revision: String,
    pub word: Option<Verdict>,
    pub by: Principal,
}

impl JobState {
    /// The words that stand.
    pub(super) fn words(&self) -> BTreeMap<RevisionId, Verdict> {
        standing(&self.said)
    }

    /// From which verdict on the last word on a revision, or its taking back, counts.
    pub(super) fn judged_since(&self, revision: &RevisionId) -> usize {
        let last = self.said.iter().rfind(|said| said.revision == *revision);
        last.map_or(0, |said| said.after)
    }

    /// The revision that a release tag, the job's own name of an end, or the beginning of a commit's
    /// id names.
    fn named(&self, name: &str) -> Result<RevisionId, String> {
        let Some(resolution) = &self.resolution else {
            return Err("the job's revisions are not known yet; try again in a moment".into());
        };
        if let Some(release) = resolution.releases.iter().find(|release| release.tag == name) {
            return Ok(release.revision.id);
        }
        let bad_end = "revision: it is the bad end, which the search starts from; start another job instead";
        if name == self.job.bad {
            return Err(bad_end.into());
        }
        if let Some(good) = resolution.good.as_ref().filter(|_| self.job.good.as_deref() == Some(name)) {
            return Ok(good.id);
        }
        if name.len() < DIGITS_MIN || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!(
                "revision: {name:?} is neither the job's good end, nor a release tag that was tried, nor at least {DIGITS_MIN} digits of a commit's id"
            ));
        }
        let history = self.bisection.as_ref().and_then(|bisection| bisection.history());
        let known = std::iter::once(resolution.bad.id)
            .chain(resolution.good.iter().map(|good| good.id))
            .chain(resolution.releases.iter().map(|release| release.revision.id))
            .chain(self.judged.iter().map(|judged| judged.judgement.revision))
            .chain(history.into_iter().flat_map(|it| it.commits()).map(|commit| commit.id));
        let prefix = name.to_ascii_lowercase();
        let named: BTreeSet<RevisionId> = known.filter(|id| id.to_string().starts_with(&prefix)).collect();
        let mut named = named.into_iter();
        match (named.next(), named.next()) {
            (Some(id), None) if id == resolution.bad.id => Err(bad_end.into()),
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => {
                Err(format!("revision: several commits begin with {name}; give more digits"))
            }
            (None, _) if self.is_open() && history.is_none() => {
                Err("the commits between the ends are not known yet; try again in a moment".into())
            }
            (None, _) if self.is_open() => {
                Err(format!("revision: {name} is no commit between the ends of job {}", self.id))
            }
            (None, _) => Err(format!("revision: {name} is none of those that job {} tested", self.id)),
        }
    }
}

impl Farm {
    pub(super) fn overrule(&mut self, now: Timestamp, id: &JobId, asked: Asked, actions: &mut Vec<Action>) {
        let Asked { revision: name, word, by } = asked;
        let answer = match self.jobs.get(id) {
            None => Answer::UnknownJob,
            Some(state) => match overruling(state, &name, word) {
                Err(why) => Answer::Refused(why),
                Ok(revision) => {
                    actions.push(Action::Record(Fact::Overruled {
                        id: id.clone(),
                        at: now,
                        revision,
                        word,
                        by,
                    }));
                    self.take_word(id, revision, word);
                    self.recall_evidence(id);
                    Answer::Overruled { revision }
                }
            },
        };
        actions.push(Action::Answer(answer));
    }

    /// Begins the search anew, with all words that stand; what was built and run is found again.
    pub(super) fn take_word(&mut self, id: &JobId, revision: RevisionId, word: Option<Verdict>) {
        let Some(mut state) = self.jobs.remove(id) else { return };
        state.said.push(Said { after: state.judged.len(), revision, word });
        self.begin_anew(&mut state);
        self.jobs.insert(id.clone(), state);
        self.dirty.insert(id.clone());
    }
}

fn overruling(state: &JobState, name: &str, word: Option<Verdict>) -> Result<RevisionId, String> {
    if let Stage::Ended(ended) = &state.stage
        && ["invalid", "cancelled"].contains(&ended.end.kind.as_str())
    {
        return Err(format!("job {} has ended without a finding ({})", state.id, ended.end.kind));
    }
    let revision = state.named(name)?;
    if word.is_none() && !state.words().contains_key(&revision) {
        return Err(format!("revision: nobody has overruled {}", revision.short()));
    }
    Ok(revision)
}
