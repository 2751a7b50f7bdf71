//! Which functions a C source file defines: where a crash happened, for kernels that have no debug information.

use std::collections::HashMap;

/// How an architecture's entry points name a system call that `SYSCALL_DEFINE` made.
const SYSCALL_PREFIXES: [&str; 9] = [
    "__x64_sys_",
    "__ia32_sys_",
    "__arm64_sys_",
    "__riscv_sys_",
    "__se_sys_",
    "__do_sys_",
    "ksys_",
    "sys_",
    "__x64_compat_sys_",
];
/// Macros whose first argument is the function's name.
const DEFINING_MACROS: [&str; 2] = ["SYSCALL_DEFINE", "COMPAT_SYSCALL_DEFINE"];

/// The functions of a stack, to be looked for in sources.
pub struct Functions {
    /// By name, the places in the stack.
    plain: HashMap<String, Vec<usize>>,
    syscalls: HashMap<String, Vec<usize>>,
}

impl Functions {
    /// Takes the names of a stack's frames, innermost first. What compilers add behind a dot is left out.
    pub fn new<'a>(frames: impl IntoIterator<Item = &'a str>) -> Self {
        let mut functions = Functions { plain: HashMap::new(), syscalls: HashMap::new() };
        for (place, frame) in frames.into_iter().enumerate() {
            let name = frame.split('.').next().unwrap_or(frame);
            functions.plain.entry(name.to_owned()).or_default().push(place);
            if let Some(call) = SYSCALL_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
                functions.syscalls.entry(call.to_owned()).or_default().push(place);
            }
        }
        functions
    }

    /// The places in the stack of the functions that `source` defines, ascending. A definition
    /// begins at a line's start, as the kernel's style has it.
    pub fn defined_in(&self, source: &str) -> Vec<usize> {
        let mut places: Vec<usize> = Vec::new();
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            let found = named(line).and_then(|(name, end)| {
                let is_macro = DEFINING_MACROS.iter().any(|start| name.starts_with(start));
                let (known, name) = match is_macro {
                    true => (&self.syscalls, first_argument(&line[end..])),
                    false => (&self.plain, name),
                };
                known.get(name).filter(|_| has_body(&source[at + end..]))
            });
            places.extend(found.into_iter().flatten());
            at += line.len();
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// The word before the first parenthesis of a line that starts in the first column, and where it ends.
fn named(line: &str) -> Option<(&str, usize)> {
    let first = line.bytes().next()?;
    if !first.is_ascii_alphabetic() && first != b'_' {
        return None;
    }
    let open = line.find('(')?;
    let head = line[..open].trim_end();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let start = head.bytes().rposition(|byte| !word(byte)).map_or(0, |at| at + 1);
    (start < head.len()).then(|| (&head[start..], open))
}

fn first_argument(behind: &str) -> &str {
    let inside = behind.strip_prefix('(').unwrap_or(behind);
    inside.split([',', ')']).next().unwrap_or(inside).trim()
}

/// Whether a block follows before the statement ends.
fn has_body(behind: &str) -> bool {
    behind.bytes().find(|byte| matches!(byte, b'{' | b';')) == Some(b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_from_calls_and_prototypes() {
        let frames = ["inner.constprop.0", "helper", "__x64_sys_rmdir", "on_two_lines", "absent", "inner"];
        let functions = Functions::new(frames);
        for (source, places) in [
            ("static int inner(int a)\n{\n\treturn 0;\n}\n", vec![0, 5]),
            ("int inner(int a);\n\nint other(void)\n{\n\tinner(1);\n}\n", vec![]),
            ("\tinner(1) {", vec![]),
            ("void *helper (void) {}\nvoid __helper(void) {}\n", vec![1]),
            ("SYSCALL_DEFINE1(rmdir, const char __user *, path)\n{\n}\n", vec![2]),
            ("SYSCALL_DEFINE0(mkdir)\n{\n}\n", vec![]),
            ("static int\non_two_lines(struct a *b,\n\t     int c)\n{\n}\n", vec![3]),
            ("/* absent( */\n#define absent(x) { x }\n}\n", vec![]),
            ("inner(", vec![]),
            ("é inner() {\n\u{301}helper(é) {", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(functions.defined_in(source), places, "{source:?}");
        }
    }
}
