//! Finds line numbers in the data of a linked kernel and zeroes them.
//!
//! Layouts differ by release and configuration, and nothing in the file names them. So a layout
//! is believed only where every pointer in it points to what it should: at code, or at the name
//! of a source file.

use super::{Section, Sections};

/// A word that follows a source name and is greater than this is no line.
const LINE_MAX: u64 = 1_000_000;
/// As for lines; kernel lines are not that wide.
const COLUMN_MAX: u64 = 10_000;
/// Bits of `_ddebug.lineno`.
const DYNDBG_LINE_BITS: u32 = 18;
const NAME_BYTES_MAX: usize = 256;

/// Zeroes the line numbers in `data`, which is the content of `section`.
pub(super) fn zero(sections: &Sections, section: &Section, data: &mut [u8]) {
    if section.executable {
        return;
    }
    let memory = Memory::new(sections);
    if section.name == "__bug_table" {
        zero_bug_table(&memory, section, data);
        return;
    }
    let word = memory.pointer_bytes;
    for at in (0..(section.data.len() as u64).saturating_sub(word - 1)).step_by(word as usize) {
        if !memory.pointer(section, at).is_some_and(|address| memory.is_source_name(address)) {
            continue;
        }
        if section.name.contains("alloc_tags") {
            zero_codetag(&memory, section, data, at);
        } else if !zero_source_location(&memory, section, data, at) {
            zero_dyndbg(&memory, section, data, at);
        }
    }
}

/// `struct source_location { const char *file; u32 line, column; }` of UBSAN, KASAN's
/// `kasan_source_location` and ftrace's branch data: `at` is where `file` stands.
fn zero_source_location(memory: &Memory<'_>, section: &Section, data: &mut [u8], at: u64) -> bool {
    let at = at + memory.pointer_bytes;
    let (Some(line), Some(column)) = (memory.number(section, at, 4), memory.number(section, at + 4, 4))
    else {
        return false;
    };
    let found = (1..LINE_MAX).contains(&line) && column < COLUMN_MAX;
    if found {
        data[at as usize..at as usize + 8].fill(0);
    }
    found
}

/// `struct _ddebug { const char *modname, *function, *filename, *format; u32 lineno:18, …; }`:
/// `at` is where `filename` stands. It lies within `.data`.
fn zero_dyndbg(memory: &Memory<'_>, section: &Section, data: &mut [u8], at: u64) {
    let word = memory.pointer_bytes;
    let strings = [at.checked_sub(2 * word), at.checked_sub(word), at.checked_add(word)];
    let is_string = |at: &Option<u64>| {
        let address = at.and_then(|at| memory.pointer(section, at));
        address.is_some_and(|address| memory.text_at(address).is_some())
    };
    let at = at + 2 * word;
    let Some(bits) = memory.number(section, at, 4) else { return };
    // Four pointers to strings and then a fifth are a list of names.
    if !strings.iter().all(is_string)
        || memory.pointer(section, at).is_some_and(|p| memory.text_at(p).is_some())
    {
        return;
    }
    let mask = if memory.little_endian {
        (1u32 << DYNDBG_LINE_BITS) - 1
    } else {
        u32::MAX << (32 - DYNDBG_LINE_BITS)
    };
    let kept = bits as u32 & !mask;
    let bytes = if memory.little_endian { kept.to_le_bytes() } else { kept.to_be_bytes() };
    data[at as usize..at as usize + 4].copy_from_slice(&bytes);
}

/// `struct codetag { u32 flags, lineno; const char *modname, *function, *filename; }`, since
/// v6.10: `at` is where `filename` stands.
fn zero_codetag(memory: &Memory<'_>, section: &Section, data: &mut [u8], at: u64) {
    let Some(line_at) = at.checked_sub(2 * memory.pointer_bytes + 4) else { return };
    if memory.number(section, line_at, 4).is_some_and(|line| line < LINE_MAX) {
        data[line_at as usize..line_at as usize + 4].fill(0);
    }
}

/// A layout of `struct bug_entry` that has a line, which is a u16.
#[derive(Clone, Copy)]
struct BugLayout {
    entry_bytes: u64,
    file_at: u64,
    line_at: u64,
    pointers: Pointers,
}

/// How `bug_addr` and `file` are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Absolute,
    /// As a distance from the field itself.
    FromField,
    /// As a distance from the entry's start, before v5.19.
    FromEntry,
}

const fn layout(entry_bytes: u64, file_at: u64, line_at: u64, pointers: Pointers) -> BugLayout {
    BugLayout { entry_bytes, file_at, line_at, pointers }
}

