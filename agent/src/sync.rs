//! The agent's loop: say what is held, take what should be, carry out, report.
//!
//! Contact is counted from when a sync was sent: an agent that has not been confirmed for the
//! length of a lease less its margin stops its work, so that no item has two live holders.

use crate::artifacts::Place;
use crate::live_log;
use crate::telemetry::{self, Contact};
use crate::work::{self, Activity, Bench};
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::event::{AgentInfo, Holding};
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::{AgentId, Attempt, Session};
use kulprit_common::outcome::AttemptEnd;
use kulprit_proto::supervisor::{self, Pulse};
use kulprit_proto::tls::{self, Link};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tracing::Instrument as _;

/// What an agent stops before its lease is up.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Between tries while the coordinator does not answer.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The same where another coordinator may have taken over.
const RETRY_MAX_AMONG: Duration = Duration::from_secs(1);
/// A sync is held back by the coordinator for 20 s at most.
const SYNC_LIMIT: Duration = Duration::from_secs(28);
/// Cached kernels that are told of.
const HAVE_MAX: usize = 64;
const COMPLETE_LIMIT: Duration = Duration::from_secs(15);
/// How long attempts may take at the end to let go of containers and guests before they are hurried.
const LET_GO: Duration = Duration::from_secs(10);
/// How long they may take when hurried: then, or told to stop at once.
const LET_GO_NOW: Duration = Duration::from_secs(4);
/// What a service manager is asked for at each turn of the loop that ends. A turn takes half a minute
/// where nobody answers, and so does letting go of all that is held and handing it back.
const STOP_MORE: Duration = Duration::from_secs(120);
/// How long work in hand may go on when the machine is about to go. With the time to let go of it,
/// and a cloud asked every 3 s, the rest of the farm has it within 15 s of the notice.
const LEAVE_AFTER: Duration = Duration::from_secs(4);

/// How the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Told to stop; nothing is held any more.
    Drained,
    /// A later life of this agent is at work.
    Superseded,
    /// The coordinator wants no more of this agent, and says why.
    Refused(String),
}

/// What the loop needs to know of its surroundings.
pub struct Agent {
    pub id: AgentId,
    pub session: Session,
    pub client: AgentsClient<Link>,
    /// The longest pause between tries.
    pub retry_max: Duration,
    pub bench: Arc<Bench>,
    pub info: watch::Receiver<AgentInfo>,
    /// Where the loop says how it fares.
    pub contact: Contact,
    /// Set to how soon the agent is to end; it only ever rises.
    pub stop: watch::Receiver<Stop>,
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    Drain,
    /// As draining, in a hurry: the machine will be gone.
    Leave,
    Now,
}

struct Held {
    /// What log lines say of it.
    span: tracing::Span,
    item: ItemKey,
    slot: u32,
    activity: Activity,
    cancel: CancellationToken,
    /// Told to drop it: it is not held any more, and only ends its work.
    revoked: bool,
    /// Done, and being reported until the coordinator answers.
    reporting: bool,
}

enum Note {
    /// The work ended; `None` when it was cancelled.
    Worked(Attempt, Option<Box<AttemptEnd>>),
    /// The coordinator has answered for this attempt.
    Acknowledged(Attempt),
}

struct Loop {
    agent: Agent,
    held: BTreeMap<Attempt, Held>,
    /// Assignments whose slot is still being cleared.
    waiting: Vec<Assignment>,
    sequence: u64,
    notes: mpsc::UnboundedSender<Note>,
    /// All work under way, revoked work included.
    work: TaskTracker,
    /// Up to when the coordinator has confirmed what is held.
    confirmed_until: Instant,
    lease: Duration,
    retry: Duration,
    /// The coordinator has answered the latest sync.
    answered: bool,
    /// What the service manager was told; empty until the farm is joined.
    status: String,
}

/// The longest pause between tries over this link.
pub fn retry_max(link: &Link) -> Duration {
    if link.has_choice() { RETRY_MAX_AMONG } else { RETRY_MAX }
}

