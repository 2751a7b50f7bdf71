//! Stalls, lockups, hung tasks: watchdogs that lost patience.

use super::{Family, Interrupted, Rule, Through};

pub(super) const FAMILY: Family = Family {
    benign: &[
        "Stall ended before state dump start",
        // what Linux 6.16 and later add to a hung task's report: who has the lock
        r"blocked on an? .* likely owned by",
    ],
    rules: &[
        Rule::new(
            r"INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls? on",
            "INFO: rcu detected stall in {frame}",
        )
        .alts(&["stall in {frame}"])
        .from(&[Interrupted])
        .absorbs(r"stall|kthread starved|NMI|^WARNING: CPU: \d+ PID: \d+ at kernel/(?:sched|rcu)/")
        .every_context(),
        Rule::new(r"BUG: soft lockup", "BUG: soft lockup in {frame}")
            .alts(&["stall in {frame}"])
            .from(&[Interrupted])
            .absorbs(r"stall")
            .every_context(),
        Rule::new(r"(?:Watchdog detected|NMI watchdog:.*) hard LOCKUP", "BUG: hard lockup in {frame}")
            .alts(&["stall in {frame}"])
            .from(&[Interrupted])
            .every_context(),
        Rule::new(
            r"INFO: task .*blocked (?:in I/O wait )?for more than \d+ seconds",
            "INFO: task hung in {frame}",
        )
        .alts(&["hang in {frame}"])
        .through(Through::Waiting),
        // the task's name may contain a newline
        Rule::new(r"INFO: task ", "INFO: task hung in {frame}")
            .only_if(r":\d+ blocked (?:in I/O wait )?for more than \d+ seconds")
            .alts(&["hang in {frame}"])
            .through(Through::Waiting),
        Rule::new(r"INFO: task .*can't die for more than \d+ seconds", "INFO: task can't die in {frame}")
            .alts(&["hang in {frame}"])
            .through(Through::Waiting),
        Rule::bare(r"BUG: workqueue lockup", "BUG: workqueue lockup"),
    ],
    catch_all: &[],
};
