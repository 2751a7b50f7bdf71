//! A report's addresses as source lines: which lines are rewritten, and how. Where symbols come from
//! is the caller's business.
//!
//! `f+0x1a/0x40` becomes `f+0x1a/0x40 net/a.c:12`; before it stands a line `g net/a.h:3 [inline]` for
//! every function that was inlined at that place, as in syzbot's reports.

use std::sync::LazyLock;

use regex::Regex;

/// A source line, innermost first where functions were inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub function: String,
    /// Path relative to the source root.
    pub file: String,
    pub line: u32,
}

/// A place in a function of the kernel, as reports print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub function: String,
    pub offset: u64,
    /// Size of the function, which tells functions of one name apart.
    pub size: u64,
    /// The module it is in; `None` in the kernel itself.
    pub module: Option<String>,
}

/// What a kernel's symbols and debug information can answer.
pub trait Symbols {
    /// The source lines of a spot, the outermost function last; empty if nothing is known.
    ///
    /// A `returning` spot is where a call comes back to: the call itself stands before it.
    fn places(&self, spot: &Spot, returning: bool) -> Vec<Place>;
    /// The spot at an address of the kernel as it was linked.
    fn spot_at(&self, address: u64) -> Option<Spot>;
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("static pattern"));
    };
}
pattern!(
    SPOT,
    r"(?P<function>[A-Za-z_$][\w.$]*)\+0x(?P<offset>[0-9a-f]{1,16})/0x(?P<size>[0-9a-f]{1,16})(?P<module> \[(?P<name>\w+)(?: [0-9a-f]+)?\])?(?P<file> [\w./+-]+:\d+)?"
);
pattern!(EXACT, r"RIP: |\bIP: |WARNING: |\be?pc : |PC is at |NIP |CFI failure at ");
pattern!(UNSURE, r"^\s*(?:\[<[0-9a-fA-F]+>\]\s*)?\? ");
pattern!(BARE, r"^\s*(?:\[<(?P<kallsyms>[0-9a-fA-F]{8,16})>\] )?0x(?P<address>[0-9a-f]{8,16})\s*$");
pattern!(KASLR, r"Kernel Offset: (?P<sign>-?)0x(?P<offset>[0-9a-f]{1,16}) from 0x");

/// Lines that one line may become; deeper inlining than this is no kernel's.
const INLINED_MAX: usize = 32;

/// A report with source lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolised {
    pub report: String,
    /// Places in functions that got a source line, and those that symbols did not know.
    pub known: usize,
    pub unknown: usize,
}

/// Rewrites a report with source lines. Functions that symbols do not know stay as they are. Frames
/// the kernel itself was not sure of (`? f`) are left out, unless nothing at all is known.
pub fn symbolise(report: &str, symbols: &dyn Symbols) -> Symbolised {
    let mut rewriting = Rewriting { symbols, slide: slide(report), trapped: None, known: 0, unknown: 0 };
    let mut text = String::with_capacity(report.len() * 2);
    for line in report.lines().filter(|line| !UNSURE.is_match(line)) {
        match rewriting.line(line) {
            Some(lines) => lines.iter().for_each(|line| push(&mut text, line)),
            None => push(&mut text, line),
        }
    }
    let Rewriting { known, unknown, .. } = rewriting;
    if known == 0 {
        text.clear();
        report.lines().for_each(|line| push(&mut text, line));
    }
    Symbolised { report: text, known, unknown }
}

fn push(text: &mut String, line: &str) {
    // A carriage return left at the end would be a line's end to the next reader, and part of it to this one.
    text.push_str(line.trim_end_matches('\r'));
    text.push('\n');
}

/// How far the kernel lay from where it was linked, as a panic tells; unknown where there was none.
fn slide(report: &str) -> Option<u64> {
    if report.contains("Kernel Offset: disabled") {
        return Some(0);
    }
    let found = KASLR.captures(report)?;
    let offset = u64::from_str_radix(&found["offset"], 16).ok()?;
    Some(if found["sign"].is_empty() { offset } else { offset.wrapping_neg() })
}

struct Rewriting<'a> {
    symbols: &'a dyn Symbols,
    slide: Option<u64>,
    /// Where the kernel was interrupted: some architectures begin the trace with it, and there it is
    /// no return address.
    trapped: Option<Spot>,
    known: usize,
    unknown: usize,
}

impl Rewriting<'_> {
    /// The lines that take a line's place; `None` if nothing is known of it.
    fn line(&mut self, line: &str) -> Option<Vec<String>> {
        if let Some(found) = BARE.captures(line) {
            return self.bare(&found["address"]);
        }
        let found = SPOT.captures_iter(line).last()?;
        if found.name("file").is_some() {
            return None;
        }
        let hex = |group: &str| u64::from_str_radix(&found[group], 16).ok();
        let spot = Spot {
            function: found["function"].to_owned(),
            offset: hex("offset")?,
            size: hex("size")?,
            module: found.name("name").map(|name| name.as_str().to_owned()),
        };
        let exact = EXACT.is_match(line);
        let places = self.symbols.places(&spot, !exact && self.trapped.as_ref() != Some(&spot));
        self.count(!places.is_empty());
        if exact {
            self.trapped = Some(spot);
        }
        let whole = found.get_match();
        let end = found.name("module").map_or(whole.end(), |module| module.start());
        let (before, named, after) = (&line[..whole.start()], &line[whole.start()..end], &line[end..]);
        lines(before, named, after, &places)
    }

    /// A kernel without a table of its functions prints addresses alone. Without knowing how far it
    /// was moved they say nothing.
    fn bare(&mut self, address: &str) -> Option<Vec<String>> {
        let address = u64::from_str_radix(address, 16).ok()?.wrapping_sub(self.slide?);
        let spot = self.symbols.spot_at(address);
        self.count(spot.is_some());
        let spot = spot?;
        let named = format!("{}+{:#x}/{:#x}", spot.function, spot.offset, spot.size);
        let places = self.symbols.places(&spot, true);
        Some(lines(" ", &named, "", &places).unwrap_or_else(|| vec![format!(" {named}")]))
    }

    fn count(&mut self, known: bool) {
        if known {
            self.known += 1;
        } else {
            self.unknown += 1;
        }
    }
}

