//! What was measured, as one JSON document.

use crate::agent::Seen;
use crate::ceilings::Ceilings;
use crate::place::Answers;
use anyhow::Context as _;
use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub ceilings: Option<Ceilings>,
    pub flow: Option<Flow>,
    pub rush: Option<Rush>,
    pub restart: Option<Restart>,
    pub answers: Option<Answers>,
}

/// While every agent has work that takes its time.
#[derive(Debug, Serialize)]
pub struct Flow {
    /// From when an agent began to tell that a slot is free to when its next work was there.
    pub to_next_p50_ms: f64,
    pub to_next_p99_ms: f64,
    pub grants_per_s: f64,
    pub syncs_per_s: f64,
    pub completions_per_s: f64,
    #[serde(flatten)]
    pub used: Used,
}

impl Flow {
    pub fn new(seen: &Seen, used: Used, span: Duration) -> Flow {
        let per_s = |count: u64| count as f64 / span.as_secs_f64();
        Flow {
            to_next_p50_ms: quantile(&seen.to_next, 0.5),
            to_next_p99_ms: quantile(&seen.to_next, 0.99),
            grants_per_s: per_s(seen.granted),
            syncs_per_s: per_s(seen.syncs),
            completions_per_s: per_s(seen.completed),
            used,
        }
    }
}

/// While work takes no time.
#[derive(Debug, Serialize)]
pub struct Rush {
    pub completions_per_s: f64,
    pub grants_per_s: f64,
    pub syncs_per_s: f64,
    /// Of a call that completes, until what it tells is on disk and the answer is here.
    pub complete_p50_ms: f64,
    pub complete_p99_ms: f64,
    #[serde(flatten)]
    pub used: Used,
}

impl Rush {
    pub fn new(seen: &Seen, used: Used, span: Duration) -> Rush {
        let per_s = |count: u64| count as f64 / span.as_secs_f64();
        Rush {
            completions_per_s: per_s(seen.completed),
            grants_per_s: per_s(seen.granted),
            syncs_per_s: per_s(seen.syncs),
            complete_p50_ms: quantile(&seen.complete, 0.5),
            complete_p99_ms: quantile(&seen.complete, 0.99),
            used,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Restart {
    /// Completions in the journal.
    pub items: u64,
    pub journal_bytes: u64,
    #[serde(rename = "served_s", serialize_with = "seconds")]
    pub served: Duration,
    /// Agents have to say first what they hold.
    #[serde(rename = "first_grant_s", serialize_with = "seconds")]
    pub granted: Duration,
    pub rss_mib: f64,
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

/// In milliseconds.
fn quantile(spans: &[Duration], part: f64) -> f64 {
    let mut sorted: Vec<Duration> = spans.to_vec();
    sorted.sort();
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |span| span.as_secs_f64() * 1000.0)
}

/// What a process used over a while.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Used {
    pub coordinator_cores: f64,
    pub coordinator_rss_mib: f64,
}

/// The processor time of a process at a moment.
pub struct Usage {
    at: Instant,
    ticks: u64,
}

impl Usage {
    pub fn of(pid: u32) -> anyhow::Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("look at the coordinator")?;
        // The name before it may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("read its stat")?;
        let number = |index: usize| fields.split(' ').nth(index).and_then(|it| it.parse::<u64>().ok());
        let ticks = number(11).zip(number(12)).context("read its times")?;
        Ok(Usage { at: Instant::now(), ticks: ticks.0 + ticks.1 })
    }

    pub fn since(&self, pid: u32) -> anyhow::Result<Used> {
        let now = Usage::of(pid)?;
        let spent = (now.ticks - self.ticks) as f64 / ticks_per_s()?;
        Ok(Used {
            coordinator_cores: spent / (now.at - self.at).as_secs_f64(),
            coordinator_rss_mib: rss_mib(pid)?,
        })
    }
}

fn ticks_per_s() -> anyhow::Result<f64> {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
    Ok(ticks.context("the system has a clock tick")? as f64)
}

pub fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("look at the coordinator")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("read its memory")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

impl Figures {
    /// The rows of docs/scale.md: what is wanted, what was measured, what the machine could do.
    pub fn table(&self) -> String {
        let mut rows = Rows::default();
        let ceilings = self.ceilings;
        if let Some(flow) = &self.flow {
            let ms = format!("p50 {:.0} ms, p99 {:.0} ms", flow.to_next_p50_ms, flow.to_next_p99_ms);
            rows.add("slot free → next work there", "p50 < 200 ms, p99 < 1 s", &ms, "");
            let rates = format!(
                "{:.0} completions, {:.0} grants and {:.0} syncs a second",
                flow.completions_per_s, flow.grants_per_s, flow.syncs_per_s
            );
            rows.add("meanwhile", "", &rates, "");
            rows.add("coordinator, then", "under one core", &flow.used.to_string(), "");
        }
        if let (Some(rush), Some(ceilings)) = (&self.rush, ceilings) {
            let ceiling = format!(
                "{:.0} facts a second in the journal alone, in groups of 64, and {:.0} fsyncs; {:.0} bare calls without TLS",
                ceilings.journal_facts, ceilings.fsyncs, ceilings.bare_calls
            );
            let rate = format!(
                "{:.0} a second, beside {:.0} grants and {:.0} syncs",
                rush.completions_per_s, rush.grants_per_s, rush.syncs_per_s
            );
            rows.add("durable completions", "≥ 2,000 a second", &rate, &ceiling);
            let ms = format!("p50 {:.0} ms, p99 {:.0} ms", rush.complete_p50_ms, rush.complete_p99_ms);
            rows.add("a completing call, then", "", &ms, "");
            rows.add("coordinator, then", "", &rush.used.to_string(), "");
        }
        if let Some(restart) = &self.restart {
            let what = format!("restart after kill -9 with {} items", restart.items);
            let served = format!("serves after {:.2} s", restart.served.as_secs_f64());
            let journal = format!("a journal of {} MiB", restart.journal_bytes >> 20);
            rows.add(&what, "≤ 5 s", &served, &journal);
            let granted =
                format!("{:.1} s after the start, {:.0} MiB", restart.granted.as_secs_f64(), restart.rss_mib);
            rows.add("first work given after it", "", &granted, "all agents say first what they hold");
        }
        if let Some(answers) = &self.answers {
            let Answers { right, none, wrong, open } = answers;
            let jobs = format!("{right} right, {none} without a culprit, {wrong} wrong, {open} open");
            rows.add("jobs meanwhile", "none wrong", &jobs, "");
        }
        rows.text
    }
}

struct Rows {
    text: String,
}

impl Default for Rows {
    fn default() -> Self {
        Rows { text: "| What | Wanted | Measured | Ceiling, same run |\n|---|---|---|---|\n".into() }
    }
}

impl Rows {
    fn add(&mut self, what: &str, wanted: &str, measured: &str, ceiling: &str) {
        self.text += &format!("| {what} | {wanted} | {measured} | {ceiling} |\n");
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} cores, {:.0} MiB", self.coordinator_cores, self.coordinator_rss_mib)
    }
}
