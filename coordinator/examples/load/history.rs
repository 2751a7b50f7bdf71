//! A repository of commits that nobody builds, and what is planted in it for each job.

use anyhow::{Context as _, ensure};
use kulprit_common::id::{Digest, RevisionId};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As many as lie between two release candidates of Linux in a quiet week.
const COMMITS: usize = 400;

pub struct History {
    pub repository: PathBuf,
    /// Oldest first.
    pub commits: Vec<RevisionId>,
    places: HashMap<RevisionId, usize>,
}

impl History {
    pub fn make(dir: &Path) -> anyhow::Result<History> {
        let repository = dir.join("linux");
        let git = |args: &[&str]| -> anyhow::Result<String> {
            let output =
                Command::new("git").arg("-C").arg(&repository).args(args).output().context("run git")?;
            ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        std::fs::create_dir_all(&repository)?;
        git(&["init", "--quiet", "--initial-branch=main"])?;
        let mut import = Command::new("git");
        import.arg("-C").arg(&repository).args(["fast-import", "--quiet"]).stdin(Stdio::piped());
        let mut child = import.spawn().context("run git fast-import")?;
        child.stdin.take().context("its input")?.write_all(stream().as_bytes())?;
        ensure!(child.wait()?.success(), "git fast-import failed");
        let listed = git(&["rev-list", "--reverse", "main"])?;
        let commits: Vec<RevisionId> =
            listed.lines().map(|line| line.parse().map_err(anyhow::Error::msg)).collect::<Result<_, _>>()?;
        let places = commits.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        Ok(History { repository, commits, places })
    }

    pub fn place(&self, revision: &RevisionId) -> Option<usize> {
        self.places.get(revision).copied()
    }

    /// The commit to blame in a job of this name; never the good end.
    pub fn culprit(&self, name: &str) -> usize {
        1 + number(name) % (self.commits.len() - 1)
    }
}

/// A number that looks random, the same for the same text.
pub fn number(text: &str) -> usize {
    let digest = Digest::of(text.as_bytes()).to_string();
    digest.bytes().take(8).fold(0, |sum, byte| sum * 31 + usize::from(byte))
}

/// Each commit touches a file of its own, so that any can be reverted.
fn stream() -> String {
    let mut text = String::new();
    for place in 0..COMMITS {
        let at = 1_700_000_000 + 600 * place;
        let message = format!("load: change {place}\n");
        let body = format!("int f{place};\n");
        let _ = write!(
            text,
            "commit refs/heads/main\ncommitter A <a@example.org> {at} +0000\ndata {}\n{message}\nM 100644 inline drivers/{}/{place}.c\ndata {}\n{body}\n",
            message.len(),
            place % 20,
            body.len(),
        );
    }
    text
}
