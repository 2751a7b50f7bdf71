//! Console bytes to lines: splitting at any chunking, and what a printk prefix says.
//!
//! Knows nothing of crashes.

use std::sync::LazyLock;

use memchr::{memchr, memchr_iter, memrchr};
use regex::Regex;

/// Bytes of one line that are kept; the longest oops lines seen are under 1 KiB, the rest is dropped.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Printk messages looked for in one console line; more than a few means garbage.
const PIECES_MAX: usize = 8;

/// Who printed a line, when the kernel says so (`CONFIG_PRINTK_CALLER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Task(u32),
    Cpu(u32),
}

/// One printk message (or a line of plain text), without its prefix.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// 0-based number of the console line it stands in.
    pub number: usize,
    pub text: String,
    pub context: Option<Context>,
    /// Seconds of the printk timestamp, whole ones.
    pub stamp_s: Option<u64>,
}

impl Line {
    /// Says whether this line may belong to what `context` prints.
    pub fn belongs_to(&self, context: Option<Context>) -> bool {
        self.context.is_none() || context.is_none() || self.context == context
    }
}

/// Cuts a byte stream into raw lines; the result does not depend on where chunks end.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// Some bytes of the line in progress have been seen (even if all were dropped).
    in_line: bool,
    next_number: usize,
}

impl Splitter {
    /// Says whether the next byte begins a line.
    pub fn at_line_begin(&self) -> bool {
        !self.in_line
    }

    /// Passes over whole lines that nobody wants to see.
    pub fn skip(&mut self, lines: &[u8]) {
        self.next_number += memchr_iter(b'\n', lines).count();
    }

    /// Takes bytes up to the end of the line, hands the line to `each` if they complete it, and
    /// returns the rest.
    pub fn line<'a>(&mut self, bytes: &'a [u8], each: impl FnOnce(usize, &[u8])) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.keep(bytes);
            self.in_line |= !bytes.is_empty();
            return &[];
        };
        let number = self.next_number;
        self.next_number += 1;
        if self.in_line {
            self.keep(&bytes[..end]);
            each(number, &self.partial);
            self.partial.clear();
            self.in_line = false;
        } else {
            each(number, &bytes[..end.min(LINE_BYTES_MAX)]);
        }
        &bytes[end + 1..]
    }

    /// Hands over the last line if no newline ended it.
    pub fn finish(&mut self, mut each: impl FnMut(usize, &[u8])) {
        if self.in_line {
            each(self.next_number, &self.partial);
            self.in_line = false;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// `<6>[   12.345678][ T123] `: level, time, caller. The level and the caller may be missing.
static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:<\d{1,3}>)?\[ {0,11}(\d{1,9})\.\d{6}\](?: ?\[ {0,8}([TC])(\d{1,9})\])? ?")
        .expect("static pattern")
});
/// What a log daemon puts before the kernel's own prefix, and a level that no time follows.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9:]+)) \S+ kernel: )?(?:<[0-9]{1,3}>)?",
    )
    .expect("static pattern")
});
/// Terminal escapes: CSI sequences, then two-byte ones.
static ESCAPES: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]").expect("static pattern"));

