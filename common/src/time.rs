//! Time as a value: it is always an argument, never asked for.

use serde::{Deserialize, Serialize};
use std::ops::Add;
use std::time::Duration;

/// Milliseconds since the Unix epoch, as the caller's clock has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time since `earlier`; zero where the clock went back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, after: Duration) -> Timestamp {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }
}

/// Renders a duration as the reference's log does: `5h22m36.6s`.
pub fn render_duration(duration: Duration) -> String {
    let tenths = duration.as_millis().div_euclid(100);
    let (hours, minutes, seconds) = (tenths / 36_000, tenths / 600 % 60, tenths % 600);
    let seconds = if seconds % 10 == 0 {
        format!("{}s", seconds / 10)
    } else {
        format!("{}.{}s", seconds / 10, seconds % 10)
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

/// Renders a timestamp as `2023-01-20 12:37:05 +0000 UTC`.
pub fn render_utc(at: Timestamp) -> String {
    let seconds = at.0 / 1000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} +0000 UTC")
}

/// The proleptic Gregorian date of a day count since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_the_reference() {
        for (millis, expected) in [
            (0, "0s"),
            (36_600, "36.6s"),
            (120_000, "2m0s"),
            (19_356_600, "5h22m36.6s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(render_duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn dates_read_like_the_reference() {
        assert_eq!(render_utc(Timestamp(1_674_218_225_644)), "2023-01-20 12:37:05 +0000 UTC");
        assert_eq!(render_utc(Timestamp(951_782_400_000)), "2000-02-29 00:00:00 +0000 UTC");
    }
}
