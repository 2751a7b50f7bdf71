//! The ending in a few lines, for the terminal.

use super::words::{self, one_line, plural};
use super::{Ending, Record, revisions_tested, show, standing};
use crate::bisect::{Certificate, Finding, Role, Suspect};
use crate::id::RevisionId;
use crate::job::{Mode, Symptom};
use crate::time::render_duration;
use crate::verdict::Verdict;
use std::collections::BTreeSet;

/// More suspects are in the log.
const SUSPECTS_MAX: usize = 8;
const FILES_MAX: usize = 6;

/// What was found, why, and what it took. Empty while the job runs.
pub fn render(record: &Record<'_>) -> String {
    let Some(ending) = record.ending else { return String::new() };
    let noun = record.job.symptom.noun();
    let mut lines = match &ending.finding {
        Finding::Culprit { revision, certificate } => culprit(record, ending, revision, certificate),
        Finding::Suspects { suspects, reason } => suspected(record, suspects, reason),
        Finding::NotReproduced { counts } => vec![
            format!("the {noun} did not show at the bad end"),
            format!("  {}", words::counts(record.job.symptom, *counts)),
            match record.job.symptom {
                Symptom::Crash => {
                    "  check the reproducer by hand, or raise runs.first_max and timeouts.reproducer_s".into()
                }
                Symptom::Build | Symptom::Boot => {
                    "  check the configuration, the toolchain and target.title".into()
                }
            },
        ],
        Finding::BadEndBroken { reason } => {
            vec!["the bad end cannot be judged".into(), format!("  {}", one_line(reason))]
        }
        Finding::GoodEndIsBad { revision } => vec![
            format!("the good end {} shows the {noun} too", revision.short()),
            "  name an older good revision, or leave `good` out to have releases tried".into(),
        ],
        Finding::OldestReleaseHasBug { revision, tag } => vec![
            format!(
                "the oldest release tried, {} ({}), already has the bug",
                one_line(tag),
                revision.short()
            ),
            "  there is no good end to search from; name one as `good` if you know one".into(),
        ],
        Finding::NotFixed { revision } => {
            vec![format!("not fixed: {} still shows the {noun}", revision.short())]
        }
        Finding::Blocked { by } => vec![format!("blocked: {}", one_line(by))],
    };
    lines.extend(standing_words(record));
    lines.extend(costs(record, ending));
    lines.join("\n") + "\n"
}

fn culprit(record: &Record<'_>, ending: &Ending, revision: &RevisionId, proof: &Certificate) -> Vec<String> {
    let heading = match record.job.mode {
        Mode::Cause => "first bad commit",
        Mode::Fix => "first good commit",
    };
    let mut lines = vec![format!("{heading}: {revision}")];
    if let Some(details) = &ending.culprit {
        lines.push(format!("  {}", one_line(&details.subject)));
        lines.push(format!("  {}, {}", one_line(&details.author), one_line(&details.date)));
        let shown = &details.files[..details.files.len().min(FILES_MAX)];
        lines.extend(
            shown.iter().map(|file| format!("  {} +{} -{}", file.path, file.insertions, file.deletions)),
        );
        if let Some(summary) = show::summary(&details.files).filter(|_| details.files.len() > 1) {
            lines.push(format!("  {summary}"));
        }
    }
    lines.push("why:".into());
    if let Some(crash) = &ending.crash {
        lines.push(format!("  crash: {}", one_line(&crash.title)));
        lines.extend(crash.guilty_file.iter().map(|file| format!("  in: {}", one_line(file))));
    }
    lines.push(format!("  with the commit: {}", words::counts(record.job.symptom, proof.culprit)));
    for parent in &proof.parents {
        lines.push(format!(
            "  at its parent {}: {}",
            &parent.revision.short()[..8],
            words::counts(record.job.symptom, parent.counts)
        ));
    }
    if let Some(counts) = proof.reverted {
        lines.push(format!("  at the bad end without it: {}", words::counts(record.job.symptom, counts)));
    }
    if record.job.symptom != Symptom::Build {
        lines.push(fingerprints(proof));
    }
    lines.push(compilers(record, revision, proof));
    for (word, list) in [("write to", &ending.recipients.to), ("copy to", &ending.recipients.cc)] {
        let emails: Vec<&str> = list.iter().map(|mailbox| mailbox.email.as_str()).collect();
        if !emails.is_empty() {
            lines.push(format!("{word}: {}", emails.join(", ")));
        }
    }
    lines.extend(ending.notes.iter().map(|note| format!("note: {}", one_line(note))));
    lines
}

