//! The time that certificates are held against.

use super::identity::Validity;
use nix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The longest pause between two tries to renew.
const RETRY_MAX: Duration = Duration::from_secs(300);
const RETRY_MIN: Duration = Duration::from_millis(500);

/// The wall clock of the process's start, going on steadily, also while the machine sleeps: a
/// clock that is set meanwhile changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    at_boot: Duration,
}

impl SteadyClock {
    fn start() -> Self {
        SteadyClock { at_boot: wall().saturating_sub(since_boot()) }
    }

    /// The one of this process.
    pub fn shared() -> Self {
        static CLOCK: LazyLock<SteadyClock> = LazyLock::new(SteadyClock::start);
        *CLOCK
    }

    pub fn now(&self) -> Duration {
        self.at_boot + since_boot()
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Both clocks, for a member: its steady one may be wrong, having begun before the machine's
    /// time was set, and its wall clock may have been set wrong since. A coordinator goes by its
    /// steady one alone, which also dates what it signs.
    pub fn readings(&self) -> Readings {
        Readings { steady: self.now(), wall: wall() }
    }
}

impl TimeProvider for SteadyClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.now()))
    }
}

/// What the clocks of a machine say, since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    pub steady: Duration,
    pub wall: Duration,
}

impl Readings {
    /// Given up only where no clock gives hope.
    pub fn has_expired(self, validity: Validity) -> bool {
        self.steady.min(self.wall) >= validity.until
    }

    /// How long until two thirds of a certificate's life are over, by the later of the clocks: one
    /// that was set back must not keep it from being renewed.
    pub fn renewal_due(self, validity: Validity) -> Duration {
        (validity.from + validity.life() * 2 / 3).saturating_sub(self.steady.max(self.wall))
    }

    /// How long to leave a certificate alone after a try to renew it. A wall clock that is far
    /// ahead would else have it renewed without end.
    pub fn renewal_pause(self, renewed: bool, validity: Validity) -> Duration {
        match renewed {
            true => validity.life() / 3,
            false => {
                let left = validity.until.saturating_sub(self.steady.max(self.wall));
                (left / 10).clamp(RETRY_MIN, RETRY_MAX)
            }
        }
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Into::into).expect("Linux has this clock")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(steady: u32, wall: u32) -> Readings {
        Readings { steady: HOUR * steady, wall: HOUR * wall }
    }

    fn day() -> Validity {
        Validity { from: HOUR * 100, until: HOUR * 124 }
    }

    #[test]
    fn a_clock_that_jumps_expires_nothing_and_keeps_nothing_from_being_renewed() {
        for (readings, expired, due) in [
            (at(100, 100), false, 16),
            (at(115, 115), false, 1),
            (at(116, 116), false, 0),
            (at(124, 124), true, 0),
            // The wall clock jumps ahead by years, and back.
            (at(101, 90_000), false, 0),
            (at(116, 0), false, 0),
            (at(124, 0), false, 0),
            // The process began before the machine's time was set.
            (at(0, 101), false, 15),
            (at(0, 124), false, 0),
        ] {
            assert_eq!(readings.has_expired(day()), expired, "{readings:?}");
            assert_eq!(readings.renewal_due(day()), HOUR * due, "{readings:?}");
        }
    }

    #[test]
    fn nothing_is_renewed_without_end() {
        assert_eq!(at(101, 90_000).renewal_pause(true, day()), HOUR * 8);
        assert_eq!(at(101, 101).renewal_pause(false, day()), RETRY_MAX);
        assert_eq!(at(101, 90_000).renewal_pause(false, day()), RETRY_MIN);
        let left = Readings { steady: HOUR * 124 - Duration::from_secs(100), wall: HOUR * 101 };
        assert_eq!(left.renewal_pause(false, day()), Duration::from_secs(10));
    }

    #[test]
    fn the_steady_clock_agrees_with_the_wall_clock_at_first() {
        let readings = SteadyClock::start().readings();
        assert!(readings.steady.abs_diff(readings.wall) < Duration::from_secs(1), "{readings:?}");
    }
}
