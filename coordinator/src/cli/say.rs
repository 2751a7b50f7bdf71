//! Lines for people on standard error.

use std::io::Write as _;

/// Says a line; one that nobody can read, or that a full disk does not take, is dropped: what is
/// being done matters more than that it is told.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
