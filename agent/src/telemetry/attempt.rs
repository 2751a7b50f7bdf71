//! The course of an attempt: how long each stage took, as figures and as spans of its trace.

use super::FIGURES;
use kulprit_common::farm::action::Assignment;
use kulprit_common::id::AgentId;
use kulprit_common::outcome::Outcome;
use kulprit_common::trace_parent::TraceParent;
use kulprit_observe::figures::{Count as _, Measure as _};
use kulprit_observe::traces::{self, Span};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

/// How something went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    Done,
    /// Of an infra failure: its class, and why.
    Infra(&'static str, String),
    Cancelled,
}

impl Went {
    fn word(&self) -> &'static str {
        match self {
            Went::Done => "done",
            Went::Infra(..) => "infra",
            Went::Cancelled => "cancelled",
        }
    }

    fn failure(&self) -> Option<String> {
        match self {
            Went::Done => None,
            Went::Infra(class, reason) => Some(format!("{class}: {reason}")),
            Went::Cancelled => Some("cancelled".into()),
        }
    }
}

/// An attempt under way.
pub struct Course {
    /// The coordinator's span of it; absent where it named none.
    parent: Option<TraceParent>,
    kind: &'static str,
    attributes: Vec<(&'static str, String)>,
    began: Instant,
    stages: AtomicU32,
}

impl Course {
    pub fn of(assignment: &Assignment) -> Course {
        let purpose = assignment.purpose.as_ref();
        let revision = purpose.and_then(|purpose| purpose.revision);
        let said = [
            ("kulprit.item", Some(assignment.item.to_string())),
            ("kulprit.attempt", Some(assignment.attempt.to_string())),
            ("kulprit.slot", Some(assignment.slot.to_string())),
            ("kulprit.job", purpose.map(|purpose| purpose.job.to_string())),
            ("kulprit.revision", revision.map(|revision| revision.to_string())),
        ];
        Course {
            parent: purpose.map(|purpose| purpose.trace().attempt(assignment.attempt)),
            kind: assignment.item.kind(),
            attributes: said.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
            began: Instant::now(),
            stages: AtomicU32::new(0),
        }
    }

    /// Follows one stage to its end.
    pub async fn stage<T, E>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        for<'a> Went: From<&'a E>,
    {
        let began = Instant::now();
        let ended = work.await;
        let went = ended.as_ref().map_or_else(Went::from, |_| Went::Done);
        FIGURES.stage_time.took(&[name, went.word()], began.elapsed());
        let number = self.stages.fetch_add(1, Ordering::Relaxed);
        if let Some(work) = self.span() {
            self.send(work.child(&format!("{name} {number}")), work, name, began, &went);
        }
        ended
    }

    /// The attempt is over.
    pub fn ends(&self, went: &Went) {
        FIGURES.attempts.one(&[self.kind, went.word()]);
        if let Went::Infra(class, _) = went {
            FIGURES.failures.one(&[class]);
        }
        if let (Some(parent), Some(span)) = (self.parent, self.span()) {
            self.send(span, parent, "work", self.began, went);
        }
    }

    fn span(&self) -> Option<TraceParent> {
        self.parent.map(|parent| parent.child("work"))
    }

    fn send(&self, at: TraceParent, parent: TraceParent, name: &'static str, began: Instant, went: &Went) {
        if !traces::are_sent() {
            return;
        }
        let end = SystemTime::now();
        traces::send(Span {
            at,
            parent: Some(parent),
            name: if name == "work" { format!("work: {}", self.kind).into() } else { name.into() },
            start: end.checked_sub(began.elapsed()).unwrap_or(end),
            end,
            attributes: self.attributes.clone(),
            failure: went.failure(),
        });
    }
}

/// What every log line of an attempt says of it.
pub fn span(agent: &AgentId, assignment: &Assignment) -> tracing::Span {
    let span = tracing::info_span!(
        "attempt",
        %agent,
        attempt = %assignment.attempt,
        item = %assignment.item,
        job = tracing::field::Empty,
        revision = tracing::field::Empty,
    );
    if let Some(purpose) = &assignment.purpose {
        span.record("job", tracing::field::display(&purpose.job));
        if let Some(revision) = &purpose.revision {
            span.record("revision", tracing::field::display(revision));
        }
    }
    span
}

/// What an outcome is called in figures.
pub fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Crashed(_) => "crashed",
        Outcome::BootFailed { .. } => "boot-failed",
        Outcome::NoReproducerStart { .. } => "no-reproducer-start",
        Outcome::Hung { .. } => "hung",
    }
}
