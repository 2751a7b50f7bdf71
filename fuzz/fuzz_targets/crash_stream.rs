//! The console parser: no bytes make it panic, and how they are cut into chunks changes nothing.
#![no_main]

mod random;

use kulprit_common::crash::{ConsoleParser, Crash, Target, disassembly, guilty_file, parse, similarity};
use libfuzzer_sys::fuzz_target;
use random::Random;

fuzz_target!(|console: &[u8]| {
    let whole = parse(console);
    let mut random = Random::of(console);
    let longest = [2, 40, 300, 5000][random.below(4)];
    assert_eq!(chunked(console, || 1 + random.below(longest)), whole, "chunks change what is found");
    // Bytes alone let no block of calm lines be passed over: this is the parser without its shortcut.
    assert_eq!(chunked(console, || 1), whole, "passing over calm lines changes what is found");
    bounded(&whole, console);
    for crash in whole.iter().take(8) {
        read_on(crash, &whole);
    }
});

fn chunked(console: &[u8], mut length: impl FnMut() -> usize) -> Vec<Crash> {
    let mut parser = ConsoleParser::new();
    let mut crashes = Vec::new();
    let mut rest = console;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(length().min(rest.len()));
        crashes.extend(parser.feed(chunk));
        rest = tail;
    }
    crashes.extend(parser.finish());
    crashes
}

/// What must hold of whatever is found.
fn bounded(crashes: &[Crash], console: &[u8]) {
    let lines = console.iter().filter(|&&byte| byte == b'\n').count();
    assert!(crashes.len() <= 1000);
    for crash in crashes {
        assert!(!crash.title.is_empty() && crash.title.chars().count() <= 120, "{:?}", crash.title);
        assert!(crash.first_line <= crash.last_line && crash.last_line <= lines, "{crash:?}");
        assert!(crash.report.len() <= 64 * 1024 && crash.frames.len() <= 32 && crash.files.len() <= 32);
        assert!(crash.alt_titles.is_sorted() && !crash.alt_titles.contains(&crash.title), "{crash:?}");
    }
}

/// Everything that is asked of a crash later.
fn read_on(crash: &Crash, all: &[Crash]) {
    guilty_file(&crash.report);
    disassembly(&crash.report);
    crash.executor();
    crash.kind();
    let Crash { title, alt_titles, frames, files, .. } = crash.clone();
    let target = Target { title, alt_titles, frames, files };
    for other in all.iter().take(4) {
        let score = similarity(&target, other).score;
        assert!((0.0..=1.0).contains(&score), "{score}");
    }
}
