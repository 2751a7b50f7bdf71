//! The search in git's words: the line before a step, and the text for `git bisect replay`.

use super::search::{Search, Stage};
use super::{Ending, Exit};
use crate::bisect;
use crate::id::RevisionId;
use crate::job::Mode;
use crate::report::git_state::{GitState, Word};
use crate::report::one_line;
use crate::report::text::bisecting;

impl Search {
    /// What git says before it checks a revision out, its subject on a line of its own.
    pub fn announce(&self, revision: &RevisionId) -> String {
        let mut git = GitState::new(&self.history);
        for (revision, word) in self.verdicts() {
            git.take(&revision, word);
        }
        let again = self.tally(revision).total() > 0;
        let said = match git.arithmetic(revision) {
            _ if *revision == self.bad => "Bisecting: how often does the bad end fail?\n".into(),
            _ if *revision == self.good => "Bisecting: does the good end pass?\n".into(),
            Some(_) if again => "Bisecting: once more, to make sure\n".into(),
            Some((left, steps)) => bisecting(left, steps),
            None => "Bisecting: a parent from before the range\n".into(),
        };
        format!("{said}[{revision}] {}\n", self.subject(revision))
    }

    /// What git could be told, in order, from the runs so far.
    fn verdicts(&self) -> Vec<(RevisionId, Word)> {
        match self.stage {
            Stage::Believing => {
                let word = |exit| match exit {
                    Exit::Good => Word::Good,
                    Exit::Bad => Word::Bad,
                    Exit::Skip | Exit::Abort => Word::Skip,
                };
                self.seen.iter().map(|(revision, exit)| (*revision, word(*exit))).collect()
            }
            Stage::Doubting => bisect::replay(self.engine.judgements())
                .into_iter()
                .map(|judgement| (judgement.revision, Word::of(judgement.verdict, Mode::Cause)))
                .collect(),
        }
    }

    /// The steps as `git bisect log` prints them. With an ending, git comes to it in a replay:
    /// what it would still ask for is added, since kulprit may have inferred it.
    pub fn replay(&self, ending: Option<&Ending>) -> String {
        let mut text = String::new();
        for (word, revision) in [("bad", &self.bad), ("good", &self.good)] {
            text += &format!("# {word}: [{revision}] {}\n", self.subject(revision));
        }
        text += &format!("git bisect start '{}' '{}'\n", self.bad, self.good);
        let culprit = match ending {
            Some(Ending::Culprit { revision, .. }) => self.history.find(revision),
            Some(
                Ending::Suspects { .. }
                | Ending::BadEndPasses { .. }
                | Ending::BadEndSkipped
                | Ending::GoodEndFails { .. },
            )
            | None => None,
        };
        let mut verdicts = self.verdicts();
        if let Some(culprit) = culprit {
            let commit = self.history.commit(culprit);
            verdicts.retain(|(revision, word)| self.agrees(revision, *word, culprit));
            let parents = commit.parents.iter().map(|&parent| self.history.commit(parent).id);
            verdicts.extend(parents.map(|parent| (parent, Word::Good)));
            verdicts.push((commit.id, Word::Bad));
        }
        let mut git = GitState::new(&self.history);
        for (revision, word) in verdicts {
            if git.take(&revision, word) {
                let word = word.as_str();
                text += &format!("# {word}: [{revision}] {}\n", self.subject(&revision));
                text += &format!("git bisect {word} {revision}\n");
            }
        }
        match ending {
            Some(Ending::Culprit { revision, .. }) => {
                text += &format!("# first bad commit: [{revision}] {}\n", self.subject(revision));
            }
            Some(Ending::Suspects { suspects, .. }) => {
                for suspect in suspects {
                    let revision = &suspect.revision;
                    text +=
                        &format!("# possible first bad commit: [{revision}] {}\n", self.subject(revision));
                }
            }
            Some(Ending::BadEndPasses { .. } | Ending::BadEndSkipped | Ending::GoodEndFails { .. })
            | None => {}
        }
        text
    }

    /// Whether a verdict fits the culprit; one that does not was a flake.
    fn agrees(&self, revision: &RevisionId, word: Word, culprit: u32) -> bool {
        let Some(at) = self.history.find(revision) else { return true };
        match word {
            Word::Good => !self.reaches(at, culprit),
            Word::Bad => self.reaches(at, culprit),
            Word::Skip => true,
        }
    }

    pub(super) fn reaches(&self, from: u32, ancestor: u32) -> bool {
        let mut reached = vec![false; self.history.len()];
        reached[from as usize] = true;
        for at in (ancestor..=from).rev() {
            if reached[at as usize] {
                self.history.commit(at).parents.iter().for_each(|&parent| reached[parent as usize] = true);
            }
        }
        reached[ancestor as usize]
    }

    /// The first line of a commit's message; empty where it is not known.
    pub fn subject(&self, revision: &RevisionId) -> String {
        if *revision == self.good {
            return one_line(&self.good_subject);
        }
        let at = self.history.find(revision);
        at.map_or_else(String::new, |at| one_line(&self.history.commit(at).subject))
    }
}
