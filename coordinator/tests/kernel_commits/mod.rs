//! Commits on top of Debian's kernel, made without a work tree.

use crate::farm::{self, text};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A bare repository with Debian's source in one commit, and that commit. It is where it was the
/// last time: an address of its own each time would have a mirror and a compiler's cache of its
/// own. What a test commits has the same id again.
pub fn clone_base(name: &str) -> (PathBuf, String) {
    let base = farm::cache().join("demo/base.git");
    let path = farm::cache().join("test/repositories").join(format!("{name}.git"));
    if !path.join("HEAD").exists() {
        let mut clone = Command::new("git");
        clone.args(["clone", "-q", "--bare", "--shared"]).arg(base).arg(&path);
        assert!(clone.status().expect("git runs").success());
    }
    let commit = git(&path, &["rev-parse", "base"], "").trim().to_owned();
    (path, commit)
}

/// Commits a file on top of a parent without a work tree.
pub fn commit(repository: &Path, parent: &str, file: &str, content: &str, subject: &str) -> String {
    git(repository, &["read-tree", parent], "");
    let blob = git(repository, &["hash-object", "-w", "--stdin"], content);
    git(repository, &["update-index", "--cacheinfo", &format!("100644,{},{file}", blob.trim())], "");
    let tree = git(repository, &["write-tree"], "");
    let message = format!("{subject}\n\nSigned-off-by: An Author <author@example.org>\n");
    git(repository, &["commit-tree", tree.trim(), "-p", parent], &message).trim().to_owned()
}

pub fn git(repository: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "An Author")
            .env(format!("GIT_{who}_EMAIL"), "author@example.org");
        command.env(format!("GIT_{who}_DATE"), "2022-12-12T12:00:00Z");
    }
    let mut child = command.spawn().expect("git starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("git reads");
    drop(stdin);
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {args:?}");
    text(&output.stdout)
}
