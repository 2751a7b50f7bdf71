//! What commits are by themselves, and the words for a verdict that is doubted.

use super::log::{Log, Published, Test};
use super::weigh::{Weights, is_target};
use crate::crash::Target;

/// A commit that builds to its parent's kernel, one that only writes words, a version bump.
const NO_OP: f64 = 0.02;
const PROSE: f64 = 0.1;
const RELEASE: f64 = 0.05;
/// A merge is a culprit only where its parents clash.
const MERGE: f64 = 0.3;
/// It touches a file of the crash's trace.
const IN_TRACE: f64 = 5.0;

/// Why the blamed commit is likelier or less likely than any other, with the factor.
pub fn of_culprit(log: &Log, target: &Target) -> Vec<(f64, String)> {
    let Published { subject, merge, files, .. } = &log.published;
    let mut reasons = Vec::new();
    let equal = |own: &String| log.parent_signatures.iter().any(|its| its == own);
    if log.culprit_signature.as_ref().is_some_and(equal) {
        reasons.push((NO_OP, "it builds to the same kernel as its parent".to_string()));
    }
    if *merge || is_merge(subject) {
        reasons.push((MERGE, "it is a merge, to blame only if its parents clash".into()));
    }
    if is_release(subject) {
        reasons.push((RELEASE, "it only names a release".into()));
    }
    if !files.is_empty() && files.iter().all(|file| is_prose(file)) {
        reasons.push((PROSE, "it changes nothing that is compiled".into()));
    }
    if let Some(file) = target.files.iter().take(8).find(|file| files.contains(file)) {
        reasons.push((IN_TRACE, format!("it touches {file}, where the crash happened")));
    }
    reasons
}

/// The same for a commit of which only the subject is known.
pub fn of_subject(subject: &str) -> f64 {
    match (is_merge(subject), is_release(subject)) {
        (_, true) => RELEASE,
        (true, false) => MERGE,
        (false, false) => 1.0,
    }
}

fn is_merge(subject: &str) -> bool {
    ["Merge branch ", "Merge tag ", "Merge remote", "Merge git", "Merge http", "Merge commit "]
        .iter()
        .any(|start| subject.starts_with(start))
}

fn is_release(subject: &str) -> bool {
    let version =
        subject.strip_prefix("Linux ").or(subject.strip_prefix("Add linux-next specific files for "));
    version.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn is_prose(file: &str) -> bool {
    file.starts_with("Documentation/")
        || file.starts_with("tools/testing/")
        || file == "MAINTAINERS"
        || file == ".mailmap"
        || file.ends_with(".rst")
        || file.ends_with(".txt")
}

/// Why a verdict is not to be trusted, or what carries it.
pub fn of_step(log: &Log, test: &Test, target: &Target, weights: &Weights) -> String {
    let crashes = test.crashes();
    let own: u32 = crashes.iter().filter(|(title, _)| is_target(target, title)).map(|(_, runs)| runs).sum();
    let others: Vec<&(&str, u32)> = crashes.iter().filter(|(title, _)| !is_target(target, title)).collect();
    let said_to_show = test.word.and_then(|word| log.shows(word));
    match (said_to_show, own, others.first()) {
        (Some(true), 0, Some((title, _))) => {
            let known = weights.titles.iter().find(|it| it.name == *title);
            let elsewhere = match known {
                Some(it) if it.background => ", which also comes without the bug",
                Some(_) | None => "",
            };
            let same = known.map_or(0.0, |it| it.same_bug);
            format!(
                "no run hit the target; decided by {title}{elsewhere}: the same bug with probability {same:.2}"
            )
        }
        (Some(true), 0, None) => "no run hit the target".into(),
        (Some(true), 1, _) => "one run alone hit the target".into(),
        (Some(true), own, _) => format!("{own} runs hit the target"),
        (Some(false), 0, _) => {
            let (ok, miss) = (test.ok(), (1.0 - weights.rate).powi(test.ok() as i32));
            format!(
                "{ok} runs without a crash; the bug would keep quiet in all of them with probability {miss:.2}"
            )
        }
        (Some(false), own, _) => format!("{own} runs hit the target, and yet it was called free of it"),
        (None, 0, _) => match (&test.build_failed, test.boot_crashes().first().or(crashes.first())) {
            (Some(_), _) => "does not build".into(),
            (None, Some((title, _))) => format!("says nothing: {title}"),
            (None, None) => "says nothing".into(),
        },
        (None, own, _) => format!("skipped, though {own} runs hit the target"),
    }
}
