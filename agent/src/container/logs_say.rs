//! What a failed command's output says about the machine it ran on.

use super::NOTE_PREFIX;
use kulprit_common::outcome::{Infra, InfraClass};

/// Phrases by which tools say that they ran out of something that is not the kernel's fault.
const PHRASES: [(&str, InfraClass); 10] = [
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
];

/// The infra failure that the log of a command that failed tells of.
///
/// A line that quotes source (`file.c:12: error: …`) is a compiler's and no evidence, whatever
/// words the source has.
pub fn infra_in_log(log: &str) -> Option<Infra> {
    log.lines().filter(|line| !line.starts_with(NOTE_PREFIX)).find_map(|line| {
        let class = class_of(line)?;
        Some(Infra { class, reason: line.trim().chars().take(200).collect() })
    })
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
            ("/src/fs/a.c:3:2: error: #error \"No space left on device\"", None),
            ("    3 | #error \"Cannot allocate memory\"", None),
            ("/src/fs/a.c:3:2: error: expected ';' before 'x'", None),
            ("make[1]: *** [Makefile:2021: .] Error 2", None),
        ];
        for (line, class) in cases {
            assert_eq!(infra_in_log(line).map(|infra| infra.class), class, "{line}");
        }
    }
}
