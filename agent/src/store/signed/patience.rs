//! How long a transfer that comes to nothing is tried again.

use super::super::store;
use super::{REQUEST_TIMEOUT, Trouble};
use kulprit_common::outcome::Infra;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what passes is waited for while nothing moves: a store that is mended within minutes has cost no
/// attempt.
const STILL_MAX: Duration = Duration::from_secs(300);
/// How long bytes may move in vain: what breaks off near its end is sent again, what always does is given up.
const MOVING_MAX: Duration = REQUEST_TIMEOUT.saturating_mul(3);
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often in a row the store may refuse what was signed just now. An old signature is refused once.
const REFUSALS_MAX: u32 = 5;

/// When the bytes of a try began to move, and when they did last; told by whoever moves them.
#[derive(Clone, Default)]
pub(super) struct Moved(Arc<Mutex<Option<(Instant, Instant)>>>);

impl Moved {
    pub fn at(&self, now: Instant) {
        let mut moved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = moved.map_or(now, |(first, _)| first);
        *moved = Some((first, now));
    }

    fn take(&self) -> Option<(Instant, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Waits longer each time, and not for ever.
pub(super) struct Patience {
    /// The end of the try before.
    since: Instant,
    still: Duration,
    moving: Duration,
    moved: Moved,
    wait: Duration,
    refusals: u32,
}

impl Patience {
    pub fn new(now: Instant) -> Patience {
        let (still, moving) = (Duration::ZERO, Duration::ZERO);
        Patience { since: now, still, moving, moved: Moved::default(), wait: WAIT_MIN, refusals: 0 }
    }

    /// For whoever moves bytes.
    pub fn moved(&self) -> Moved {
        self.moved.clone()
    }

    /// Waits until it may be tried again, or says why it is not.
    pub async fn bear(&mut self, trouble: Trouble) -> Result<(), Infra> {
        let wait = self.judge(Instant::now(), trouble)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn judge(&mut self, now: Instant, trouble: Trouble) -> Result<Duration, Infra> {
        let why = match trouble {
            Trouble::Final(infra) => return Err(infra),
            Trouble::Refused(why) => {
                self.refusals += 1;
                why
            }
            Trouble::Passing(why) => {
                self.refusals = 0;
                why
            }
        };
        let moving = self.moved.take().map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
        self.moving += moving;
        self.still += now.duration_since(self.since).saturating_sub(moving);
        self.since = now;
        let is_over = self.still >= STILL_MAX || self.moving >= MOVING_MAX;
        if self.refusals >= REFUSALS_MAX || is_over {
            return Err(store(format_args!("artifact store: {why}")));
        }
        tracing::debug!(why, "a transfer is tried again");
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tries fail before it is given up, of which each is still and moves for so many seconds.
    fn tries(still_s: u64, moving_s: u64, trouble: fn(String) -> Trouble) -> usize {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        for count in 1..=10_000 {
            now += Duration::from_secs(still_s);
            let moved = patience.moved();
            if moving_s > 0 {
                moved.at(now);
                now += Duration::from_secs(moving_s);
                moved.at(now);
            }
            if patience.judge(now, trouble("it broke off".into())).is_err() {
                return count;
            }
        }
        panic!("it is never given up");
    }

    #[test]
    fn what_moves_is_tried_again_however_long_it_took() {
        for (still_s, moving_s, count) in [
            // A store that is away: five minutes, however it is asked.
            (5, 0, 60),
            (100, 0, 3),
            (400, 0, 1),
            // Seconds of waiting count where it takes what it then refuses, too.
            (5, 1, 60),
            // A large upload over a slow line, that breaks off.
            (5, 400, 5),
            (1, 600, 3),
        ] {
            assert_eq!(tries(still_s, moving_s, Trouble::Passing), count, "{still_s} s, {moving_s} s");
        }
    }

    #[test]
    fn refusals_in_a_row_are_believed() {
        assert_eq!(tries(1, 1, Trouble::Refused), REFUSALS_MAX as usize);
        let mut patience = Patience::new(Instant::now());
        for _ in 0..2 * REFUSALS_MAX {
            assert!(patience.judge(Instant::now(), Trouble::Refused("403".into())).is_ok());
            assert!(patience.judge(Instant::now(), Trouble::Passing("503".into())).is_ok());
        }
    }
}
