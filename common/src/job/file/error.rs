//! What can be wrong with a job file, worded for the person who wrote it.

use super::Input;

/// Each message names the key, as `section.key`, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFileError {
    #[error("line {line} is not TOML: {problem}")]
    Syntax { line: usize, problem: String },
    #[error("{key} (line {line}) is not a key of the job file; {hint}")]
    UnknownKey { key: String, line: usize, hint: String },
    #[error("{field} (line {line}) must be {must_be}")]
    Form { field: String, line: usize, must_be: String },
    #[error("{field} is missing: {help}")]
    Missing { field: String, help: String },
    #[error("{first} and {second} exclude each other: keep one")]
    Both { first: String, second: String },
    #[error("{field} {problem}: {help}")]
    Value { field: String, problem: String, help: String },
    #[error("{field}: cannot read {path}: {problem}")]
    Unreadable { field: String, path: String, problem: String },
    #[error("{field}: {path} {problem}: {help}")]
    Content { field: String, path: String, problem: String, help: String },
    #[error("{field}: line {line} of {path} is not a line of a kernel config: {problem}")]
    ConfigLine { field: String, path: String, line: usize, problem: String },
}

impl JobFileError {
    pub(super) fn value(field: &str, problem: impl Into<String>, help: impl Into<String>) -> Self {
        JobFileError::Value { field: field.into(), problem: problem.into(), help: help.into() }
    }

    pub(super) fn content(input: &Input, problem: impl Into<String>, help: &str) -> Self {
        JobFileError::Content {
            field: input.field.clone(),
            path: input.path.clone(),
            problem: problem.into(),
            help: help.into(),
        }
    }
}
