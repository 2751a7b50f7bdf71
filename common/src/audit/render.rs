//! The audit for people.

use super::log::{Close, Kind, Role, Word};
use super::opinion::{Audit, Met, Standing, StepOpinion};
use crate::report::one_line;
use std::fmt::Write as _;

/// Titles of one step that are shown.
const MET_MAX: usize = 3;
/// Suspects that are shown.
const SUSPECTS_MAX: usize = 5;

/// The whole opinion as text.
pub fn text(audit: &Audit) -> String {
    let mut text = String::new();
    let kind = match audit.kind {
        Kind::Cause => "cause",
        Kind::Fix => "fix",
    };
    let _ = writeln!(text, "bisection of a {kind}: {}", close(&audit.close));
    if let Some(target) = &audit.target {
        let rate =
            audit.rate.map_or(String::new(), |rate| format!(", shows in {:.0} of 100 runs", rate * 100.0));
        let _ = writeln!(text, "crash searched for: {}{rate}", one_line(target));
    }
    text.push('\n');
    for step in &audit.steps {
        text += &step_line(step);
    }
    text.push('\n');
    text += &doubt(audit);
    text += &belief(audit);
    if !audit.next.is_empty() {
        let when = if audit.first_doubtful.is_some() { "would have been tried next" } else { "to make sure" };
        let _ = writeln!(text, "{when}:");
        for advice in &audit.next {
            let _ = writeln!(text, "  {}", advice.text);
        }
    }
    text += &waste(audit);
    text
}

fn close(close: &Close) -> String {
    match close {
        Close::Culprit => "blames a commit".into(),
        Close::Inconclusive => "inconclusive".into(),
        Close::Error(error) => format!("ended with an error: {}", one_line(error)),
        Close::NotReproduced => "the crash was not reproduced".into(),
        Close::OldestReleaseHasBug => "the oldest release has the bug".into(),
        Close::NotFixed => "not fixed".into(),
        Close::Truncated => "breaks off".into(),
    }
}

fn step_line(step: &StepOpinion) -> String {
    let said = match (&step.role, step.verdict) {
        (_, Some(Word::Good)) => "good",
        (_, Some(Word::Bad)) => "bad",
        (_, Some(Word::Skip)) => "skip",
        (Role::Start, None) => "start",
        (Role::Head, None) => "head",
        (Role::Release(tag), None) => tag,
        (Role::Parent, None) => "parent",
        (Role::Step, None) => "-",
    };
    let mut met: Vec<String> = step.decided_by.iter().take(MET_MAX).map(one).collect();
    if step.decided_by.len() > MET_MAX {
        met.push("…".into());
    }
    if met.is_empty() {
        met.push("no runs".into());
    }
    let mark = if step.doubtful { "  <- doubtful" } else { "" };
    format!("{:>4} {:<7} {} {}{mark}\n", step.number, one_line(said), step.revision.short(), met.join(", "))
}

fn one(met: &Met) -> String {
    let phase = if met.at_boot { " at boot" } else { "" };
    let same = match met.same_bug {
        same if same > 0.99 || same == 0.0 => String::new(),
        same => format!(" (same bug: {same:.2})"),
    };
    format!("{}x {}{phase}{same}", met.runs, one_line(&met.what))
}

fn doubt(audit: &Audit) -> String {
    let Some(step) = audit.first_doubtful.and_then(|number| audit.steps.get(number - 1)) else {
        return "no verdict is doubtful\n".into();
    };
    let subject = one_line(step.subject.as_deref().unwrap_or(""));
    let right = step
        .probability
        .map_or(String::new(), |right| format!(", right with probability {}", rounded(right)));
    format!(
        "first doubtful verdict: {} (line {}), {} {subject}{right}\n  {}\n",
        step.number,
        step.line,
        step.revision,
        one_line(&step.reason)
    )
}

fn belief(audit: &Audit) -> String {
    let belief = &audit.belief;
    let mut text = match (belief.revision, belief.standing) {
        (None, _) => "no single commit is blamed\n".to_string(),
        (Some(revision), standing) => {
            let standing = match standing {
                Standing::Upheld => "is upheld",
                Standing::Doubtful => "is doubtful",
                Standing::Rejected => "deserves no belief",
                Standing::None => "cannot be judged",
            };
            let sure =
                belief.probability.map_or(String::new(), |sure| format!(": probability {}", rounded(sure)));
            format!("blamed: {revision} {}\n  {standing}{sure}\n", one_line(&belief.subject))
        }
    };
    for reason in &belief.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    if belief.standing != Standing::Upheld && !audit.suspects.is_empty() {
        text += "suspects:\n";
        for suspect in audit.suspects.iter().take(SUSPECTS_MAX) {
            let subject = one_line(suspect.subject.as_deref().unwrap_or(""));
            let _ = writeln!(text, "  {}  {} {subject}", rounded(suspect.probability), suspect.place);
        }
    }
    text
}

/// Two digits, and never certain of anything.
pub fn rounded(probability: f64) -> String {
    match probability {
        it if it > 0.99 => "above 0.99".into(),
        it if it < 0.01 => "below 0.01".into(),
        it => format!("{it:.2}"),
    }
}

fn waste(audit: &Audit) -> String {
    let waste = &audit.wasted;
    let mut text = format!("wasted: {} of {} runs", waste.runs - waste.runs_enough, waste.runs);
    if let (Some(wasted), Some(hours)) = (waste.hours_wasted, waste.hours) {
        let _ = write!(text, ", {wasted:.1} of {hours:.1} hours");
    }
    for (count, what) in [
        (waste.skipped_steps, "steps skipped"),
        (waste.steps_after_doubt, "steps after the doubtful one"),
        (waste.tested_again, "revisions tested again"),
    ] {
        if count > 0 {
            let _ = write!(text, "; {what}: {count}");
        }
    }
    text + "\n"
}
