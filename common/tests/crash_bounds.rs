//! What must hold of consoles of any size: nothing lost, nothing kept that is not needed.

use kulprit_common::crash::ConsoleParser;

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
