//! The log that people and tools read, in the grammar of the reference's newest logs.
//!
//! It is the head, one piece per verdict in the order they fell, and the closing. A piece
//! never depends on what comes later, so the text can be written as it happens. What the
//! grammar has no word for stands in lines that start with `# `.

mod closing;

use super::explain::{self, Subject};
use super::git_state::{self, Place};
use super::words::{self, one_line, plural};
use super::{Built, Record, Tested};
use crate::bisect::Role;
use crate::id::RevisionId;
use crate::job::{Mode, Symptom};
use crate::time::render_utc;

/// More of a failed build's message is in the build log.
const MESSAGE_LINES_MAX: usize = 20;

/// The log of a job as far as it has come.
pub fn render(record: &Record<'_>) -> String {
    let mut log = head(record);
    let (mut started, mut told, mut heard) = (false, 0, 0);
    for (at, place) in git_state::places(record).into_iter().enumerate() {
        said(&mut log, record, &mut heard, at);
        rounds(&mut log, record, &mut told, at);
        match place {
            Place::Opening => opening(&mut log, record, at),
            Place::Aside => aside(&mut log, record, at),
            Place::Step { word, left, steps, overrules } => {
                if !started {
                    start(&mut log, record);
                }
                started = true;
                let tested = &record.tested[at];
                let revision = tested.judgement.revision;
                if overrules {
                    log.push_str(&format!("# the earlier verdict on {revision} is overruled\n"));
                }
                log.push_str(&bisecting(left, steps));
                log.push_str(&format!("[{revision}] {}\n\n", one_line(&tested.subject)));
                match tested.judgement.role {
                    Role::Overruled => log.push_str("# an operator's word\n"),
                    _ => test(&mut log, record, at),
                }
                log.push_str(&format!("# git bisect {} {revision}\n", word.as_str()));
            }
        }
    }
    said(&mut log, record, &mut heard, record.tested.len());
    rounds(&mut log, record, &mut told, record.tested.len());
    if let Some(ending) = record.ending {
        if !started {
            start(&mut log, record);
        }
        closing::render(&mut log, record, ending);
    }
    log
}

/// git's line before it checks out the next revision.
pub fn bisecting(left: usize, steps: u32) -> String {
    let (revisions, words) = (plural(left, "revision"), plural(steps as usize, "step"));
    format!("Bisecting: {left} {revisions} left to test after this (roughly {steps} {words})\n")
}

fn head(record: &Record<'_>) -> String {
    let mut log = format!("{} starts bisection {}\n", one_line(record.host), render_utc(record.started));
    if let Some(ends) = record.ends {
        log.push_str(match record.job.mode {
            Mode::Cause => "bisecting cause commit starting from ",
            Mode::Fix => "bisecting fixing commit since ",
        });
        log.push_str(&format!("{}\n", ends.bad.id));
    }
    log
}

/// Once the range is known; a job that ended before has no such line.
fn start(log: &mut String, record: &Record<'_>) {
    if let Some(range) = git_state::range(record) {
        log.push_str(&format!("# git bisect start {} {}\n", range.newer, range.older));
    }
}

/// What operators said until this many verdicts had fallen.
fn said(log: &mut String, record: &Record<'_>, heard: &mut usize, verdicts: usize) {
    while let Some(said) = record.said.get(*heard).filter(|said| said.after <= verdicts) {
        let revision = said.revision;
        log.push_str(&match said.word {
            Some(word) => {
                format!("# an operator says that {revision} {}\n", words::verdict(record.job.symptom, word))
            }
            None => format!("# what an operator said of {revision} is taken back; the search goes on\n"),
        });
        *heard += 1;
    }
}

/// What was said of the search until this many verdicts had fallen.
fn rounds(log: &mut String, record: &Record<'_>, told: &mut usize, verdicts: usize) {
    while record.rounds.get(*told).is_some_and(|round| round.after <= verdicts) {
        for line in explain::lines(record.rounds, *told, Subject::Crash) {
            log.push_str(&format!("# {line}\n"));
        }
        *told += 1;
    }
}

/// An end or a release, before the search.
fn opening(log: &mut String, record: &Record<'_>, at: usize) {
    let revision = record.tested[at].judgement.revision;
    match (&record.tested[at].judgement.role, record.job.mode) {
        (Role::Start, _) => {
            log.push_str(&format!("ensuring issue is reproducible on original commit {revision}\n\n"));
        }
        (Role::Release(tag), _) => log.push_str(&format!("testing release {}\n", one_line(tag))),
        (Role::GoodEnd, Mode::Cause) => {
            log.push_str(&format!("# testing the good end {revision}, as given\n"))
        }
        (Role::GoodEnd, Mode::Fix) => {
            if record.job.good.is_some() {
                log.push_str("# the end without the crash, as given\n");
            }
            log.push_str(&format!("testing current HEAD {revision}\n"));
        }
        (Role::Search | Role::Certify | Role::Revert(_) | Role::Overruled, _) => {}
    }
    test(log, record, at);
}

