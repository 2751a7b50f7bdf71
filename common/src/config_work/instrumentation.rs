//! Instrumentation: what it is for, and which crashes cannot be seen without it.
//!
//! A mistake here costs kernels and no more: nothing is left out that was not tried.

use crate::crash::kind;

/// Symbols that serve one purpose and go together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub purpose: &'static str,
    pub symbols: &'static [&'static str],
    /// Kinds of crash (`crash::kind`) begin like this that need it.
    pub kinds: &'static [&'static str],
    /// Titles that contain this need it.
    pub titles: &'static [&'static str],
}

const fn group(
    purpose: &'static str,
    symbols: &'static [&'static str],
    kinds: &'static [&'static str],
    titles: &'static [&'static str],
) -> Group {
    Group { purpose, symbols, kinds, titles }
}

/// The heaviest come first.
pub const GROUPS: &[Group] = &[
    group("accesses outside of live memory", &["CONFIG_KASAN"], &["KASAN"], &[]),
    group("uses of memory that nothing was written to", &["CONFIG_KMSAN"], &["KMSAN"], &[]),
    group("data races", &["CONFIG_KCSAN"], &["KCSAN"], &[]),
    group("undefined behaviour of C", &["CONFIG_UBSAN"], &["UBSAN"], &[]),
    group("accesses outside of live memory, by samples", &["CONFIG_KFENCE"], &["KFENCE"], &[]),
    group(
        "the order and the use of locks",
        &[
            "CONFIG_PROVE_LOCKING",
            "CONFIG_PROVE_RAW_LOCK_NESTING",
            "CONFIG_LOCK_STAT",
            "CONFIG_DEBUG_LOCK_ALLOC",
            "CONFIG_LOCKDEP",
            "CONFIG_PROVE_RCU",
            "CONFIG_DEBUG_WW_MUTEX_SLOWPATH",
            "CONFIG_DEBUG_MUTEXES",
            "CONFIG_DEBUG_RWSEMS",
            "CONFIG_DEBUG_RT_MUTEXES",
            "CONFIG_DEBUG_SPINLOCK",
            "CONFIG_DEBUG_PREEMPT",
        ],
        &["LOCKDEP"],
        &["DEBUG_LOCKS", "deadlock", "suspicious RCU"],
    ),
    group(
        "sleeping where that is forbidden",
        &["CONFIG_DEBUG_ATOMIC_SLEEP"],
        &["ATOMIC_SLEEP"],
        &["blocking ops"],
    ),
    // RCU's own detector of stalls cannot be left out, and needs no line but for what it adds.
    group(
        "processors and processes that do not get on",
        &[
            "CONFIG_DETECT_HUNG_TASK",
            "CONFIG_BOOTPARAM_HUNG_TASK_PANIC",
            "CONFIG_SOFTLOCKUP_DETECTOR",
            "CONFIG_BOOTPARAM_SOFTLOCKUP_PANIC",
            "CONFIG_HARDLOCKUP_DETECTOR",
            "CONFIG_BOOTPARAM_HARDLOCKUP_PANIC",
            "CONFIG_WQ_WATCHDOG",
            "CONFIG_RCU_CPU_STALL_CPUTIME",
        ],
        &["HANG"],
        &["hung", "lockup", "stall", "no output"],
    ),
    group("memory that nobody can free any more", &["CONFIG_DEBUG_KMEMLEAK"], &["LEAK"], &[]),
    group(
        "the lives of timers, work items and other objects",
        &[
            "CONFIG_DEBUG_OBJECTS_FREE",
            "CONFIG_DEBUG_OBJECTS_TIMERS",
            "CONFIG_DEBUG_OBJECTS_WORK",
            "CONFIG_DEBUG_OBJECTS_RCU_HEAD",
            "CONFIG_DEBUG_OBJECTS_PERCPU_COUNTER",
            "CONFIG_DEBUG_OBJECTS",
        ],
        &[],
        &["ODEBUG"],
    ),
    group(
        "broken lists",
        &["CONFIG_DEBUG_LIST", "CONFIG_DEBUG_PLIST", "CONFIG_LIST_HARDENED"],
        &["MEMORY_SAFETY_BUG"],
        &["list_add", "list_del", "corrupted list"],
    ),
    group("reference counts that run over", &["CONFIG_REFCOUNT_FULL"], &["REFCOUNT"], &["refcount"]),
    group(
        "errors made on purpose",
        &[
            "CONFIG_FAILSLAB",
            "CONFIG_FAIL_PAGE_ALLOC",
            "CONFIG_FAULT_INJECTION_USERCOPY",
            "CONFIG_FAIL_MAKE_REQUEST",
            "CONFIG_FAIL_IO_TIMEOUT",
            "CONFIG_FAIL_FUTEX",
            "CONFIG_FAULT_INJECTION_DEBUG_FS",
            "CONFIG_FAULT_INJECTION",
        ],
        &[],
        &["FAULT_INJECTION"],
    ),
    group(
        "writes to pages that are free",
        &["CONFIG_PAGE_POISONING", "CONFIG_DEBUG_PAGEALLOC"],
        &["MEMORY_SAFETY_BUG"],
        &["Bad page", "pagealloc", "page_poison", "unable to handle"],
    ),
    group(
        "coverage for fuzzers",
        &["CONFIG_KCOV_ENABLE_COMPARISONS", "CONFIG_KCOV_INSTRUMENT_ALL", "CONFIG_KCOV"],
        &[],
        &["kcov"],
    ),
];

