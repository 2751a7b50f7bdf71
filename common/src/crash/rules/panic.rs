//! `Kernel panic - not syncing` where nothing before it tells more.

use super::{Entry, Family, Rule, Stack, Text};

pub(super) const FAMILY: Family = Family {
    needles: &["Kernel panic - not syncing"],
    benign: &[],
    rules: &[
        Rule::new(
            r"Kernel panic - not syncing: stack-protector: .*corrupted in: (?P<frame>\S+)",
            "kernel panic: stack is corrupted in {frame}",
        )
        .from(&[Text, Stack]),
        Rule::new(
            r"Kernel panic - not syncing: corrupted stack end detected",
            "kernel panic: corrupted stack end in {frame}",
        )
        .alts(&["stack-overflow in {frame}"])
        .from(&[Entry]),
        Rule::bare(
            r"Kernel panic - not syncing: Attempted to kill init!",
            "kernel panic: Attempted to kill init!",
        ),
        Rule::bare(
            r"Kernel panic - not syncing: sysrq triggered crash",
            "kernel panic: sysrq triggered crash",
        ),
        Rule::bare(
            r"Kernel panic - not syncing: (?P<what>.*?)(?: \.\.\.|:? exitcode=.*)?$",
            "kernel panic: {what}",
        )
        .traced(),
        Rule::bare(r"Kernel panic - not syncing", "kernel panic").traced(),
    ],
    catch_all: &[],
};
