//! The last block of the log: what was found, and what it stands on.

use super::test;
use crate::bisect::{Certificate, Finding, Role, Suspect};
use crate::config_work::Worked;
use crate::history::History;
use crate::id::RevisionId;
use crate::job::{Mode, Symptom};
use crate::recipients::quoted;
use crate::report::git_state::{self, Place};
use crate::report::words::{self, one_line};
use crate::report::{Ending, Record, revisions_tested, show};
use crate::time::render_duration;

pub(super) fn render(log: &mut String, record: &Record<'_>, ending: &Ending) {
    if let Finding::Culprit { revision, certificate } = &ending.finding {
        culprit(log, record, ending, revision, certificate);
    }
    if let Some(chance) = flaky(record) {
        log.push_str(&format!("reproducer is flaky ({chance:.2} repro chance estimate)\n"));
    }
    totals(log, record, ending);
    answer(log, record, ending);
    for note in &ending.notes {
        log.push_str(&format!("# {}\n", one_line(note)));
    }
    if let Some(crash) = &ending.crash {
        log.push_str(&format!("crash: {}\n", one_line(&crash.title)));
        log.push_str(crash.report.trim_end_matches('\n'));
        log.push('\n');
        if let Some(code) = &crash.disassembly {
            log.push_str(&format!("----------------\n{}\n", code.trim_end_matches('\n')));
        }
    }
}

fn culprit(
    log: &mut String,
    record: &Record<'_>,
    ending: &Ending,
    revision: &RevisionId,
    proof: &Certificate,
) {
    log.push_str(&format!("{revision} is the first bad commit\n"));
    if let Some(details) = &ending.culprit {
        log.push_str(&show::commit(details));
    }
    log.push('\n');
    let places = git_state::places(record);
    for parent in &proof.parents {
        untested_parent(log, record, &places, &parent.revision);
    }
    if record.job.symptom != Symptom::Build {
        log.push_str(&format!("culprit signature: {}\n", proof.culprit_fingerprint));
    }
    for parent in &proof.parents {
        log.push_str(&format!("parent  signature: {}\n", parent.fingerprint));
    }
    if let (Some(counts), Some(ends)) = (proof.reverted, record.ends) {
        log.push_str(&format!(
            "# with it reverted on top of {}: {}\n",
            ends.bad.id,
            words::counts(record.job.symptom, counts)
        ));
    }
}

/// A parent that only the certificate asked for gets its block here.
fn untested_parent(log: &mut String, record: &Record<'_>, places: &[Place], parent: &RevisionId) {
    let of_parent =
        || record.tested.iter().enumerate().filter(|(_, tested)| tested.judgement.revision == *parent);
    let had_block = of_parent().any(|(at, tested)| {
        tested.judgement.role != Role::Certify || matches!(places[at], Place::Step { .. })
    });
    if had_block {
        return;
    }
    log.push_str(&format!("parent commit {parent} wasn't tested\n"));
    if let Some((at, _)) = of_parent().next_back() {
        test(log, record, at);
    }
}

/// The share of runs at the bad end that showed the crash, where it was not all of them.
fn flaky(record: &Record<'_>) -> Option<f64> {
    let start = record.tested.iter().rfind(|tested| tested.judgement.role == Role::Start)?;
    let counts = start.judgement.counts;
    let runs = counts.target + counts.ok + counts.other;
    (counts.target > 0 && counts.target < runs).then(|| f64::from(counts.target) / f64::from(runs))
}

fn totals(log: &mut String, record: &Record<'_>, ending: &Ending) {
    log.push_str(&format!(
        "revisions tested: {}, total time: {} (build: {}, test: {})\n",
        revisions_tested(record.tested),
        render_duration(ending.at.since(record.started)),
        render_duration(ending.build_time),
        render_duration(ending.test_time),
    ));
}

fn answer(log: &mut String, record: &Record<'_>, ending: &Ending) {
    // What was changed stands where the bad end was judged anew.
    let unchanged = record.configured.filter(|worked| worked.fragment.is_none());
    if let Some(remark) = unchanged.and_then(Worked::remark) {
        log.push_str(&format!("# {remark}\n"));
    }
    let noun = record.job.symptom.noun();
    match &ending.finding {
        Finding::Culprit { revision, .. } => first_commit(log, record, ending, revision),
        Finding::Suspects { suspects, reason } => inconclusive(log, record.history, suspects, reason),
        Finding::NotReproduced { counts } => {
            log.push_str(&format!("error: the {noun} wasn't reproduced on the original commit\n"));
            log.push_str(&format!("# {}\n", words::counts(record.job.symptom, *counts)));
        }
        Finding::BadEndBroken { reason } => {
            log.push_str(&format!("error: the original commit cannot be judged: {}\n", one_line(reason)));
        }
        Finding::GoodEndIsBad { revision } => {
            log.push_str(&format!("error: the good end {revision} shows the {noun}\n"));
        }
        Finding::OldestReleaseHasBug { revision, tag } => {
            log.push_str(&format!(
                "oldest tested release already had the bug: {} {revision}\n",
                one_line(tag)
            ));
        }
        Finding::NotFixed { revision } => {
            log.push_str("crash still not fixed or there were kernel test errors\n");
            log.push_str(&format!("# the newer end {revision} shows the crash\n"));
        }
        Finding::Blocked { by } => log.push_str(&format!("error: blocked: {}\n", one_line(by))),
    }
}

fn first_commit(log: &mut String, record: &Record<'_>, ending: &Ending, revision: &RevisionId) {
    let word = match record.job.mode {
        Mode::Cause => "bad",
        Mode::Fix => "good",
    };
    let known = ending.culprit.as_ref().map(|details| details.subject.as_str());
    let subject = known.unwrap_or_else(|| subject(record.history, revision));
    log.push_str(&format!("first {word} commit: {revision} {}\n", one_line(subject)));
    log.push_str(&format!("recipients (to): {}\n", quoted(&ending.recipients.to)));
    log.push_str(&format!("recipients (cc): {}\n", quoted(&ending.recipients.cc)));
}

fn inconclusive(log: &mut String, history: Option<&History>, suspects: &[Suspect], reason: &str) {
    log.push_str("bisection is inconclusive, the first bad commit could be any of:\n");
    for suspect in suspects {
        log.push_str(&format!("{}\n", suspect.revision));
    }
    log.push_str(&format!("# {}\n", one_line(reason)));
    for suspect in suspects {
        let subject = one_line(subject(history, &suspect.revision));
        log.push_str(&format!("# {:.2} {} {subject}\n", suspect.probability, suspect.revision.short()));
    }
}

fn subject<'a>(history: Option<&'a History>, revision: &RevisionId) -> &'a str {
    history
        .and_then(|history| Some(history.commit(history.find(revision)?).subject.as_str()))
        .unwrap_or_default()
}
