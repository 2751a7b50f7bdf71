//! How alike a crash and the one searched for are.

use super::{Crash, Match, Target};

/// Functions at the top of both stacks that must be shared.
const LEADING_FRAMES: usize = 6;
const SHARED_FRAMES_MIN: usize = 2;
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

/// Says how a crash relates to the target: the same by title, related by stack, or neither.
pub fn compare(target: &Target, crash: &Crash) -> Match {
    let mut names = std::iter::once(&target.title).chain(&target.alt_titles);
    if names.any(|name| *name == crash.title || crash.alt_titles.contains(name)) {
        return Match::Same;
    }
    if shares_stack(&target.frames, &crash.frames) { Match::Related } else { Match::Unrelated }
}

/// Says whether both stacks lead with the same functions in the same order.
///
/// They need not be consecutive: inlining differs between builds and crashes, order does not.
fn shares_stack(target: &[String], crash: &[String]) -> bool {
    let specific = |frames: &[String]| -> Vec<String> {
        let specific = frames.iter().filter(|frame| !is_generic(frame));
        specific.take(LEADING_FRAMES).cloned().collect()
    };
    let (target, crash) = (specific(target), specific(crash));
    let mut from = 0;
    let mut shared = 0;
    for function in &target {
        if let Some(at) = crash[from..].iter().position(|other| other == function) {
            from += at + 1;
            shared += 1;
        }
    }
    shared >= SHARED_FRAMES_MIN
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
            title: title.into(),
            alt_titles: vec![format!("alt of {title}")],
            frame: None,
            frames: frames.iter().map(ToString::to_string).collect(),
            files: vec![],
            corrupted: false,
            suppressed: false,
            panicked: false,
            first_line: 0,
            last_line: 0,
            report: String::new(),
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
    }
}
