//! The symboliser's input: any text, and symbols that answer anything.
#![no_main]

mod random;

use std::cell::RefCell;

use kulprit_common::crash::{Place, Spot, Symbols, disassembly, guilty_file, parse, symbolise};
use libfuzzer_sys::fuzz_target;
use random::Random;

/// Lines that one line may become, and what each of them may gain.
const LINES_MAX: usize = 33;
const GAIN_MAX: usize = 2200;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    checked(&text, input);
    for crash in parse(input).iter().take(4) {
        checked(&crash.report, input);
    }
});

fn checked(report: &str, input: &[u8]) {
    let symbols = Anything(RefCell::new(Random::of(input)));
    let rich = symbolise(report, &symbols).report;
    let bound: usize = report.lines().map(|line| LINES_MAX * (line.len() + GAIN_MAX)).sum();
    assert!(rich.len() <= bound, "{} bytes became {}", report.len(), rich.len());
    let plain = symbolise(report, &Nothing);
    assert_eq!(symbolise(&plain.report, &Nothing).report, plain.report);
    guilty_file(&rich);
    disassembly(&rich);
}

struct Nothing;

impl Symbols for Nothing {
    fn places(&self, _: &Spot, _: bool) -> Vec<Place> {
        Vec::new()
    }

    fn spot_at(&self, _: u64) -> Option<Spot> {
        None
    }
}

/// Knows every spot, each time differently: long names, deep inlining, line breaks where none belong.
struct Anything(RefCell<Random>);

impl Anything {
    fn text(&self) -> String {
        const PARTS: [&str; 8] = ["", "alpha", "/", "net/a.c", "+0x1/0x2", " é\u{0}", "[inline]", "../"];
        let mut random = self.0.borrow_mut();
        let part = PARTS[random.below(PARTS.len())];
        part.repeat(1 + random.below(100))
    }
}

impl Symbols for Anything {
    fn places(&self, _: &Spot, _: bool) -> Vec<Place> {
        let deep = [0, 1, 2, 3, 100][self.0.borrow_mut().below(5)];
        (0..deep).map(|line| Place { function: self.text(), file: self.text(), line }).collect()
    }

    fn spot_at(&self, address: u64) -> Option<Spot> {
        let known = self.0.borrow_mut().below(2) == 0;
        known.then(|| Spot { function: self.text(), offset: address, size: !address, module: None })
    }
}
