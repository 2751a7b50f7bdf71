//! The result as JSON, for programs. The shape is documented in docs/results.md and only grows.

use super::{Built, Ending, Record, RunLine, Tested, ending, explain, revisions_tested, standing, words};
use crate::bisect::{Certificate, Finding, Picked, Role, Round, Suspect};
use crate::config_work::{Worked, changed};
use crate::history::Revision;
use crate::outcome::{Outcome, Phase, SeenCrash};
use crate::patch::Patch;
use crate::recipients::Mailbox;
use serde_json::{Value, json};
use std::time::Duration;

/// Grows when a key changes its meaning or goes away, not when one is added.
pub const VERSION: u32 = 1;

/// A job as far as it has come.
pub fn render(record: &Record<'_>) -> Value {
    let job = record.job;
    json!({
        "version": VERSION,
        "job": {
            "id": record.id,
            "name": job.name,
            "mode": job.symptom.word(job.mode),
            "repository": job.repository,
            "bad": job.bad,
            "good": job.good,
            "target": words::target(record, record.tested.len()),
        },
        "host": record.host,
        "state": if record.ending.is_some() { "done" } else { "running" },
        "ends": record.ends.map(|ends| json!({
            "bad": revision(&ends.bad),
            "good": ends.good.as_ref().map(revision),
            "good_tag": ends.good_tag,
        })),
        "commits_in_range": record.history.map(|history| history.len()),
        "finding": record.ending.map(|ending| finding(record, ending)),
        "crash": record.ending.and_then(|ending| ending.crash.as_ref()),
        "recipients": record.ending.map(|ending| emails(&ending.recipients.to)),
        "recipients_cc": record.ending.map(|ending| emails(&ending.recipients.cc)),
        "notes": record.ending.map(|ending| &ending.notes),
        "revisions_tested": revisions_tested(record.tested),
        "runs": record.tested.iter().map(|tested| tested.runs.len()).sum::<usize>(),
        "tested": (0..record.tested.len()).map(|at| tested(record, at)).collect::<Vec<_>>(),
        "rounds": rounds(record.rounds),
        "overruled": standing(record.said).iter().map(|(revision, word)| json!({ "revision": revision, "verdict": word })).collect::<Vec<_>>(),
        "configuration": record.configured.map(configuration),
        "times": times(record),
    })
}

fn emails(list: &[Mailbox]) -> Vec<&str> {
    list.iter().map(|mailbox| mailbox.email.as_str()).collect()
}

fn configuration(worked: &Worked) -> Value {
    let fragment = worked.fragment.as_ref();
    json!({
        "kernels": worked.tried,
        "changed": fragment.map(changed).unwrap_or_default(),
        "fragment": fragment.map(|fragment| &fragment.text),
    })
}

