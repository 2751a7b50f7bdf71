//! How alike a crash and the one searched for are: by titles, stacks, files, and company within runs.

use std::collections::BTreeSet;

use super::guilty::is_generic_file;
use super::title::NO_FRAME;
use super::{Crash, Match, Target};

/// Functions at the top of both stacks that are compared; further down every crash of a system call is alike.
const LEADING_FRAMES: usize = 6;
/// Functions shared in order from which on their number does not matter any more.
const SHARED_FRAMES_SURE: f64 = 3.0;
/// Files that a stack's first frames come from and that are compared.
const LEADING_FILES: usize = 4;
/// Most that shared files add to what the stacks say: whole subsystems share them.
const FILES_WEIGHT: f64 = 0.2;
/// Scores from here on mean related. Two leading functions of three in order reach it, one of them does not.
const RELATED_MIN: f64 = 0.4;
/// The same title where the report was too damaged to name a function: many bugs are called that.
const NAMELESS: f64 = 0.6;
/// A title that led a run to the target before, in a run that did not get so far.
const LEAD: f64 = 0.5;
/// Frames so generic that sharing them says nothing: every system call has them.
const GENERIC_PREFIXES: &[&str] = &[
    "entry_",
    "do_syscall_",
    "el0",
    "ret_from_",
    "ret_fast_",
    "__sys_",
    "ksys_",
    "do_fast_syscall",
    "x64_sys_call",
    "invoke_syscall",
];
const GENERIC: &[&str] = &[
    "kthread",
    "worker_thread",
    "process_one_work",
    "process_scheduled_works",
    "vfs_ioctl",
    "do_vfs_ioctl",
    "vfs_write",
    "vfs_read",
    "__vfs_write",
    "__vfs_read",
    "new_sync_write",
    "new_sync_read",
    "__fput",
    "____fput",
    "task_work_run",
    "do_exit",
    "do_group_exit",
    "get_signal",
    "do_signal",
    "exit_to_user_mode_loop",
    "exit_to_user_mode_prepare",
    "prepare_exit_to_usermode",
    "exit_to_usermode_loop",
    "__do_softirq",
    "handle_softirqs",
    "irq_exit",
    "start_kernel",
    "do_one_initcall",
    "kernel_init",
    "sock_sendmsg",
    "sock_recvmsg",
    "inet_sendmsg",
    "inet_recvmsg",
    "sock_write_iter",
    "sock_read_iter",
    "path_openat",
    "do_filp_open",
    "___sys_sendmsg",
    "smpboot_thread_fn",
    "run_ksoftirqd",
    "cpu_startup_entry",
    "do_idle",
    "schedule",
];

/// How alike two crashes are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    pub relation: Match,
    /// From 0 (nothing in common) to 1 (the same title): a weight, not a probability.
    pub score: f64,
}

impl Similarity {
    const NONE: Similarity = Similarity { relation: Match::Unrelated, score: 0.0 };
}

/// Says how a crash relates to the target: the same by title, related by stack and files, or neither.
pub fn compare(target: &Target, crash: &Crash) -> Match {
    similarity(target, crash).relation
}

/// Weighs how alike a crash and the target are.
pub fn similarity(target: &Target, crash: &Crash) -> Similarity {
    let mut names = std::iter::once(&target.title).chain(&target.alt_titles);
    if let Some(name) = names.find(|name| **name == crash.title || crash.alt_titles.contains(name)) {
        let nameless = name.ends_with(NO_FRAME);
        return Similarity { relation: Match::Same, score: if nameless { NAMELESS } else { 1.0 } };
    }
    let stack = shared_stack(&target.frames, &crash.frames);
    let files = shared_files(&target.files, &crash.files);
    let score = stack + (1.0 - stack) * FILES_WEIGHT * files;
    let relation = if score >= RELATED_MIN { Match::Related } else { Match::Unrelated };
    Similarity { relation, score }
}

/// Weighs a whole run: its crash that is most like the target, or else what its first crash led to before.
///
/// `leads` are titles that [`leads_to`] found; the first crash of a run is the cause of the later ones
/// more often than not.
pub fn similarity_in_run<'a>(
    target: &Target,
    leads: &BTreeSet<String>,
    crashes: impl IntoIterator<Item = &'a Crash>,
) -> Similarity {
    let mut best = Similarity::NONE;
    for (index, crash) in crashes.into_iter().enumerate() {
        let mut seen = similarity(target, crash);
        if index == 0 && leads.contains(&crash.title) && seen.score < LEAD {
            seen = Similarity { relation: Match::Related, score: LEAD };
        }
        if seen.score > best.score {
            best = seen;
        }
    }
    best
}

/// Titles that a run began with and that the target followed later in the same run.
///
/// `background` are titles known to come without the target's help, such as those of boots: they lead nowhere.
pub fn leads_to<'a, R>(
    target: &Target,
    background: &BTreeSet<String>,
    runs: impl IntoIterator<Item = R>,
) -> BTreeSet<String>
where
    R: IntoIterator<Item = &'a Crash>,
{
    let mut leads = BTreeSet::new();
    for run in runs {
        let mut crashes = run.into_iter();
        let Some(first) = crashes.next() else { continue };
        if !background.contains(&first.title)
            && compare(target, first) != Match::Same
            && crashes.any(|later| compare(target, later) == Match::Same)
        {
            leads.insert(first.title.clone());
        }
    }
    leads
}