/// Runs until drained or superseded.
pub async fn run(agent: Agent) -> Ended {
    // Bounded by what is held: each attempt sends two notes.
    let (notes, mut inbox) = mpsc::unbounded_channel();
    let lease = Duration::from_secs(30);
    let mut it = Loop {
        agent,
        held: BTreeMap::new(),
        waiting: Vec::new(),
        sequence: 0,
        notes,
        work: TaskTracker::new(),
        confirmed_until: Instant::now() + lease,
        lease,
        retry: RETRY_FIRST,
        answered: false,
        status: String::new(),
    };
    let mut pulse = Pulse::wanted();
    let (mut give_up_at, mut leaving) = (None, false);
    loop {
        let stop = *it.agent.stop.borrow_and_update();
        if stop >= Stop::Drain && give_up_at.is_none() {
            give_up_at = Some(Instant::now() + it.agent.drain);
            supervisor::stopping("draining", STOP_MORE);
        } else if give_up_at.is_some() {
            supervisor::still_stopping(STOP_MORE);
        }
        if stop == Stop::Leave && !leaving {
            leaving = true;
            let at = Instant::now() + LEAVE_AFTER;
            give_up_at = Some(give_up_at.map_or(at, |before: Instant| before.min(at)));
        }
        if stop == Stop::Now || give_up_at.is_some_and(|at| at <= Instant::now()) {
            pulse.during(it.release_all()).await;
            return Ended::Drained;
        }
        if stop >= Stop::Drain && it.held.is_empty() {
            it.stop_work().await;
            it.say_goodbye().await;
            return Ended::Drained;
        }
        it.tell_manager(stop);
        let sent = Instant::now();
        let request = it.request(stop >= Stop::Drain);
        let mut client = it.agent.client.clone();
        let pause = it.retry;
        let syncing = async move {
            match tokio::time::timeout(SYNC_LIMIT, client.sync(request)).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(status),
                Err(_) => Err(Status::deadline_exceeded("no answer")),
            }
        };
        tokio::select! {
            answer = pulse.during(syncing) => match answer {
                Ok(response) => it.take(response, sent).await,
                Err(status) if status.code() == Code::FailedPrecondition => {
                    it.stop_work().await;
                    return Ended::Superseded;
                }
                Err(status) if status.code() == Code::PermissionDenied => {
                    it.stop_work().await;
                    return Ended::Refused(status.message().to_owned());
                }
                Err(status) => {
                    it.agent.contact.failed();
                    let cause = tls::said(&status);
                    tracing::warn!(cause, code = ?status.code(), message = status.message(), "the coordinator does not answer");
                    it.answered = false;
                    it.retry = (it.retry * 2).min(it.agent.retry_max);
                    pulse.during(it.pause(pause, &mut inbox)).await;
                }
            },
            Some(note) = inbox.recv() => it.note(note),
            changed = it.agent.stop.changed() => {
                // The sender lives as long as the process: an error means the end of it.
                if changed.is_err() {
                    return Ended::Drained;
                }
            }
            () = tokio::time::sleep_until(it.confirmed_until), if it.has_live_work() => it.lost_contact(),
            () = sleep_until(give_up_at) => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Loop {
    /// Says how things stand, where that is news. The agent is ready once it was answered.
    fn tell_manager(&mut self, stop: Stop) {
        let held = self.held.values().filter(|held| !held.revoked).count();
        let doing = if stop >= Stop::Drain { "draining" } else { "at work" };
        let contact = if self.answered { "" } else { "; the coordinator does not answer" };
        let status = format!("{doing}, {held} in hand{contact}");
        match self.status.is_empty() {
            true if self.answered => supervisor::ready(&status),
            false if self.status != status => supervisor::status(&status),
            true | false => return,
        }
        self.status = status;
    }

    fn request(&mut self, draining: bool) -> v1::SyncRequest {
        self.sequence += 1;
        self.agent.contact.holds(self.held.len(), draining);
        let info = self.agent.info.borrow().clone();
        let holding = self.held.iter().filter(|(_, held)| !held.revoked).map(|(attempt, held)| {
            v1::Holding::from(Holding {
                attempt: *attempt,
                item: held.item.clone(),
                slot: held.slot,
                activity: held.activity.get(),
            })
        });
        v1::SyncRequest {
            agent: self.agent.id.to_string(),
            session: self.agent.session.0,
            sequence: self.sequence,
            holding: holding.collect(),
            have: self
                .agent
                .bench
                .artifacts
                .recent(HAVE_MAX)
                .iter()
                .map(|digest| digest.as_bytes().to_vec())
                .collect(),
            info: Some(info.into()),
            draining,
        }
    }

    /// Takes the coordinator's word on what to hold.
    async fn take(&mut self, response: v1::SyncResponse, sent: Instant) {
        self.agent.contact.answered();
        self.answered = true;
        self.retry = RETRY_FIRST;
        self.lease = Duration::from_millis(response.lease_ms);
        self.confirmed_until = sent + self.lease.saturating_sub(LEASE_MARGIN);
        let place = Place::of(&response);
        for attempt in response.revoke {
            self.revoke(Attempt(attempt));
        }
        if let Err(error) = self.agent.bench.artifacts.point_at(place.clone()) {
            tracing::error!(why = error.reason, ?place, "cannot use the artifact store");
        }
        self.waiting.clear();
        // An answer may be older than the lease it grants; what it gives may be another's by now.
        let is_late = self.confirmed_until <= Instant::now();
        for message in response.assignments.into_iter().filter(|_| !is_late) {
            if self.held.contains_key(&Attempt(message.attempt)) {
                continue;
            }
            let (attempt, item) = (message.attempt, message.item.clone());
            match Assignment::try_from(message) {
                Ok(assignment) => self.waiting.push(assignment),
                Err(error) => self.refuse(attempt, item, &error).await,
            }
        }
        self.start_waiting();
        // Yields between syncs that are answered at once.
        tokio::time::sleep(Duration::from_millis(response.next_sync_ms.min(1000))).await;
    }

    /// Hands back what makes no sense: kept, it would be renewed for ever and never done.
    async fn refuse(&self, attempt: u64, item: Option<v1::ItemKey>, error: &impl std::fmt::Display) {
        tracing::error!(%error, "an assignment makes no sense; is the coordinator newer?");
        let class = kulprit_common::outcome::InfraClass::Internal;
        let reason = format!("the agent cannot read the assignment: {error}");
        let end = AttemptEnd::Infra(kulprit_common::outcome::Infra { class, reason });
        let request = v1::CompleteRequest {
            agent: self.agent.id.to_string(),
            session: self.agent.session.0,
            attempt,
            item,
            end: Some(end.into()),
        };
        // Not repeated here: it is assigned again with the next sync until this arrives.
        let _ = tokio::time::timeout(COMPLETE_LIMIT, self.agent.client.clone().complete(request)).await;
    }

    /// Starts what has a free slot.
    fn start_waiting(&mut self) {
        for assignment in std::mem::take(&mut self.waiting) {
            if self.held.values().any(|held| held.slot == assignment.slot && !held.reporting) {
                self.waiting.push(assignment);
            } else {
                self.start(assignment);
            }
        }
    }

    fn start(&mut self, assignment: Assignment) {
        let span = telemetry::span(&self.agent.id, &assignment);
        let held = Held {
            span: span.clone(),
            item: assignment.item.clone(),
            slot: assignment.slot,
            activity: Activity::default(),
            cancel: CancellationToken::new(),
            revoked: false,
            reporting: false,
        };
        let (activity, cancel) = (held.activity.clone(), held.cancel.clone());
        activity.set("starting");
        let attempt = assignment.attempt;
        self.held.insert(attempt, held);
        span.in_scope(|| {
            tracing::info!(%attempt, item = %assignment.item, title = assignment.title, "starts");
        });
        let live = live_log::start(self.agent.client.clone(), self.agent.id.clone(), attempt);
        let (bench, notes) = (self.agent.bench.clone(), self.notes.clone());
        self.work.spawn(async move {
            let work = tokio::spawn(
                async move { work::carry_out(&bench, &assignment, &activity, live, cancel).await }
                    .instrument(span),
            );
            let ended = work.await.unwrap_or_else(|error| {
                let reason = format!("the attempt panicked: {error}");
                let class = kulprit_common::outcome::InfraClass::Internal;
                Some(AttemptEnd::Infra(kulprit_common::outcome::Infra { class, reason }))
            });
            // The loop has ended if nobody listens; then nothing is reported any more.
            let _ = notes.send(Note::Worked(attempt, ended.map(Box::new)));
        });
    }

    fn revoke(&mut self, attempt: Attempt) {
        // One that is being reported is over already, and forgotten once that is answered.
        if let Some(held) = self.held.get_mut(&attempt).filter(|held| !held.reporting) {
            tracing::info!(%attempt, item = %held.item, "is dropped");
            held.revoked = true;
            held.cancel.cancel();
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Worked(attempt, ended) => {
                let Some(held) = self.held.get_mut(&attempt) else { return };
                match ended {
                    Some(end) if !held.revoked => {
                        held.reporting = true;
                        held.activity.set("reporting");
                        self.report(attempt, *end);
                    }
                    Some(_) | None => {
                        self.held.remove(&attempt);
                    }
                }
            }
            Note::Acknowledged(attempt) => {
                self.held.remove(&attempt);
            }
        }
        self.start_waiting();
    }

    /// Repeats a completion until it is answered; every answer is final.
    fn report(&self, attempt: Attempt, end: AttemptEnd) {
        let request = self.completion(attempt, end);
        let (mut client, notes) = (self.agent.client.clone(), self.notes.clone());
        let pause_max = self.agent.retry_max;
        let span = self.held.get(&attempt).map_or_else(tracing::Span::none, |held| held.span.clone());
        let reporting = async move {
            let mut pause = RETRY_FIRST;
            loop {
                match tokio::time::timeout(COMPLETE_LIMIT, client.complete(request.clone())).await {
                    Ok(Ok(response)) => {
                        let answer = response.into_inner().answer();
                        tracing::info!(%attempt, ?answer, "reported");
                        break;
                    }
                    Ok(Err(status))
                        if matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied) =>
                    {
                        tracing::error!(%attempt, %status, "the coordinator does not take the outcome");
                        break;
                    }
                    Ok(Err(_)) | Err(_) => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(pause_max);
                    }
                }
            }
            let _ = notes.send(Note::Acknowledged(attempt));
        };
        tokio::spawn(reporting.instrument(span));
    }

    fn completion(&self, attempt: Attempt, end: AttemptEnd) -> v1::CompleteRequest {
        v1::CompleteRequest {
            agent: self.agent.id.to_string(),
            session: self.agent.session.0,
            attempt: attempt.0,
            item: self.held.get(&attempt).map(|held| held.item.clone().into()),
            end: Some(end.into()),
        }
    }

    fn has_live_work(&self) -> bool {
        self.held.values().any(|held| !held.reporting && !held.revoked)
    }

    /// The lease may be another's soon: stops all work. What is done goes on being reported.
    fn lost_contact(&mut self) {
        tracing::warn!("out of contact for as long as a lease allows; work in hand is dropped");
        let live: Vec<Attempt> =
            self.held.iter().filter(|(_, held)| !held.reporting).map(|(attempt, _)| *attempt).collect();
        live.into_iter().for_each(|attempt| self.revoke(attempt));
        self.waiting.clear();
    }

    /// Cancels all work and waits until its containers and guests are gone.
    async fn stop_work(&mut self) {
        self.held.values().for_each(|held| held.cancel.cancel());
        self.work.close();
        let told = self.agent.stop.wait_for(|stop| *stop >= Stop::Leave);
        let out_of_time = async {
            let _ = tokio::time::timeout(LET_GO, told).await;
            tokio::time::sleep(LET_GO_NOW).await;
        };
        tokio::select! {
            () = self.work.wait() => {}
            () = out_of_time => {
                tracing::warn!("work in hand does not let go; the next start removes what it leaves");
            }
        }
    }

    /// Waits before the next try, but not for news of one's own.
    async fn pause(&mut self, pause: Duration, inbox: &mut mpsc::UnboundedReceiver<Note>) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(note) = inbox.recv() => self.note(note),
        }
    }

    /// Hands everything back, so that others need not wait for the leases to run out.
    async fn release_all(&mut self) {
        self.stop_work().await;
        let live: Vec<Attempt> = self
            .held
            .iter()
            .filter(|(_, held)| !held.reporting && !held.revoked)
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in live {
            let request = self.completion(attempt, AttemptEnd::Released);
            let mut client = self.agent.client.clone();
            // Best effort: without an answer the lease runs out by itself.
            let _ = tokio::time::timeout(Duration::from_secs(1), client.complete(request)).await;
        }
        self.say_goodbye().await;
    }

    /// Tells the coordinator that nothing is held and nothing more is wanted.
    async fn say_goodbye(&mut self) {
        self.held.clear();
        let request = self.request(true);
        let mut client = self.agent.client.clone();
        let _ = tokio::time::timeout(Duration::from_secs(1), client.sync(request)).await;
    }
}