fn times(record: &Record<'_>) -> Value {
    let since = |ending: &Ending| millis(ending.at.since(record.started));
    json!({
        "started_ms": record.started,
        "ended_ms": record.ending.map(|ending| ending.at),
        "total_ms": record.ending.map(since),
        "build_ms": record.ending.map(|ending| millis(ending.build_time)),
        "test_ms": record.ending.map(|ending| millis(ending.test_time)),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn revision(revision: &Revision) -> Value {
    json!({ "revision": revision.id, "subject": revision.subject, "release": revision.release })
}

/// Every ending has `kind` and `exit_code`; the other keys depend on the kind.
fn finding(record: &Record<'_>, ending: &Ending) -> Value {
    let mut value = match &ending.finding {
        Finding::Culprit { revision, certificate } => json!({
            "revision": revision,
            "commit": ending.culprit,
            "certificate": proof(certificate),
        }),
        Finding::Suspects { suspects, reason } => json!({
            "suspects": suspects.iter().map(|one| suspect(record, one)).collect::<Vec<_>>(),
            "reason": reason,
        }),
        Finding::NotReproduced { counts } => json!({ "counts": counts }),
        Finding::BadEndBroken { reason } => json!({ "reason": reason }),
        Finding::GoodEndIsBad { revision } | Finding::NotFixed { revision } => {
            json!({ "revision": revision })
        }
        Finding::OldestReleaseHasBug { revision, tag } => json!({ "revision": revision, "tag": tag }),
        Finding::Blocked { by } => json!({ "reason": by }),
    };
    value["kind"] = json!(ending::kind(&ending.finding));
    value["exit_code"] = json!(ending::exit_code(&ending.finding));
    value
}

fn proof(certificate: &Certificate) -> Value {
    let parent = |parent: &crate::bisect::CertifiedParent| json!({ "revision": parent.revision, "counts": parent.counts, "fingerprint": parent.fingerprint });
    json!({
        "culprit": { "counts": certificate.culprit, "fingerprint": certificate.culprit_fingerprint },
        "parents": certificate.parents.iter().map(parent).collect::<Vec<_>>(),
        "reverted": certificate.reverted.map(|counts| json!({ "counts": counts })),
    })
}

fn suspect(record: &Record<'_>, suspect: &Suspect) -> Value {
    let known = record.history.and_then(|history| Some(history.commit(history.find(&suspect.revision)?)));
    json!({
        "revision": suspect.revision,
        "subject": known.map(|commit| &commit.subject),
        "probability": suspect.probability,
    })
}

fn tested(record: &Record<'_>, at: usize) -> Value {
    let Tested { subject, judgement, compiler, patches, remarks, build, runs } = &record.tested[at];
    let target = words::target(record, at);
    let (role, tag) = role(&judgement.role);
    let reverts = match &judgement.role {
        Role::Revert(commit) => Some(commit),
        _ => None,
    };
    json!({
        "revision": judgement.revision,
        "subject": subject,
        "role": role,
        "release_tag": tag,
        "reverts": reverts,
        "patches": patches.iter().map(patch).collect::<Vec<_>>(),
        "remarks": remarks,
        "verdict": judgement.verdict,
        "narrowed": judgement.narrowed,
        "counts": judgement.counts,
        "compiler": compiler,
        "build": built(build),
        "runs": runs.iter().map(|line| run(line, target)).collect::<Vec<_>>(),
    })
}

fn patch(patch: &Patch) -> Value {
    match patch {
        Patch::Revert(commit) => json!({ "revert": commit }),
        Patch::Pick(commit) => json!({ "pick": commit }),
    }
}

/// The role's name, and the tag of a release.
fn role(role: &Role) -> (&'static str, Option<&str>) {
    match role {
        Role::Start => ("start", None),
        Role::GoodEnd => ("good_end", None),
        Role::Release(tag) => ("release", Some(tag)),
        Role::Search => ("search", None),
        Role::Certify => ("certify", None),
        Role::Revert(_) => ("revert", None),
        Role::Overruled => ("overruled", None),
    }
}

/// Why each revision was tried.
pub fn rounds(rounds: &[Round]) -> Value {
    (0..rounds.len()).map(|at| round(rounds, at)).collect()
}

fn round(rounds: &[Round], at: usize) -> Value {
    let round = &rounds[at];
    let belief = round.belief.as_ref().map(|belief| {
        let likeliest = belief.likeliest.iter();
        json!({
            "unknown_bits": rounded(belief.unknown_bits),
            "suspects": belief.suspects,
            "likeliest": likeliest
                .map(|it| json!({ "revision": it.revision, "probability": rounded(it.probability) }))
                .collect::<Vec<_>>(),
            "nothing": rounded(belief.nothing),
            "outline": belief.outline.iter().map(|part| rounded(f64::from(*part))).collect::<Vec<_>>(),
        })
    });
    json!({
        "after": round.after,
        "picks": round.picks.iter().map(picked).collect::<Vec<_>>(),
        "belief": belief,
        "learned_bits": explain::learned(rounds, at).map(rounded),
    })
}

fn picked(pick: &Picked) -> Value {
    let reverted = match &pick.role {
        Role::Revert(commit) => Some(commit),
        _ => None,
    };
    json!({
        "revision": pick.revision,
        "role": role(&pick.role).0,
        "reverted": reverted,
        "runs": pick.runs,
        "why": pick.why.as_str(),
        "expected_bits": pick.bits.map(rounded),
        "shows": pick.shows.map(rounded),
    })
}

/// Six digits behind the point are more than anybody can use.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn built(build: &Built) -> Value {
    match build {
        Built::Kernel { fingerprint } => json!({ "kind": "kernel", "fingerprint": fingerprint }),
        Built::Failed { message } => json!({ "kind": "failed", "reason": message }),
        Built::Unavailable { reason } => json!({ "kind": "unavailable", "reason": reason }),
    }
}

fn run(line: &RunLine, target: Option<&str>) -> Value {
    let outcome = match line {
        RunLine::Infra(reason) => return json!({ "kind": "infra", "reason": reason }),
        RunLine::Saw(outcome) => outcome,
    };
    match outcome {
        Outcome::Ok => json!({ "kind": "ok" }),
        Outcome::Crashed(seen) => {
            json!({ "kind": "crashed", "title": words::lead(seen, target), "crashes": crashes(seen) })
        }
        Outcome::BootFailed { crashes: seen, reason } => {
            json!({ "kind": "boot_failed", "reason": reason, "crashes": crashes(seen) })
        }
        Outcome::NoReproducerStart { reason } => json!({ "kind": "no_reproducer_start", "reason": reason }),
        Outcome::Hung { reason } => json!({ "kind": "hung", "reason": reason }),
    }
}

fn crashes(seen: &[SeenCrash]) -> Vec<Value> {
    let phase = |phase| match phase {
        Phase::Boot => "boot",
        Phase::Settle => "settle",
        Phase::Reproducer => "reproducer",
    };
    seen.iter().map(|seen| json!({ "phase": phase(seen.phase), "title": seen.crash.title })).collect()
}
