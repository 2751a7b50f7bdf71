//! Follows attempts from grant to ending: figures, and one trace for each revision of a job.
//!
//! All that is kept is bounded; what is forgotten is missing in a trace, and nowhere else.

use super::FIGURES;
use kulprit_common::farm::action::CompleteAnswer;
use kulprit_common::farm::census::{Granted, Loss, Lost, Purpose};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::{Attempt, JobId, RevisionId};
use kulprit_common::outcome::AttemptEnd;
use kulprit_common::time::Timestamp;
use kulprit_common::trace_parent::TraceParent;
use kulprit_common::verdict::Verdict;
use kulprit_observe::figures::{Count as _, Measure as _};
use kulprit_observe::traces::{self, Span};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Attempts, items and revisions that are remembered at once; a farm of a thousand agents with 16
/// slots each has fewer.
const KEPT_MAX: usize = 20_000;

static SEEN: Mutex<Seen> = Mutex::new(Seen::new());

struct Seen {
    open: BTreeMap<Attempt, Granted>,
    /// When work on a job's revision, or its preparation, began.
    begun: BTreeMap<(JobId, Option<RevisionId>), Timestamp>,
}

impl Seen {
    const fn new() -> Seen {
        Seen { open: BTreeMap::new(), begun: BTreeMap::new() }
    }
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trim<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    while map.len() > KEPT_MAX {
        map.pop_first();
    }
}

/// These are told to their agent; some of them were before.
pub fn granted(grants: Vec<Granted>) {
    for grant in grants {
        let mut seen = seen();
        if seen.open.contains_key(&grant.attempt) {
            continue;
        }
        let Purpose { job, revision } = grant.purpose.clone();
        let begun = seen.begun.entry((job, revision)).or_insert(grant.wanted);
        *begun = grant.wanted.min(*begun);
        seen.open.insert(grant.attempt, grant.clone());
        let seen = &mut *seen;
        trim(&mut seen.open);
        trim(&mut seen.begun);
        let Granted { item, attempt, agent, purpose: Purpose { job, .. }, .. } = &grant;
        tracing::debug!(%job, %item, %attempt, %agent, "granted");
        let kind = grant.item.kind();
        FIGURES.grants.one(&[kind]);
        FIGURES.grant_wait.took(&[kind], grant.granted.since(grant.ready));
        let top = grant.purpose.trace();
        let wait = Span {
            at: top.attempt(grant.attempt).child("wait"),
            parent: Some(top),
            name: format!("wait for a slot: {kind}").into(),
            start: wall(grant.ready),
            end: wall(grant.granted),
            attributes: attributes(&grant),
            failure: None,
        };
        traces::send(wait);
    }
}

/// An agent reported an ending, and was answered.
pub fn completed(attempt: Attempt, item: &ItemKey, ending: &'static str, answer: CompleteAnswer) {
    let answer_word = match answer {
        CompleteAnswer::Recorded => "recorded",
        CompleteAnswer::Duplicate => "duplicate",
        CompleteAnswer::Stale => "stale",
    };
    FIGURES.completions.one(&[item.kind(), ending, answer_word]);
    // Of the others there is a fact, which came before.
    if ending == "released" && answer == CompleteAnswer::Recorded {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        ended(attempt, now, "released", Some("the agent let go of it".into()));
    }
}

/// What an ending is called.
pub fn ending(end: &AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Done(_) => "done",
        AttemptEnd::Infra(_) => "infra",
        AttemptEnd::Released => "released",
    }
}

/// A fact that is about to be kept.
pub fn fact(fact: &Fact, kind: &'static str, at: Timestamp) {
    FIGURES.facts.one(&[kind]);
    match fact {
        Fact::JobSubmitted { id, at, .. } => {
            FIGURES.jobs_submitted.one(&[]);
            seen().begun.insert((id.clone(), None), *at);
        }
        Fact::ItemFinished { attempt, at, .. } => ended(*attempt, *at, "done", None),
        Fact::AttemptFailed { item, attempt, agent, at, infra } => {
            let class = infra.class.as_str();
            FIGURES.failures.one(&[class]);
            tracing::warn!(%item, %attempt, %agent, class, reason = infra.reason, "an attempt failed");
            ended(*attempt, *at, "infra", Some(format!("{class}: {}", infra.reason)));
        }
        Fact::Judged { id, judged } => {
            let word = verdict(judged.judgement.verdict);
            FIGURES.verdicts.one(&[word]);
            let revision = judged.judgement.revision;
            tracing::info!(job = %id, %revision, verdict = word, "judged");
            top(id, Some(revision), at, vec![("kulprit.verdict", word.into())]);
        }
        Fact::JobEnded { id, at, end, .. } => {
            FIGURES.jobs_ended.one(&[&end.kind]);
            tracing::info!(job = %id, ending = end.kind, "ended");
            close(id, *at);
            top(id, None, *at, vec![("kulprit.ending", end.kind.clone())]);
        }
        Fact::EpochStarted { .. }
        | Fact::CancelRequested { .. }
        | Fact::Access(_)
        | Fact::JobResolved { .. }
        | Fact::AgentCame { .. }
        | Fact::AgentWent { .. }
        | Fact::Quarantine(_)
        | Fact::Overruled { .. }
        | Fact::ProductsForgotten { .. }
        | Fact::Explained { .. }
        | Fact::Configured { .. } => {}
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Bad => "bad",
        Verdict::Skip => "skip",
    }
}

