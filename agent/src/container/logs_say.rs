//! What a failed command's output says about the machine it ran on.

use super::{Exit, Limits, NOTE_PREFIX};
use kulprit_common::outcome::{Infra, InfraClass};
use std::path::Path;

/// How the compiler's cache says that it cannot work, which then fails the compile.
pub const CCACHE_TROUBLE: &str = "ccache: error: ";
/// A command that met a full disk has removed its temporary files by now.
const DISK_LOW_BYTES: u64 = 1 << 30;

/// Phrases by which tools say that they ran out of something that is not the kernel's fault.
const PHRASES: [(&str, InfraClass); 14] = [
    ("No space left on device", InfraClass::Disk),
    ("Disk quota exceeded", InfraClass::Disk),
    ("Input/output error", InfraClass::Disk),
    ("Killed signal terminated program", InfraClass::Memory),
    ("internal compiler error: Killed", InfraClass::Memory),
    ("virtual memory exhausted", InfraClass::Memory),
    ("Cannot allocate memory", InfraClass::Memory),
    ("out of memory allocating", InfraClass::Memory),
    ("memory exhausted", InfraClass::Memory),
    ("Resource temporarily unavailable", InfraClass::Memory),
    // What a shell and the C library say at the limits of processes and of a file's size.
    ("Cannot fork", InfraClass::Limit),
    ("File too large", InfraClass::Limit),
    ("File size limit exceeded", InfraClass::Limit),
    (CCACHE_TROUBLE, InfraClass::Toolchain),
];

/// The infra failure that a command's failing was, from how it ended and what it said; `dir` is
/// on the disk that it wrote to.
pub fn infra_of_failure(exit: Exit, limits: &Limits, log: &str, dir: &Path) -> Option<Infra> {
    let killed = exit.killed(limits);
    if exit.oom_killed {
        return killed;
    }
    infra_in_log(log, disk_is_low(dir)).or(killed)
}

/// The infra failure that the log of a command that failed tells of.
///
/// A line that quotes source (`file.c:12: error: …`) is a compiler's and no evidence, whatever
/// words the source has. What is said of the disk is taken for the agent's disk only where that is
/// low indeed: a full one sets the agent aside, and a makefile says what it likes.
fn infra_in_log(log: &str, disk_is_low: bool) -> Option<Infra> {
    log.lines().filter(|line| !line.starts_with(NOTE_PREFIX)).find_map(|line| {
        let class = match class_of(line)? {
            InfraClass::Disk if !disk_is_low => InfraClass::Limit,
            class => class,
        };
        Some(Infra { class, reason: line.trim().chars().take(200).collect() })
    })
}

/// Whether a command that wrote to `dir` may well have met a full disk; so too if nobody can tell.
fn disk_is_low(dir: &Path) -> bool {
    let free = nix::sys::statvfs::statvfs(dir)
        .map(|stat| stat.blocks_available().saturating_mul(stat.fragment_size()));
    free.map_or(true, |bytes| bytes < DISK_LOW_BYTES)
}

fn class_of(line: &str) -> Option<InfraClass> {
    let quoted = line.trim_start();
    if quoted.contains(": error: #") || quoted.starts_with('|') || quoted.contains(" | ") {
        return None;
    }
    if let Some((_, class)) = PHRASES.iter().find(|(phrase, _)| line.contains(phrase)) {
        return Some(*class);
    }
    // What the shell and make print for a child that got SIGKILL.
    let killed = line.trim() == "Killed" || line.ends_with(" Killed") && !line.contains(": error:");
    (killed || line.starts_with("make") && line.ends_with("Error 137")).then_some(InfraClass::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_s_troubles_are_infra() {
        let cases = [
            ("fatal error: error writing to /tmp/cc1.s: No space left on device", Some(InfraClass::Disk)),
            ("gcc: fatal error: Killed signal terminated program cc1", Some(InfraClass::Memory)),
            ("make[2]: *** [/src/scripts/Makefile.build:250: fs/a.o] Error 137", Some(InfraClass::Memory)),
            ("make[2]: *** [/src/scripts/Makefile.build:250: fs/a.o] Killed", Some(InfraClass::Memory)),
            ("/build/x.sh: fork: retry: Resource temporarily unavailable", Some(InfraClass::Memory)),
            ("/src/x.sh: 3: Cannot fork", Some(InfraClass::Limit)),
            ("truncate: failed to truncate 'vmlinux': File too large", Some(InfraClass::Limit)),
            ("ccache: error: Failed to create directory /ccache/3: Denied", Some(InfraClass::Toolchain)),
            ("/src/fs/a.c:3:2: error: #error \"No space left on device\"", None),
            ("    3 | #error \"Cannot allocate memory\"", None),
            ("/src/fs/a.c:3:2: error: expected ';' before 'x'", None),
            ("make[1]: *** [Makefile:2021: .] Error 2", None),
        ];
        for (line, class) in cases {
            assert_eq!(infra_in_log(line, true).map(|infra| infra.class), class, "{line}");
            let elsewhere = class.map(|it| if it == InfraClass::Disk { InfraClass::Limit } else { it });
            assert_eq!(infra_in_log(line, false).map(|infra| infra.class), elsewhere, "{line}");
        }
    }
}
