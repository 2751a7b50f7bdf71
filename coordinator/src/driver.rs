//! The one loop: gather events, let the farm decide, make facts durable, act.
//!
//! Nothing is decided here. Whoever has an event or a question holds a `Handle`.

use crate::failpoint;
use crate::hands::Hands;
use crate::journal::{self, Journal};
use crate::telemetry::attempts;
use anyhow::Context as _;
use kulprit_common::access::Roll;
use kulprit_common::farm::action::{Action, Answer, Desired};
use kulprit_common::farm::census::Granted;
use kulprit_common::farm::event::Event;
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::{Farm, Handled};
use kulprit_common::id::{AgentId, Attempt};
use kulprit_common::time::Timestamp;
use kulprit_proto::supervisor::Pulse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// Events and questions that may wait; whoever has one more waits for room.
const INBOX_MAX: usize = 4096;
/// Events handled before their facts are committed together.
const BATCH_MAX: usize = 512;

/// Where the answer to an event goes, once its facts are durable.
pub type Reply = oneshot::Sender<Option<Answer>>;

type Question = Box<dyn FnOnce(&Farm, Timestamp) + Send>;

pub enum Message {
    Tell {
        event: Box<Event>,
        reply: Option<Reply>,
    },
    /// Parks until there is something new for an agent that holds `held`.
    Poll(Poll),
    Ask(Question),
}

pub struct Poll {
    pub agent: AgentId,
    pub held: Vec<Attempt>,
    pub reply: oneshot::Sender<News>,
}

/// What an agent should hold, and what of its own it should drop.
#[derive(Clone, Debug, Default)]
pub struct News {
    pub desired: Desired,
    pub revoked: Vec<Attempt>,
    /// What of it is not held yet, for those who watch over the farm.
    pub granted: Vec<Granted>,
}

/// The driver has stopped: the coordinator is going down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct Stopped;

/// A way to reach the driver.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    changes: watch::Receiver<u64>,
    roll: watch::Receiver<Arc<Roll>>,
}

impl Handle {
    /// Tells an event; returns once everything it made a fact is durable.
    pub async fn tell(&self, event: Event) -> Result<Option<Answer>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox
            .send(Message::Tell { event: Box::new(event), reply: Some(reply) })
            .await
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Tells an event nobody waits for.
    pub async fn notify(&self, event: Event) {
        // A driver that has stopped needs no more events.
        let _ = self.inbox.send(Message::Tell { event: Box::new(event), reply: None }).await;
    }

    /// Waits at most `patience` for news; without any, says how things stand.
    pub async fn poll(
        &self,
        agent: AgentId,
        held: Vec<Attempt>,
        patience: Duration,
    ) -> Result<News, Stopped> {
        let (reply, news) = oneshot::channel();
        let poll = Poll { agent: agent.clone(), held: held.clone(), reply };
        self.inbox.send(Message::Poll(poll)).await.map_err(|_| Stopped)?;
        match tokio::time::timeout(patience, news).await {
            Ok(news) => news.map_err(|_| Stopped),
            Err(_) => self.ask(move |farm, _| news_for(farm, &agent, &held)).await,
        }
    }

    /// Looks at the farm.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Farm, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |farm, now| {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(question(farm, now));
        });
        self.inbox.send(Message::Ask(question)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// How many events wait, and how many may.
    pub fn queue(&self) -> (usize, usize) {
        let max = self.inbox.max_capacity();
        (max - self.inbox.capacity(), max)
    }

    /// Who is in and who is out; what it says is durable.
    pub fn roll(&self) -> watch::Receiver<Arc<Roll>> {
        self.roll.clone()
    }

    /// Rises whenever the farm may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// Wall-clock milliseconds that never go back.
pub struct Clock {
    started: Instant,
    at_start: u64,
}

impl Clock {
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), at_start: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.at_start) + self.started.elapsed()
    }
}

pub struct Driver {
    farm: Farm,
    clock: Clock,
    journal: Journal,
    hands: Hands,
    inbox: mpsc::Receiver<Message>,
    changes: watch::Sender<u64>,
    roll: watch::Sender<Arc<Roll>>,
    /// The version of the roll that has been published.
    roll_version: Option<u64>,
    /// Those that wait for news.
    polls: HashMap<AgentId, Vec<Poll>>,
}

/// Makes a driver's two ends: events sent to the handle wait until the driver runs.
pub fn channel() -> (Handle, Ends) {
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let (changes, seen) = watch::channel(0);
    let (roll, published) = watch::channel(Arc::default());
    (Handle { inbox: sender, changes: seen, roll: published }, Ends { inbox, changes, roll })
}

/// The driver's side of the channel.
pub struct Ends {
    inbox: mpsc::Receiver<Message>,
    changes: watch::Sender<u64>,
    roll: watch::Sender<Arc<Roll>>,
}