fn fingerprints(proof: &Certificate) -> String {
    let differ = proof.parents.iter().all(|parent| parent.fingerprint != proof.culprit_fingerprint);
    match (differ, proof.parents.is_empty()) {
        (_, true) => "  no parent was built".into(),
        (true, _) => "  the commit changes the built kernel: the fingerprints differ".into(),
        (false, _) => "  beware: a parent's kernel has the same fingerprint".into(),
    }
}

fn compilers(record: &Record<'_>, culprit: &RevisionId, proof: &Certificate) -> String {
    let pair: BTreeSet<&RevisionId> =
        proof.parents.iter().map(|parent| &parent.revision).chain(std::iter::once(culprit)).collect();
    let tested = record.tested.iter().filter(|tested| pair.contains(&tested.judgement.revision));
    let compilers: BTreeSet<&str> = tested.map(|tested| tested.compiler.as_str()).collect();
    match compilers.iter().next() {
        Some(one) if compilers.len() == 1 => format!("  built by the same compiler: {}", one_line(one)),
        Some(_) => "  beware: the compilers differ between the commit and its parent".into(),
        None => "  the compiler is not recorded".into(),
    }
}

/// What the ending rests on beside runs, and what the runs say to that.
fn standing_words(record: &Record<'_>) -> Vec<String> {
    let words = standing(record.said);
    let mut lines: Vec<String> =
        words.iter().map(|(revision, word)| word_of(record, revision, *word)).collect();
    if let Some((revision, _)) = words.first_key_value() {
        let (job, revision) = (record.id, revision.short());
        lines.push(format!("  a word is taken back with: kulprit bisect overrule {job} {revision} unsay"));
    }
    lines
}

fn word_of(record: &Record<'_>, revision: &RevisionId, word: Verdict) -> String {
    let symptom = record.job.symptom;
    let by_runs = record.tested.iter().map(|tested| &tested.judgement);
    let last = by_runs.rev().find(|it| it.revision == *revision && it.role != Role::Overruled);
    let runs = match last {
        Some(it) if it.verdict == word => words::counts(symptom, it.counts),
        Some(it) => format!("AGAINST its runs: {}", words::counts(symptom, it.counts)),
        None => "without runs".into(),
    };
    let verdict = words::verdict(symptom, word);
    format!("by an operator's word, not by runs: {} {verdict} ({runs})", revision.short())
}

fn suspected(record: &Record<'_>, suspects: &[Suspect], reason: &str) -> Vec<String> {
    let n = suspects.len();
    let mut lines = vec![format!("no single culprit; one of {n} {}:", plural(n, "commit"))];
    for suspect in suspects.iter().take(SUSPECTS_MAX) {
        let known = record.history.and_then(|history| Some(history.commit(history.find(&suspect.revision)?)));
        let subject = known.map(|commit| one_line(&commit.subject)).unwrap_or_default();
        lines.push(format!("  {:>3.0}% {} {subject}", suspect.probability * 100.0, suspect.revision.short()));
    }
    if n > SUSPECTS_MAX {
        lines.push(format!("  and {} more in the log", n - SUSPECTS_MAX));
    }
    lines.push(format!("why: {}", one_line(reason)));
    lines
}

fn costs(record: &Record<'_>, ending: &Ending) -> [String; 2] {
    let revisions = revisions_tested(record.tested);
    let runs: usize = record.tested.iter().map(|tested| tested.runs.len()).sum();
    [
        format!("tested: {revisions} {} in {runs} {}", plural(revisions, "revision"), plural(runs, "run")),
        format!(
            "took: {} (machine time: build {}, test {})",
            render_duration(ending.at.since(record.started)),
            render_duration(ending.build_time),
            render_duration(ending.test_time),
        ),
    ]
}
