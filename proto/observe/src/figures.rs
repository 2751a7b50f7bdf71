//! Figures in the form that Prometheus reads. Each is entered in a book once, with what it means.
//!
//! Labels are words out of lists that are known beforehand, so that nobody's input makes new series.

use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What scrapers are told that they get.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds of what is over in moments: a disk, a lock, a call.
pub const MOMENTS_S: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds of what takes its time: a build, a boot, a wait for a slot.
pub const LONG_S: &[f64] =
    &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 14400.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What there is to know of a figure without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// All figures of a process.
#[derive(Default)]
pub struct Book {
    registry: Registry,
    entries: Mutex<Vec<Entry>>,
}

const ONCE: &str = "a figure is entered once, under a name of Prometheus' form";

impl Book {
    /// A book that says which program of which version it is of.
    pub fn of(program: &'static str, version: &str) -> Book {
        let book = Book::default();
        let info = book.gauge("kulprit_build_info", &["program", "version"], "Always 1; which program runs.");
        info.with_label_values(&[program, version]).set(1.0);
        let started = book.gauge(
            "process_start_time_seconds",
            &[],
            "When the process was started, in seconds since 1970.",
        );
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        started.with_label_values(&NO_LABELS).set(since.as_secs_f64());
        book
    }

    pub fn counter(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntCounterVec {
        self.enter(Entry { name, kind: Kind::Counter, labels, help });
        let made = IntCounterVec::new(Opts::new(name, help), labels).expect(ONCE);
        if labels.is_empty() {
            made.with_label_values(&NO_LABELS);
        }
        self.registry.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    pub fn gauge(&self, name: &'static str, labels: &'static [&'static str], help: &'static str) -> GaugeVec {
        self.enter(Entry { name, kind: Kind::Gauge, labels, help });
        let made = GaugeVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.registry.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    pub fn histogram(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        buckets: &[f64],
        help: &'static str,
    ) -> HistogramVec {
        self.enter(Entry { name, kind: Kind::Histogram, labels, help });
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = HistogramVec::new(options, labels).expect(ONCE);
        if labels.is_empty() {
            made.with_label_values(&NO_LABELS);
        }
        self.registry.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn enter(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// What is in the book, in the order of entry.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All values, in the text format 0.0.4.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# the figures cannot be written: {error}\n"),
        }
    }
}

/// Of a figure without labels.
pub const NO_LABELS: [&str; 0] = [];

/// Ways to count that need no ceremony.
pub trait Count {
    fn add(&self, labels: &[&str], by: u64);

    fn one(&self, labels: &[&str]) {
        self.add(labels, 1);
    }

    /// Has the series there from the start, so that their rates are right from the first event on.
    fn begin(&self, label_sets: &[&[&str]]) {
        label_sets.iter().for_each(|labels| self.add(labels, 0));
    }
}

impl Count for IntCounterVec {
    fn add(&self, labels: &[&str], by: u64) {
        self.with_label_values(labels).inc_by(by);
    }
}

pub trait Measure {
    fn took(&self, labels: &[&str], time: Duration);
}

impl Measure for HistogramVec {
    fn took(&self, labels: &[&str], time: Duration) {
        self.with_label_values(labels).observe(time.as_secs_f64());
    }
}

pub trait Say {
    fn say(&self, labels: &[&str], value: f64);
}

impl Say for GaugeVec {
    fn say(&self, labels: &[&str], value: f64) {
        self.with_label_values(labels).set(value);
    }
}

/// A count as a gauge's value; beyond 2^53 it is off by little.
#[allow(clippy::cast_precision_loss, reason = "figures are for graphs")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_written_as_prometheus_reads_it() {
        let book = Book::of("kulprit-test", "1.2.3");
        let seen = book.counter("kulprit_seen_total", &["what"], "How many were seen.");
        seen.begin(&[&["a\"b"], &["c"]]);
        seen.one(&["c"]);
        let waited = book.histogram("kulprit_wait_seconds", &[], &[0.5, 2.0], "How long it was.");
        waited.took(&NO_LABELS, Duration::from_secs(1));
        let text = book.text();
        for line in [
            "# HELP kulprit_seen_total How many were seen.",
            "# TYPE kulprit_seen_total counter",
            "kulprit_seen_total{what=\"a\\\"b\"} 0",
            "kulprit_seen_total{what=\"c\"} 1",
            "kulprit_wait_seconds_bucket{le=\"0.5\"} 0",
            "kulprit_wait_seconds_bucket{le=\"2\"} 1",
            "kulprit_wait_seconds_bucket{le=\"+Inf\"} 1",
            "kulprit_wait_seconds_count 1",
            "kulprit_build_info{program=\"kulprit-test\",version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert_eq!(book.entries().len(), 4);
    }
}
