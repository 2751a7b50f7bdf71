//! The endings by name, and the exit codes of commands that wait for one.

use crate::bisect::Finding;

/// An internal error: a bug of ours, or the coordinator is out of reach.
pub const EXIT_INTERNAL: u8 = 1;
/// The user's mistake: a job file, an option, a revision that is not there.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Stopped by Ctrl-C; the job can be resumed.
pub const EXIT_INTERRUPTED: u8 = 130;

/// The ending's name in listings, JSON and the journal: stable.
pub fn kind(finding: &Finding) -> &'static str {
    match finding {
        Finding::Culprit { .. } => "culprit",
        Finding::Suspects { .. } => "suspects",
        Finding::NotReproduced { .. } => "not-reproduced",
        Finding::BadEndBroken { .. } => "bad-end-broken",
        Finding::GoodEndIsBad { .. } => "good-end-is-bad",
        Finding::OldestReleaseHasBug { .. } => "oldest-release-has-bug",
        Finding::NotFixed { .. } => "not-fixed",
        Finding::Blocked { .. } => "blocked",
    }
}

/// The exit code of a command that waited for this ending; documented in docs/results.md.
pub fn exit_code(finding: &Finding) -> u8 {
    match finding {
        Finding::Culprit { .. } => 0,
        Finding::Suspects { .. } => 3,
        Finding::NotReproduced { .. } | Finding::BadEndBroken { .. } => 4,
        Finding::GoodEndIsBad { .. } | Finding::OldestReleaseHasBug { .. } | Finding::NotFixed { .. } => 5,
        Finding::Blocked { .. } => 6,
    }
}
