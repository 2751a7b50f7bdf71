//! `kulprit bisect exec`: a search with a command in worktrees of a repository. What is run
//! next is decided in `kulprit_common::command`.

mod account;
mod attempt;
mod crew;
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
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
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
        .map_err(|error| Failure::internal("make a temporary directory", error))?;
    let source = Source::open(&args, base.path())?;
    let (good, bad) = (source.good.0, source.bad.0);
    let search = Search::new(source.history()?, good, bad, plan).calling_good_end(&source.good.1);
    let worktrees = Worktrees::new(&source.repository, base)?;
    let crew = Crew::new(search, worktrees, plan.jobs, source.command(&args)?, &args);
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

    /// The command as it is run in a worktree. A script that is not committed stays where it
    /// is; with `git bisect run` too it would be the same for every revision.
    fn command(&self, args: &ExecArgs) -> Result<Vec<OsString>, Failure> {
        let mut command = args.command.clone();
        let name = Path::new(&command[0]);
        let wrong = |why: &str| Failure::Input(format!("{}: {why}", name.display()));
        if name.components().count() == 1 && !command[0].to_string_lossy().contains('/') {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).any(|dir| is_executable(&dir.join(name)));
            return if found { Ok(command) } else { Err(wrong("no such command is in PATH")) };
        }
        let here =
            std::env::current_dir().map_err(|error| Failure::internal("find this directory", error))?;
        let here = here.join(name);
        if name.is_absolute() || here.exists() && !worktrees::is_tracked(&self.repository, &here) {
            if !here.exists() {
                return Err(wrong("no such file"));
            }
            if !is_executable(&here) {
                return Err(wrong("is not executable; `chmod +x` makes it so"));
            }
            command[0] = here.into();
        }
        Ok(command)
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn failure(option: &str, error: GitError) -> Failure {
    match error.field() {
        Some(Field::Repository | Field::Good | Field::Revision) => {
            Failure::Input(format!("{option}: {error}"))
        }
        None => Failure::internal("read the repository", error),
    }
}
