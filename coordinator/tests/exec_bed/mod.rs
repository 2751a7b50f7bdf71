//! A repository to search with a command, and what such a search leaves.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A repository whose commits from one on, and what descends from it, hold a file `bug`.
pub struct Bed {
    pub dir: TempDir,
}

/// Parents of each commit: a line, or one that merges a branch of three commits every ten.
fn parents(at: usize, merges: bool) -> Vec<usize> {
    match (at, at % 10) {
        (0, _) => vec![],
        (_, 6) if merges => vec![at - 4],
        (_, 9) if merges => vec![at - 1, at - 4],
        (_, _) => vec![at - 1],
    }
}

impl Bed {
    pub fn new(commits: usize, culprit: usize, merges: bool) -> Bed {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("repo")).expect("made");
        std::fs::create_dir(dir.path().join("tmp")).expect("made");
        let bed = Bed { dir };
        bed.git(&["init", "-q", "-b", "main", "."]);
        let mut buggy = vec![false; commits];
        let mut stream = String::new();
        for at in 0..commits {
            let parents = parents(at, merges);
            buggy[at] = at == culprit || parents.iter().any(|&parent| buggy[parent]);
            let subject = format!("commit {at}");
            stream += &format!("commit refs/heads/main\nmark :{}\n", at + 1);
            stream += &format!("committer A <a@b> {} +0000\n", 1_700_000_000 + at * 60);
            stream += &format!("data {}\n{subject}\n", subject.len());
            for (n, parent) in parents.iter().enumerate() {
                stream += &format!("{} :{}\n", if n == 0 { "from" } else { "merge" }, parent + 1);
            }
            stream += &format!("M 100644 inline number\ndata {}\n{at}\n", at.to_string().len());
            if buggy[at] {
                stream += "M 100644 inline bug\ndata 1\nx\n";
            }
            stream += &format!("reset refs/tags/c{at}\nfrom :{}\n", at + 1);
        }
        let mut import = Command::new("git")
            .args(["fast-import", "--quiet"])
            .current_dir(bed.repo())
            .stdin(Stdio::piped())
            .spawn()
            .expect("git starts");
        std::io::Write::write_all(&mut import.stdin.take().expect("a pipe"), stream.as_bytes())
            .expect("written");
        assert!(import.wait().expect("waited").success());
        bed.git(&["reset", "-q", "--hard"]);
        bed
    }

    pub fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    pub fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git").args(words).current_dir(self.repo()).output().expect("git starts");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a shell script beside the repository, and gives its path.
    pub fn script(&self, text: &str) -> String {
        let path = self.path("script");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("made executable");
        path
    }

    pub fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut kulprit = Command::new(env!("CARGO_BIN_EXE_kulprit"));
        kulprit.args(["bisect", "exec", "--good", "c0"]).args(options).arg("--").args(command);
        kulprit.current_dir(self.repo()).env("TMPDIR", self.dir.path().join("tmp"));
        kulprit
    }

    pub fn exec(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(options, command).output().expect("kulprit starts")
    }

    pub fn id(&self, at: usize) -> String {
        self.git(&["rev-parse", &format!("c{at}")]).trim().to_owned()
    }

    /// Neither worktrees nor files are left, and the user's repository is as it was.
    pub fn assert_clean(&self, what: &str) {
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("tmp")).expect("listed").collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        assert!(!self.repo().join(".git/worktrees").exists(), "{what}");
        assert_eq!(self.git(&["status", "--porcelain"]), "", "{what}");
        assert_eq!(self.git(&["symbolic-ref", "HEAD"]), "refs/heads/main\n", "{what}");
    }
}

pub fn first_bad(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| Some(line.strip_suffix(" is the first bad commit")?.to_owned()))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn lines(path: &str) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
