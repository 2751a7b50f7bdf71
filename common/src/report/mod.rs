//! What people and programs read of a job: the log, the replay text, JSON.
//!
//! `Record` is all that the renderings need; they add nothing and ask nothing.

pub mod ending;
pub(crate) mod explain;
pub mod git_state;
pub mod json;
pub mod plot;
pub mod replay;
pub mod show;
pub mod summary;
pub mod text;
mod words;

pub use words::one_line;

use crate::bisect::{Finding, Judgement, Round};
use crate::config_work::Worked;
use crate::crash;
use crate::history::{History, Revision};
use crate::id::{Digest, JobId, RevisionId};
use crate::job::Job;
use crate::outcome::Outcome;
use crate::patch::Patch;
use crate::recipients::Recipients;
use crate::time::Timestamp;
use crate::verdict::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// Why these were tested, in order.
    pub rounds: &'a [Round],
    /// What operators said of revisions, in order.
    pub said: &'a [Said],
    /// Present once the work on the configuration that the job asks for is done.
    pub configured: Option<&'a Worked>,
    /// Present once the search is over.
    pub ending: Option<&'a Ending>,
}

/// An operator's word on a revision; without one, what was said before is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// How many verdicts had fallen before.
    pub after: usize,
    pub revision: RevisionId,
    pub word: Option<Verdict>,
}

/// The words that stand after all that was said.
pub fn standing(said: &[Said]) -> BTreeMap<RevisionId, Verdict> {
    let mut words = BTreeMap::new();
    for Said { revision, word, .. } in said {
        match word {
            Some(word) => words.insert(*revision, *word),
            None => words.remove(revision),
        };
    }
    words
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
    /// What the revision was built with, or the bad end without.
    pub patches: Vec<Patch>,
    /// What else people should know of how it was made.
    pub remarks: Vec<String>,
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
    pub crash: Option<ShownCrash>,
    /// Machine time, summed over attempts that counted.
    pub build_time: Duration,
    pub test_time: Duration,
    /// Who should hear of a culprit.
    pub recipients: Recipients,
    /// What the report lacks, and why: fragments for people.
    pub notes: Vec<String>,
}

/// The crash at the culprit (cause) or at the bad end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownCrash {
    pub title: String,
    /// With source lines, where they are known.
    pub report: String,
    /// The instructions around the trap, where the report has its `Code:` line.
    pub disassembly: Option<String>,
    /// The first source file of the trace that is not generic code.
    pub guilty_file: Option<String>,
}

impl ShownCrash {
    /// Takes from a report all that can be read of it.
    pub fn new(title: String, report: String) -> ShownCrash {
        let (disassembly, guilty_file) = (crash::disassembly(&report), crash::guilty_file(&report));
        ShownCrash { title, report, disassembly, guilty_file }
    }
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
