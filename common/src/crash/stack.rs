//! Stack traces in report lines: which functions, in which order, in which section.
//!
//! Decides nothing about which of them names a bug; see `helpers` and `analyse`.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;

/// One function on a stack.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub function: String,
    /// Source file, if the console is symbolised.
    pub file: Option<String>,
    /// The interrupted instruction (RIP, pc), not a return address.
    pub ip: bool,
    /// `<EOI>` or `</IRQ>` stands before it: from here on, the interrupted stack.
    pub interrupted: bool,
}

/// A run of frames that belong to one stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    /// Index of the report line where it begins, and of the one where it ends.
    pub begin: usize,
    pub end: usize,
    pub frames: Vec<Frame>,
    /// Return addresses were seen, not only an instruction pointer.
    pub has_trace: bool,
    /// A heading such as `Call Trace:` was seen.
    headed: bool,
    /// The next frame is the first of the interrupted stack.
    irq_ended: bool,
}

/// Frames kept per report; an endless recursion prints thousands.
const FRAMES_MAX: usize = 2000;

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("static pattern"));
    };
}

pattern!(
    RETURN,
    r"^\s*(?P<irq>(?:</?[A-Z#]{2,6}>\s*)*)(?:\[<?[0-9a-fA-F]{8,16}>?\]\s*){0,2}(?P<unsure>\?\s+)?(?P<function>[A-Za-z_<$][^\s+]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?:\s+\[[^\]]+\])?(?:\s+(?P<file>[\w./+-]+):\d+)?(?:\s+\[inline\])?(?:\s+\([A-Za-z]+\))?\s*$"
);
pattern!(
    INLINE,
    r"^\s*(?:\[<[0-9a-fA-F]{8,16}>\]\s*)?(?P<function>[A-Za-z_][\w.]*) (?P<file>[\w./+-]+):\d+ \[inline\]\s*$"
);
pattern!(
    ARM,
    r"^\s*(?:\[<[0-9a-f]{8}>\] )?\(?(?P<callee>[A-Za-z_][\w.]*)(?:\+0x[0-9a-f/x]+)?\)? from (?:\[<[0-9a-f]{8}>\] )?\(?(?P<caller>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?: (?P<file>[\w./+-]+):\d+)?\)?(?: \[[^\]]+\])?\s*$"
);
pattern!(
    IP,
    r"^\s*(?:(?:R|E)?IP: (?:[0-9a-fA-F]{4}:)?|PC is at |e?pc : |NIP )(?:\s*\[<?[0-9a-fA-F]+>?\])*\s*(?P<function>[A-Za-z_<$][^\s+]*)\+0x[0-9a-f]+/0x"
);
pattern!(USER_IP, r"^\s*[RE]IP: 00(?:33|23|2b|73):");
pattern!(HEAD, r"^\s*(?:Call [Tt]race|[Bb]acktrace|[Ss]tack backtrace|stack trace)(?: for .*)?:");
pattern!(
    BOUND,
    r"^\s*(?:---\[ end |(?:Allocated|Freed) by task|Last (?:potentially related|call_rcu)|other info that might|Sending NMI from|NMI backtrace for|Uninit was|The buggy address|Showing all locks|Task dump for CPU|Memory state around|Kernel panic - not syncing|Dumping ftrace|\{[A-Z-]+\} state was registered|the existing dependency chain|-> #\d|Reported by Kernel Concurrency|value changed:|(?:read|write|read-write)(?: \(marked\))? to 0x|hardirqs last|SMP: stopping|task:|Disabling lock debugging)"
);
pattern!(PLACE, r"(?:disabled|enabled|release lock \(.*\)) at:\s*$");
pattern!(IRQ_END, r"^\s*(?:</IRQ>|<EOI>|</NMI>|<EOE>)\s*$");

/// Finds every stack section among the lines.
pub(super) fn sections<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Section> {
    let mut reader = Reader::default();
    for (index, text) in lines.enumerate() {
        reader.line(index, text);
    }
    reader.close();
    reader.done
}

/// Says whether a line shows a function on a stack, sure or not.
pub(super) fn is_frame(text: &str) -> bool {
    let inlined = text.ends_with("[inline]") && INLINE.is_match(text);
    inlined
        || text.contains("+0x")
            && text.contains("/0x")
            && (RETURN.is_match(text) || ARM.is_match(text) || IP.is_match(text))
}

/// Says whether a line announces a stack trace.
pub(super) fn is_heading(text: &str) -> bool {
    HEAD.is_match(text)
}

#[derive(Default)]
struct Reader {
    done: Vec<Section>,
    open: Section,
    kept: usize,
    /// The last line announced a single address.
    place: bool,
}

