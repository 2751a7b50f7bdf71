//! What a service manager is told of the process that it started: that it is ready, what it is at,
//! that it ends, and that its loop still turns. Where there is none, nothing is told. sd_notify(3).

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// The process does what it is there for, from now on.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The process ends, and asks not to be killed before this time is over, 71 minutes at most.
pub fn stopping(status: &str, within: Duration) {
    tell(&[NotifyState::Stopping, extension(within), NotifyState::Status(status)]);
}

/// The process still ends, and asks for this time from now on. Whoever takes long asks for a little,
/// again and again: a request can say 71 minutes at most, and one that hangs then is killed soon.
pub fn still_stopping(within: Duration) {
    tell(&[extension(within)]);
}

fn extension(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

/// The beat of a loop, by which a manager with a watchdog knows a process that hangs.
pub struct Pulse(Option<Interval>);

impl Pulse {
    /// Beats twice in the time that the manager allows, or never where it does not ask. To be made
    /// within a runtime.
    pub fn wanted() -> Pulse {
        Pulse(sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()).map(|limit| {
            let mut beats = tokio::time::interval((limit / 2).max(Duration::from_micros(1)));
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        }))
    }

    /// Waits until a beat is due, and gives it. Cut short, it has done nothing.
    pub async fn beat(&mut self) {
        match &mut self.0 {
            Some(beats) => {
                beats.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
        }
    }

    /// Beats while something is waited for.
    pub async fn during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            tokio::select! {
                done = &mut wait => return done,
                () = self.beat() => {}
            }
        }
    }
}
