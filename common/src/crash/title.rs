//! Titles: filling templates, taking what varies out of texts, other names of the same crash.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Titles longer than this are cut.
const TITLE_CHARS_MAX: usize = 120;
/// Stands where the report is too damaged to name a function.
pub(super) const NO_FRAME: &str = "corrupted";

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("static pattern"));
    };
}
pattern!(OFFSET, r"\+0x[0-9a-f]+/0x[0-9a-f]+");
pattern!(ADDRESS, r"\b(?:0x[0-9a-fA-F]+|[0-9a-f]{8,16})\b");
pattern!(NUMBER, r"\b\d+|\d{5,}");
pattern!(
    SYSCALL_PREFIX,
    r"^(?:__(?:x64|ia32|arm64|riscv|se|do)_|compat_SyS_|compat_sys_|SyS_|SYSC_|ksys_|sys_)"
);
pattern!(GROUPED, r"^(?:(?P<calls>smp_call_function)_\w+|_*synchronize_(?:rcu|srcu|sched)(?:_expedited)?)$");

/// Fills `{name}` from `value`; what has no value becomes empty.
pub(super) fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut title = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else { break };
        title.push_str(before);
        title.push_str(&value(name).unwrap_or_default());
        rest = tail;
    }
    title.push_str(rest);
    cut(title.trim().to_owned())
}

/// A captured text without offsets, addresses and numbers that differ from one crash to the next.
pub(super) fn settle(text: &str) -> String {
    let text = OFFSET.replace_all(text, "");
    let text = ADDRESS.replace_all(&text, |found: &Captures| {
        let all_decimal = found[0].bytes().all(|b| b.is_ascii_digit());
        if all_decimal { "NUM" } else { "ADDR" }
    });
    NUMBER.replace_all(&text, "NUM").trim().to_owned()
}

/// The names under which a function appears in titles, the usual one first.
///
/// System calls carry prefixes that changed over the years, and some families of functions
/// differ only in how they wait.
pub(super) fn names_of(function: &str) -> Vec<String> {
    if let Some(found) = GROUPED.captures(function) {
        let group = if found.name("calls").is_some() { "smp_call_function" } else { "synchronize_rcu" };
        return if group == function { vec![group.into()] } else { vec![group.into(), function.into()] };
    }
    let Some(prefix) = SYSCALL_PREFIX.find(function) else { return vec![function.to_owned()] };
    let rest = &function[prefix.end()..];
    match prefix.as_str() {
        "__se_" | "__do_" => {
            let Some(call) = rest.strip_prefix("sys_") else { return vec![function.to_owned()] };
            vec![call.to_owned(), function.to_owned(), rest.to_owned()]
        }
        "__x64_" | "__ia32_" | "__arm64_" | "__riscv_" if !rest.contains("sys_") => vec![function.to_owned()],
        _ => vec![rest.to_owned(), function.to_owned()],
    }
}

fn cut(title: String) -> String {
    match title.char_indices().nth(TITLE_CHARS_MAX) {
        Some((end, _)) => title[..end].trim_end().to_owned(),
        None => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varying_parts() {
        let check = |text: &str, expected: &str| assert_eq!(settle(text), expected);
        check("in f at addr ffff8800b46111c0", "in f at addr ADDR");
        check("Freed in f+0x14/0x20 age=624 cpu=0", "Freed in f age=NUM cpu=NUM");
        check("dir ./testdir264563108: failed(-12)", "dir ./testdirNUM: failed(-NUM)");
        check("ath10k USB", "ath10k USB");
    }

    #[test]
    fn names() {
        let check = |function: &str, expected: &[&str]| assert_eq!(names_of(function), expected);
        check("foo", &["foo"]);
        check("__x64_sys_rmdir", &["sys_rmdir", "__x64_sys_rmdir"]);
        check("SyS_rmdir", &["rmdir", "SyS_rmdir"]);
        check("__se_sys_x", &["x", "__se_sys_x", "sys_x"]);
        check("smp_call_function_single", &["smp_call_function", "smp_call_function_single"]);
        check("synchronize_sched", &["synchronize_rcu", "synchronize_sched"]);
    }

    #[test]
    fn long_titles_are_cut() {
        assert_eq!(fill("{x}", |_| Some("é".repeat(500))).chars().count(), TITLE_CHARS_MAX);
    }
}