fn lines(before: &str, spot: &str, after: &str, places: &[Place]) -> Option<Vec<String>> {
    let (outermost, inlined) = places.split_last()?;
    let inline =
        |place: &Place| format!("{before}{} {}:{} [inline]{after}", place.function, place.file, place.line);
    let mut lines: Vec<String> = inlined.iter().take(INLINED_MAX).map(inline).collect();
    lines.push(format!("{before}{spot} {}:{}{after}", outermost.file, outermost.line));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbolised(report: &str) -> String {
        symbolise(report, &Known).report
    }

    /// Knows `alpha`, into which `beta` is inlined, and an address in it.
    struct Known;

    impl Symbols for Known {
        fn places(&self, spot: &Spot, returning: bool) -> Vec<Place> {
            let place = |function: &str, file: &str, line| Place {
                function: function.into(),
                file: file.into(),
                line,
            };
            if spot.function != "alpha" || spot.size != 0x40 || spot.module.as_deref() == Some("module") {
                return vec![];
            }
            let line = if returning { 11 } else { 12 };
            vec![place("beta", "include/b.h", 3), place("alpha", "net/a.c", line)]
        }

        fn spot_at(&self, address: u64) -> Option<Spot> {
            let spot = || Spot { function: "alpha".into(), offset: 0x10, size: 0x40, module: None };
            (address == 0xffffffff81000010).then(spot)
        }
    }

    #[test]
    fn lines_that_name_a_spot() {
        let check = |report: &str, expected: &str| assert_eq!(symbolised(report), expected, "{report}");
        check(" alpha+0x1a/0x40\n", " beta include/b.h:3 [inline]\n alpha+0x1a/0x40 net/a.c:11\n");
        check(
            "RIP: 0010:alpha+0x1a/0x40",
            "RIP: 0010:beta include/b.h:3 [inline]\nRIP: 0010:alpha+0x1a/0x40 net/a.c:12\n",
        );
        check(
            "BUG: KASAN: use-after-free in alpha+0x1a/0x40 at addr ff",
            "BUG: KASAN: use-after-free in beta include/b.h:3 [inline] at addr ff\nBUG: KASAN: use-after-free in alpha+0x1a/0x40 net/a.c:11 at addr ff\n",
        );
        check(
            "[<80000001>] (x) from [<80000002>] (alpha+0x1/0x40)",
            "[<80000001>] (x) from [<80000002>] (beta include/b.h:3 [inline])\n[<80000001>] (x) from [<80000002>] (alpha+0x1/0x40 net/a.c:11)\n",
        );
    }

    /// On arm64 and RISC-V a trace begins with the interrupted instruction itself.
    #[test]
    fn a_trace_that_begins_with_the_trap_is_exact_there() {
        let report =
            "pc : alpha+0x1a/0x40\nlr : alpha+0x20/0x40\nCall trace:\n alpha+0x1a/0x40\n alpha+0x20/0x40\n";
        let lines = symbolised(report);
        let alpha: Vec<&str> = lines.lines().filter(|line| line.contains("alpha")).collect();
        assert!(alpha[2].ends_with(":12") && alpha[3].ends_with(":11"), "{lines}");
    }

    #[test]
    fn the_module_stands_behind_the_line() {
        for name in ["[known]", "[known 0123456789abcdef]"] {
            let found = symbolised(&format!(" alpha+0x1a/0x40 {name}\n"));
            let expected =
                format!(" beta include/b.h:3 [inline] {name}\n alpha+0x1a/0x40 net/a.c:11 {name}\n");
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        for line in [
            "text",
            " gamma+0x1/0x2",
            " alpha+0x1/0x44",
            " alpha+0x1/0x40 [module]",
            " alpha+0x1/0x40 net/a.c:1",
            " alpha+0xfffffffffffffffff/0x40",
            "[<ffffffff81000099>] 0xffffffff81000099",
        ] {
            assert_eq!(symbolised(line), format!("{line}\n"));
        }
        assert_eq!(symbolised("a\r\r\nb\r"), "a\nb\n");
        let unsure = " a\n ? alpha+0x1/0x40\n b\n";
        assert_eq!(symbolised(unsure), unsure);
        let known = " alpha+0x2/0x40\n gamma+0x1/0x2\n";
        let both = symbolise(&format!("{unsure}{known}"), &Known);
        assert_eq!((both.known, both.unknown), (1, 1));
        assert!(!both.report.contains('?'), "{}", both.report);
    }

    #[test]
    fn addresses_alone_are_slid_back() {
        let expected = " beta include/b.h:3 [inline]\n alpha+0x10/0x40 net/a.c:11\n";
        let bare = "[<ffffffff81000010>] 0xffffffff81000010\n";
        assert_eq!(symbolised(bare), bare, "where the kernel lay is not known");
        let fixed = "Kernel Offset: disabled\n";
        assert_eq!(symbolised(&format!("{bare}{fixed}")), format!("{expected}{fixed}"));
        let slid = " 0xffffffff9c000010\nKernel Offset: 0x1b000000 from 0xffffffff81000000 (relocation range: 0-1)\n";
        assert!(symbolised(slid).starts_with(expected), "{}", symbolised(slid));
    }
}
