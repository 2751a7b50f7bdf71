//! How many requests a peer may make: a bucket that fills with time.

use crate::time::Timestamp;

/// Requests per second in the long run, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// What a peer has left, in thousandths of a request.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: u64,
    at: Timestamp,
}

impl Bucket {
    pub fn full(rate: Rate, now: Timestamp) -> Self {
        Bucket { left: u64::from(rate.burst) * 1000, at: now }
    }

    /// Takes one request, if there is one.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> bool {
        self.fill(rate, now);
        let taken = self.left.checked_sub(1000);
        self.left = taken.unwrap_or(self.left);
        taken.is_some()
    }

    /// Whether it is as good as new, and so need not be remembered.
    pub fn is_full(&mut self, rate: Rate, now: Timestamp) -> bool {
        self.fill(rate, now);
        self.left == u64::from(rate.burst) * 1000
    }

    fn fill(&mut self, rate: Rate, now: Timestamp) {
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let most = u64::from(rate.burst) * 1000;
        self.left = self.left.saturating_add(millis.saturating_mul(rate.per_second.into())).min(most);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut bucket = Bucket::full(rate, Timestamp(0));
        let taken = |bucket: &mut Bucket, at| (0..5).filter(|_| bucket.take(rate, Timestamp(at))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 200), 2);
        assert_eq!(taken(&mut bucket, 100), 0, "a clock that went back gives nothing");
        assert!(!bucket.is_full(rate, Timestamp(300)));
        assert!(bucket.is_full(rate, Timestamp(10_000)));
    }
}