/// Seconds of the timestamp that opens a raw line; cheap, for lines nobody looks into.
pub(super) fn leading_stamp_s(raw: &[u8]) -> Option<u64> {
    let digits = raw.strip_prefix(b"[")?.trim_ascii_start();
    let end = digits.iter().take(10).position(|b| !b.is_ascii_digit())?;
    if end == 0 || digits[end] != b'.' {
        return None;
    }
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Seconds of the last timestamp that opens one of these whole lines.
pub(super) fn last_stamp_s(lines: &[u8]) -> Option<u64> {
    let mut rest = lines;
    while !rest.is_empty() {
        rest = &rest[..rest.len() - 1];
        let begin = memrchr(b'\n', rest).map_or(0, |newline| newline + 1);
        if let Some(stamp_s) = leading_stamp_s(&rest[begin..]) {
            return Some(stamp_s);
        }
        rest = &rest[..begin];
    }
    None
}

/// Takes a raw line apart: one [`Line`] for each printk message that stands in it.
///
/// Consoles without flow control glue messages together; a timestamp in the middle starts a new one.
pub(super) fn read(number: usize, raw: &[u8]) -> Vec<Line> {
    let lossy = String::from_utf8_lossy(raw);
    let clean = if lossy.contains(['\x1b', '\r', '\0']) {
        ESCAPES.replace_all(&lossy, "").replace(['\r', '\0'], "")
    } else {
        lossy.into_owned()
    };
    let clean = HEADER.find(&clean).map_or(&clean[..], |header| &clean[header.end()..]);
    let mut lines = Vec::new();
    let mut plain = Line { number, text: String::new(), context: None, stamp_s: None };
    let mut from = 0;
    for found in PREFIX.captures_iter(clean).take(PIECES_MAX) {
        let whole = found.get_match();
        plain.text = clean[from..whole.start()].trim_end().to_owned();
        if from > 0 || !plain.text.trim().is_empty() {
            lines.push(plain);
        }
        let caller = found.get(3).and_then(|id| id.as_str().parse().ok());
        let context = match (found.get(2).map(|kind| kind.as_str()), caller) {
            (Some("T"), Some(id)) => Some(Context::Task(id)),
            (Some("C"), Some(id)) => Some(Context::Cpu(id)),
            _ => None,
        };
        plain = Line { number, text: String::new(), context, stamp_s: found[1].parse().ok() };
        from = whole.end();
    }
    plain.text = clean[from..].trim_end().to_owned();
    lines.push(plain);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let check = |raw: &str, expected: &[(&str, Option<Context>, Option<u64>)]| {
            let lines = read(0, raw.as_bytes());
            let seen: Vec<_> = lines.iter().map(|l| (l.text.as_str(), l.context, l.stamp_s)).collect();
            assert_eq!(seen, expected, "{raw:?}");
        };
        check("plain text\r", &[("plain text", None, None)]);
        check("[   12.345678] BUG: x", &[("BUG: x", None, Some(12))]);
        check("<4>[   12.345678][ T123]  two", &[(" two", Some(Context::Task(123)), Some(12))]);
        check("[    0.000000][    C1] boot", &[("boot", Some(Context::Cpu(1)), Some(0))]);
        check("login: [    1.000000] a", &[("login:", None, None), ("a", None, Some(1))]);
        check("[    1.000000] a[    1.000001] b", &[("a", None, Some(1)), ("b", None, Some(1))]);
        check("\x1b[31mred\x1b[0m", &[("red", None, None)]);
        check("<4>no time", &[("no time", None, None)]);
        check("<stdin>: x", &[("<stdin>: x", None, None)]);
        for header in ["Nov 21 03:13:00 host kernel: ", "2026-11-21T03:13:00.123456+00:00 host kernel: "] {
            check(&format!("{header}BUG: x"), &[("BUG: x", None, None)]);
            check(&format!("{header}[   12.345678] BUG: x"), &[("BUG: x", None, Some(12))]);
        }
        check("Nov 21 03:13:00 host sshd: x", &[("Nov 21 03:13:00 host sshd: x", None, None)]);
    }

    #[test]
    fn splitting_keeps_numbers_and_bounds() {
        let mut seen = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in ["a", "b\n\nc", "\n", "tail"] {
            let mut rest = chunk.as_bytes();
            while !rest.is_empty() {
                rest = splitter.line(rest, |n, l| seen.push((n, String::from_utf8_lossy(l).into_owned())));
            }
        }
        splitter.finish(|n, l| seen.push((n, String::from_utf8_lossy(l).into_owned())));
        let expected = [(0, "ab"), (1, ""), (2, "c"), (3, "tail")].map(|(n, l)| (n, l.to_owned()));
        assert_eq!(seen, expected);

        let mut longest = 0;
        splitter = Splitter::default();
        splitter.line(&vec![b'x'; 5 * LINE_BYTES_MAX], |_, l| longest = longest.max(l.len()));
        splitter.line(b"\n", |_, l| longest = longest.max(l.len()));
        assert_eq!(longest, LINE_BYTES_MAX);
    }

    #[test]
    fn cheap_stamps() {
        assert_eq!(leading_stamp_s(b"[  212.5] x"), Some(212));
        assert_eq!(leading_stamp_s(b"[ INFO: x ]"), None);
        assert_eq!(leading_stamp_s(b"text"), None);
        assert_eq!(last_stamp_s(b"[  1.5] x\n[  2.5] y\nplain\n\n"), Some(2));
        assert_eq!(last_stamp_s(b"plain\n\n"), None);
        assert_eq!(last_stamp_s(b""), None);
    }
}