impl Driver {
    pub fn new(farm: Farm, clock: Clock, journal: Journal, hands: Hands, ends: Ends) -> Self {
        let Ends { inbox, changes, roll } = ends;
        let mut driver = Driver {
            farm,
            clock,
            journal,
            hands,
            inbox,
            changes,
            roll,
            roll_version: None,
            polls: HashMap::new(),
        };
        // Before the first call is taken: those shut out in an earlier life stay out.
        driver.publish_roll();
        driver
    }

    /// Runs until `stop` is set. An error means that facts could not be made durable: nothing
    /// may be acknowledged any more, so the coordinator ends.
    pub async fn run(mut self, first: Vec<Action>, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut pulse = Pulse::wanted();
        self.act([(first, None)]).await?;
        loop {
            let due = self.farm.next_deadline().map(|at| at.since(self.clock.now()));
            let mut batch = Vec::new();
            tokio::select! {
                _ = self.inbox.recv_many(&mut batch, BATCH_MAX) => {}
                () = sleep(due) => {
                    batch.push(Message::Tell { event: Box::new(Event::Tick), reply: None });
                }
                () = pulse.beat() => continue,
                () = told(&mut stop) => return self.journal.close().await.context("close the journal"),
                why = self.journal.broken() => return Err(why).context("go on"),
            }
            let now = self.clock.now();
            let (mut events, mut replies) = (Vec::new(), Vec::new());
            let (mut polls, mut asked) = (Vec::new(), Vec::new());
            for message in batch {
                match message {
                    Message::Tell { event, reply } => {
                        events.push(*event);
                        replies.push(reply);
                    }
                    Message::Poll(poll) => polls.push(poll),
                    Message::Ask(question) => asked.push(question),
                }
            }
            let changed = !events.is_empty();
            if changed {
                let Handled { each, then } = self.farm.handle_all(now, events);
                let decided = each.into_iter().zip(replies).chain([(then, None)]);
                self.act(decided).await?;
            }
            // A process that stood still must not grant what another grants by now.
            self.journal.confirm().await.context("answer")?;
            asked.into_iter().for_each(|question| question(&self.farm, now));
            self.answer_polls(polls);
            if changed {
                self.changes.send_modify(|version| *version += 1);
            }
        }
    }

    /// Facts first; when they are on disk, everything else.
    async fn act(
        &mut self,
        decided: impl IntoIterator<Item = (Vec<Action>, Option<Reply>)>,
    ) -> anyhow::Result<()> {
        let mut facts = Vec::new();
        let mut rest = Vec::new();
        for (actions, reply) in decided {
            let mut answer = None;
            for action in actions {
                match action {
                    Action::Record(fact) => facts.push(stored(fact, self.clock.now())),
                    Action::Answer(given) => answer = Some(given),
                    other => rest.push(other),
                }
            }
            if let Some(reply) = reply {
                self.hands.reply_later(reply, answer);
            }
        }
        if !facts.is_empty() {
            self.journal.append(facts).await.context("keep a fact")?;
        }
        self.journal.confirm().await.context("answer")?;
        // Before the answer: whoever was shut out is out by the time it is said.
        self.publish_roll();
        failpoint::pass("before-answer");
        self.hands.send_replies();
        rest.into_iter().for_each(|action| self.hands.take(action));
        Ok(())
    }

    fn publish_roll(&mut self) {
        let (version, roll) = self.farm.ledger().roll();
        if self.roll_version != Some(version) {
            self.roll_version = Some(version);
            self.roll.send_replace(Arc::new(roll.clone()));
        }
    }

    /// Answers new polls, and those that wait of agents for whom something changed.
    fn answer_polls(&mut self, mut polls: Vec<Poll>) {
        for agent in self.farm.take_news() {
            polls.extend(self.polls.remove(&agent).unwrap_or_default());
        }
        for poll in polls.into_iter().filter(|poll| !poll.reply.is_closed()) {
            let news = news_for(&self.farm, &poll.agent, &poll.held);
            let granted = news.desired.assignments.iter().any(|it| !poll.held.contains(&it.attempt));
            if granted || !news.revoked.is_empty() {
                let _ = poll.reply.send(news);
            } else {
                let waiting = self.polls.entry(poll.agent.clone()).or_default();
                waiting.retain(|other| !other.reply.is_closed());
                waiting.push(poll);
            }
        }
    }
}

fn news_for(farm: &Farm, agent: &AgentId, held: &[Attempt]) -> News {
    let desired = farm.desired(agent);
    let new = desired.assignments.iter().filter(|it| !held.contains(&it.attempt));
    let granted = new.filter_map(|it| farm.granted(&it.item)).collect();
    News { desired, revoked: farm.revoked(agent, held), granted }
}

fn stored(fact: Fact, at: Timestamp) -> journal::Fact {
    let kind = kulprit_proto::journal::kind(&fact);
    attempts::fact(&fact, kind, at);
    journal::Fact { at_ms: at.0, kind, body: kulprit_proto::journal::encode(fact) }
}

/// Waits until `stop` is set, or until nobody is left to set it.
pub async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn sleep(due: Option<Duration>) {
    match due {
        // The farm's deadlines are inclusive: a millisecond later they have passed.
        Some(wait) => tokio::time::sleep(wait + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
