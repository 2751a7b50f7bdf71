//! `kulprit bisect exec`: a search with a command in worktrees of a repository. What is run
//! next is decided in `kulprit_common::command`.

mod account;
mod attempt;
mod crew;
mod program;
mod readers;
mod worktrees;

use super::args::{ExecArgs, Format};
use super::bisect::{write_json, write_text};
use super::failure::Failure;
use super::say::say;
use super::signals::Signals;
use crate::git::{Field, GitError, Mirror, Mirrors};
use account::Account;
use crew::{Concluded, Crew};
use kulprit_common::command::{Plan, Search};
use kulprit_common::history::History;
use kulprit_common::id::RevisionId;
use program::Program;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use worktrees::Worktrees;

/// Without --jobs: what a desktop bears next to everything else.
const JOBS_MAX: usize = 4;

pub async fn exec(args: ExecArgs) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let default = NonZeroUsize::new(processors.clamp(2, JOBS_MAX)).expect("at least two");
    let plan =
        Plan { jobs: args.jobs.unwrap_or(default), repetition: args.runs, confidence: args.confidence };
    let base = tempfile::Builder::new()
        .prefix("kulprit-exec-")
        .tempdir()
        .map_err(|error| Failure::Input(format!("TMPDIR: {error}; name a directory to make worktrees in")))?;
    let source = Source::open(&args, base.path())?;
    let (good, bad) = (source.good.0, source.bad.0);
    let search = Search::new(source.history()?, good, bad, plan).calling_good_end(&source.good.1);
    let program = Program::find(&source.repository, &args.command)?;
    program.notes.iter().for_each(|note| say(note));
    let worktrees = Worktrees::new(&source.repository, base)?;
    let crew = Crew::new(search, worktrees, plan.jobs, program, &args);
    let (search, concluded) = crew.work(&mut signals).await?;

    let account = Account { search: &search, concluded: &concluded, plan, source: &source.mirror };
    match args.output.format {
        Format::Table if args.explain => write_text(&(account.text() + &account.reasons()))?,
        Format::Table => write_text(&account.text())?,
        Format::Json => write_json(&account.json())?,
    }
    if let Concluded::Aborted { revision, how } = &concluded {
        say(&format!("error: the command {how} at {revision}, and that stops the search"));
    }
    Ok(account.exit_code())
}

/// The repository, and the ends in it.
struct Source {
    repository: PathBuf,
    mirror: Mirror,
    /// Each with its subject.
    good: (RevisionId, String),
    bad: (RevisionId, String),
}

impl Source {
    fn open(args: &ExecArgs, base: &Path) -> Result<Source, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::Input(format!("--repo: {}: {error}", args.repo.display()))
        };
        let found = git2::Repository::discover(&args.repo).map_err(|error| match error.code() {
            git2::ErrorCode::NotFound => wrong(&"is not in a git repository"),
            git2::ErrorCode::Owner => failure("--repo", GitError::ForeignOwner { path: top(&args.repo) }),
            _ => wrong(&error.message()),
        })?;
        let repository = found.workdir().unwrap_or(found.path()).to_owned();
        let mirror = Mirrors::new(base.join("mirror"))
            .open(&repository.to_string_lossy(), &mut |_| {})
            .map_err(|error| failure("--repo", error))?;
        let end = |option: &str, rev: &str| mirror.name(rev).map_err(|error| failure(option, error));
        let (good, bad) = (end("--good", &args.good)?, end("--bad", &args.bad)?);
        Ok(Source { repository, mirror, good, bad })
    }

    fn history(&self) -> Result<History, Failure> {
        let history = self.mirror.history(&self.good.0, &self.bad.0);
        history.map_err(|error| match (&error, worktrees::merge_base(&self.repository, self.ends())) {
            (GitError::NotAncestor { shallow: false, .. }, Some(base)) => Failure::Input(format!(
                "--good: {} is not an ancestor of {}; where they part is {base}: if the command \
                 passes there, give that",
                self.good.0.short(),
                self.bad.0.short(),
            )),
            (GitError::Reversed { .. }, _) => Failure::Input(format!(
                "--good: {} descends from the bad end {}: swap them",
                self.good.0.short(),
                self.bad.0.short(),
            )),
            _ => failure("--good", error),
        })
    }

    fn ends(&self) -> [String; 2] {
        [self.good.0.to_string(), self.bad.0.to_string()]
    }
}

/// The directory that holds `.git`, where libgit2 does not say: this one or one above.
fn top(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(&path).to_owned()
}

fn failure(option: &str, error: GitError) -> Failure {
    match error.field() {
        Some(Field::Repository | Field::Good | Field::Revision) => {
            Failure::Input(format!("{option}: {error}"))
        }
        None => Failure::internal("read the repository", error),
    }
}
