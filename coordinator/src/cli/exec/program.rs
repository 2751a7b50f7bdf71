//! The command of a search: where it is found, and what is likely to be wrong with it.
//!
//! A worktree holds what is committed and nothing else, which is easily forgotten: what a command
//! names is looked up before it is run, and again when it cannot be run.

use super::super::failure::Failure;
use super::worktrees;
use git2::{Repository, Status};
use kulprit_common::id::RevisionId;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// What the kernel reads of a script to find its interpreter.
const SHEBANG_BYTES_MAX: usize = 256;

/// The mode of a file that git has as a program.
const EXECUTABLE: i32 = 0o100_755;

pub struct Program {
    repository: PathBuf,
    /// As it is run in a worktree.
    pub words: Vec<OsString>,
    /// What the user may have meant otherwise.
    pub notes: Vec<String>,
}

impl Program {
    /// Finds the command. A script that is not committed stays where it is; with `git bisect run`
    /// too it would be the same for every revision.
    pub fn find(repository: &Path, typed: &[OsString]) -> Result<Program, Failure> {
        let here =
            std::env::current_dir().map_err(|error| Failure::internal("find this directory", error))?;
        let mut words = typed.to_vec();
        let name = Path::new(&typed[0]);
        let wrong = |why: &str| Failure::Input(format!("{}: {why}", name.display()));
        let is_path = name.is_absolute() || typed[0].to_string_lossy().contains('/');
        let mut notes = Vec::new();
        if !is_path {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|dir| is_executable(&dir.join(name))) {
                return Err(wrong("no such command is in PATH"));
            }
        } else {
            let file = plain(&here.join(name));
            if name.is_absolute() || file.exists() && !worktrees::is_tracked(repository, &file) {
                if !file.exists() {
                    return Err(wrong("no such file"));
                }
                if !is_executable(&file) {
                    return Err(wrong("is not executable; `chmod +x` makes it so"));
                }
                if let Some(interpreter) = missing_interpreter(&head(&file)) {
                    return Err(wrong(&no_interpreter(&interpreter)));
                }
                words[0] = file.into();
            } else {
                notes.extend(changed(repository, name, &file));
            }
        }
        for argument in typed[1..].iter().map(Path::new).filter(|it| it.is_relative()) {
            let file = plain(&here.join(argument));
            if !file.is_file() {
                continue;
            }
            notes.extend(match worktrees::is_tracked(repository, &file) {
                true => changed(repository, argument, &file),
                false => Some(format!(
                    "note: {} is not committed, so it is not in the worktrees; name it {}",
                    argument.display(),
                    file.display()
                )),
            });
        }
        Ok(Program { repository: repository.to_owned(), words, notes })
    }

    /// Why it cannot be run at a revision, given the exit code that says so.
    pub fn unrunnable(&self, code: i32, at: &RevisionId) -> Failure {
        let name = self.words[0].to_string_lossy();
        let why = match self.committed(at) {
            Some((mode, _)) if mode != EXECUTABLE => {
                format!("is not executable in {}; use `sh {name}`", at.short())
            }
            Some((_, text)) if missing_interpreter(&text).is_some() => {
                no_interpreter(&missing_interpreter(&text).unwrap_or_default())
            }
            _ => {
                let seems = if code == 127 { "is not found" } else { "cannot be run" };
                format!(
                    "exits with {code} at the good end too, as a command does that {seems}; files that are not \
                     committed are not in the worktrees, so name them by absolute paths"
                )
            }
        };
        Failure::Input(format!("{name}: {why}"))
    }

    /// The file at a revision: its mode and what it holds.
    fn committed(&self, at: &RevisionId) -> Option<(i32, Vec<u8>)> {
        let name = Path::new(&self.words[0]);
        if name.is_absolute()
            || name.components().count() < 2 && !self.words[0].to_string_lossy().contains('/')
        {
            return None;
        }
        let repository = Repository::open(&self.repository).ok()?;
        let commit = repository.find_commit(git2::Oid::from_bytes(at.as_bytes()).ok()?).ok()?;
        let inside: PathBuf = name.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let entry = commit.tree().ok()?.get_path(&inside).ok()?;
        let blob = repository.find_blob(entry.id()).ok()?;
        Some((entry.filemode(), blob.content().to_vec()))
    }
}

/// The path without what says nothing, such as the dot of `./check.sh`.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Of a file that git knows: that the worktrees have it otherwise.
fn changed(repository: &Path, name: &Path, file: &Path) -> Option<String> {
    let repository = Repository::open(repository).ok()?;
    let top = repository.workdir()?.canonicalize().ok()?;
    let file = file.canonicalize().ok()?;
    let status = repository.status_file(file.strip_prefix(top).ok()?).ok()?;
    let edited = Status::WT_MODIFIED | Status::INDEX_MODIFIED | Status::INDEX_NEW;
    status.intersects(edited).then(|| {
        format!(
            "note: {} has changes that are not committed; the worktrees have what each revision has. To run this \
             one everywhere, copy it out of the repository and name the copy",
            name.display()
        )
    })
}

fn head(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read says so when it is run.
    let _ = std::fs::File::open(file).map(|file| file.take(SHEBANG_BYTES_MAX as u64).read_to_end(&mut bytes));
    bytes
}

/// The interpreter that a script names and that is not there.
fn missing_interpreter(script: &[u8]) -> Option<String> {
    let line = script.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(&line[..line.len().min(SHEBANG_BYTES_MAX)]).into_owned();
    // A carriage return at its end is part of the name, and the usual reason.
    let name = line.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    (name.starts_with('/') && !Path::new(name).exists()).then(|| name.to_owned())
}

fn no_interpreter(name: &str) -> String {
    match name.strip_suffix('\r') {
        Some(_) => {
            "has lines that end in a carriage return, so its interpreter is not found; convert it".into()
        }
        None => format!("its first line names the interpreter {name}, which is not there"),
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_that_is_not_there_is_seen() {
        for (script, missing) in [
            ("#!/bin/sh\n", None),
            ("#! /nosuch -e\n", Some("/nosuch")),
            ("#!/nosuch", Some("/nosuch")),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("echo\n", None),
            ("#!", None),
            ("", None),
        ] {
            assert_eq!(missing_interpreter(script.as_bytes()).as_deref(), missing, "{script:?}");
        }
        assert!(no_interpreter("/bin/sh\r").contains("carriage return"));
    }
}
