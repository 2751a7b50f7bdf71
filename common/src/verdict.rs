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

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Good => "good",
            Verdict::Bad => "bad",
            Verdict::Skip => "skip",
        })
    }
}

impl std::str::FromStr for Verdict {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Verdict::Good, Verdict::Bad, Verdict::Skip]
            .into_iter()
            .find(|verdict| verdict.to_string() == text)
            .ok_or_else(|| format!("{text:?} is none of good, bad, skip"))
    }
}