/// The share of leading functions that both stacks have in the same order, the innermost weighing most.
///
/// They need not be consecutive: inlining differs between builds and crashes, order does not.
fn shared_stack(target: &[String], crash: &[String]) -> f64 {
    let specific = |frames: &[String]| -> Vec<String> {
        frames.iter().filter(|frame| !is_generic(frame)).take(LEADING_FRAMES).cloned().collect()
    };
    let (target, crash) = (specific(target), specific(crash));
    let weight = |index: usize| 1.0 / (1.0 + 0.25 * index as f64);
    // The weightiest common subsequence: `best[t][c]` is its weight and length in the first t and c functions.
    let mut best = vec![vec![(0.0, 0usize); crash.len() + 1]; target.len() + 1];
    for (t, function) in target.iter().enumerate() {
        for (c, other) in crash.iter().enumerate() {
            let (without, or) = (best[t][c + 1], best[t + 1][c]);
            let mut found = if without.0 >= or.0 { without } else { or };
            let (weight_so_far, length) = best[t][c];
            if function == other && weight_so_far + weight(t.max(c)) > found.0 {
                found = (weight_so_far + weight(t.max(c)), length + 1);
            }
            best[t + 1][c + 1] = found;
        }
    }
    let (shared, length) = best[target.len()][crash.len()];
    let whole: f64 = (0..target.len().min(crash.len())).map(weight).sum();
    if whole == 0.0 { 0.0 } else { shared / whole * (length as f64 / SHARED_FRAMES_SURE).min(1.0) }
}

/// The share of leading source files that both reports name.
fn shared_files(target: &[String], crash: &[String]) -> f64 {
    let leading = |files: &[String]| -> BTreeSet<String> {
        files.iter().filter(|file| !is_generic_file(file)).take(LEADING_FILES).cloned().collect()
    };
    let (target, crash) = (leading(target), leading(crash));
    let shared = target.intersection(&crash).count();
    let all = target.union(&crash).count();
    if all == 0 { 0.0 } else { shared as f64 / all as f64 }
}

fn is_generic(function: &str) -> bool {
    GENERIC.contains(&function)
        || GENERIC_PREFIXES.iter().any(|prefix| function.starts_with(prefix))
        || function.contains("_sys_") && function.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(title: &str, frames: &[&str]) -> Crash {
        Crash {
            alt_titles: vec![format!("alt of {title}")],
            frames: frames.iter().map(ToString::to_string).collect(),
            ..Crash::titled(title)
        }
    }

    #[test]
    fn kinds() {
        let target = Target {
            title: "A".into(),
            alt_titles: vec!["alt of C".into()],
            frames: ["f", "g", "h", "do_syscall_64"].map(String::from).into(),
            files: vec![],
        };
        let check = |title: &str, frames: &[&str], expected| {
            assert_eq!(compare(&target, &crash(title, frames)), expected)
        };
        check("A", &[], Match::Same);
        check("C", &[], Match::Same);
        check("B", &["f", "x", "h"], Match::Related);
        check("B", &["h", "f"], Match::Unrelated);
        check("B", &["x", "h", "do_syscall_64"], Match::Unrelated);
        check("B", &[], Match::Unrelated);
        // One function of two short stacks is chance, however short they are.
        check("B", &["f"], Match::Unrelated);
    }

    #[test]
    fn scores_grow_with_what_is_shared() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        let mut target = Target {
            title: "A".into(),
            alt_titles: vec![],
            frames: names(&["f", "g", "h", "i"]),
            files: vec![],
        };
        let score = |target: &Target, frames: &[&str]| similarity(target, &crash("B", frames)).score;
        let all = score(&target, &["f", "g", "h", "i"]);
        let inner = score(&target, &["f", "g", "x", "y"]);
        let outer = score(&target, &["x", "y", "h", "i"]);
        assert!(all > inner && inner > outer && outer > 0.0, "{all} {inner} {outer}");
        assert!(all <= 1.0 && score(&target, &["x", "y"]) == 0.0);
        // Shared files lift what stacks say, and alone relate nothing.
        target.files = names(&["net/a.c"]);
        let mut with_file = crash("B", &["f", "g", "x", "y"]);
        with_file.files = names(&["net/a.c", "include/linux/b.h"]);
        assert!(similarity(&target, &with_file).score > inner);
        with_file.frames.clear();
        assert_eq!(compare(&target, &with_file), Match::Unrelated);
        // A title that names no function says less.
        target.title = "KASAN: use-after-free Read in corrupted".into();
        let damaged = similarity(&target, &crash("KASAN: use-after-free Read in corrupted", &[]));
        assert_eq!(damaged, Similarity { relation: Match::Same, score: NAMELESS });
    }

    #[test]
    fn what_led_to_the_target_once_is_related() {
        let target = Target { title: "A".into(), alt_titles: vec![], frames: vec![], files: vec![] };
        let (a, b, boot) = (crash("A", &[]), crash("B", &[]), crash("boot", &[]));
        let background = BTreeSet::from(["boot".to_owned()]);
        let leads = leads_to(&target, &background, [vec![&b, &a], vec![&boot, &a], vec![&a, &boot], vec![]]);
        assert_eq!(leads, BTreeSet::from(["B".to_owned()]));
        let run = |crashes: &[&Crash]| similarity_in_run(&target, &leads, crashes.iter().copied()).relation;
        assert_eq!(run(&[&b]), Match::Related);
        assert_eq!(run(&[&boot, &b]), Match::Unrelated, "it leads only where it stands first");
        assert_eq!(run(&[&boot, &a]), Match::Same);
        assert_eq!(run(&[]), Match::Unrelated);
    }
}
