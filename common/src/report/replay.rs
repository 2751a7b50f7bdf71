//! The search as `git bisect log` prints it, for `git bisect replay`.
//!
//! Only what git can learn from is in it, so that git, given this text, names the same first
//! bad commit. For a fix, git's "bad" is the newer state, the one without the crash.

use super::Record;
use super::git_state::{self, GitState, Word};
use super::words::one_line;
use crate::bisect::Finding;
use crate::id::RevisionId;
use crate::job::Mode;
use crate::verdict::Verdict;

/// The replay text of a job as far as it has come.
pub fn render(record: &Record<'_>) -> String {
    let mut text = String::new();
    if record.job.mode == Mode::Fix {
        text.push_str("# looking for a fix: \"good\" still shows the crash, \"bad\" no longer does\n");
    }
    start(&mut text, record);
    for (tested, word) in git_state::lasting(record) {
        let revision = tested.judgement.revision;
        remark(&mut text, word.as_str(), &revision, &tested.subject);
        text.push_str(&format!("git bisect {} {revision}\n", word.as_str()));
    }
    end(&mut text, record);
    text
}

fn start(text: &mut String, record: &Record<'_>) {
    let (Some(range), Some(ends)) = (git_state::range(record), record.ends) else {
        text.push_str("git bisect start\n");
        if let Some(ends) = record.ends {
            let word = Word::of(Verdict::Bad, record.job.mode).as_str();
            remark(text, word, &ends.bad.id, &ends.bad.subject);
            text.push_str(&format!("git bisect {word} {}\n", ends.bad.id));
        }
        return;
    };
    let older = match record.job.mode {
        Mode::Cause => ends.good.as_ref().map_or("", |good| &good.subject),
        Mode::Fix => &ends.bad.subject,
    };
    remark(text, "bad", &range.newer, subject(record, &range.newer));
    remark(text, "good", &range.older, older);
    text.push_str(&format!("git bisect start '{}' '{}'\n", range.newer, range.older));
}

fn end(text: &mut String, record: &Record<'_>) {
    match record.ending.map(|ending| &ending.finding) {
        Some(Finding::Culprit { revision, .. }) => {
            remark(text, "first bad commit", revision, subject(record, revision));
        }
        Some(Finding::Suspects { suspects, .. }) => {
            for suspect in suspects {
                remark(
                    text,
                    "possible first bad commit",
                    &suspect.revision,
                    subject(record, &suspect.revision),
                );
            }
        }
        Some(
            Finding::NotReproduced { .. }
            | Finding::BadEndBroken { .. }
            | Finding::GoodEndIsBad { .. }
            | Finding::OldestReleaseHasBug { .. }
            | Finding::NotFixed { .. }
            | Finding::Blocked { .. },
        )
        | None => {}
    }
}

fn remark(text: &mut String, word: &str, revision: &RevisionId, subject: &str) {
    text.push_str(&format!("# {word}: [{revision}] {}\n", one_line(subject)));
}

fn subject<'a>(record: &Record<'a>, revision: &RevisionId) -> &'a str {
    record
        .history
        .and_then(|history| Some(history.commit(history.find(revision)?).subject.as_str()))
        .unwrap_or("")
}

/// What git would answer to the replay: its one suspect, if only one is left.
pub fn answer(record: &Record<'_>) -> Option<RevisionId> {
    git_state::range(record)?;
    let mut git = GitState::new(record.history?);
    for (tested, word) in git_state::lasting(record) {
        git.take(&tested.judgement.revision, word);
    }
    let mut suspects = git.suspects();
    suspects.next().filter(|_| suspects.next().is_none())
}