impl Reader {
    fn line(&mut self, index: usize, text: &str) {
        let offset = text.contains("+0x");
        if std::mem::replace(&mut self.place, PLACE.is_match(text)) {
            // One address that tells where, not a stack.
        } else if text.trim().is_empty() {
            if self.open.has_trace && !self.open.headed {
                self.close();
            }
        } else if let Some(found) = offset.then(|| RETURN.captures(text)).flatten() {
            let irq = found.name("irq").map_or("", |m| m.as_str());
            self.open.irq_ended |= irq.contains("<EOI>") || irq.contains("</IRQ>");
            if found.name("unsure").is_none() {
                let file = found.name("file").map(|m| m.as_str());
                self.push(index, &found["function"], file, false);
            }
        } else if let Some(found) = offset.then(|| ARM.captures(text)).flatten() {
            if self.open.frames.last().is_none_or(|last| last.function != found["callee"]) {
                self.push(index, &found["callee"], None, false);
            }
            self.push(index, &found["caller"], found.name("file").map(|m| m.as_str()), false);
        } else if let Some(found) = offset.then(|| IP.captures(text)).flatten() {
            if USER_IP.is_match(text) {
                self.close();
            } else {
                self.push(index, &found["function"], None, true);
            }
        } else if USER_IP.is_match(text) || BOUND.is_match(text) {
            self.close();
        } else if HEAD.is_match(text) {
            if self.open.has_trace {
                self.close();
            }
            self.open.headed = true;
        } else if IRQ_END.is_match(text) {
            self.open.irq_ended = true;
        } else if let Some(found) = INLINE.captures(text) {
            self.push(index, &found["function"], Some(&found["file"]), false);
        }
    }

    fn push(&mut self, index: usize, function: &str, file: Option<&str>, ip: bool) {
        if self.kept == FRAMES_MAX {
            return;
        }
        self.kept += 1;
        if self.open.frames.is_empty() {
            self.open.begin = index;
        }
        self.open.end = index;
        self.open.has_trace |= !ip;
        self.open.frames.push(Frame {
            function: plain(function),
            file: file.map(|path| path.trim_start_matches("./").to_owned()),
            ip,
            interrupted: std::mem::take(&mut self.open.irq_ended),
        });
    }

    fn close(&mut self) {
        let section = std::mem::take(&mut self.open);
        if !section.frames.is_empty() {
            self.done.push(section);
        }
    }
}

pattern!(
    CLONE,
    r"(?:\.(?:isra|part|constprop|cold|llvm|lto_priv|localalias|cfi|cfi_jt|resume)(?:\.[0-9]+)*|\.[0-9]+)+$"
);

/// The function's name as its source has it: without the suffixes compilers give to clones, demangled.
pub(super) fn plain(function: &str) -> String {
    let name = CLONE.find(function).map_or(function, |suffix| &function[..suffix.start()]);
    if !name.starts_with("_R") && !name.starts_with("_ZN") {
        return name.to_owned();
    }
    let mut short = Short(String::new());
    match write!(short, "{:#}", rustc_demangle::demangle(name)) {
        Ok(()) => short.0,
        Err(_) => name.to_owned(),
    }
}

/// Bytes of a demangled name; a few bytes of a hostile one can stand for megabytes.
const NAME_BYTES_MAX: usize = 512;

struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > NAME_BYTES_MAX {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Vec<String>> {
        sections(text.lines())
            .into_iter()
            .map(|s| s.frames.into_iter().map(|f| f.function).collect())
            .collect()
    }

    #[test]
    fn formats() {
        let check = |text: &str, expected: &[&[&str]]| assert_eq!(names(text), expected, "{text}");
        check("Call Trace:\n a+0x1/0x2\n ? b+0x1/0x2\n c.isra.3+0x1/0x2 [mod]", &[&["a", "c"]]);
        check(
            "RIP: 0010:a+0x1/0x2\nCall Trace:\n b+0x1/0x2\nRIP: 0033:0x45\n x+0x1/0x2",
            &[&["a", "b"], &["x"]],
        );
        check(
            "IP: [<ffffffff81234567>] a+0x1/0x2\nCall Trace:\n [<ffffffff81234567>] b+0x1/0x2",
            &[&["a", "b"]],
        );
        check(
            "[<80000001>] (a) from [<80000002>] (b+0x1/0x2)\n[<80000002>] (b) from [<80000003>] (c+0x1/0x2)",
            &[&["a", "b", "c"]],
        );
        check(" a from b+0x1/0x2\n b from c+0x1/0x2", &[&["a", "b", "c"]]);
        check("pc : a+0x1/0x2\nlr : z+0x1/0x2\nCall trace:\n b+0x1/0x2", &[&["a", "b"]]);
        check(" a+0x1/0x2\n b+0x1/0x2\n\n c+0x1/0x2", &[&["a", "b"], &["c"]]);
        check("hardirqs last enabled at (1): [<ffffffff81234567>] a+0x1/0x2", &[]);
    }

    #[test]
    fn names_as_the_source_has_them() {
        let check = |name: &str, expected: &str| assert_eq!(plain(name), expected);
        check("f.isra.3.cold", "f");
        check(
            "_RNvMs3_NtCshgDM7dBCdno_11rust_binder7processNtB5_7Process10update_ref",
            "<rust_binder::process::Process>::update_ref",
        );
        check("_R", "_R");
        check("_Relocate", "_Relocate");
    }

    #[test]
    fn symbolised_frames_name_files() {
        let found = sections(" f net/core/sock.c:12 [inline]\n g+0x1/0x2 ./mm/slab.c:7".lines());
        let files: Vec<_> = found[0].frames.iter().filter_map(|f| f.file.as_deref()).collect();
        assert_eq!(files, ["net/core/sock.c", "mm/slab.c"]);
    }
}
