//! What the runs at one revision say, for the log's sake.

use serde::{Deserialize, Serialize};

/// Cause: Bad shows the crash. Fix: Bad still shows it too; the log turns the words round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The target crash was not seen in enough runs that ran their course.
    Good,
    /// The target crash was seen.
    Bad,
    /// The runs say neither.
    Skip,
}
