//! The source file to blame: the first one that a symbolised report names and that is not generic code.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Files that bugs of other files pass through, by what they are for.
const GENERIC: &[&str] = &[
    // headers: what stands in them was inlined into the guilty
    r"\.h$",
    // sanitizers, coverage, fault injection, checks of copies
    r"^mm/(?:kasan|kmsan|kfence)/|^kernel/(?:kcov\.c|kcsan/)|^mm/(?:kmemleak|failslab|usercopy|debug|maccess)\.c$",
    // printing, warning, panicking, watching
    r"^kernel/(?:panic|stacktrace|watchdog\w*|hung_task|extable|bug)\.c$|^kernel/printk/",
    // memory for everybody: slabs, pages, areas, per-CPU, the page cache
    r"^mm/(?:sl[aou]b|slab_common|page_alloc|vmalloc|percpu[\w-]*|mempool|util|memory|mempolicy|gup|highmem)\.c$",
    r"^mm/(?:filemap|truncate|folio-compat|readahead|swap|page-writeback)\.c$",
    // locks, RCU, the scheduler, deferred work, timers
    r"^kernel/(?:locking|rcu|sched)/|^kernel/(?:lockdep|mutex|rwsem|spinlock|semaphore|rtmutex\w*|rcu\w+)\.c$",
    r"^kernel/(?:softirq|kthread|workqueue|task_work|smpboot)\.c$|^kernel/time/(?:timer|hrtimer|tick\S*)\.c$|^kernel/irq/",
    // library code, in C and in Rust
    r"^lib/|^virt/lib/|^rust/|library/(?:core|alloc|std)/|^crypto/(?:api|algapi|skcipher|ahash|shash)\.c$",
    // exceptions, unwinding and faults of the architectures
    r"^arch/[^/]+/(?:lib|entry|mm)/",
    r"^arch/[^/]+/kernel/(?:traps|unwind\w*|stacktrace|entry\S*|process\w*|apic/\S+|nmi|smp|kvm|paravirt\S*|irq\w*|debug-monitors|hw_breakpoint|syscall|signal|alternative)\.[cS]$",
    // what all network devices, sockets and packets share
    r"^net/core/(?:dev|sock|skbuff|datagram|stream)\.c$|^net/socket\.c$",
    // what all file systems share below their own code
    r"^fs/(?:proc/generic|inode|fs-writeback|buffer|dcache|file_table|read_write|libfs)\.c$|^fs/(?:sysfs|kernfs|iomap)/",
    // fronts of subsystems that do what drivers told them
    r"^drivers/base/|^drivers/usb/core/(?:urb|message)\.c$|^sound/core/pcm_(?:lib|native|misc)\.c$|^security/security\.c$",
    // another kernel's sources
    r"^trusty/",
];

static GENERIC_SET: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(GENERIC).expect("generic files are valid patterns"));
static FILE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[\s(])(?:\./)?([A-Za-z0-9_][\w+-]*(?:/[\w.+-]+)*/[\w.+-]+\.(?:[chS]|rs)):\d+")
        .expect("static pattern")
});
/// Lines that tell where a task was at other times, or what registers happen to point to.
static ASIDE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:hard|soft)irqs last +(?:en|dis)abled|^Register r\d+ information").expect("static pattern")
});
static STALL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"INFO: rcu_\w+ (?:self-)?detected").expect("static pattern"));
/// Where the watchdog's interrupt cut into what stalls.
static INTERRUPT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:\[<\w+>\] )?(?:(?:asm_sysvec_|smp_)?apic_timer_interrupt|el1h?_(?:64_)?irq|__irq_svc)\+0x|^Exception stack")
        .expect("static pattern")
});

/// The file to blame in a symbolised report; the first that is named at all if every one is generic.
pub fn guilty_file(report: &str) -> Option<String> {
    if STALL.is_match(report) {
        // Everything above the interrupt is the watchdog's own work.
        let at = report.lines().position(|line| INTERRUPT.is_match(line));
        let beneath = at.and_then(|at| report.lines().skip(at + 1).find_map(specific));
        if let Some(file) = beneath {
            return Some(file.to_owned());
        }
    }
    let first = || report.lines().find_map(file);
    report.lines().find_map(specific).or_else(first).map(str::to_owned)
}

/// The source file that a line names.
fn file(line: &str) -> Option<&str> {
    // Most lines of a console name none, and a search for these few bytes says so at once.
    if !line.contains('/') || ASIDE.is_match(line) {
        return None;
    }
    FILE.captures(line)?.get(1).map(|path| path.as_str())
}

fn specific(line: &str) -> Option<&str> {
    file(line).filter(|path| !is_generic_file(path))
}

/// Says whether bugs of other files pass through this one.
pub(super) fn is_generic_file(path: &str) -> bool {
    GENERIC_SET.is_match(path)
}

#[cfg(test)]
mod tests {
    use super::guilty_file;

    #[test]
    fn files() {
        let check = |report: &str, expected: Option<&str>| {
            assert_eq!(guilty_file(report).as_deref(), expected, "{report}");
        };
        check("", None);
        check(" f+0x1/0x2", None);
        check(
            "BUG: KASAN in memcpy include/linux/string.h:12 [inline]\n f+0x1/0x2 ./net/llc/llc_sap.c:7",
            Some("net/llc/llc_sap.c"),
        );
        check(
            " dump_stack+0x1/0x2 lib/dump_stack.c:1\n panic+0x1/0x2 kernel/panic.c:2",
            Some("lib/dump_stack.c"),
        );
        check("softirqs last  enabled at (1): [<0>] f+0x1/0x2 fs/a.c:1\n g+0x1/0x2 fs/b.c:2", Some("fs/b.c"));
        check(
            "rcu: INFO: rcu_sched self-detected stall on CPU\n a+0x1/0x2 kernel/smp.c:1\n el1h_64_irq+0x1/0x2 x\n b+0x1/0x2 fs/b.c:2",
            Some("fs/b.c"),
        );
    }
}