/// A lease ended without a completion. How long the attempt took nobody knows: it has a span up to
/// here, and no part in the figures.
pub fn lost(lost: &Lost) {
    let failure = match lost.how {
        Loss::RanOut => Some("the agent was not heard of while the lease ran"),
        Loss::NewLife => Some("the agent began a new life"),
        Loss::Unwanted => None,
    };
    over(lost.attempt, lost.at, "dropped", failure.map(str::to_owned));
}

fn ended(attempt: Attempt, at: Timestamp, ending: &'static str, failure: Option<String>) {
    if let Some(grant) = over(attempt, at, ending, failure) {
        FIGURES.attempt_time.took(&[grant.item.kind(), ending], at.since(grant.granted));
    }
}

/// Forgets an attempt and sends its span.
fn over(attempt: Attempt, at: Timestamp, ending: &'static str, failure: Option<String>) -> Option<Granted> {
    let grant = seen().open.remove(&attempt)?;
    let kind = grant.item.kind();
    let Granted { item, agent, purpose: Purpose { job, .. }, .. } = &grant;
    tracing::debug!(%job, %item, %attempt, %agent, ending, "an attempt ended");
    let top = grant.purpose.trace();
    traces::send(Span {
        at: top.attempt(attempt),
        parent: Some(top),
        name: format!("attempt: {kind}").into(),
        start: wall(grant.granted),
        end: wall(at),
        attributes: attributes(&grant),
        failure,
    });
    Some(grant)
}

/// A job is over: revisions it did without end with it. Attempts do not: another job may want what
/// they are at, and if none does, the farm says when their agents have let go of them.
fn close(job: &JobId, at: Timestamp) {
    let first = (job.clone(), None);
    let unjudged: Vec<Option<RevisionId>> = {
        let seen = seen();
        let rest = seen.begun.range(&first..).take_while(|((of, _), _)| of == job);
        rest.map(|((_, revision), _)| *revision).collect()
    };
    for revision in unjudged.into_iter().flatten() {
        top(job, Some(revision), at, Vec::new());
    }
}

/// The topmost span of a trace, sent when all below it is over.
fn top(job: &JobId, revision: Option<RevisionId>, at: Timestamp, more: Vec<(&'static str, String)>) {
    let begun = seen().begun.remove(&(job.clone(), revision));
    let mut attributes = vec![("kulprit.job", job.to_string())];
    attributes.extend(revision.map(|it| ("kulprit.revision", it.to_string())));
    attributes.extend(more);
    traces::send(Span {
        at: TraceParent::of(job, revision.as_ref()),
        parent: None,
        name: revision.map_or("job".into(), |it| format!("revision {}", it.short()).into()),
        start: wall(begun.unwrap_or(at)),
        end: wall(at),
        attributes,
        failure: None,
    });
}

fn attributes(grant: &Granted) -> Vec<(&'static str, String)> {
    let revision = grant.purpose.revision.map(|it| ("kulprit.revision", it.to_string()));
    [
        ("kulprit.job", grant.purpose.job.to_string()),
        ("kulprit.item", grant.item.to_string()),
        ("kulprit.attempt", grant.attempt.to_string()),
        ("kulprit.agent", grant.agent.to_string()),
    ]
    .into_iter()
    .chain(revision)
    .collect()
}

fn wall(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kulprit_common::id::Digest;

    /// Of a kind that no other test has figures of.
    fn grant(number: u64, job: &JobId) -> Granted {
        Granted {
            item: ItemKey::Maintainers(Digest::of(&number.to_le_bytes())),
            attempt: Attempt(number),
            agent: "a1".parse().expect("a name"),
            purpose: Purpose { job: job.clone(), revision: None },
            wanted: Timestamp(0),
            ready: Timestamp(3_000),
            granted: Timestamp(5_000),
        }
    }

    fn timed(ending: &str) -> (u64, f64) {
        let histogram = FIGURES.attempt_time.with_label_values(&["maintainers", ending]);
        (histogram.get_sample_count(), histogram.get_sample_sum())
    }

    #[test]
    fn only_what_was_completed_is_timed_whichever_job_ends_meanwhile() {
        let job: JobId = "1".parse().expect("a job id");
        let [held, left] = [1, 2].map(|number| grant(number, &job));
        granted(vec![held.clone(), left.clone()]);
        let waited = FIGURES.grant_wait.with_label_values(&["maintainers"]);
        assert_eq!((waited.get_sample_count(), waited.get_sample_sum()), (2, 4.0), "since they were ready");

        lost(&Lost { item: left.item, attempt: left.attempt, at: Timestamp(9_000), how: Loss::RanOut });
        assert!(!seen().open.contains_key(&left.attempt));
        // Another job wants the same, so that its agent goes on.
        close(&job, Timestamp(60_000));
        assert!(seen().open.contains_key(&held.attempt), "it is at work still");
        ended(held.attempt, Timestamp(105_000), "done", None);
        assert_eq!(timed("done"), (1, 100.0));
        ended(left.attempt, Timestamp(200_000), "infra", None);
        assert_eq!((timed("infra").0, timed("dropped").0), (0, 0));
    }
}
