//! The function that names a stall: where the interrupted CPU went into a subsystem.
//!
//! The innermost function of a stalled CPU is chance; the entry point of the file operation,
//! protocol handler, timer or work item that it serves is the same every time.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::helpers::is_helper;
use super::rules::Through;
use super::stack::{Frame, Section};

/// Generic code that hands work to subsystems, by what it hands on. Parts of names: variants abound.
const DISPATCHERS: &[&str] = &[
    // system calls into the kernel
    r"do_syscall_|do_fast_syscall|do_int80|sysenter_|tracesys|invoke_syscall|el0_svc|ret_fast_syscall|entry_SYSCALL|entry_SYSENTER|entry_INT80|handle_syscall|do_trap_ecall|int_ret_from_sys_call|system_call|syscall_exception",
    // files: reads, writes, control calls, mappings, opening, closing, mounting
    r"vfs_(?:i?o?ctl|write|read|iter_read|iter_write|writev|readv|fsync|open|get_tree|kern_mount|poll|splice)|new_sync_(?:read|write)",
    r"do_iter_(?:read|write)|call_(?:read|write)_iter|do_loop_readv|(?:k?sys|SyS|SYSC)_(?:read|write|ioctl)$|compat_(?:\w+_)?ioctl|blkdev_driver_ioctl|blkdev_ioctl",
    r"mmap_region|call_mmap|do_dentry_open|lookup_open|path_openat|mount_fs|do_new_mount",
    r"__fput|task_work_run",
    // sockets and messages between user space and subsystems
    r"sock_(?:sendmsg|recvmsg|release|do_ioctl|sendpage|write_iter|read_iter)|_*sys_(?:set|get)sockopt|do_sock_(?:set|get)sockopt",
    r"rtnetlink_rcv_msg|nfnetlink_rcv_msg|xfrm_user_rcv_msg|netlink_dump|netlink_ack",
    // received packets
    r"netif_receive_skb|napi_poll|net_rx_action",
    // soft interrupts, timers, tasklets, calls to other CPUs
    r"do_softirq|handle_softirqs|tasklet_action|run_ksoftirqd|call_timer_fn|_run_timers|run_timer_softirq|hrtimer_run|irq_work_(?:run|single)",
    r"smp_call_function|flush_smp_call_function|__handle_irq_event",
    // work items, kernel threads, idle CPUs
    r"process_one_work|process_scheduled_works|kthread|smpboot_thread_fn|ret_from_fork|cpu_startup_entry|start_secondary|do_idle",
];
/// What a watchdog's interrupt runs, up to the interrupt's entry.
const INTERRUPT_ENTRIES: &str = r"^(?:(?:asm_)?(?:sysvec_|smp_)?(?:trace_|reschedule_)?(?:apic_timer_interrupt|irq_work_interrupt|call_function\w*interrupt|reschedule_interrupt|reschedule_ipi)\w*|(?:asm_)?sysvec_\w+|asm_common_interrupt|common_interrupt|ret_from_intr|el1_irq|el1h_64_irq|el1_interrupt|gic_handle_irq|__irq_svc|irq_svc|handle_arch_irq|ret_from_exception)$";
/// Threads of the watchdog's own machinery: their stacks say nothing of the stall.
const MACHINERY: &str = r"^(?:rcu_gp_kthread|rcu_gp_fqs\w*|rcu_exp_\w+)$";

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("static pattern"));
    };
}
static DISPATCHER: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(DISPATCHERS).expect("static patterns"));
pattern!(INTERRUPT, INTERRUPT_ENTRIES);
pattern!(WATCHDOG, MACHINERY);

/// The name-giving function of the first section that shows a stalled CPU, and the frames from there.
pub(super) fn stalled_at(sections: &[Section]) -> Option<(String, &Section)> {
    sections
        .iter()
        .filter(|section| section.has_trace && shows_a_cpu(&section.frames))
        .find_map(|section| Some((entry(interrupted(&section.frames))?, section)))
}

/// Not a task that was merely preempted, nor the thread that waits for the stall to end.
fn shows_a_cpu(frames: &[Frame]) -> bool {
    let running = frames.first().is_some_and(|f| f.ip)
        || frames.iter().any(|f| f.interrupted || INTERRUPT.is_match(&f.function));
    running && !frames.iter().any(|f| WATCHDOG.is_match(&f.function))
}

/// The frames beneath the watchdog's interrupt, or all if the stack begins where the CPU was.
pub(super) fn interrupted(frames: &[Frame]) -> &[Frame] {
    if frames.first().is_some_and(|f| f.ip) {
        return frames;
    }
    let enters = |f: &Frame| INTERRUPT.is_match(&f.function);
    let Some(entered) = frames.iter().position(enters) else {
        let ended = frames.iter().position(|f| f.interrupted).unwrap_or(0);
        return &frames[ended..];
    };
    let run = frames[entered..].iter().position(|f| !enters(f)).unwrap_or(0);
    &frames[entered + run..]
}

/// What the innermost dispatcher called: the entry into a subsystem. Without one the stack is no whole one.
pub(super) fn entry(frames: &[Frame]) -> Option<String> {
    let mut named = frames.iter().filter(|f| !is_helper(&f.function, Through::Nothing));
    let mut entry = named.next()?;
    for frame in std::iter::once(entry).chain(named) {
        if frame.function.starts_with("smp_call_function") {
            return Some(frame.function.clone());
        }
        if DISPATCHER.is_match(&frame.function) {
            let leaving = entry.function.contains("exit_to_user");
            return (!leaving).then(|| entry.function.clone());
        }
        entry = frame;
    }
    None
}
