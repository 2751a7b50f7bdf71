//! The fingerprint ignores line numbers and nothing else, on tables made by hand.

use kulprit_agent::fingerprint;

const ALLOC: u64 = 2;
const EXEC: u64 = 4;
const PROGBITS: u32 = 1;
const NOTE: u32 = 7;
const NOBITS: u32 = 8;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const RODATA: u64 = 0xffff_ffff_8200_0000;
const DATA: u64 = 0xffff_ffff_8300_0000;
const BUGS: u64 = 0xffff_ffff_8400_0000;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    bytes: Vec<u8>,
}

fn section(name: &'static str, kind: u32, flags: u64, address: u64, bytes: Vec<u8>) -> Section {
    Section { name, kind, flags, address, bytes }
}

/// A little-endian ELF64 file with these sections and no segments.
fn elf(sections: &[Section]) -> Vec<u8> {
    let mut names = vec![0];
    let mut body: Vec<u8> = Vec::new();
    let mut headers = vec![0; 64];
    let strings = section(".shstrtab", 3, 0, 0, Vec::new());
    for (index, each) in sections.iter().chain([&strings]).enumerate() {
        let name_at = names.len() as u32;
        names.extend(each.name.bytes().chain([0]));
        let bytes = if index == sections.len() { &names } else { &each.bytes };
        let offset = 64 + body.len() as u64;
        headers.extend(name_at.to_le_bytes());
        headers.extend(each.kind.to_le_bytes());
        // Link and info share the first zero; then alignment and entry size.
        for field in [each.flags, each.address, offset, bytes.len() as u64, 0, 1, 0] {
            headers.extend(field.to_le_bytes());
        }
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for field in [0, 0, 64 + body.len() as u64] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(0u32.to_le_bytes());
    for field in [64, 0, 0, 64, sections.len() as u16 + 2, sections.len() as u16 + 1] {
        file.extend(u16::to_le_bytes(field));
    }
    file.extend(body);
    file.extend(headers);
    file
}

/// Strings of the synthetic kernel: "fs/a.c", "main", "fmt %d".
const STRINGS: &[u8] = b"fs/a.c\0main\0fmt %d\0";
const FILE: u64 = RODATA;
const FUNCTION: u64 = RODATA + 7;
const FORMAT: u64 = RODATA + 12;

fn kernel(text: &[u8], data: &[u8], bugs: &[u8]) -> String {
    let bytes = elf(&[
        section(".text", PROGBITS, ALLOC | EXEC, TEXT, text.to_vec()),
        section(".rodata", PROGBITS, ALLOC, RODATA, STRINGS.to_vec()),
        section(".data", PROGBITS, ALLOC, DATA, data.to_vec()),
        section("__bug_table", PROGBITS, ALLOC, BUGS, bugs.to_vec()),
    ]);
    fingerprint::of_bytes(&bytes).unwrap().to_string()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `struct bug_entry` in one of its layouts.
fn bugs(layout: &str, entries: &[(u64, u16, u16)]) -> Vec<u8> {
    let mut table = Vec::new();
    for (code, line, flags) in entries {
        let entry = BUGS + table.len() as u64;
        let distance = |to: u64, from: u64| (to.wrapping_sub(from) as u32).to_le_bytes();
        match layout {
            "from field" => {
                table.extend(distance(*code, entry));
                table.extend(distance(FILE, entry + 4));
            }
            "from entry" => {
                table.extend(distance(*code, entry));
                table.extend(distance(FILE, entry));
            }
            "with format" => {
                table.extend(distance(*code, entry));
                table.extend(distance(FORMAT, entry + 4));
                table.extend(distance(FILE, entry + 8));
            }
            "absolute" => table.extend(words(&[*code, FILE])),
            other => panic!("no layout {other}"),
        }
        table.extend(line.to_le_bytes());
        table.extend(flags.to_le_bytes());
        if layout == "absolute" {
            table.extend([0; 4]);
        }
    }
    table
}

#[test]
fn lines_of_bugs_are_ignored_in_every_layout() {
    for layout in ["from field", "from entry", "with format", "absolute"] {
        let of = |entries: &[(u64, u16, u16)]| kernel(&[0x90; 64], &[], &bugs(layout, entries));
        let base = of(&[(TEXT, 10, 1), (TEXT + 8, 20, 2), (TEXT + 16, 30, 3)]);
        assert_eq!(base, of(&[(TEXT, 11, 1), (TEXT + 8, 22, 2), (TEXT + 16, 333, 3)]), "{layout}");
        assert_ne!(
            base,
            of(&[(TEXT, 10, 1), (TEXT + 8, 20, 9), (TEXT + 16, 30, 3)]),
            "{layout}: flags count"
        );
        assert_ne!(
            base,
            of(&[(TEXT, 10, 1), (TEXT + 9, 20, 2), (TEXT + 16, 30, 3)]),
            "{layout}: places count"
        );
    }
}

#[test]
fn a_bug_table_of_unknown_layout_counts_whole() {
    // Without verbosity: distance, flags, padding.
    let entry = |flags: u32| [(TEXT.wrapping_sub(BUGS) as u32).to_le_bytes(), flags.to_le_bytes()].concat();
    assert_ne!(kernel(&[0; 8], &[], &entry(1)), kernel(&[0; 8], &[], &entry(2)));
}

#[test]
fn source_locations_and_dynamic_debug_lose_their_lines_only() {
    let location = |file, line: u64, column: u64| words(&[file, line | column << 32, 7]);
    let of = |data: &[u8]| kernel(&[0x90; 8], data, &[]);
    assert_eq!(of(&location(FILE, 10, 3)), of(&location(FILE, 12, 5)));
    assert_ne!(of(&location(FUNCTION, 10, 3)), of(&location(FUNCTION, 12, 3)), "no source name");
    assert_ne!(of(&words(&[FILE, FUNCTION])), of(&words(&[FILE, FORMAT])), "pointers are no lines");

    let debug = |line: u64, flags: u64| words(&[FUNCTION, FUNCTION, FILE, FORMAT, line | flags << 24, 1, 2]);
    assert_eq!(of(&debug(10, 1)), of(&debug(99_999, 1)));
    assert_ne!(of(&debug(10, 1)), of(&debug(10, 3)));
    let names = |last| words(&[FUNCTION, FUNCTION, FILE, FORMAT, last]);
    assert_ne!(of(&names(FUNCTION)), of(&names(FORMAT)), "a list of names is no debug record");
}

#[test]
fn code_and_data_count_notes_and_debug_information_do_not() {
    let base = |text: u8, data: u8, note: u8, debug: u8| {
        let bytes = elf(&[
            section(".text", PROGBITS, ALLOC | EXEC, TEXT, vec![text; 16]),
            section(".data", PROGBITS, ALLOC, DATA, vec![data; 16]),
            section(".notes", NOTE, ALLOC, DATA + 64, vec![note; 16]),
            section(".bss", NOBITS, ALLOC, DATA + 128, vec![note; 16]),
            section(".debug_line", PROGBITS, 0, 0, vec![debug; 16]),
        ]);
        fingerprint::of_bytes(&bytes).unwrap()
    };
    assert_eq!(base(1, 2, 3, 4), base(1, 2, 30, 40));
    assert_ne!(base(1, 2, 3, 4), base(10, 2, 3, 4));
    assert_ne!(base(1, 2, 3, 4), base(1, 20, 3, 4));
    assert!(fingerprint::of_bytes(b"no ELF file at all").is_err());
}
