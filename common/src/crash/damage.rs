//! What is wrong with a report: no stack of its own, lost messages, other tasks' reports woven in.

use std::sync::LazyLock;

use regex::Regex;

use super::line::Line;
use super::oops;
use super::stack::{self, Section};

/// Says whether the report shows a stack: one before a panic that follows, for that one has its own.
pub(super) fn traced(lines: &[Line], sections: &[Section]) -> bool {
    let panic =
        lines[1..].iter().position(|line| oops::is_panic(&line.text)).map_or(lines.len(), |at| at + 1);
    let headed = lines[..panic].iter().any(|line| stack::is_heading(&line.text));
    let end = if headed { panic } else { lines.len() };
    sections.iter().any(|section| section.has_trace && section.begin < end)
}

/// Says whether printk lost messages, or the stack is that of a failure injected into another task.
pub(super) fn damaged(lines: &[Line], sections: &[Section]) -> bool {
    let injected = |section: &Section| {
        section.frames.iter().take(INJECTED_FRAMES).any(|frame| frame.function.starts_with("should_fail"))
    };
    lines.iter().any(|line| line.text.starts_with("** ") && line.text.contains(" printk messages dropped"))
        || sections.iter().find(|section| section.has_trace).is_some_and(injected)
}

/// An injected failure's stack begins with these many frames at most before it names itself.
const INJECTED_FRAMES: usize = 3;

/// Reports of their own that old kernels, which do not say who prints, weave into others.
static WOVEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"vmalloc: allocation failure|page allocation failure|^FAULT_INJECTION: forcing")
        .expect("static pattern")
});
static LEAD_PID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^WARNING: CPU: \d+ PID: (-?\d+) ").expect("static pattern"));
static STACK_PID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^CPU: \d+ (?:UID: \d+ )?PID: (-?\d+) ").expect("static pattern"));

/// Says whether the first stack is not, or not only, that of the crash: no function can be blamed then.
pub(super) fn mixed(lines: &[Line], sections: &[Section]) -> bool {
    let Some(section) = sections.first() else { return false };
    let Some(lead) = lines.first() else { return false };
    if lead.context.is_some() || !lead.text.starts_with("WARNING") {
        return false;
    }
    let to_stack = &lines[..section.end];
    let foreign = |lead_pid: &str| {
        let headers = to_stack.iter().take(section.begin).filter_map(|line| STACK_PID.captures(&line.text));
        let pids: Vec<String> = headers.map(|found| found[1].to_owned()).collect();
        !pids.iter().any(|pid| pid == lead_pid)
    };
    to_stack.iter().any(|line| WOVEN.is_match(&line.text))
        || LEAD_PID.captures(&lead.text).is_some_and(|found| foreign(&found[1]))
}
