//! What a job looks for besides a crash of the reproducer: a failing build, a failing boot.
//!
//! The search knows runs that show a titled crash and runs that do not. What a build or a boot
//! came to is put into these words here, so that one search serves all.

use super::{Mode, Reproducer, ReproducerKind, Runs};
use crate::bisect::{Assumption, Evidence};
use crate::crash::Crash;
use crate::id::{Digest, RevisionId};
use crate::outcome::{BuildOutcome, Outcome, Phase, SeenCrash};
use serde::{Deserialize, Serialize};

/// What shows that a revision has the bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symptom {
    /// A crash while the reproducer runs.
    #[default]
    Crash,
    /// The kernel does not build. Nothing is booted.
    Build,
    /// The kernel builds, and does not come as far as our init.
    Boot,
}

/// A program that ends at once, for jobs without a reproducer: a static x86-64 executable of
/// `exit(0)`, so that an agent needs nothing but what it has for every run.
pub const NOTHING: [u8; 129] = {
    let mut elf = [0; 129];
    let parts: [(usize, &[u8]); 12] = [
        (0, b"\x7fELF\x02\x01\x01"),
        (16, &[2, 0, 62, 0, 1]),
        // Entry point, behind the two headers.
        (24, &[0x78, 0, 0x40]),
        // Where the program headers are; sizes and counts of headers.
        (32, &[64]),
        (52, &[64, 0, 56, 0, 1]),
        // One segment: all of the file, readable and executable, at 0x400000.
        (64, &[1, 0, 0, 0, 5]),
        (80, &[0, 0, 0x40]),
        (88, &[0, 0, 0x40]),
        (96, &[129]),
        (104, &[129]),
        (112, &[0, 0x10]),
        // xor edi, edi; mov eax, 60; syscall
        (120, b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05"),
    ];
    let mut part = 0;
    while part < parts.len() {
        let (at, bytes) = parts[part];
        let mut i = 0;
        while i < bytes.len() {
            elf[at + i] = bytes[i];
            i += 1;
        }
        part += 1;
    }
    elf
};

impl Reproducer {
    /// What stands in the place of a reproducer where a job has none.
    pub fn nothing() -> Reproducer {
        Reproducer {
            kind: ReproducerKind::Nothing,
            name: "nothing".into(),
            digest: Digest::of(&NOTHING),
            args: vec![],
            cflags: vec![],
        }
    }
}

impl Symptom {
    /// The word of the job file for what is searched for.
    pub fn word(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Symptom::Crash, Mode::Cause) => "cause",
            (Symptom::Crash, Mode::Fix) => "fix",
            (Symptom::Build, _) => "build",
            (Symptom::Boot, _) => "boot",
        }
    }

    /// What a job looks for, as people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Symptom::Crash => "crash",
            Symptom::Build => "build failure",
            Symptom::Boot => "boot failure",
        }
    }

    /// A compiler says the same however often it is asked.
    pub fn assumption(self) -> Assumption {
        match self {
            Symptom::Build => Assumption::Exact,
            Symptom::Crash | Symptom::Boot => Assumption::Flaky,
        }
    }

    /// The most runs that count at a revision and at the bad end.
    pub fn runs(self, asked: &Runs) -> Runs {
        match self {
            Symptom::Build => Runs { max: 1, first_max: 1 },
            Symptom::Crash | Symptom::Boot => asked.clone(),
        }
    }

    /// The title searched for: an error as it stands in a build log is as good as its signature.
    pub fn target(self, asked: Option<&str>) -> Option<String> {
        match self {
            Symptom::Build => asked.map(error_signature),
            Symptom::Crash | Symptom::Boot => asked.map(str::to_owned),
        }
    }

    /// What a build says of its revision, however many `runs` of it are asked for: another one
    /// would end alike. `key` names the build: it stands in for the fingerprint
    /// of a kernel that there is not.
    pub fn of_build(
        self,
        revision: RevisionId,
        key: &Digest,
        outcome: &BuildOutcome,
        runs: u32,
    ) -> Vec<Evidence> {
        let built = |fingerprint| Evidence::Built { revision, fingerprint };
        let all = |fingerprint, outcome: Outcome| {
            let run = |index| Evidence::Run { revision, index, outcome: outcome.clone() };
            std::iter::once(built(fingerprint)).chain((0..runs.max(1)).map(run)).collect()
        };
        match (self, outcome) {
            (Symptom::Build, BuildOutcome::Built(kernel)) => all(kernel.fingerprint, Outcome::Ok),
            (Symptom::Build, BuildOutcome::Failed { message }) => {
                all(*key, shows(vec![Crash::titled(&error_signature(message))]))
            }
            (Symptom::Crash | Symptom::Boot, BuildOutcome::Built(kernel)) => vec![built(kernel.fingerprint)],
            (Symptom::Crash | Symptom::Boot, BuildOutcome::Failed { message }) => {
                vec![Evidence::BuildFailed { revision, message: message.clone() }]
            }
        }
    }

    /// What a run says of its revision.
    pub fn of_run(self, outcome: &Outcome) -> Outcome {
        match (self, outcome) {
            (Symptom::Boot, Outcome::BootFailed { crashes, reason }) if crashes.is_empty() => {
                shows(vec![Crash::titled(reason)])
            }
            (Symptom::Boot, Outcome::BootFailed { crashes, .. }) => {
                shows(crashes.iter().map(|seen| seen.crash.clone()).collect())
            }
            (Symptom::Boot, _) => Outcome::Ok,
            (Symptom::Crash | Symptom::Build, outcome) => outcome.clone(),
        }
    }
}

