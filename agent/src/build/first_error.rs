//! Finds the line of a build log that says what was wrong.

use crate::container::NOTE_PREFIX;

/// As long as a message may be; it stands on one line of the bisection log.
const MESSAGE_CHARS_MAX: usize = 200;

/// How much a line tells; smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of a compiler, an assembler, a linker, modpost or kconfig.
    Tool,
    /// Make has no way to make something.
    NoRule,
    /// Make passes on that something failed.
    Make,
}

/// The first error in a log of make, cleaned of the container's paths.
pub fn first_error(log: &str) -> Option<String> {
    let theirs = log.lines().filter(|line| !line.starts_with(NOTE_PREFIX));
    let ranked = theirs.filter_map(|line| Some((rank(line)?, line)));
    // min_by_key keeps the first among equals.
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, line)| clean(line))
}

fn rank(line: &str) -> Option<Rank> {
    if line.starts_with("make") && line.contains("*** ") {
        return Some(if line.contains("No rule to make target") { Rank::NoRule } else { Rank::Make });
    }
    let tool = [
        ": error: ",
        ": fatal error: ",
        ": Error: ",
        ": undefined reference to ",
        ": multiple definition of ",
    ];
    let start = ["ERROR: ", "FAILED: ", "Error: ", "error: "];
    let linker = line.starts_with("ld: ") && !line.contains("warning") && !line.contains(": in function `");
    let found = tool.iter().any(|mark| line.contains(mark))
        || start.iter().any(|mark| line.starts_with(mark))
        || linker
        || is_kconfig_error(line);
    found.then_some(Rank::Tool)
}

/// `init/Kconfig:12: syntax error`, `fs/Kconfig:3:error: …`
fn is_kconfig_error(line: &str) -> bool {
    let Some((file, rest)) = line.split_once(':') else { return false };
    let name = file.rsplit('/').next().unwrap_or(file);
    let says = ["syntax error", "error:", "can't open file", "invalid statement", "recursive inclusion"];
    name.starts_with("Kconfig")
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && says.iter().any(|words| rest.contains(words))
}

fn clean(line: &str) -> String {
    let line = line.trim().replace("/src/", "").replace("/build/", "");
    let visible = line.chars().filter(|c| !c.is_control());
    visible.take(MESSAGE_CHARS_MAX).collect::<String>().trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_telling_line_is_found() {
        let cases = [
            (
                "  CC      fs/foo.o\n/src/fs/foo.c: In function 'f':\n/src/fs/foo.c:12:3: error: expected ';' before '}' token\n   12 | x\nmake[2]: *** [/src/scripts/Makefile.build:250: fs/foo.o] Error 1\n",
                "fs/foo.c:12:3: error: expected ';' before '}' token",
            ),
            (
                "/src/a.c:1:10: fatal error: no.h: No such file or directory\n",
                "a.c:1:10: fatal error: no.h: No such file or directory",
            ),
            (
                "ld: fs/a.o: in function `f':\n/src/fs/a.c:3: undefined reference to `g'\n",
                "fs/a.c:3: undefined reference to `g'",
            ),
            (
                "ld: a.o:(.text+0x0): multiple definition of `f'; b.o: first defined here\n",
                "ld: a.o:(.text+0x0): multiple definition of `f'; b.o: first defined here",
            ),
            (
                "ld: warning: x\nmake: *** [Makefile:1: vmlinux] Error 1\n",
                "make: *** [Makefile:1: vmlinux] Error 1",
            ),
            (
                "make[1]: *** [x] Error 2\nmake[2]: *** No rule to make target 'fs/gone.o', needed by 'fs/built-in.a'.  Stop.\n",
                "make[2]: *** No rule to make target 'fs/gone.o', needed by 'fs/built-in.a'.  Stop.",
            ),
            ("init/Kconfig:5: syntax error\nmake: *** [a] Error 1\n", "init/Kconfig:5: syntax error"),
            ("ERROR: modpost: \"f\" [m.ko] undefined!\n", "ERROR: modpost: \"f\" [m.ko] undefined!"),
        ];
        for (log, message) in cases {
            assert_eq!(first_error(log).as_deref(), Some(message));
        }
        assert_eq!(first_error("kulprit: it failed (a.c:1:1: error: x); again\n"), None);
        assert_eq!(
            first_error("  CC fs/error.o\n.config:3:warning: override: reassigning to symbol A\n"),
            None
        );
        let long = format!("a.c:1:1: error: {}", "x".repeat(500));
        assert_eq!(first_error(&long).unwrap().chars().count(), MESSAGE_CHARS_MAX);
    }
}