/// A verdict git would not learn from: a pick overtaken by another, or a run for the certificate.
fn aside(log: &mut String, record: &Record<'_>, at: usize) {
    let tested = &record.tested[at];
    let judgement = &tested.judgement;
    if let (Role::Revert(commit), Some(ends)) = (&judgement.role, record.ends) {
        return reverted(log, record.job.symptom, tested, commit, &ends.bad.id);
    }
    let earlier = record.tested[..at].iter().any(|other| other.judgement.revision == judgement.revision);
    let what = match (&judgement.role, earlier) {
        (Role::Certify, true) => "ran again for the certificate",
        (Role::Certify, false) => "ran for the certificate",
        (Role::Overruled, _) => "overruled by an operator:",
        (Role::Start | Role::GoodEnd | Role::Release(_) | Role::Search | Role::Revert(_), _) => "also tested",
    };
    let verdict = words::verdict(record.job.symptom, judgement.verdict);
    log.push_str(&format!("# {what} {}: {verdict}", judgement.revision));
    if judgement.role == Role::Overruled {
        return log.push('\n');
    }
    match &tested.build {
        Built::Kernel { .. } => {
            log.push_str(&format!(" ({})\n", words::counts(record.job.symptom, judgement.counts)))
        }
        Built::Failed { message } => log.push_str(&format!(" (build failed: {})\n", first_line(message))),
        Built::Unavailable { reason } => log.push_str(&format!(" (infra problem: {})\n", one_line(reason))),
    }
    remarks(log, tested);
}

/// The bad end without a commit, in one line: no reader of such logs has a word for it.
fn reverted(log: &mut String, symptom: Symptom, tested: &Tested, commit: &RevisionId, bad: &RevisionId) {
    let verdict = words::verdict(symptom, tested.judgement.verdict);
    let why = match &tested.build {
        Built::Kernel { .. } => words::counts(symptom, tested.judgement.counts),
        Built::Failed { message } => format!("build failed: {}", first_line(message)),
        Built::Unavailable { reason } => one_line(reason),
    };
    log.push_str(&format!("# revert of {commit} on top of {bad}: {verdict} ({why})\n"));
    remarks(log, tested);
}

fn remarks(log: &mut String, tested: &Tested) {
    for remark in &tested.remarks {
        log.push_str(&format!("# {}\n", one_line(remark)));
    }
}

/// The block of a revision: who built it, what came of it, what its runs saw.
fn test(log: &mut String, record: &Record<'_>, at: usize) {
    let tested = &record.tested[at];
    log.push_str(&format!("testing commit {} gcc\n", tested.judgement.revision));
    if !tested.compiler.is_empty() {
        log.push_str(&format!("compiler: {}\n", one_line(&tested.compiler)));
    }
    match &tested.build {
        Built::Kernel { fingerprint } => {
            log.push_str(&format!("kernel signature: {fingerprint}\n"));
            if tested.runs.is_empty() {
                log.push_str("# no run counted\n");
            }
        }
        Built::Failed { message } => failed(log, &tested.judgement.revision, message),
        Built::Unavailable { reason } if tested.runs.is_empty() => {
            log.push_str(&format!("all runs: infra problem: {}\n", one_line(reason)));
        }
        Built::Unavailable { reason } => log.push_str(&format!("# given up: {}\n", one_line(reason))),
    }
    remarks(log, tested);
    runs(log, tested, words::target(record, at));
}

fn failed(log: &mut String, revision: &RevisionId, message: &str) {
    log.push_str(&format!("failed building {revision}: {}\n", first_line(message)));
    let rest = message.trim().lines().skip(1).filter(|line| !line.trim().is_empty());
    for line in rest.take(MESSAGE_LINES_MAX) {
        log.push_str(&format!("# {}\n", one_line(line)));
    }
}

fn first_line(message: &str) -> String {
    one_line(message.trim().lines().next().unwrap_or("no message"))
}

fn runs(log: &mut String, tested: &Tested, target: Option<&str>) {
    let lines: Vec<String> = tested.runs.iter().map(|run| words::run(run, target)).collect();
    match lines.split_first() {
        None => {}
        Some((first, rest)) if rest.iter().all(|line| line == first) => {
            log.push_str(&format!("all runs: {first}\n"));
            log.push_str(&format!("# in {} {}\n", lines.len(), plural(lines.len(), "run")));
        }
        Some(_) => {
            for (i, line) in lines.iter().enumerate() {
                log.push_str(&format!("run #{i}: {line}\n"));
            }
        }
    }
}
