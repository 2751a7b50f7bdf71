//! Exceptions of the processor: bad addresses, protection faults, traps, overflowing stacks.

use super::{Entry, Family, Rule};

/// What an access that hit the wrong memory is also known as, whichever trap or sanitizer saw it.
const BAD_ACCESS: &[&str] = &["bad-access in {frame}"];

pub(super) const FAMILY: Family = Family {
    benign: &[
        // a process killed by its own fault
        r"traps: .*\bip:[0-9a-f]+ sp:",
        r"\bsegfault at ",
    ],
    rules: &[
        Rule::new(r"BUG: (?:\w+ )?stack guard page was hit", "BUG: stack guard page was hit in {frame}")
            .alts(&["stack-overflow in {frame}"])
            .from(&[Entry]),
        // before bad addresses: newer kernels guess at one in the same line
        Rule::new(
            r"general protection fault(?:: |, (?:maybe|probably) |, kernel NULL pointer dereference|$)",
            "general protection fault in {frame}",
        )
        .alts(BAD_ACCESS),
        Rule::new(
            r"(?:BUG: |8<--- cut here ---)?(?:[Uu]nable to handle kernel|[Kk]ernel) NULL pointer dereference",
            "BUG: unable to handle kernel NULL pointer dereference in {frame}",
        )
        .alts(BAD_ACCESS),
        // memory that is mapped, but not for this
        Rule::new(
            r"[Uu]nable to handle kernel (?P<what>access to user memory|execution of user memory|execute from non-executable memory|write to read-only memory|read from unreadable memory)",
            "BUG: unable to handle kernel {what} in {frame}",
        )
        .alts(BAD_ACCESS),
        Rule::new(
            r"[Uu]nable to handle (?:kernel paging request|page fault for address|kernel data access|kernel instruction fetch|kernel pointer dereference)",
            "BUG: unable to handle kernel paging request in {frame}",
        )
        .alts(BAD_ACCESS)
        .absorbs(r"PANIC: double fault"),
        Rule::bare(r"BUG: unable to handle kernel", "BUG: unable to handle kernel").traced(),
        Rule::new(r"Alignment trap: not handling instruction", "Alignment trap in {frame}")
            .absorbs(r"^Unhandled fault"),
        Rule::new(r"Unhandled fault:", "Unhandled fault in {frame}").alts(BAD_ACCESS),
        Rule::new(r"(?:PANIC: double fault|kernel panic: double fault)", "PANIC: double fault in {frame}"),
        Rule::new(r"Oops: double fault|double fault: [0-9a-f]{4} \[#", "PANIC: double fault in {frame}"),
        Rule::new(r"stack segment: [0-9a-f]{4} \[#", "stack segment fault in {frame}"),
        Rule::new(r"divide[ _]error: [0-9a-f]{4} \[#", "divide error in {frame}"),
        Rule::new(r"int3: [0-9a-f]{4} \[#", "int3 in {frame}"),
        Rule::new(r"invalid opcode: [0-9a-f]{4} \[#", "invalid opcode in {frame}"),
        Rule::new(
            r"(?:kernel stack overflow \(|Insufficient stack space to handle exception)",
            "kernel stack overflow in {frame}",
        )
        .alts(&["stack-overflow in {frame}"])
        .from(&[Entry]),
        Rule::new(r"Bad mode in .* handler detected", "kernel panic: bad mode").from(&[]).traceless(),
        Rule::new(r"Internal error: ", "Internal error in {frame}").alts(BAD_ACCESS),
        Rule::new(r"Oops(?: - [^:]+)?: [0-9a-f]+ \[#", "Oops in {frame}").alts(BAD_ACCESS),
    ],
    catch_all: &[],
};
