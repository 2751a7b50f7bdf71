//! The words of the log: one run, one verdict, one line.

use super::{Built, Record, RunLine, Tested};
use crate::bisect::{Counts, Role};
use crate::job::Symptom;
use crate::outcome::{Outcome, Phase, SeenCrash};
use crate::verdict::Verdict;

/// The target's title as far as it is known at the `at`-th verdict: as given, or the one
/// most seen at the bad end.
pub fn target<'a>(record: &Record<'a>, at: usize) -> Option<&'a str> {
    record.job.target.as_deref().or_else(|| {
        let known = record.tested.iter().take(at.saturating_add(1));
        let start = known.rev().find(|tested| tested.judgement.role == Role::Start)?;
        match (record.job.symptom, &start.build) {
            (Symptom::Build, Built::Failed { message }) => message.trim().lines().next(),
            (Symptom::Crash | Symptom::Build | Symptom::Boot, _) => most_seen(start, record.job.symptom),
        }
    })
}

/// The lead of most runs; of two equals the one seen first.
fn most_seen(tested: &Tested, symptom: Symptom) -> Option<&str> {
    let leads = tested.runs.iter().filter_map(|run| match run {
        RunLine::Saw(Outcome::Crashed(crashes)) if symptom == Symptom::Crash => lead(crashes, None),
        RunLine::Saw(Outcome::BootFailed { crashes, reason }) if symptom == Symptom::Boot => {
            Some(crashes.first().map_or(reason.as_str(), |seen| &seen.crash.title))
        }
        RunLine::Saw(_) | RunLine::Infra(_) => None,
    });
    let mut seen: Vec<(&str, usize)> = Vec::new();
    for title in leads {
        match seen.iter_mut().find(|(known, _)| *known == title) {
            Some((_, runs)) => *runs += 1,
            None => seen.push((title, 1)),
        }
    }
    seen.into_iter().rev().max_by_key(|(_, runs)| *runs).map(|(title, _)| title)
}

/// The crash that stands for a run: the target, if the run has it, else the first one after
/// the reproducer started.
pub fn lead<'a>(crashes: &'a [SeenCrash], target: Option<&str>) -> Option<&'a str> {
    let late = || crashes.iter().filter(|seen| seen.phase == Phase::Reproducer);
    let titled = target.and_then(|target| late().find(|seen| seen.crash.title == target));
    let varied =
        || target.and_then(|target| late().find(|seen| seen.crash.alt_titles.iter().any(|t| t == target)));
    let seen = titled.or_else(varied).or_else(|| late().next()).or_else(|| crashes.first())?;
    Some(&seen.crash.title)
}

/// A run as the log has it. A guest that fell silent counts as a run that says nothing about
/// the crash, so it stands in the class that other readers of such logs count that way too.
pub fn run(run: &RunLine, target: Option<&str>) -> String {
    let outcome = match run {
        RunLine::Infra(reason) => return format!("infra problem: {}", one_line(reason)),
        RunLine::Saw(outcome) => outcome,
    };
    match outcome {
        Outcome::Ok => "OK".into(),
        Outcome::Crashed(crashes) => {
            format!("crashed: {}", one_line(lead(crashes, target).unwrap_or("unknown crash")))
        }
        Outcome::BootFailed { crashes, reason } => {
            let title = crashes.first().map_or(reason.as_str(), |seen| &seen.crash.title);
            format!("boot failed: {}", one_line(title))
        }
        Outcome::NoReproducerStart { reason } => format!("basic kernel testing failed: {}", one_line(reason)),
        Outcome::Hung { reason } => format!("basic kernel testing failed: guest hung: {}", one_line(reason)),
    }
}

/// A verdict in words that hold for causes and fixes alike.
pub fn verdict(symptom: Symptom, verdict: Verdict) -> String {
    match verdict {
        Verdict::Good => format!("does not show the {}", symptom.noun()),
        Verdict::Bad => format!("shows the {}", symptom.noun()),
        Verdict::Skip => "cannot be judged".into(),
    }
}

/// Counts in words, without those that are zero.
pub fn counts(symptom: Symptom, counts: Counts) -> String {
    let Counts { target, ok, other, failed } = counts;
    let runs = target + ok + other + failed;
    if runs == 0 {
        return "no runs".into();
    }
    let (run, shown, fine, otherwise) = match symptom {
        Symptom::Crash => ("run", "crashed with it", "ran through", "crashed otherwise"),
        Symptom::Build => ("build", "failed with it", "went through", "failed otherwise"),
        Symptom::Boot => ("boot", "failed with it", "came up", "failed otherwise"),
    };
    let mut text = format!("{target} of {runs} {} {shown}", plural(runs as usize, run));
    for (n, what) in [(ok, fine), (other, otherwise), (failed, "did not get so far")] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    text
}

/// `revision` or `revisions`.
pub fn plural(n: usize, word: &str) -> String {
    if n == 1 { word.into() } else { format!("{word}s") }
}

/// The text without line breaks and control characters: what others wrote must not add lines
/// to a log.
pub fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
