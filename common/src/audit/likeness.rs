//! How likely two titles are to be the same bug, by their looks alone.
//!
//! The titles of a log come without stacks, but for the one crash that it prints, so words of
//! function names have to do. Replace `prior` where crashes are known better.

use crate::crash::{self, Crash, Match, Target};
use std::collections::BTreeSet;

const RELATED: f64 = 0.9;
const SAME_FUNCTION: f64 = 0.9;
/// Function names that share a third of their words.
const KIN: f64 = 0.7;
const KIN_MIN: f64 = 1.0 / 3.0;
/// Two ways to hang.
const BOTH_HANG: f64 = 0.5;
const STRANGER: f64 = 0.05;

/// Words of function names that say nothing about where they belong.
const COMMON_WORDS: &[&str] = &[
    "do", "get", "put", "set", "sys", "se", "x64", "ksys", "vfs", "init", "free", "alloc", "read", "write",
    "add", "del", "new", "work", "fn", "func", "list", "lock", "unlock", "to", "of", "is", "in", "on",
];

/// The probability that a crash is the target's bug.
pub fn prior(target: &Target, other: &Crash) -> f64 {
    match crash::compare(target, other) {
        Match::Same => return 1.0,
        Match::Related => return RELATED,
        Match::Unrelated => {}
    }
    let (own, its) = (function(&target.title), function(&other.title));
    if own.is_some() && own == its {
        return SAME_FUNCTION;
    }
    if let (Some(own), Some(its)) = (own, its)
        && kinship(own, its) >= KIN_MIN
    {
        return KIN;
    }
    if own.is_some_and(|own| other.frames.iter().take(8).any(|frame| frame == own)) {
        return RELATED;
    }
    if hangs(&target.title) && hangs(&other.title) { BOTH_HANG } else { STRANGER }
}

/// A title that the machine or the harness brings about, not the kernel under test.
pub fn is_harness(title: &str) -> bool {
    let starts = [
        "lost connection to test machine",
        "no output from test machine",
        "test machine is not executing programs",
        "SYZFAIL",
        "SYZFATAL",
        "unexpected kernel reboot",
        "suppressed report",
        "failed to ",
        "can't ssh",
    ];
    starts.iter().any(|start| title.starts_with(start))
}

/// The function that a title names.
pub fn function(title: &str) -> Option<&str> {
    let (_, name) = title.rsplit_once(" in ")?;
    let name = name.split_whitespace().next()?;
    let name = name.split(['/', '.', '+']).next()?;
    (!name.is_empty()).then_some(name)
}

fn words(function: &str) -> BTreeSet<&str> {
    function.split('_').filter(|word| word.len() > 1 && !COMMON_WORDS.contains(word)).collect()
}

fn kinship(own: &str, its: &str) -> f64 {
    let (own, its) = (words(own), words(its));
    let shared = own.intersection(&its).count();
    shared as f64 / own.union(&its).count().max(1) as f64
}

fn hangs(title: &str) -> bool {
    ["rcu detected stall", "task hung", "soft lockup", "hard lockup", "can't die", "hung in"]
        .iter()
        .any(|word| title.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kin_are_told_from_strangers() {
        for (own, its, expected) in [
            ("WARNING in foo", "WARNING in foo", 1.0),
            ("KASAN: use-after-free Read in foo_bar", "general protection fault in foo_bar", SAME_FUNCTION),
            (
                "general protection fault in io_commit_cqring",
                "INFO: trying to register non-static key in io_cqring_ev_posted",
                KIN,
            ),
            ("WARNING in unsafe_follow_pfn", "WARNING in kvm_wait", STRANGER),
            ("INFO: rcu detected stall in a_b", "INFO: task hung in c_d", BOTH_HANG),
            ("memory leak in get_user", "WARNING in get_free", STRANGER),
        ] {
            let target = Target { title: own.into(), alt_titles: vec![], frames: vec![], files: vec![] };
            assert_eq!(prior(&target, &Crash::titled(its)), expected, "{own} / {its}");
        }
    }
}
