//! `Kernel panic - not syncing` where nothing before it tells more.

use super::{Entry, Family, Rule, Stack, Text};

pub(super) const FAMILY: Family = Family {
    benign: &[],
    rules: &[
        Rule::new(
            r"Kernel panic - not syncing: stack-protector: .*corrupted in: (?P<frame>\S+)",
            "kernel panic: stack is corrupted in {frame}",
        )
        .from(&[Text, Stack])
        .traceless(),
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
            r"Kernel panic - not syncing: Couldn't open N_TTY ldisc",
            "kernel panic: Couldn't open N_TTY ldisc",
        ),
        // always the consequence of another report, whose beginning is lost
        Rule::bare(
            r"Kernel panic - not syncing: (?P<what>panic_on_warn set|Fatal exception(?: in interrupt)?|hung_task: blocked tasks|softlockup: hung tasks|RCU Stall|UBSAN: panic_on_warn set|KASAN: panic_on_warn set|kernel: panic_on_warn set)",
            "kernel panic: {what}",
        )
        .fragment(),
        Rule::bare(
            r"Kernel panic - not syncing: (?P<what>.*?)(?: \.\.\.|:? exitcode=.*)?$",
            "kernel panic: {what}",
        )
        .traced(),
        Rule::bare(r"Kernel panic - not syncing", "kernel panic").traced(),
    ],
    catch_all: &[],
};
