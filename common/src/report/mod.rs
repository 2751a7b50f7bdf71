//! What people and programs read of a job: the log, the replay text, JSON.
//!
//! `Record` is all that the renderings need; they add nothing and ask nothing.

pub mod ending;
pub mod git_state;
pub mod json;
pub mod replay;
mod show;
pub mod summary;
pub mod text;
mod words;

use crate::bisect::{Finding, Judgement};
use crate::history::{History, Revision};
use crate::id::{Digest, JobId, RevisionId};
use crate::job::Job;
use crate::outcome::Outcome;
use crate::time::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// A job as far as it has come.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub id: &'a JobId,
    pub job: &'a Job,
    /// The coordinator's name, for the first line.
    pub host: &'a str,
    pub started: Timestamp,
    pub ends: Option<&'a Ends>,
    /// Absent until the range is known.
    pub history: Option<&'a History>,
    /// Revisions in the order of their verdicts.
    pub tested: &'a [Tested],
    /// Present once the search is over.
    pub ending: Option<&'a Ending>,
}

/// The two ends as commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    pub bad: Revision,
    /// Given, or found on the walk over the releases.
    pub good: Option<Revision>,
    /// The tag of a good end that was found on the walk.
    pub good_tag: Option<String>,
}

/// A revision that got its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub subject: String,
    pub judgement: Judgement,
    /// The toolchain's `gcc …, ld …`.
    pub compiler: String,
    pub build: Built,
    /// What each counted run saw, in order of index.
    pub runs: Vec<RunLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    Kernel {
        fingerprint: Digest,
    },
    Failed {
        message: String,
    },
    /// The farm gave up on it.
    Unavailable {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunLine {
    Saw(Outcome),
    Infra(String),
}

/// How the job ended, with what the report adds to the finding.
#[derive(Clone, Debug)]
pub struct Ending {
    pub at: Timestamp,
    pub finding: Finding,
    /// The culprit as `git show` has it.
    pub culprit: Option<CommitDetails>,
    /// The crash at the culprit (cause) or at the bad end: title and report text.
    pub crash: Option<(String, String)>,
    /// Machine time, summed over attempts that counted.
    pub build_time: Duration,
    pub test_time: Duration,
    /// People from the culprit's trailers and author.
    pub recipients: Vec<String>,
}

/// A commit for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitDetails {
    pub revision: RevisionId,
    pub parents: Vec<RevisionId>,
    /// `Name <address>`.
    pub author: String,
    /// As git prints it, with the author's zone.
    pub date: String,
    pub subject: String,
    /// The whole message.
    pub message: String,
    pub files: Vec<FileStat>,
}

/// One line of a diffstat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileStat {
    pub path: String,
    pub insertions: usize,
    pub deletions: usize,
}

/// How many revisions were built, however often each was tested.
pub fn revisions_tested(tested: &[Tested]) -> usize {
    let built = tested.iter().filter(|tested| matches!(tested.build, Built::Kernel { .. }));
    built.map(|tested| tested.judgement.revision).collect::<std::collections::BTreeSet<_>>().len()
}

/// The addresses to write to, sorted, each once.
fn recipients(ending: &Ending) -> Vec<&str> {
    let addresses: std::collections::BTreeSet<&str> =
        ending.recipients.iter().map(|one| address(one)).collect();
    addresses.into_iter().collect()
}

/// The address in `Name <address>`, or the text itself.
fn address(person: &str) -> &str {
    person
        .rsplit_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or(person.trim(), |(inside, _)| inside)
}