/// include/asm-generic/bug.h over time. Without CONFIG_DEBUG_BUGVERBOSE there is no line.
const BUG_LAYOUTS_64: [BugLayout; 7] = [
    layout(12, 4, 8, Pointers::FromField),
    layout(12, 4, 8, Pointers::FromEntry),
    // With a pointer to the format of the warning, since v6.18.
    layout(16, 8, 12, Pointers::FromField),
    layout(16, 4, 8, Pointers::FromField),
    layout(24, 8, 16, Pointers::Absolute),
    layout(32, 16, 24, Pointers::Absolute),
    layout(32, 8, 16, Pointers::Absolute),
];
const BUG_LAYOUTS_32: [BugLayout; 4] = [
    layout(12, 4, 8, Pointers::Absolute),
    layout(16, 8, 12, Pointers::Absolute),
    layout(12, 4, 8, Pointers::FromField),
    layout(12, 4, 8, Pointers::FromEntry),
];

fn zero_bug_table(memory: &Memory<'_>, section: &Section, data: &mut [u8]) {
    let layouts: &[BugLayout] = if memory.pointer_bytes == 8 { &BUG_LAYOUTS_64 } else { &BUG_LAYOUTS_32 };
    let Some(layout) = layouts.iter().find(|layout| layout.fits(memory, section)) else { return };
    for entry in (0..data.len() as u64).step_by(layout.entry_bytes as usize) {
        let line = (entry + layout.line_at) as usize;
        data[line..line + 2].fill(0);
    }
}

impl BugLayout {
    /// Whether every entry points at code and at a source name.
    fn fits(&self, memory: &Memory<'_>, section: &Section) -> bool {
        let len = section.data.len() as u64;
        let entry_fits = |entry: u64| {
            let code = self.target(memory, section, entry, 0);
            let file = self.target(memory, section, entry, self.file_at);
            code.is_some_and(|address| memory.is_code(address))
                && file.is_some_and(|address| memory.is_source_name(address))
        };
        len.is_multiple_of(self.entry_bytes) && (0..len).step_by(self.entry_bytes as usize).all(entry_fits)
    }

    fn target(&self, memory: &Memory<'_>, section: &Section, entry: u64, field: u64) -> Option<u64> {
        let at = entry + field;
        if self.pointers == Pointers::Absolute {
            return memory.pointer(section, at);
        }
        let distance = memory.number(section, at, 4)? as u32 as i32;
        let base = if self.pointers == Pointers::FromField { at } else { entry };
        Some(section.address.wrapping_add(base).wrapping_add_signed(i64::from(distance)))
    }
}

/// The kernel's memory as the file describes it.
struct Memory<'a> {
    sections: &'a [Section],
    little_endian: bool,
    pointer_bytes: u64,
    /// Bounds of all that is not code, to refuse most words cheaply.
    lowest: u64,
    highest: u64,
}

impl<'a> Memory<'a> {
    fn new(sections: &'a Sections) -> Self {
        // Per-CPU data of some kernels is linked at address 0; nothing points there.
        let data = || sections.all.iter().filter(|section| !section.executable && section.address != 0);
        Memory {
            sections: &sections.all,
            little_endian: sections.little_endian,
            pointer_bytes: sections.pointer_bytes,
            lowest: data().map(|section| section.address).min().unwrap_or(0),
            highest: data().map(|section| section.address + section.data.len() as u64).max().unwrap_or(0),
        }
    }

    fn number(&self, section: &Section, at: u64, bytes: u64) -> Option<u64> {
        let field = section.data.get(at as usize..(at + bytes) as usize)?;
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.little_endian { field.iter().rev().fold(0, push) } else { field.iter().fold(0, push) })
    }

    fn pointer(&self, section: &Section, at: u64) -> Option<u64> {
        self.number(section, at, self.pointer_bytes)
    }

    fn is_code(&self, address: u64) -> bool {
        self.sections.iter().any(|section| section.executable && section.offset_of(address).is_some())
    }

    /// The string at `address`, if it is data and printable.
    fn text_at(&self, address: u64) -> Option<&'a [u8]> {
        if address < self.lowest || address >= self.highest {
            return None;
        }
        let holds = |section: &&Section| !section.executable && section.offset_of(address).is_some();
        let section = self.sections.iter().find(holds)?;
        let rest = &section.data[section.offset_of(address)?..];
        let text = &rest[..rest.iter().take(NAME_BYTES_MAX).position(|byte| *byte == 0)?];
        text.iter().all(|byte| matches!(byte, 0x20..=0x7e | b'\n' | b'\t' | 1)).then_some(text)
    }

    fn is_source_name(&self, address: u64) -> bool {
        let Some(text) = self.text_at(address) else { return false };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,".contains(byte);
        [&b".c"[..], b".h", b".S", b".rs", b".inc", b".y", b".l"]
            .iter()
            .any(|end| text.len() > end.len() && text.ends_with(end))
            && text.iter().all(plain)
    }
}

impl Section {
    fn offset_of(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.address)?;
        (offset < self.data.len() as u64).then_some(offset as usize)
    }
}
