//! Worktrees of the user's repository in a temporary directory, gone when dropped.
//!
//! They share objects, branches and configuration with the repository, and nothing of its
//! checkout and index. Hooks are not run: they are written for the user's own checkout.

use super::super::failure::Failure;
use super::super::say::say;
use anyhow::{Context as _, anyhow};
use kulprit_common::id::RevisionId;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tempfile::TempDir;
use tokio::process::Command;

/// What `git rev-parse --local-env-vars` lists: with these another repository would be meant.
pub const LOCAL_VARIABLES: [&str; 15] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
];

/// Tries to remove a directory into which a leftover process may still write.
const REMOVALS: u32 = 5;

pub struct Worktrees {
    repository: PathBuf,
    base: TempDir,
    made: Vec<Made>,
}

struct Made {
    path: PathBuf,
    /// What the repository keeps about it, below `.git/worktrees`.
    kept: Option<PathBuf>,
}

/// One worktree, and the revision that is checked out in it.
#[derive(Clone, Debug)]
pub struct Worktree {
    pub path: PathBuf,
    pub at: Option<RevisionId>,
    /// A command may have changed it since it was made.
    is_used: bool,
}

impl Worktrees {
    pub fn new(repository: &Path, base: TempDir) -> Result<Self, Failure> {
        Ok(Worktrees { repository: repository.to_owned(), base, made: Vec::new() })
    }

    /// Makes another one, with this revision checked out.
    pub async fn add(&mut self, revision: &RevisionId) -> Result<Worktree, Failure> {
        let base = self.base.path();
        let name = base.file_name().unwrap_or(OsStr::new("kulprit-exec")).to_string_lossy().into_owned();
        let path = base.join(format!("{name}-{}", self.made.len()));
        // Known before it is there: whatever half of it is made is removed.
        self.made.push(Made { path: path.clone(), kept: None });
        let revision_text = revision.to_string();
        let words: [&OsStr; 7] = [
            "worktree".as_ref(),
            "add".as_ref(),
            "--quiet".as_ref(),
            "--force".as_ref(),
            "--detach".as_ref(),
            path.as_os_str(),
            revision_text.as_ref(),
        ];
        let added = git(&self.repository, &words).await;
        let kept = std::fs::read_to_string(path.join(".git")).ok();
        let kept = kept.and_then(|text| Some(PathBuf::from(text.strip_prefix("gitdir: ")?.trim_end())));
        if let Some(made) = self.made.last_mut() {
            made.kept = kept;
        }
        added.with_context(|| format!("make a worktree of {}", self.repository.display()))?;
        Ok(Worktree { path, at: Some(*revision), is_used: false })
    }

    fn remove(made: &Made) {
        for attempt in 1..=REMOVALS {
            match std::fs::remove_dir_all(&made.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound && attempt < REMOVALS => {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    say(&format!("warning: cannot remove {}: {error}", made.path.display()));
                }
                Ok(()) | Err(_) => break,
            }
        }
        if let Some(kept) = &made.kept {
            // git itself forgets a worktree whose directory is gone, sooner or later.
            let _ = std::fs::remove_dir_all(kept);
            // As git does: the last one takes the directory of all along. Others keep it.
            let _ = kept.parent().map(std::fs::remove_dir);
        }
    }
}

impl Drop for Worktrees {
    fn drop(&mut self) {
        self.made.iter().for_each(Worktrees::remove);
    }
}

impl Worktree {
    /// Checks a revision out, over whatever the command has changed. Files that git does not
    /// know stay, so that builds stay incremental.
    pub async fn check_out(&mut self, revision: &RevisionId) -> anyhow::Result<()> {
        let is_untouched = !std::mem::replace(&mut self.is_used, true);
        if is_untouched && self.at == Some(*revision) {
            return Ok(());
        }
        self.at = None;
        let revision_text = revision.to_string();
        let words: [&OsStr; 5] = [
            "checkout".as_ref(),
            "--quiet".as_ref(),
            "--force".as_ref(),
            "--detach".as_ref(),
            revision_text.as_ref(),
        ];
        git(&self.path, &words).await.with_context(|| format!("check out {revision}"))?;
        self.at = Some(*revision);
        Ok(())
    }
}

async fn git(dir: &Path, words: &[&OsStr]) -> anyhow::Result<()> {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]).args(words);
    for name in LOCAL_VARIABLES {
        command.env_remove(name);
    }
    // A terminal's Ctrl-C is for us: half a checkout helps nobody.
    let output = command.stdin(Stdio::null()).process_group(0).output().await.context("start git")?;
    if output.status.success() { Ok(()) } else { Err(anyhow!("{}", said(&output))) }
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() { format!("git ended with {}", output.status) } else { text }
}

/// Where two commits part, if that is one commit.
pub fn merge_base(repository: &Path, ends: [String; 2]) -> Option<String> {
    let repository = git2::Repository::open(repository).ok()?;
    let [one, two] = ends.map(|end| git2::Oid::from_str(&end).ok());
    let bases = repository.merge_bases(one?, two?).ok()?;
    (bases.len() == 1).then(|| bases[0].to_string())
}

/// Whether a file belongs to the user's checkout as git sees it.
pub fn is_tracked(repository: &Path, file: &Path) -> bool {
    let tracked = || {
        let repository = git2::Repository::open(repository).ok()?;
        let top = repository.workdir()?.canonicalize().ok()?;
        let file = file.canonicalize().ok()?;
        let inside = file.strip_prefix(top).ok()?;
        repository.index().ok()?.get_path(inside, 0).map(|_| ())
    };
    tracked().is_some()
}
