//! Which bytes of a console can matter at all, found at the speed of memory.
//!
//! Short needles are chosen from what the patterns of `rules` begin with: no line that a pattern
//! matches lacks one, whatever rules are added.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use memchr::{memmem, memrchr};
use regex::bytes;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::rules::{BOOT_BANNERS, FAMILIES, FIRMWARE_BANNERS, SUPPRESSING};

/// Bytes of a needle, fewer where a pattern begins with fewer: longer ones are rarer, but shared by fewer patterns.
const NEEDLE_BYTES: usize = 6;
/// No pattern may begin with fewer known bytes: vectorised search looks at this many at once.
const BEGINNING_BYTES_MIN: usize = 4;
/// Bytes looked at together: what was just searched is still in the cache when its lines are counted.
const BLOCK_BYTES: usize = 64 * 1024;

static NEEDLES: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let escaped: Vec<String> = needles(&beginnings()).iter().map(|needle| escape(needle)).collect();
    bytes::Regex::new(&format!("(?-u:{})", escaped.join("|"))).expect("escaped needles are valid")
});

fn escape(needle: &[u8]) -> String {
    needle.iter().map(|byte| format!(r"\x{byte:02x}")).collect()
}

/// Whole lines at the beginning of `bytes` none of which can matter; none at all if the first may.
pub(super) fn calm_lines(bytes: &[u8]) -> &[u8] {
    let block = &bytes[..bytes.len().min(BLOCK_BYTES)];
    let lines = whole_lines(block);
    match NEEDLES.find(lines) {
        Some(found) => whole_lines(&lines[..found.start()]),
        None => lines,
    }
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..memrchr(b'\n', bytes).map_or(0, |newline| newline + 1)]
}

/// Says, cheaply and before decoding, whether a raw line may matter while no report is open.
pub(super) fn may_matter(raw: &[u8]) -> bool {
    NEEDLES.is_match(raw)
}

/// Every pattern that a line must match to change anything while no report is open.
fn patterns() -> impl Iterator<Item = String> {
    let rules = FAMILIES.iter().flat_map(|family| family.rules.iter().chain(family.catch_all));
    let others = std::iter::once(&BOOT_BANNERS).chain(SUPPRESSING).map(|pattern| (*pattern).to_owned());
    let banners = FIRMWARE_BANNERS.iter().map(|banner| regex::escape(banner));
    rules.map(|rule| rule.lead.to_owned()).chain(others).chain(banners)
}

/// Texts with one of which every match of some pattern begins.
fn beginnings() -> BTreeSet<Vec<u8>> {
    patterns().flat_map(|pattern| begins_with(&pattern)).collect()
}

fn begins_with(pattern: &str) -> Vec<Vec<u8>> {
    let parsed = regex_syntax::parse(pattern).expect("rule patterns are valid");
    let found = Extractor::new().kind(ExtractKind::Prefix).extract(&parsed);
    let literals = found.literals().unwrap_or_default();
    let long_enough = literals.iter().all(|literal| literal.len() >= BEGINNING_BYTES_MIN);
    assert!(
        !literals.is_empty() && long_enough,
        "a rule begins with {BEGINNING_BYTES_MIN} known bytes: {pattern}"
    );
    literals.iter().map(|literal| literal.as_bytes().to_vec()).collect()
}

/// The parts of `texts` to search for: each text has one, there are few, and calm lines have few of them.
fn needles(texts: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    // A text around a shorter one is found with it.
    let inner = |text: &&[u8]| !texts.iter().any(|other| other.len() < text.len() && has(text, other));
    let mut left: Vec<&[u8]> = texts.iter().map(Vec::as_slice).filter(inner).collect();
    let mut chosen = BTreeSet::new();
    while !left.is_empty() {
        let mut covered: BTreeMap<&[u8], u64> = BTreeMap::new();
        for text in &left {
            let parts: BTreeSet<&[u8]> = text.windows(text.len().min(NEEDLE_BYTES)).collect();
            parts.into_iter().for_each(|part| *covered.entry(part).or_default() += 1);
        }
        let price = |(part, texts): (&[u8], u64)| price(part) / texts;
        let best = covered.into_iter().min_by_key(|&it| price(it)).map(|(part, _)| part);
        let best = best.expect("every text is as long as a needle");
        left.retain(|text| !has(text, best));
        chosen.insert(best.to_vec());
    }
    chosen
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}

/// What it costs to search for a needle: its own share of the search, and how often it stands in calm lines.
fn price(needle: &[u8]) -> u64 {
    const SHARE: u64 = 5_000;
    SHARE + needle.iter().map(|&byte| commonness(byte)).product::<u64>()
}

/// How common a byte is in what kernels print, in sixteenths of the commonest's share.
fn commonness(byte: u8) -> u64 {
    match byte {
        b' ' | b'0' => 16,
        b'e' | b't' | b'a' | b'i' | b'o' | b'n' | b's' | b'r' | b'd' => 12,
        b'1'..=b'9' | b'c' | b'l' | b'm' | b'p' | b'u' | b':' | b'[' | b']' | b'.' => 8,
        b'a'..=b'z' => 5,
        b'A'..=b'Z' => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pattern_can_be_missed() {
        let needles = needles(&beginnings());
        for pattern in patterns() {
            for text in begins_with(&pattern) {
                let found = needles.iter().any(|needle| has(&text, needle));
                assert!(found, "{pattern}: {}", String::from_utf8_lossy(&text));
                assert!(may_matter(&text));
            }
        }
        assert!(!may_matter(b"[    1.000000][    T1] usb 1-1: new device"));
    }

    #[test]
    fn few_enough_for_a_vectorised_search() {
        // Beyond 64, regex falls back to automata that look at every byte.
        let needles = needles(&beginnings());
        assert!(needles.len() <= 64, "{}", needles.len());
    }

    #[test]
    fn lines_before_the_first_that_may_matter() {
        let check = |bytes: &str, expected: &str| {
            assert_eq!(calm_lines(bytes.as_bytes()), expected.as_bytes(), "{bytes:?}");
        };
        check("", "");
        check("calm", "");
        check("calm\nBU", "calm\n");
        check("calm\ncalm\nx BUG: y\n", "calm\ncalm\n");
        check("BUG: y\ncalm\n", "");
    }
}
