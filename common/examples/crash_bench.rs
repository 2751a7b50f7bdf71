//! How fast consoles are read, as a share of counting their newlines in the same run.
//!
//! `cargo run --release --example crash_bench [FILE|DIR]…` reads the files given besides its own
//! crash-free console. Each line of output is one input.

// A measurement is a hand: it reads files, asks the clock and prints.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures, and so needs a clock and files"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kulprit_common::crash::parse;

/// Enough that caches of the processor do not hold it.
const CONSOLE_BYTES: usize = 256 << 20;
/// Crash-like lines, as a console gone mad prints them.
const FLOOD_LINES: usize = 10_000_000;
/// The best of these many runs counts: a busy machine only ever slows down.
const RUNS: usize = 3;

fn main() {
    measure("crash-free", &crash_free());
    measure("flood of crash-like lines", "[   12.345678] BUG: x\n".repeat(FLOOD_LINES).as_bytes());
    measure("one line", &vec![b'x'; 100 << 20]);
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        let bytes = joined(&path);
        measure(&path.display().to_string(), &bytes);
    }
}

fn measure(name: &str, bytes: &[u8]) {
    let newlines = best(|| memchr::memchr_iter(b'\n', black_box(bytes)).count());
    let mut crashes = 0;
    let parsed = best(|| crashes = parse(black_box(bytes)).len());
    let speed = |time: Duration| bytes.len() as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    println!(
        "{name}: {:.0} MB, {crashes} crashes, parsed at {:.0} MB/s; newlines are counted at {:.0} MB/s: 1/{:.1}",
        bytes.len() as f64 / 1e6,
        speed(parsed),
        speed(newlines),
        parsed.as_secs_f64() / newlines.as_secs_f64().max(1e-9),
    );
}

fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let timed = |_| {
        let begin = Instant::now();
        black_box(work());
        begin.elapsed()
    };
    (0..RUNS).map(timed).min().unwrap_or_default()
}

/// What a kernel prints while all is well, with timestamps that move on.
fn crash_free() -> Vec<u8> {
    const SAID: [&str; 8] = [
        "usb 1-1: new high-speed USB device number 2 using dummy_hcd",
        "EXT4-fs (loop0): mounted filesystem without journal. Quota mode: none.",
        "netlink: 24 bytes leftover after parsing attributes in process `a.out'.",
        "IPv6: ADDRCONF(NETDEV_CHANGE): veth0_to_bridge: link becomes ready",
        "8021q: adding VLAN 0 to HW filter on device batadv0",
        "audit: type=1400 audit(1750305980.320:67): avc:  denied  { mount } for  pid=297",
        "loop1: detected capacity change from 0 to 8226",
        "device bridge_slave_1 entered promiscuous mode",
    ];
    let mut text = String::with_capacity(CONSOLE_BYTES + 256);
    let mut line = 0usize;
    while text.len() < CONSOLE_BYTES {
        let said = SAID[line % SAID.len()];
        text.push_str(&format!(
            "[{:>5}.{:06}][ T{}] {said}\n",
            line / 1000,
            line % 1_000_000,
            100 + line % 900
        ));
        line += 1;
    }
    text.into_bytes()
}

/// A file's bytes, or those of all files of a folder.
fn joined(path: &Path) -> Vec<u8> {
    if path.is_file() {
        return std::fs::read(path).unwrap_or_default();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().flat_map(|path| std::fs::read(path).unwrap_or_default()).collect()
}
