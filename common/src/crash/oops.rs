//! The rule tables made ready: which line is an oops, and which rules it may be named by.

use std::sync::LazyLock;

use regex::{Regex, RegexSet, bytes};

use super::line::Line;
use super::prefilter::may_matter;
use super::rules::{self, FAMILIES, Rule};

/// A rule with its patterns compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub rule: &'static Rule,
    pub lead: Regex,
    pub then: Option<Regex>,
    pub absorbs: Option<Regex>,
    family: usize,
    catch_all: bool,
}

/// Every rule in order of precedence: tables first, then what catches the rest.
static TABLE: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    let tables = FAMILIES.iter().enumerate().map(|(family, f)| (family, f.rules, false));
    let catch_alls = FAMILIES.iter().enumerate().map(|(family, f)| (family, f.catch_all, true));
    tables
        .chain(catch_alls)
        .flat_map(|(family, rules, last)| rules.iter().map(move |r| compile(family, r, last)))
        .collect()
});
/// Which leads are worth a closer look. Without Unicode classes all of them fit into one small automaton.
static LEADS: LazyLock<bytes::RegexSet> = LazyLock::new(|| {
    let leads = TABLE.iter().map(|c| c.lead.as_str());
    bytes::RegexSetBuilder::new(leads).unicode(false).build().expect("leads compile together")
});
static BENIGN: LazyLock<Vec<RegexSet>> = LazyLock::new(|| {
    FAMILIES.iter().map(|f| RegexSet::new(f.benign).expect("benign patterns are valid")).collect()
});
static CONTINUES: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(rules::CONTINUATIONS).expect("static pattern"));
static EARLY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(rules::EARLY_CONTINUATIONS).expect("static pattern"));
static BOOTS: LazyLock<Regex> = LazyLock::new(|| Regex::new(rules::BOOT_BANNERS).expect("static pattern"));

static FIRMWARE: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let all: Vec<String> = rules::FIRMWARE_BANNERS.iter().map(|banner| regex::escape(banner)).collect();
    bytes::Regex::new(&all.join("|")).expect("escaped literals are valid")
});
static SUPPRESSING: LazyLock<bytes::Regex> =
    LazyLock::new(|| bytes::Regex::new(&rules::SUPPRESSING.join("|")).expect("static patterns"));

fn compile(family: usize, rule: &'static Rule, catch_all: bool) -> Compiled {
    let pattern = |text: &str| Regex::new(text).expect("rule patterns are valid");
    let optional = |text: &str| (!text.is_empty()).then(|| pattern(text));
    Compiled {
        rule,
        lead: pattern(&format!(r"(?:^|[^\w])(?:{})", rule.lead)),
        then: optional(rule.then),
        absorbs: optional(rule.absorbs),
        family,
        catch_all,
    }
}

/// Says whether a raw line is the first that firmware prints.
pub(super) fn is_firmware_banner(raw: &[u8]) -> bool {
    FIRMWARE.is_match(raw)
}

/// Says whether crashes of a console with this line are the machine's or a program's fault.
pub(super) fn suppresses(raw: &[u8]) -> bool {
    SUPPRESSING.is_match(raw)
}

/// The rules that may name a crash begun by `line`, in order; empty for a line that is no oops.
///
/// `kernel_only` says that kernel lines are recognisable, so that plain text of programs
/// must not be caught by the rules for any text.
pub(super) fn candidates(line: &Line, kernel_only: bool) -> Vec<&'static Compiled> {
    if !may_matter(line.text.as_bytes()) {
        return Vec::new();
    }
    let matched = LEADS.matches(line.text.as_bytes());
    matched
        .iter()
        .map(|index| &TABLE[index])
        .filter(|c| c.lead.is_match(&line.text))
        .filter(|c| !(c.catch_all && kernel_only && line.stamp_s.is_none()))
        .filter(|c| !BENIGN[c.family].is_match(&line.text))
        .collect()
}

/// How an oops line relates to a report that is open in its context.
pub(super) fn continues(text: &str, stack_seen: bool) -> bool {
    CONTINUES.is_match(text) || (!stack_seen && EARLY.is_match(text))
}

pub(super) fn is_panic(text: &str) -> bool {
    text.starts_with("Kernel panic - not syncing")
}

pub(super) fn is_boot_banner(text: &str) -> bool {
    BOOTS.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_and_has_a_needle() {
        for compiled in TABLE.iter() {
            assert!(!compiled.rule.title.is_empty(), "{}", compiled.rule.lead);
        }
        assert!(LEADS.len() == TABLE.len() && !BENIGN.is_empty());
        assert!(may_matter(b"BUG: x") && !may_matter(b"usb 1-1: new device"));
    }
}
