//! Kinds of report by family, a table each, from consoles written in the kernel's formats.

use kulprit_common::crash::parse;

const TRACE: &str = "Call Trace:\n <TASK>\n dump_stack_lvl+0xcd/0x134\n alpha_helper+0x1/0x20\n beta_ioctl+0x33/0x90\n __x64_sys_ioctl+0x193/0x200\n do_syscall_64+0x35/0xb0\n entry_SYSCALL_64_after_hwframe+0x44/0xae\n </TASK>\n";

/// The console is the lead, who ran, and a stack whose first useful function is `alpha_helper`.
fn check(rows: &[(&str, &str)]) {
    let wrong: Vec<String> = rows.iter().filter_map(|(lead, expected)| misread(lead, expected)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn misread(lead: &str, expected: &str) -> Option<String> {
    let console = format!("{lead}\nCPU: 0 PID: 7 Comm: a Not tainted 6.9.0 #1\n{TRACE}");
    let crashes = parse(console.as_bytes());
    let titles: Vec<&str> = crashes.iter().map(|crash| crash.title.as_str()).collect();
    (titles != [expected]).then(|| format!("{lead:?}: {titles:?}, not {expected:?}"))
}

#[test]
fn slabs_and_pages() {
    check(&[
        ("BUG kmalloc-64 (Not tainted): Object already free", "BUG: Object already free in alpha_helper"),
        ("BUG :A-0000256 (Tainted: G    B  ): Poison overwritten", "BUG: Poison overwritten in alpha_helper"),
        (
            "BUG kmalloc-rnd-09-96 (Not tainted): Right Redzone overwritten",
            "BUG: Right Redzone overwritten in alpha_helper",
        ),
        ("BUG bio-184 (Not tainted): Object corrupt", "BUG: Object corrupt in alpha_helper"),
        ("BUG: Bad page cache in process a  pfn:1234", "BUG: Bad page cache"),
        (
            "BUG: Bad rss-counter state mm:00000000abcdef12 type:MM_ANONPAGES val:1",
            "BUG: Bad rss-counter state",
        ),
        (
            "WARNING: CPU: 0 PID: 7 at mm/util.c:597 kvmalloc_node+0x1/0x20",
            "WARNING: kmalloc bug in alpha_helper",
        ),
        (
            "WARNING: CPU: 0 PID: 7 at mm/slub.c:5024 __kvmalloc_node_noprof+0x1/0x20",
            "WARNING: kmalloc bug in alpha_helper",
        ),
        (
            "WARNING: mm/slub.c:5024 at __kvmalloc_node_noprof+0x1/0x20, CPU#0: a/7",
            "WARNING: kmalloc bug in alpha_helper",
        ),
    ]);
}

#[test]
fn locks() {
    check(&[
        (
            "BUG: spinlock trylock failure on UP on CPU#0, a/7",
            "BUG: spinlock trylock failure on UP in alpha_helper",
        ),
        ("BUG: rwlock recursion on CPU#1, a/7, ffff8880", "BUG: rwlock recursion in alpha_helper"),
        ("BUG: spinlock bad magic on CPU#0, a/7", "BUG: spinlock bad magic in alpha_helper"),
        (
            "BUG: using __this_cpu_read() in preemptible [00000000] code: a/7",
            "BUG: using __this_cpu_read() in preemptible code in alpha_helper",
        ),
        (
            "DEBUG_LOCKS_WARN_ON(lock->magic != lock)\nWARNING: CPU: 0 PID: 7 at kernel/locking/mutex.c:580 __mutex_lock+0x1/0x20",
            "WARNING: locking bug in alpha_helper",
        ),
        (
            "WARNING: kernel/locking/lockdep.c:5123 at lock_acquire+0x1/0x20, CPU#0: a/7",
            "WARNING: locking bug in alpha_helper",
        ),
        ("BUG: MAX_LOCKDEP_CHAIN_HLOCKS too low!", "BUG: MAX_LOCKDEP_CHAIN_HLOCKS too low!"),
    ]);
}

#[test]
fn faults() {
    check(&[
        (
            "BUG: unable to handle kernel NULL pointer dereference at 0000000000000008\nIP: [<ffffffff81234567>] alpha_helper+0x1/0x20\nPGD 0\nOops: 0000 [#1] SMP",
            "BUG: unable to handle kernel NULL pointer dereference in alpha_helper",
        ),
        (
            "BUG: unable to handle kernel paging request at ffffdc0000000001\nIP: alpha_helper+0x1/0x20\nPGD 0\nOops: 0002 [#1] SMP KASAN",
            "BUG: unable to handle kernel paging request in alpha_helper",
        ),
        (
            "BUG: TASK stack guard page was hit at ffffc90000a0fff8 (stack is ffffc90000a10000..ffffc90000a17fff)\nOops: stack guard page: 0000 [#1] SMP",
            "BUG: stack guard page was hit in beta_ioctl",
        ),
        (
            "BUG: stack guard page was hit at ffffc90000a0fff8 (stack is ffffc90000a10000..ffffc90000a17fff)\nkernel stack overflow (double-fault): 0000 [#1] SMP",
            "BUG: stack guard page was hit in beta_ioctl",
        ),
        (
            "general protection fault, maybe for address 0xffff88801: 0000 [#1] SMP",
            "general protection fault in alpha_helper",
        ),
        (
            "Oops: general protection fault, kernel NULL pointer dereference 0x0: 0000 [#1] SMP",
            "general protection fault in alpha_helper",
        ),
        (
            "Oops: general protection fault, probably LASS violation for address 0x10: 0000 [#1] SMP",
            "general protection fault in alpha_helper",
        ),
        (
            "Unable to handle kernel access to user memory without uaccess routines at virtual address 0000000020000000\nOops [#1]",
            "BUG: unable to handle kernel access to user memory in alpha_helper",
        ),
    ]);
}

#[test]
fn sanitizers() {
    check(&[
        (
            "BUG: KASAN: use-after-free in alpha_helper+0x1/0x20 at addr ffff8801d0\nRead of size 4 by task a/7",
            "KASAN: use-after-free Read in alpha_helper",
        ),
        (
            "BUG: KASAN: user-memory-access in atomic_inc+0x1/0x20\nWrite of size 4 at addr 0000000000000010 by task a/7",
            "KASAN: user-memory-access Write in alpha_helper",
        ),
        (
            "BUG: KASAN: invalid-access in alpha_helper+0x1/0x20\nRead at addr f7ff000001 by task a/7",
            "KASAN: invalid-access Read in alpha_helper",
        ),
        (
            "BUG: KASAN: vmalloc-out-of-bounds in memcpy_and_pad+0x1/0x20\nWrite of size 4 at addr ffffc900 by task a/7",
            "KASAN: vmalloc-out-of-bounds Write in alpha_helper",
        ),
        ("BUG: KFENCE: memory corruption in kfree+0x1/0x20", "KFENCE: memory corruption in alpha_helper"),
        (
            "BUG: KMSAN: kernel-infoleak in instrument_copy_to_user include/linux/instrumented.h:114 [inline]\nBUG: KMSAN: kernel-infoleak in _copy_to_user+0x1/0x20",
            "KMSAN: kernel-infoleak in alpha_helper",
        ),
        ("BUG: KCSAN: data-race in alpha / beta", "KCSAN: data-race in alpha / beta"),
        (
            "UBSAN: array-index-out-of-bounds in fs/a.c:12:3",
            "UBSAN: array-index-out-of-bounds in alpha_helper",
        ),
        ("UBSAN: Undefined behaviour in fs/a.c:12:3", "UBSAN: undefined-behaviour in alpha_helper"),
    ]);
}

#[test]
fn hangs() {
    check(&[
        (
            "INFO: task a:7 blocked for more than 143 seconds.\n      Not tainted 6.16.0 #1\nINFO: task a:7 is blocked on a mutex likely owned by task b:8.",
            "INFO: task hung in alpha_helper",
        ),
        (
            "INFO: task a:7 blocked for more than 143 seconds.\n      Not tainted 6.17.0 #1\nINFO: task a:7 <writer> blocked on an rw-semaphore likely owned by task b:8 <reader>",
            "INFO: task hung in alpha_helper",
        ),
    ]);
}

#[test]
fn panics() {
    check(&[
        (
            "Kernel panic - not syncing: System is deadlocked on memory",
            "kernel panic: System is deadlocked on memory",
        ),
        (
            "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
            "kernel panic: Out of memory: compulsory panic_on_oom is enabled",
        ),
        (
            "Kernel panic - not syncing: EXT4-fs (device loop0): panic forced after error",
            "kernel panic: EXT4-fs (device loop0): panic forced after error",
        ),
        (
            "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(8,1)",
            "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)",
        ),
        (
            "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: alpha+0x1/0x20",
            "kernel panic: stack is corrupted in alpha",
        ),
        (
            "Kernel panic - not syncing: corrupted stack end detected inside scheduler",
            "kernel panic: corrupted stack end in beta_ioctl",
        ),
    ]);
}

/// Whatever stands before the kernel's text, the crash is the same.
#[test]
fn line_prefixes() {
    let lines = format!(
        "------------[ cut here ]------------\nWARNING: CPU: 0 PID: 7 at net/alpha.c:12 alpha_helper+0x1/0x20\nModules linked in:\nCPU: 0 PID: 7 Comm: a Not tainted 6.9.0 #1\nRIP: 0010:alpha_helper+0x1/0x20\n{TRACE}"
    );
    for prefix in [
        "",
        "[   12.345678] ",
        "[   12.345678][ T123] ",
        "[   12.345678][    C0] ",
        "<4>[   12.345678] ",
        "<4>",
        "Nov 21 03:13:00 host kernel: ",
        "Nov  1 03:13:00 host kernel: [   12.345678] ",
        "2026-11-21T03:13:00.123456+00:00 host kernel: [   12.345678][ T123] ",
    ] {
        for ending in ["\n", "\r\n"] {
            let console: String = lines.lines().map(|line| format!("{prefix}{line}{ending}")).collect();
            let titles: Vec<String> = parse(console.as_bytes()).into_iter().map(|it| it.title).collect();
            assert_eq!(titles, ["WARNING in alpha_helper"], "{prefix:?} {ending:?}");
        }
    }
}
