//! What the worlds came upon: a fault that never happens tests nothing.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Stats {
    /// Of the queue.
    pub happenings: u64,
    /// Events that farms handled.
    pub handled: u64,
    /// Virtual time.
    pub lasted_ms: u64,
    pub seen: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub fn saw(&mut self, what: &'static str) {
        self.saw_often(what, 1);
    }

    pub fn saw_often(&mut self, what: &'static str, times: u64) {
        *self.seen.entry(what).or_default() += times;
    }

    pub fn add(&mut self, other: &Stats) {
        self.happenings += other.happenings;
        self.handled += other.handled;
        self.lasted_ms += other.lasted_ms;
        for (what, times) in &other.seen {
            *self.seen.entry(what).or_default() += times;
        }
    }
}
