//! The function that names a stall: where the interrupted CPU went into a subsystem.
//!
//! The innermost function of a stalled CPU is chance; the entry point of the file operation,
//! protocol handler, timer or work item that it serves is the same every time.

use std::sync::LazyLock;

use regex::Regex;

use super::helpers::is_helper;
use super::rules::Through;
use super::stack::{Frame, Section};

/// Names of entry points by convention.
const ENTRIES: &str = r"^[a-z0-9][a-z0-9_]*_(?:ioctl|write_iter|read_iter|sendmsg|recvmsg|sendpage|setsockopt|rcv|mmap|handle_frame|fault_around)$|^smp_call_function(?:_\w+)?$";
/// Generic code that calls entry points: what it calls is one.
const DISPATCHERS: &str = r"^(?:(?:do_)?vfs_(?:ioctl|write|read|writev|readv|fsync|open|mount|get_tree)|__vfs_(?:write|read)|do_vfs_ioctl|new_sync_(?:read|write)|do_iter_(?:read|write)\w*|process_one_work|call_timer_fn|__hrtimer_run_queues|__netif_receive_skb_(?:core|one_core)|tasklet_action\w*|sock_sendmsg\w*|sock_recvmsg\w*|__do_softirq|handle_softirqs|cpu_startup_entry|kthread|sock_release|__sock_release|__fput|task_work_run|rtnetlink_rcv_msg|netlink_dump|net_rx_action|irq_work_run\w*|__handle_irq_event_percpu)$";
/// Code around and between entry points, the same for many of them.
const BETWEEN: &str = r"^(?:_*sys_\w+|(?:genl|nfnetlink|rtnetlink|\w*netlink)_rcv|generic_\w+|common_interrupt\w*|get_signal|do_signal|arch_do_signal\w*|(?:syscall_)?exit_to_user\w*|irqentry_\w+|do_syscall_\w+|x64_sys_call|entry_\w+|do_fast_syscall\w*|ret_from_\w+|el0\w*|invoke_syscall|do_idle|start_secondary)$";
/// Entry points of system calls, with the prefixes they carry.
const SYSCALLS: &str = r"^(?:__(?:x64|ia32|arm64|riscv|se|do)_)?(?:compat_|ia32_|x32_)?(?:sys|SyS|SYSC)_";
/// What a watchdog's interrupt runs, up to the interrupt's entry.
const INTERRUPT_ENTRIES: &str = r"^(?:(?:asm_)?(?:sysvec_|smp_)?(?:trace_|reschedule_)?(?:apic_timer_interrupt|irq_work_interrupt|call_function\w*interrupt|reschedule_interrupt|reschedule_ipi)\w*|(?:asm_)?sysvec_\w+|asm_common_interrupt|common_interrupt|ret_from_intr|el1_irq|el1h_64_irq|el1_interrupt|gic_handle_irq|__irq_svc|irq_svc|handle_arch_irq|ret_from_exception)$";
/// Threads of the watchdog's own machinery: their stacks say nothing of the stall.
const MACHINERY: &str = r"^(?:rcu_gp_kthread|rcu_gp_fqs\w*|rcu_exp_\w+)$";

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("static pattern"));
    };
}
pattern!(ENTRY, ENTRIES);
pattern!(DISPATCHER, DISPATCHERS);
pattern!(SYSCALL, SYSCALLS);
pattern!(GENERIC, BETWEEN);
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

/// The innermost entry into a subsystem, else the innermost function worth naming.
pub(super) fn entry(frames: &[Frame]) -> Option<String> {
    let named = |f: &Frame| {
        !is_helper(&f.function, Through::Nothing)
            && !DISPATCHER.is_match(&f.function)
            && (SYSCALL.is_match(&f.function) || !GENERIC.is_match(&f.function))
    };
    let is_entry = |index: usize| {
        let frame = &frames[index];
        named(frame)
            && (ENTRY.is_match(&frame.function)
                || SYSCALL.is_match(&frame.function)
                || frames.get(index + 1).is_some_and(|outer| DISPATCHER.is_match(&outer.function)))
    };
    let index = (0..frames.len()).find(|&i| is_entry(i)).or_else(|| frames.iter().position(named))?;
    Some(frames[index].function.clone())
}
