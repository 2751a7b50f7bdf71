//! The time that certificates are held against.

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// The wall clock of the process's start, going on steadily: a clock that is set meanwhile
/// changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    started: Instant,
    at_start: Duration,
}

impl SteadyClock {
    fn start() -> Self {
        SteadyClock { started: Instant::now(), at_start: wall() }
    }

    /// The one of this process.
    pub fn shared() -> Self {
        static CLOCK: LazyLock<SteadyClock> = LazyLock::new(SteadyClock::start);
        *CLOCK
    }

    pub fn now(&self) -> Duration {
        self.at_start + self.started.elapsed()
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// The times at which a certificate may be valid: a machine that slept has a steady clock
    /// that lags, and one whose clock was set has a wall clock that is off.
    pub fn readings(&self) -> [Duration; 2] {
        [self.now(), wall()]
    }
}

impl TimeProvider for SteadyClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.now()))
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
