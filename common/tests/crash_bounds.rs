//! What must hold of consoles of any size: nothing lost, nothing kept that is not needed.

use kulprit_common::crash::{ConsoleParser, Crash, parse};
use proptest::prelude::*;

const CRASH: &[u8] = b"\n[    2.000000] kernel BUG at mm/slab.c:1!\n";

fn feed_often(parser: &mut ConsoleParser, chunk: &[u8], times: usize) -> usize {
    (0..times).map(|_| parser.feed(chunk).len()).sum()
}

#[test]
fn a_line_of_100_mib_hides_nothing_behind_it() {
    let mut parser = ConsoleParser::new();
    assert_eq!(feed_often(&mut parser, &[b'x'; 1 << 20], 100), 0);
    assert!(parser.feed(CRASH).is_empty());
    let crashes = parser.finish();
    assert_eq!(crashes.len(), 1);
    assert_eq!(crashes[0].first_line, 1);
}

#[test]
fn a_calm_console_is_passed_over_and_its_lines_are_counted() {
    let calm = "[    1.500000] usb 1-1: new device\nplain\n\n".repeat(1000);
    let mut parser = ConsoleParser::new();
    assert_eq!(feed_often(&mut parser, calm.as_bytes(), 500), 0);
    assert!(!parser.crash_started());
    parser.feed(CRASH);
    let crashes = parser.finish();
    assert_eq!(crashes[0].first_line, 500 * 3000 + 1);
}

#[test]
fn crash_like_lines_without_end_are_bounded() {
    let flood = b"[    3.000000] BUG: x\n".repeat(10_000);
    let mut parser = ConsoleParser::new();
    let seen = feed_often(&mut parser, &flood, 100);
    assert_eq!(seen + parser.finish().len(), 1000);
}

#[test]
fn chunks_that_end_within_a_calm_line_change_nothing() {
    let console =
        b"[    1.5] calm\n[   20.000000] calm\nLinux version 6.1.0\n[    1.000000] kernel BUG at a.c:1!\n";
    let mut whole = ConsoleParser::new();
    let mut expected = whole.feed(console);
    expected.extend(whole.finish());
    assert_eq!(expected.len(), 2, "a reboot and a BUG");
    for length in 1..console.len() {
        let mut parser = ConsoleParser::new();
        let mut crashes: Vec<_> = console.chunks(length).flat_map(|chunk| parser.feed(chunk)).collect();
        crashes.extend(parser.finish());
        assert_eq!(crashes, expected, "chunks of {length}");
    }
}

fn in_chunks(console: &[u8], length: usize) -> Vec<Crash> {
    let mut parser = ConsoleParser::new();
    let mut crashes: Vec<_> = console.chunks(length).flat_map(|chunk| parser.feed(chunk)).collect();
    crashes.extend(parser.finish());
    crashes
}

/// Lines of which consoles are made here: calm ones, ones that nearly matter, and ones that do.
const LINES: &[&str] = &[
    "",
    "[    1.500000] usb 1-1: new device",
    "[   20.000000][  T7] calm",
    "[   20.000000][  T8]  alpha+0x1/0x20",
    "Call Trace:",
    "BUG",
    "a BUGBUG: x",
    "[   20.100000][  T7] BUG: x",
    "[   20.100000][  T8] BUG: KASAN: wild-access in f+0x1/0x20",
    "WARNING: something",
    "Linux version 6.1.0",
    "SeaBIOS (version 1)",
    "*** stack smashing detected ***",
    "[   20.200000][  T7] Kernel panic - not syncing: x",
    "\u{1b}[31mBUG: y\r",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Fed byte by byte, no line is ever passed over unread: this is the parser without its shortcut.
    #[test]
    fn passing_over_calm_lines_changes_nothing(
        lines in prop::collection::vec((prop::sample::select(LINES), 1..4usize), 0..40),
        calm in 0..3000usize,
        at in 0..40usize,
        chunk in 1..500usize,
    ) {
        // More calm lines than are looked at together, somewhere.
        let mut text: Vec<String> = lines.iter().map(|(line, times)| format!("{line}\n").repeat(*times)).collect();
        text.insert(at.min(text.len()), "[   19.000000] all is well\n".repeat(calm));
        let console = text.concat();
        let unskipped = in_chunks(console.as_bytes(), 1);
        prop_assert_eq!(&parse(console.as_bytes()), &unskipped);
        prop_assert_eq!(&in_chunks(console.as_bytes(), chunk), &unskipped);
    }
}

#[test]
fn what_was_cut_is_said() {
    let long = format!("BUG: KASAN: wild-access in f\nCall Trace:\n{}", " alpha+0x1/0x20\n".repeat(3000));
    let crash = &parse(long.as_bytes())[0];
    assert!(
        crash.report.ends_with(" alpha+0x1/0x20\n[the report goes on and was cut here]\n"),
        "{}",
        crash.report
    );
    let wide =
        format!("BUG: KASAN: wild-access in f\n{}", format!(" alpha+0x1/0x20{:>900}\n", "").repeat(100));
    assert!(!parse(wide.as_bytes())[0].report.contains("cut here"), "trailing spaces are not kept");
    let wide = format!("BUG: KASAN: wild-access in f\n{}", format!("{:x>900}\n", "").repeat(100));
    let report = &parse(wide.as_bytes())[0].report;
    assert!(report.ends_with("cut here]\n") && report.len() <= 64 * 1024, "{}", report.len());

    let mut parser = ConsoleParser::new();
    parser.feed(&b"[    3.000000] BUG: x\n".repeat(999));
    assert!(!parser.is_full());
    parser.feed(&b"[    3.000000] BUG: x\n".repeat(5000));
    assert!(parser.is_full() && !parser.crash_started());
}