/// Whether a crash with this title cannot be seen without the group, as far as its title tells.
pub fn is_needed(group: &Group, title: &str) -> bool {
    let kind = kind(title);
    group.kinds.iter().any(|begin| kind.starts_with(begin))
        || group.titles.iter().any(|it| title.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_shows_it() {
        for (title, needed) in [
            ("KASAN: slab-use-after-free Read in f", vec!["CONFIG_KASAN"]),
            ("KMSAN: uninit-value in f", vec!["CONFIG_KMSAN"]),
            ("KCSAN: data-race in f / g", vec!["CONFIG_KCSAN"]),
            ("UBSAN: shift-out-of-bounds in f", vec!["CONFIG_UBSAN"]),
            ("KFENCE: memory corruption in f", vec!["CONFIG_KFENCE"]),
            ("possible deadlock in f", vec!["CONFIG_PROVE_LOCKING"]),
            ("BUG: sleeping function called from invalid context in f", vec!["CONFIG_DEBUG_ATOMIC_SLEEP"]),
            ("INFO: task hung in f", vec!["CONFIG_DETECT_HUNG_TASK"]),
            ("BUG: soft lockup in f", vec!["CONFIG_DETECT_HUNG_TASK"]),
            ("INFO: rcu detected stall in f", vec!["CONFIG_DETECT_HUNG_TASK"]),
            ("memory leak in f", vec!["CONFIG_DEBUG_KMEMLEAK"]),
            ("WARNING: ODEBUG bug in f", vec!["CONFIG_DEBUG_OBJECTS_FREE"]),
            ("BUG: corrupted list in f", vec!["CONFIG_DEBUG_LIST", "CONFIG_PAGE_POISONING"]),
            ("WARNING: refcount bug in f", vec!["CONFIG_REFCOUNT_FULL"]),
            ("WARNING in f", vec![]),
            ("general protection fault in f", vec![]),
        ] {
            let groups = GROUPS.iter().filter(|group| is_needed(group, title));
            assert_eq!(groups.map(|group| group.symbols[0]).collect::<Vec<_>>(), needed, "{title}");
        }
    }

    #[test]
    fn no_symbol_stands_in_two_groups() {
        let mut all: Vec<_> = GROUPS.iter().flat_map(|group| group.symbols).collect();
        let len = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), len);
        assert!(GROUPS.iter().all(|group| !group.purpose.is_empty()));
    }
}
