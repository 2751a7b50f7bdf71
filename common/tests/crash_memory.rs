//! What any console may cost: memory that does not grow with it, and work that grows as it does.
//!
//! Allocations are counted instead of time, which depends on the machine.
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

mod crash_flood;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crash_flood::FLOODS;
use kulprit_common::crash::{ConsoleParser, parse};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

// Hands everything on to the system's allocator, and so keeps what that one promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that some work held at most, and bytes that it took in all.
#[derive(Clone, Copy, Debug)]
struct Cost {
    peak: usize,
    taken: usize,
}

fn cost(work: impl FnOnce()) -> Cost {
    let (held, taken) = (HELD.load(Relaxed), TAKEN.load(Relaxed));
    PEAK.store(held, Relaxed);
    work();
    Cost { peak: PEAK.load(Relaxed) - held, taken: TAKEN.load(Relaxed) - taken }
}

/// Feeds a console in chunks and forgets the crashes, as one does who writes them down.
fn streamed(console: &[u8], chunk: usize) {
    let mut parser = ConsoleParser::new();
    let crashes: usize = console.chunks(chunk).map(|chunk| parser.feed(chunk).len()).sum();
    assert!(crashes + parser.finish().len() <= 1000);
}

const MIB: usize = 1 << 20;
/// Beside what is kept of reports: what regular expressions remember, and lines in progress.
const SMALL: usize = MIB;
/// 32 reports of at most 256 KiB each, in lines that have their own overhead.
const REPORTS_HELD: usize = 16 * MIB;
/// 1000 crashes of 64 KiB with as much again for titles, functions, files and growing.
const CRASHES_KEPT: usize = 140 * MIB;
/// More than a report keeps, so that bounds are reached.
const LINES: usize = 5000;

/// One test alone: others beside it would be counted as well.
#[test]
fn costs_are_bounded() {
    for (_, flood) in FLOODS {
        parse(&flood(2000)); // Patterns are compiled, once, before anything is counted.
    }
    calm_gibibyte();
    endless_line();
    for (name, flood) in FLOODS {
        let (few, many) = (flood(LINES), flood(4 * LINES));
        for chunk in [97, 64 * 1024] {
            let of_few = cost(|| streamed(&few, chunk));
            let of_many = cost(|| streamed(&many, chunk));
            println!("{name}, chunks of {chunk}: {of_few:?} {of_many:?}");
            assert!(of_many.peak <= REPORTS_HELD + SMALL, "{name}: {of_many:?}");
            let linear = 4 * of_few.taken + of_few.taken / 2;
            assert!(of_many.taken <= linear + SMALL, "{name}: {of_few:?}, then {of_many:?}");
        }
        let whole = cost(|| drop(parse(&many)));
        assert!(whole.peak <= REPORTS_HELD + CRASHES_KEPT + SMALL, "{name}: {whole:?}");
    }
}

fn calm_gibibyte() {
    let calm = "[    1.500000][  T7] usb 1-1: new device\nplain\n\n".repeat(MIB / 48);
    let cost = cost(|| {
        let mut parser = ConsoleParser::new();
        for _ in 0..1024 {
            assert!(parser.feed(calm.as_bytes()).is_empty());
        }
        assert!(parser.finish().is_empty());
    });
    assert!(cost.peak <= SMALL && cost.taken <= SMALL, "{cost:?}");
}

fn endless_line() {
    for byte in [b'x', b'[', b'B', 0x1b, 0xff] {
        let part = vec![byte; MIB];
        let cost = cost(|| {
            let mut parser = ConsoleParser::new();
            (0..100).for_each(|_| assert!(parser.feed(&part).is_empty()));
            assert!(parser.finish().is_empty());
        });
        assert!(cost.peak <= SMALL && cost.taken <= SMALL, "{byte}: {cost:?}");
    }
}
