//! Follows a job through everything that can happen to the connection.
//!
//! A background part of its own feeds a channel, so that whoever reads it can do other things meanwhile
//! without losing any.

use super::client::{Coordinator, is_out_of_reach, root_cause};
use super::failure::Failure;
use kulprit_proto::v1;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A coordinator that stays away longer than this is not coming back by itself.
const AWAY_MAX: Duration = Duration::from_secs(600);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Updates that wait for a slow terminal.
const NEWS_MAX: usize = 16;

#[derive(Debug)]
pub enum News {
    /// `log` holds only what no earlier update had.
    Update(Box<v1::WatchUpdate>),
    /// Something to say that is not about the job.
    Said(String),
    /// Nothing more comes.
    Failed(Failure),
}

/// Starts to follow. The channel closes behind the update in which the job has ended.
pub fn follow(coordinator: Coordinator, job: String) -> (mpsc::Sender<News>, mpsc::Receiver<News>) {
    let (sender, receiver) = mpsc::channel(NEWS_MAX);
    let following = Following { coordinator, job, seen: Seen::default(), sender: sender.clone() };
    tokio::spawn(following.run());
    (sender, receiver)
}

struct Following {
    coordinator: Coordinator,
    job: String,
    seen: Seen,
    sender: mpsc::Sender<News>,
}

impl Following {
    async fn run(mut self) {
        let mut away_since = None;
        loop {
            let status = match self.stream(&mut away_since).await {
                Ok(()) => return,
                Err(status) => status,
            };
            let since = *away_since.get_or_insert_with(Instant::now);
            if !is_out_of_reach(&status) || since.elapsed() > AWAY_MAX {
                return self.tell(News::Failed(self.coordinator.failure(&status))).await;
            }
            if self.seen.connected {
                self.seen.connected = false;
                let why = root_cause(&status);
                self.tell(News::Said(format!("lost the coordinator ({why}); trying again every second")))
                    .await;
            } else if !self.seen.ever {
                // Nothing was ever there: the address is wrong, or none is running.
                return self.tell(News::Failed(self.coordinator.failure(&status))).await;
            }
            if self.sender.is_closed() {
                return;
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Passes one stream on; `Ok` when the job has ended or nobody listens.
    async fn stream(&mut self, away_since: &mut Option<Instant>) -> Result<(), tonic::Status> {
        let mut stream = self.coordinator.watch(&self.job).await?;
        self.seen.log_here = 0;
        while let Some(mut update) = stream.message().await? {
            if away_since.take().is_some() {
                self.tell(News::Said("the coordinator is back".into())).await;
            }
            self.seen.connected = true;
            self.seen.ever = true;
            update.log = self.seen.fresh(&update.log).to_owned();
            let ended = update.job.as_ref().is_some_and(|job| job.end.is_some());
            if self.sender.send(News::Update(Box::new(update))).await.is_err() || ended {
                return Ok(());
            }
        }
        Err(tonic::Status::unavailable("the coordinator ended the stream"))
    }

    async fn tell(&self, news: News) {
        // Whoever listened may have gone; there is nobody else to tell.
        let _ = self.sender.send(news).await;
    }
}

#[derive(Debug, Default)]
struct Seen {
    connected: bool,
    ever: bool,
    /// Bytes of the log passed on, over all streams.
    log: usize,
    /// Bytes of it that this stream has sent; each begins at the beginning.
    log_here: usize,
}

impl Seen {
    /// What is new in a piece of this stream's log. The log only grows, so bytes can be counted.
    fn fresh<'a>(&mut self, piece: &'a str) -> &'a str {
        let known = self.log.saturating_sub(self.log_here).min(piece.len());
        self.log_here += piece.len();
        self.log = self.log.max(self.log_here);
        piece.get(known..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_repeats_nothing() {
        let mut seen = Seen::default();
        let mut text = String::new();
        for (reconnected, piece) in [
            (false, "one "),
            (false, "two "),
            (true, "one two three "),
            (true, "one "),
            (false, "two three four"),
        ] {
            if reconnected {
                seen.log_here = 0;
            }
            text += seen.fresh(piece);
        }
        assert_eq!(text, "one two three four");
    }
}
