//! What a search with a command came to, for people and for programs.

use super::crew::Concluded;
use crate::git::Mirror;
use kulprit_common::bisect::Suspect;
use kulprit_common::command::{Ending, Plan, Search, Tally};
use kulprit_common::id::RevisionId;
use kulprit_common::report::show;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub struct Account<'a> {
    pub search: &'a Search,
    pub concluded: &'a Concluded,
    pub plan: Plan,
    pub source: &'a Mirror,
}

impl Account<'_> {
    pub fn exit_code(&self) -> u8 {
        match self.concluded {
            Concluded::Ended(Ending::Culprit { .. }) => 0,
            Concluded::Ended(Ending::Suspects { .. }) => 3,
            Concluded::Ended(Ending::BadEndPasses { .. } | Ending::BadEndSkipped) => 4,
            Concluded::Ended(Ending::GoodEndFails { .. }) => 5,
            Concluded::Aborted { .. } => 6,
        }
    }

    fn kind(&self) -> &'static str {
        match self.concluded {
            Concluded::Ended(Ending::Culprit { .. }) => "culprit",
            Concluded::Ended(Ending::Suspects { .. }) => "suspects",
            Concluded::Ended(Ending::BadEndPasses { .. }) => "not-reproduced",
            Concluded::Ended(Ending::BadEndSkipped) => "bad-end-broken",
            Concluded::Ended(Ending::GoodEndFails { .. }) => "good-end-is-bad",
            Concluded::Aborted { .. } => "aborted",
        }
    }

    /// In the words of `git bisect`, and what it does not say.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match self.concluded {
            Concluded::Ended(Ending::Culprit { revision, probability }) => {
                let _ = writeln!(text, "{revision} is the first bad commit");
                if let Ok(details) = self.source.details(revision) {
                    text += &show::commit(&details);
                }
                let _ = writeln!(text, "\n{}", self.how_sure(*probability));
            }
            Concluded::Ended(Ending::Suspects { suspects, reason }) => {
                let _ = writeln!(text, "The first bad commit could be any of:");
                for Suspect { revision, probability } in suspects {
                    let _ = writeln!(text, "{revision} {} ({probability:.3})", self.search.subject(revision));
                }
                let _ = writeln!(text, "We cannot bisect more: {reason}");
            }
            Concluded::Ended(Ending::BadEndPasses { tally }) => {
                let _ = writeln!(text, "The bad end never failed in {} runs.", tally.total());
            }
            Concluded::Ended(Ending::BadEndSkipped) => {
                text += "The bad end cannot be tested: it was skipped.\n"
            }
            Concluded::Ended(Ending::GoodEndFails { revision }) => {
                let _ = writeln!(text, "The good end is bad: the command fails at {revision} as well.");
            }
            Concluded::Aborted { .. } => {}
        }
        text
    }

    /// Why each revision was run.
    pub fn reasons(&self) -> String {
        let lines = self.search.explained().into_iter().map(|line| format!("# {line}\n"));
        std::iter::once("\n".to_owned()).chain(lines).collect()
    }

    fn how_sure(&self, probability: f64) -> String {
        let (runs, revisions) = (self.search.runs(), self.search.tallies().len());
        let spent = format!("probability {} ({runs} runs of {revisions} revisions)", rounded(probability));
        let remark = match (self.plan.wanted(), self.search.is_flaky()) {
            (None, false) => {
                "Every revision was run once: if the command never wavers, the answer is certain. \
                 --confidence 0.99 would make sure."
            }
            (Some(_), false) => "The command was never seen to waver.",
            (None | Some(_), true) => "The command is flaky.",
        };
        format!("{spent}\n{remark}")
    }

    pub fn json(&self) -> Value {
        let subject = |revision: &RevisionId| self.search.subject(revision);
        let (mut culprit, mut probability, mut commit, mut message) = (None, None, None, None);
        let mut suspects = Vec::new();
        let suspect = |revision: &RevisionId, probability: f64| json!({ "revision": revision, "subject": subject(revision), "probability": probability });
        match self.concluded {
            Concluded::Ended(Ending::Culprit { revision, probability: sure }) => {
                (culprit, probability) = (Some(revision), Some(sure));
                commit = self.source.details(revision).ok();
                suspects.push(suspect(revision, *sure));
            }
            Concluded::Ended(Ending::Suspects { suspects: all, reason }) => {
                suspects.extend(all.iter().map(|one| suspect(&one.revision, one.probability)));
                message = Some(reason.clone());
            }
            Concluded::Aborted { revision, how } => {
                message = Some(format!("the command {how} at {revision}"))
            }
            Concluded::Ended(
                Ending::BadEndPasses { .. } | Ending::BadEndSkipped | Ending::GoodEndFails { .. },
            ) => message = Some(self.text().trim_end().to_owned()),
        }
        let revision = |(revision, tally): (&RevisionId, &Tally)| {
            let Tally { good, bad, skip } = tally;
            json!({ "revision": revision, "subject": subject(revision), "good": good, "bad": bad, "skip": skip })
        };
        let ending = match self.concluded {
            Concluded::Ended(ending) => Some(ending),
            Concluded::Aborted { .. } => None,
        };
        json!({
            "version": 1,
            "ending": { "kind": self.kind(), "exit_code": self.exit_code(), "culprit": culprit, "message": message },
            "probability": probability,
            "flaky": self.search.is_flaky(),
            "suspects": suspects,
            "commit": commit,
            "runs": self.search.runs(),
            "revisions": self.search.tallies().iter().map(revision).collect::<Vec<_>>(),
            "rounds": self.search.explained_json(),
            "replay": self.search.replay(ending),
        })
    }
}

/// Never rounded up to certainty.
fn rounded(probability: f64) -> String {
    if probability > 0.999 { "above 0.999".into() } else { format!("{probability:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_certain() {
        for (probability, text) in
            [(0.5, "0.500"), (0.9949, "0.995"), (0.9999, "above 0.999"), (1.0, "above 0.999")]
        {
            assert_eq!(rounded(probability), text);
        }
    }
}
