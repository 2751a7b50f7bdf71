//! Why a command came to no result: the user's mistake, ours, or an interruption.

use super::ending::by_kind;
use super::say::say;
use kulprit_common::report::ending::{EXIT_BAD_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED};
use std::io;
use std::process::ExitCode;

/// What a shell says of a program that SIGPIPE ended.
const EXIT_READER_GONE: u8 = 141;

#[derive(Debug)]
pub enum Failure {
    /// What the user gave is at fault; the message names it.
    Input(String),
    /// A bug of ours, or something is out of reach.
    Internal(anyhow::Error),
    /// What the work needs is not on this machine; the message names it.
    Unable(String),
    /// Ctrl-C or SIGTERM; the message says how to go on.
    Interrupted(String),
    /// The reader of our output has gone: there is nobody to tell.
    ReaderGone,
}

impl Failure {
    /// Fits behind "failed to".
    pub fn internal(what: impl Into<String>, error: impl Into<anyhow::Error>) -> Self {
        Failure::Internal(error.into().context(what.into()))
    }

    /// An error in writing to standard output.
    pub fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::internal("write the output", error),
        }
    }

    /// What it says, without what a caller may do.
    pub fn why(&self) -> String {
        let why = match self {
            Failure::Input(why) | Failure::Unable(why) | Failure::Interrupted(why) => why.clone(),
            Failure::Internal(error) => format!("failed to {error:#}"),
            Failure::ReaderGone => String::new(),
        };
        why.lines().next().unwrap_or_default().to_owned()
    }

    /// Says it on standard error; the exit code tells the kinds apart.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::Input(message) => {
                say(&format!("error: {message}"));
                ExitCode::from(EXIT_BAD_INPUT)
            }
            Failure::Unable(message) => {
                say(&format!("error: {message}"));
                ExitCode::from(by_kind("blocked"))
            }
            Failure::Internal(error) => {
                say(&format!("error: failed to {error:#}"));
                ExitCode::from(EXIT_INTERNAL)
            }
            Failure::Interrupted(message) => {
                say(message);
                ExitCode::from(EXIT_INTERRUPTED)
            }
            Failure::ReaderGone => ExitCode::from(EXIT_READER_GONE),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Internal(error)
    }
}
