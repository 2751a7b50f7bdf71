//! How fast consoles are read, as a share of counting their newlines in the same run.
//!
//! `crash_bench [--floods] [FOLDER]…` reads a crash-free console, one long line and the consoles in
//! the folders given; with `--floods` also ten million lines of every kind in `tests/crash_flood`.

// A measurement is a hand: it reads files, asks the clock and prints.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures, and so needs a clock and files"
)]

#[path = "../tests/crash_flood/mod.rs"]
mod crash_flood;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crash_flood::FLOODS;
use kulprit_common::crash::parse;

const CONSOLE_BYTES: usize = 1 << 30;
const LINE_BYTES: usize = 100 << 20;
const FLOOD_LINES: usize = 10_000_000;
/// The best of these many runs counts: a busy machine only ever slows down.
const RUNS: usize = 5;

fn main() {
    let (flags, folders): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|it| it == "--floods");
    measure("no crash", &[crash_free()], RUNS);
    measure("one line", &[vec![b'x'; LINE_BYTES]], RUNS);
    for folder in folders {
        match consoles(Path::new(&folder)) {
            Ok(consoles) => measure(&folder, &consoles, RUNS),
            Err(error) => println!("{folder}: skipped, cannot be read: {error}"),
        }
    }
    if !flags.is_empty() {
        for (name, flood) in FLOODS {
            measure(name, &[flood(FLOOD_LINES)], 1);
        }
    }
}

fn measure(name: &str, consoles: &[Vec<u8>], runs: usize) {
    let count = |bytes: &Vec<u8>| memchr::memchr_iter(b'\n', black_box(bytes)).count();
    let (mut newlines, mut parsed, mut crashes) = (Duration::MAX, Duration::MAX, 0);
    // In turns, so that what else the machine does slows down both.
    for _ in 0..runs {
        newlines = newlines.min(timed(|| consoles.iter().map(count).sum::<usize>()));
        let parse_all = || consoles.iter().map(|bytes| parse(black_box(bytes)).len()).sum();
        parsed = parsed.min(timed(|| crashes = parse_all()));
    }
    let bytes: usize = consoles.iter().map(Vec::len).sum();
    let speed = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    println!(
        "{name}: {:.1} MB, {crashes} crashes, {:.1} s at {:.0} MB/s; newlines at {:.0} MB/s; ratio=1/{:.1}",
        bytes as f64 / 1e6,
        parsed.as_secs_f64(),
        speed(parsed),
        speed(newlines),
        parsed.as_secs_f64() / newlines.as_secs_f64().max(1e-9),
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed()
}

/// What a kernel prints while all is well, with timestamps that move on.
fn crash_free() -> Vec<u8> {
    const SAID: [&str; 10] = [
        "usb 1-1: new high-speed USB device number 2 using dummy_hcd",
        "EXT4-fs (loop0): mounted filesystem without journal. Quota mode: none.",
        "netlink: 24 bytes leftover after parsing attributes in process `a.out'.",
        "IPv6: ADDRCONF(NETDEV_CHANGE): veth0_to_bridge: link becomes ready",
        "8021q: adding VLAN 0 to HW filter on device batadv0",
        "audit: type=1400 audit(1750305980.320:67): avc:  denied  { mount } for  pid=297",
        "loop1: detected capacity change from 0 to 8226",
        "device bridge_slave_1 entered promiscuous mode",
        "hub 1-1:1.0: USB hub found, 4 ports detected",
        "Bluetooth: hci0: command 0x0419 tx timeout",
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

/// The consoles in a folder's files, without the headers that say what is expected of them.
fn consoles(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let console = |path: &PathBuf| {
        let bytes = std::fs::read(path)?;
        let header = memchr::memmem::find(&bytes, b"\n\n").map_or(0, |end| end + 2);
        Ok(bytes[header..].to_vec())
    };
    paths.iter().map(console).collect()
}
