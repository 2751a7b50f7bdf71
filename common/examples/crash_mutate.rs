//! Throws mutated consoles at everything that reads outside text, for as long as it is told.
//!
//! `cargo run --release --example crash_mutate SECONDS [SEED]`. cargo-fuzz needs a nightly compiler;
//! this needs none, and the same seed throws the same bytes. A failure prints the round to repeat.

// This is a hand: it reads fixtures, asks the clock when to stop, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs for a time, on files")]

use std::path::Path;
use std::time::{Duration, Instant};

use kulprit_common::crash::{
    ConsoleParser, Crash, Place, Spot, Symbols, Target, disassembly, guilty_file, parse, similarity,
    symbolise,
};
use kulprit_common::recipients::{Mailbox, Recipients};

const CONSOLE_BYTES_MAX: usize = 64 * 1024;
const MUTATIONS_MAX: usize = 24;
/// Between these, a word on how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u64>());
    let (Some(Ok(seconds)), Ok(seed)) = (arguments.next(), arguments.next().unwrap_or(Ok(1))) else {
        eprintln!("usage: crash_mutate SECONDS [SEED]");
        std::process::exit(2);
    };
    let seeds = fixtures();
    let begin = Instant::now();
    let mut told = begin;
    let (mut round, mut bytes, mut crashes) = (0u64, 0u64, 0u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let mut random = Random::new(seed.wrapping_add(round));
        let console = mutated(&seeds, &mut random);
        let found = std::panic::catch_unwind(|| checked(&console, seed.wrapping_add(round)));
        let Ok(found) = found else {
            eprintln!("failed: repeat with `crash_mutate 1 {}`", seed.wrapping_add(round));
            std::process::exit(1);
        };
        round += 1;
        bytes += console.len() as u64;
        crashes += found as u64;
        if told.elapsed() > REPORT_EVERY {
            told = Instant::now();
            println!(
                "{} s: {round} consoles, {} MB, {crashes} crashes",
                begin.elapsed().as_secs(),
                bytes / 1_000_000
            );
        }
    }
    println!("done: {round} consoles, {} MB, {crashes} crashes, nothing failed", bytes / 1_000_000);
}

/// Reads a console in every way there is and checks what must hold of any; yields its crashes.
fn checked(console: &[u8], seed: u64) -> usize {
    let whole = parse(console);
    assert_eq!(chunked(console, &mut Random::new(!seed)), whole, "chunks change what is found");
    for crash in &whole {
        assert!(!crash.title.is_empty() && crash.title.chars().count() <= 120, "{}", crash.title);
        assert!(crash.first_line <= crash.last_line && crash.report.len() <= 64 * 1024);
        let symbolised = symbolise(&crash.report, &Everything);
        guilty_file(&symbolised);
        disassembly(&crash.report);
        crash.executor();
        let Crash { title, alt_titles, frames, files, .. } = crash.clone();
        let target = Target { title, alt_titles, frames, files };
        for other in whole.iter().take(4) {
            let score = similarity(&target, other).score;
            assert!((0.0..=1.0).contains(&score), "{score}");
        }
    }
    let text = String::from_utf8_lossy(console);
    guilty_file(&text);
    disassembly(&text);
    let mut recipients = Recipients::of_commit(text.lines().next().unwrap_or_default(), &text);
    recipients.add_maintainers(&text);
    for mailbox in text.lines().take(50).filter_map(Mailbox::parse) {
        assert!(!mailbox.email.contains(|c: char| c.is_whitespace() || c.is_control()), "{mailbox}");
    }
    whole.len()
}

/// Symbols that know every function.
struct Everything;

impl Symbols for Everything {
    fn places(&self, spot: &Spot, returning: bool) -> Vec<Place> {
        let place = |line| Place { function: spot.function.clone(), file: "net/a.c".into(), line };
        vec![place(1), place(2 + u32::from(returning))]
    }

    fn spot_at(&self, address: u64) -> Option<Spot> {
        address.is_multiple_of(2).then(|| Spot {
            function: "f".into(),
            offset: address % 64,
            size: 64,
            module: None,
        })
    }
}

fn chunked(console: &[u8], random: &mut Random) -> Vec<Crash> {
    let mut parser = ConsoleParser::new();
    let mut crashes = Vec::new();
    let mut rest = console;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(1 + random.below(rest.len().min(300)));
        crashes.extend(parser.feed(chunk));
        rest = tail;
    }
    crashes.extend(parser.finish());
    crashes
}

fn fixtures() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crash");
    let entries = std::fs::read_dir(&folder).expect("the fixtures are in the repository").flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a fixture is readable")).collect()
}

/// A fixture, or two, with bytes, lines and numbers changed.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut console = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(MUTATIONS_MAX) {
        let at = random.below(console.len().max(1));
        match random.below(8) {
            0 => console.insert(at.min(console.len()), random.next() as u8),
            1 if !console.is_empty() => console[at] ^= 1 << random.below(8),
            2 => console.truncate(at),
            3 => {
                let end = (at + random.below(200)).min(console.len());
                console.drain(at.min(end)..end);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let part = other[from..(from + random.below(2000)).min(other.len())].to_vec();
                console.splice(at.min(console.len())..at.min(console.len()), part);
            }
            5 => {
                let end = (at + random.below(400)).min(console.len());
                let part = console[at.min(end)..end].repeat(1 + random.below(20));
                console.extend(part);
            }
            6 => {
                let mut lines: Vec<Vec<u8>> = console.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                let (a, b) = (random.below(lines.len()), random.below(lines.len()));
                lines.swap(a, b);
                console = lines.join(&b'\n');
            }
            _ => {
                if let Some(digit) = console[at.min(console.len())..].iter().position(u8::is_ascii_digit) {
                    console[at + digit] = b"0123456789abcdefx[]<>\\n"[random.below(22)];
                }
            }
        }
        console.truncate(CONSOLE_BYTES_MAX);
    }
    console
}

/// xorshift64*: enough for choosing bytes, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}
