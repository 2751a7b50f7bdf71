//! A bisection log as values. Whatever a log leaves out is absent here.

use crate::id::RevisionId;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Cause,
    Fix,
}

/// git's word on a step; in a search for a fix, "bad" means that the crash is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Good,
    Bad,
    Skip,
}

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    Ok,
    Crashed(String),
    BootFailed(String),
    /// The machine booted, and could not run a trivial program.
    TestFailed(String),
    Infra(String),
    Unknown(String),
}

/// Why a revision was tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Start,
    Release(String),
    Head,
    Step,
    /// Of the published culprit, after the search.
    Parent,
}

/// A revision that was tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub line: usize,
    pub role: Role,
    pub revision: RevisionId,
    pub subject: Option<String>,
    /// git's number of revisions left after it.
    pub left: Option<u64>,
    pub compiler: Option<String>,
    pub signature: Option<String>,
    pub build_failed: Option<String>,
    /// Each with how often; `all runs` does not say how many they are, but in our own logs.
    pub runs: Vec<(Run, u32)>,
    pub word: Option<Word>,
}

/// What `all runs:` is taken for, as in the logs that list them.
pub const ALL_RUNS: u32 = 10;
/// Nobody makes more; sums over a log stay in range.
pub const ALL_RUNS_MAX: u32 = 10_000;

impl Test {
    /// Runs that count at all.
    pub fn total(&self) -> u32 {
        self.runs.iter().map(|(_, times)| times).sum()
    }

    pub fn ok(&self) -> u32 {
        self.runs.iter().filter(|(run, _)| *run == Run::Ok).map(|(_, times)| times).sum()
    }

    /// Titles after the reproducer's start, each once, with their runs.
    pub fn crashes(&self) -> Vec<(&str, u32)> {
        let title = |run: &'_ Run| matches!(run, Run::Crashed(_));
        counted(self.runs.iter().filter(|(run, _)| title(run)))
    }

    /// Titles before it.
    pub fn boot_crashes(&self) -> Vec<(&str, u32)> {
        let title = |run: &'_ Run| matches!(run, Run::BootFailed(_) | Run::TestFailed(_));
        counted(self.runs.iter().filter(|(run, _)| title(run)))
    }
}

fn counted<'a>(runs: impl Iterator<Item = &'a (Run, u32)>) -> Vec<(&'a str, u32)> {
    let mut counted: Vec<(&str, u32)> = Vec::new();
    for (run, times) in runs {
        let (Run::Crashed(title) | Run::BootFailed(title) | Run::TestFailed(title)) = run else { continue };
        match counted.iter_mut().find(|(known, _)| known == title) {
            Some((_, sum)) => *sum += times,
            None => counted.push((title, *times)),
        }
    }
    counted
}

/// The commit that a log blames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub revision: Option<RevisionId>,
    pub subject: String,
    pub merge: bool,
    pub files: Vec<String>,
}

/// How the log closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Close {
    Culprit,
    /// Only these are left, and none of them could be judged.
    Inconclusive,
    Error(String),
    NotReproduced,
    OldestReleaseHasBug,
    NotFixed,
    /// It breaks off.
    Truncated,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// By its header, or else by what its words mean.
    pub kind: Kind,
    pub start: Option<RevisionId>,
    /// The newer and the older end of the range.
    pub range: Option<(RevisionId, RevisionId)>,
    pub tests: Vec<Test>,
    pub published: Published,
    pub suspects: Vec<RevisionId>,
    pub untested_parent: Option<RevisionId>,
    pub culprit_signature: Option<String>,
    pub parent_signatures: Vec<String>,
    pub close: Close,
    pub total_s: Option<f64>,
    pub build_s: Option<f64>,
    pub test_s: Option<f64>,
    pub crash: Option<String>,
    pub report: String,
    /// Lines that said something.
    pub recognised: usize,
}

impl Log {
    /// The searched revisions, in order.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &Test)> {
        self.tests.iter().enumerate().filter(|(_, test)| test.role == Role::Step)
    }

    /// What git's word says about the crash; a skip says nothing.
    pub fn shows(&self, word: Word) -> Option<bool> {
        match (self.kind, word) {
            (_, Word::Skip) => None,
            (Kind::Cause, Word::Bad) | (Kind::Fix, Word::Good) => Some(true),
            (Kind::Cause, Word::Good) | (Kind::Fix, Word::Bad) => Some(false),
        }
    }
}
