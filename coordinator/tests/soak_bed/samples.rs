//! What the farm holds of the machine, over time.

use super::AGENTS;
use crate::farm::{Farm, leftovers, processes};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    at: Duration,
    coordinator_rss: u64,
    coordinator_files: u64,
    /// The largest of the agents.
    agent_rss: u64,
    agent_files: u64,
    containers: u64,
    processes: u64,
    zombies: u64,
    agents_disk: u64,
    cache_disk: u64,
    artifacts_disk: u64,
    journal_disk: u64,
}

/// Names it, reads it, says what counts of a quarter of the time, and how much that may grow from the
/// second quarter to the last.
type Measure = (&'static str, fn(&Sample) -> u64, Of, u64, Option<Growth>);

/// What a quarter of the time is judged by.
#[derive(Clone, Copy)]
enum Of {
    Most,
    /// The median where a member was up: a leak lifts all, while a moment's need, as that of a kernel
    /// that is packed, lifts the most of whichever quarter it was seen in.
    Middle,
}

#[derive(Clone, Copy)]
struct Growth {
    percent: u64,
    /// In the measure's unit.
    besides: u64,
}

const fn growth(percent: u64, besides: u64) -> Option<Growth> {
    Some(Growth { percent, besides })
}

/// Artifacts and the journal hold what jobs found; they grow with the number of jobs.
const MEASURES: [Measure; 13] = [
    ("coordinator, memory, median (MiB)", |it| it.coordinator_rss, Of::Middle, MIB, growth(25, 64)),
    ("coordinator, memory, most (MiB)", |it| it.coordinator_rss, Of::Most, MIB, growth(100, 128)),
    ("coordinator, open files", |it| it.coordinator_files, Of::Most, 1, growth(25, 16)),
    ("agent, memory, median (MiB)", |it| it.agent_rss, Of::Middle, MIB, growth(25, 16)),
    ("agent, memory, most (MiB)", |it| it.agent_rss, Of::Most, MIB, growth(100, 128)),
    ("agent, open files", |it| it.agent_files, Of::Most, 1, growth(25, 16)),
    ("containers", |it| it.containers, Of::Most, 1, growth(0, 6)),
    ("processes", |it| it.processes, Of::Most, 1, growth(0, 4)),
    ("zombie processes", |it| it.zombies, Of::Most, 1, growth(0, 2)),
    ("state of all agents (MiB)", |it| it.agents_disk, Of::Most, MIB, growth(30, 256)),
    ("cache of all agents (MiB)", |it| it.cache_disk, Of::Most, MIB, growth(10, 256)),
    ("artifacts (MiB)", |it| it.artifacts_disk, Of::Most, MIB, None),
    ("journal (MiB)", |it| it.journal_disk, Of::Most, MIB, None),
];

impl Sample {
    pub fn take(at: Duration, coordinator: Option<u32>, agents: &[u32], farm: &Farm) -> Sample {
        let most = |of: fn(u32) -> u64| agents.iter().map(|pid| of(*pid)).max().unwrap_or_default();
        let dir = &farm.state;
        let state = dir.join("coordinator");
        let journal = |name: &str| std::fs::metadata(state.join(name)).map_or(0, |it| it.len());
        Sample {
            at,
            coordinator_rss: coordinator.map(resident).unwrap_or_default(),
            coordinator_files: coordinator.map(open_files).unwrap_or_default(),
            agent_rss: most(resident),
            agent_files: most(open_files),
            containers: leftovers(&AGENTS).len() as u64,
            processes: processes(&dir.to_string_lossy()).len() as u64,
            zombies: zombies(),
            agents_disk: AGENTS.iter().map(|name| used(&dir.join(name))).sum(),
            cache_disk: used(&farm.agents_cache),
            artifacts_disk: used(&state.join("artifacts")),
            journal_disk: journal("journal.sqlite") + journal("journal.sqlite-wal"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} min", self.at.as_secs_f64() / 60.0)?;
        for (name, read, _, unit, _) in MEASURES.iter().filter(|measure| matches!(measure.2, Of::Most)) {
            write!(f, ", {name} {}", read(self) / unit)?;
        }
        Ok(())
    }
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    1024 * kib.unwrap_or_default()
}

fn open_files(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

fn zombies() -> u64 {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(") Z ") && stat.contains("(qemu") | stat.contains("(kulprit")).count()
        as u64
}

/// Blocks of all files below; files that go away meanwhile count for nothing.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(it) if it.is_dir() => used(&entry.path()),
        Ok(it) => 512 * it.blocks() / it.nlink().max(1),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// What counts of a quarter of the time; a member that was down had nothing.
fn of_quarter(samples: &[Sample], quarter: usize, read: fn(&Sample) -> u64, of: Of) -> u64 {
    let part = samples.len().div_ceil(4);
    let quarter = samples.chunks(part.max(1)).nth(quarter).unwrap_or_default();
    let mut all: Vec<u64> = quarter.iter().map(read).filter(|value| *value > 0).collect();
    all.sort_unstable();
    let counts = match of {
        Of::Most => all.last(),
        Of::Middle => all.get(all.len() / 2),
    };
    counts.copied().unwrap_or_default()
}

pub fn table(samples: &[Sample], faults: &BTreeMap<&'static str, usize>) -> String {
    let mut text = String::from("\n| fault | times |\n|---|---|\n");
    for (name, times) in faults {
        let _ = writeln!(text, "| {name} | {times} |");
    }
    text += "\n| in each quarter of the time | 1st | 2nd | 3rd | 4th | 4th above 2nd, at most |\n";
    text += "|---|---|---|---|---|---|\n";
    for (name, read, of, unit, allowed) in MEASURES {
        let _ = write!(text, "| {name} |");
        for quarter in 0..4 {
            let _ = write!(text, " {} |", of_quarter(samples, quarter, read, of) / unit);
        }
        let _ = match allowed {
            Some(Growth { percent: 0, besides }) => writeln!(text, " {besides} |"),
            Some(Growth { percent, besides }) => writeln!(text, " {percent} % and {besides} |"),
            None => writeln!(text, " kept with the jobs |"),
        };
    }
    text
}

pub fn must_be_flat(samples: &[Sample]) {
    for (name, read, of, unit, allowed) in MEASURES {
        let Some(Growth { percent, besides }) = allowed else { continue };
        let (early, late) = (of_quarter(samples, 1, read, of), of_quarter(samples, 3, read, of));
        let limit = early + early * percent / 100 + besides * unit;
        assert!(late <= limit, "{name} grew from {} to {}", early / unit, late / unit);
    }
}
