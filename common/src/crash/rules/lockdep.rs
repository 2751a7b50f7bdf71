//! Lock dependency checker, RCU usage, and the lock debugging that prints like it.

use super::{Backtrace, Family, Rule, Stack, Text, Through};

/// Where a report says which lock it is about: `(lock){....}, at: [<addr>] function+0x1/0x2`.
const AT: &str = r"\bat: (?:\[<[0-9a-f]+>\] )?(?P<frame>[A-Za-z_]\S*)\+0x";

pub(super) const FAMILY: Family = Family {
    benign: &[],
    rules: &[
        // a lock order that can deadlock
        Rule::new(
            r"(?:WARNING|INFO): possible (?:circular locking dependency|recursive locking|irq lock inversion dependency) detected",
            "possible deadlock in {frame}",
        )
        .then(AT)
        .from(&[Text, Stack])
        .through(Through::Waiting),
        Rule::new(
            r"(?:WARNING|INFO|BUG): .*-> .*-unsafe\s+lock order detected",
            "possible deadlock in {frame}",
        )
        .then(AT)
        .from(&[Stack, Text])
        .through(Through::Waiting),
        // a lock taken both inside and outside of interrupts
        Rule::new(r"(?:WARNING|INFO): inconsistent lock state", "inconsistent lock state in {frame}")
            .then(AT)
            .from(&[Text, Backtrace]),
        // RCU
        Rule::new(
            r"(?P<level>WARNING|INFO): [Ss]uspicious RCU usage",
            "{level}: suspicious RCU usage in {frame}",
        )
        .from(&[Backtrace]),
        // lock bookkeeping
        Rule::new(
            r"INFO: trying to register non-static key",
            "INFO: trying to register non-static key in {frame}",
        ),
        Rule::new(
            r"(?P<level>WARNING|BUG): bad unlock balance detected",
            "{level}: bad unlock balance in {frame}",
        )
        .from(&[Backtrace]),
        Rule::new(r"(?P<level>WARNING|BUG): held lock freed", "{level}: held lock freed in {frame}")
            .then(AT)
            .from(&[Text, Stack]),
        Rule::new(
            r"(?P<level>WARNING|BUG): (?P<what>lock held (?:when returning to user space|at task exit time))",
            "{level}: {what} in {frame}",
        )
        .then(AT)
        .from(&[Text, Stack])
        .traceless(),
        Rule::new(
            r"(?P<level>WARNING|BUG): [Nn]ested lock was not taken",
            "{level}: nested lock was not taken in {frame}",
        )
        .from(&[Backtrace, Stack])
        // The lock checker itself may trip over such a lock.
        .absorbs(r"^general protection fault|^Unable to handle kernel|^BUG: "),
        Rule::new(r"BUG: Invalid wait context", "WARNING: locking bug in {frame}")
            .from(&[Backtrace])
            .through(Through::Locking),
        Rule::new(r"(?P<level>WARNING|BUG): .*still has locks held!", "{level}: still has locks held in {frame}")
            .then(AT)
            .from(&[Text, Stack]),
        // locks with debugging of their own
        Rule::new(
            r"BUG: (?P<lock>spinlock|rwlock) (?P<what>bad magic|already unlocked|lockup suspected|recursion|wrong owner|wrong CPU|cpu recursion|trylock failure on UP|lockup)",
            "BUG: {lock} {what} in {frame}",
        ),
    ],
    catch_all: &[],
};