fn shows(crashes: Vec<Crash>) -> Outcome {
    Outcome::Crashed(crashes.into_iter().map(|crash| SeenCrash { phase: Phase::Reproducer, crash }).collect())
}

/// Words that stand between the place of an error and what it is.
const MARKS: [&str; 4] = ["fatal error: ", "error: ", "Error: ", "*** "];

/// An error of a build without where it is: the same error in a file that has grown, or has
/// moved, has one signature.
pub fn error_signature(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default();
    let marked = MARKS.iter().find_map(|mark| line.find(mark).map(|at| at + mark.len()));
    let placed = || line.find(": undefined reference to ").or_else(|| line.find(": multiple definition of "));
    let marked = marked.or_else(|| placed().map(|at| at + 2));
    let what = &line[marked.unwrap_or(0)..];
    let words: Vec<&str> =
        what.split_whitespace().map(without_place).filter(|word| !word.is_empty()).collect();
    format!("build error: {}", words.join(" "))
}

/// The word without directories before it and numbers of lines behind it.
fn without_place(word: &str) -> &str {
    let quotes = ['\'', '`', '"', '[', ']', '(', ')', '‘', '’', '”', '“'];
    let word =
        word.trim_matches(|c| quotes.contains(&c) || c == ',' || c == '.' || c == ';' && word.len() > 3);
    let name = match word.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => name,
        Some(_) | None => word,
    };
    match name.split_once(':') {
        Some((file, rest)) if rest.chars().all(|c| c.is_ascii_digit() || c == ':') => file,
        Some(_) | None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_has_one_signature_wherever_it_stands() {
        for (message, signature) in [
            ("fs/foo.c:12:3: error: expected ';' before '}' token", "build error: expected ; before } token"),
            ("mm/foo.c:99:1: error: expected ';' before '}' token", "build error: expected ; before } token"),
            ("a.c:1:10: fatal error: linux/no.h: No such file", "build error: no.h No such file"),
            (
                "ld: mm/a.o: in function `f': a.c:(.text+0x3): undefined reference to `g'",
                "build error: undefined reference to g",
            ),
            (
                "make[2]: *** No rule to make target 'fs/b.o', needed by 'fs/'.  Stop.",
                "build error: No rule to make target b.o needed by fs/ Stop",
            ),
            (
                "ERROR: modpost: \"g\" [drivers/x.ko] undefined!",
                "build error: ERROR modpost g x.ko undefined!",
            ),
            ("", "build error: "),
        ] {
            assert_eq!(error_signature(message), signature, "{message}");
        }
        assert_ne!(error_signature("a.c:1: error: no x"), error_signature("a.c:1: error: no y"));
    }

    #[test]
    fn a_signature_is_its_own_signature_as_a_target() {
        let signature = error_signature("fs/foo.c:12:3: error: expected ';' before '}' token");
        assert_eq!(Symptom::Build.target(Some(&signature)), Some(signature));
    }

    #[test]
    fn a_boot_shows_it_if_init_was_not_reached() {
        let boot = |titles: &[&str]| Outcome::BootFailed {
            crashes: titles
                .iter()
                .map(|title| SeenCrash { phase: Phase::Boot, crash: Crash::titled(title) })
                .collect(),
            reason: "init did not run within 300 s".into(),
        };
        let late =
            Outcome::Crashed(vec![SeenCrash { phase: Phase::Reproducer, crash: Crash::titled("late") }]);
        for (outcome, titles) in [
            (boot(&["panic"]), vec!["panic"]),
            (boot(&["warning", "panic"]), vec!["warning", "panic"]),
            (boot(&[]), vec!["init did not run within 300 s"]),
            (Outcome::Ok, vec![]),
            (late, vec![]),
            (Outcome::NoReproducerStart { reason: "no".into() }, vec![]),
            (Outcome::Hung { reason: "no".into() }, vec![]),
        ] {
            let said = Symptom::Boot.of_run(&outcome);
            let seen: Vec<&str> = said.crashes().iter().map(|seen| seen.crash.title.as_str()).collect();
            assert_eq!(seen, titles, "{outcome:?}");
            assert_eq!(Symptom::Crash.of_run(&outcome), outcome);
        }
    }
}
