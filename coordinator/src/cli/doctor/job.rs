//! What of a job file can be checked before anything is run: its keys, and the repository and the
//! revisions it names, where these are on this machine.

use super::{Check, Status};
use crate::cli::failure::Failure;
use crate::cli::submission::Submission;
use crate::git::{Field, GitError, Mirrors};
use std::path::Path;

/// Reads the job file; yields what came of it, and the job if it can be used.
pub fn file(path: &Path) -> (Check, Option<Submission>) {
    match Submission::load(path) {
        Ok(job) => {
            let said = format!("{}: job {:?}", path.display(), job.name);
            (Check::new("job file", Status::Ok, said, ""), Some(job))
        }
        Err(Failure::Input(why)) => {
            let hint = match std::fs::read(path) {
                Ok(_) => "docs/job-file.md describes the keys",
                Err(_) => "name a job file that this user may read; examples/demo has some",
            };
            (Check::new("job file", Status::Failed, why, hint), None)
        }
        Err(other) => (Check::new("job file", Status::Failed, format!("{other:?}"), ""), None),
    }
}

/// Looks for the repository and the ends. A URL is not asked: that may take as long as a clone.
pub fn repository(job: &Submission) -> Option<Check> {
    let name = "job's repository";
    let repository = job.repository();
    if repository.contains("://") {
        return None;
    }
    let checked = tempfile::tempdir().map_err(|error| error.to_string()).and_then(|base| {
        let mirrors = Mirrors::new(base.path());
        let wrong = |key: &str, error: GitError| format!("{key}: {error}");
        let mirror = mirrors.open(repository, &mut |_| {}).map_err(|error| wrong("repository", error))?;
        let mut found = Vec::new();
        for (key, rev) in job.ends() {
            let (id, _) = mirror.name(rev).map_err(|error| match error.field() {
                Some(Field::Repository) => wrong("repository", error),
                Some(Field::Good | Field::Revision) | None => wrong(key, error),
            })?;
            found.push(format!("{key} is {}", id.short()));
        }
        Ok(found.join(", "))
    });
    Some(match checked {
        Ok(found) => Check::new(name, Status::Ok, format!("{repository}: {found}"), ""),
        Err(why) => {
            Check::new(name, Status::Failed, why, "mend the key in the job file, or fetch what it names")
        }
    })
}
