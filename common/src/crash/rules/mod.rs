//! What a rule of a crash title says, and the tables of rules, one file per family.
//!
//! A table reads top-down: the first rule whose lead and follow-up lines match names the crash.

mod bug;
mod fault;
mod hang;
mod harness;
mod lockdep;
mod panic;
mod sanitizer;
mod warning;

/// Where the function that names a crash is looked for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The group `frame` of the lead or, before the first stack, of a line like the follow-up line.
    Text,
    /// The first stack section after the lead.
    Stack,
    /// The first stack section after the line `stack backtrace:`.
    Backtrace,
    /// The entry into a subsystem, on the first stack: which function overflows a stack is chance.
    Entry,
    /// The same on the stack of a CPU that a watchdog interrupted.
    Interrupted,
}

/// Helpers beyond the general ones that a family looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Nothing,
    /// Sleeping and waiting functions: hung tasks.
    Waiting,
    /// Allocators: leaks.
    Allocation,
    /// Whoever takes and drops references: wrong counts.
    References,
    /// Whoever takes locks: broken locks.
    Locking,
    /// Timers, work items, objects: wrong use of tracked ones.
    Objects,
}

/// One crash format. Patterns are regular expressions; `{group}` in titles is a named group of either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Matched in the oops line, at a word's beginning.
    pub lead: &'static str,
    /// Must match one of the lines after the lead, if not empty.
    pub then: &'static str,
    /// Without the follow-up line, the lead was no crash.
    pub then_decides: bool,
    pub title: &'static str,
    pub alts: &'static [&'static str],
    pub sources: &'static [Source],
    pub through: Through,
    /// No stack trace in the report means that part of it was lost.
    pub needs_trace: bool,
    /// Leads of the same report: while no stack was seen, lines matching this start no crash of their own.
    pub absorbs: &'static str,
    /// The beginning of the report must have been lost, or this would not name it.
    pub fragment: bool,
    /// Printed about, and by, several CPUs and tasks: lines of every context belong to the report.
    pub every_context: bool,
}

use Source::{Backtrace, Entry, Interrupted, Stack, Text};

impl Rule {
    /// A crash named by the first function on its stack.
    const fn new(lead: &'static str, title: &'static str) -> Self {
        Self {
            lead,
            then: "",
            then_decides: false,
            title,
            alts: &[],
            sources: &[Stack],
            through: Through::Nothing,
            needs_trace: true,
            absorbs: "",
            fragment: false,
            every_context: false,
        }
    }

    /// A crash whose title names no function and whose report needs no stack.
    const fn bare(lead: &'static str, title: &'static str) -> Self {
        let mut rule = Self::new(lead, title);
        rule.sources = &[];
        rule.needs_trace = false;
        rule
    }

    const fn then(mut self, pattern: &'static str) -> Self {
        self.then = pattern;
        self
    }

    const fn only_if(mut self, pattern: &'static str) -> Self {
        self.then = pattern;
        self.then_decides = true;
        self
    }

    const fn alts(mut self, alts: &'static [&'static str]) -> Self {
        self.alts = alts;
        self
    }

    const fn from(mut self, sources: &'static [Source]) -> Self {
        self.sources = sources;
        self
    }

    const fn through(mut self, through: Through) -> Self {
        self.through = through;
        self
    }

    const fn traceless(mut self) -> Self {
        self.needs_trace = false;
        self
    }

    const fn traced(mut self) -> Self {
        self.needs_trace = true;
        self
    }

    const fn absorbs(mut self, leads: &'static str) -> Self {
        self.absorbs = leads;
        self
    }

    const fn fragment(mut self) -> Self {
        self.fragment = true;
        self
    }

    const fn every_context(mut self) -> Self {
        self.every_context = true;
        self
    }
}

/// Rules of one kind of oops line.
#[derive(Debug)]
pub(super) struct Family {
    /// Lines that look like an oops of this family and are none.
    pub benign: &'static [&'static str],
    pub rules: &'static [Rule],
    /// The family's last rules, `WARNING: anything`: only for lines that the kernel printed.
    pub catch_all: &'static [Rule],
}

/// Every family; an earlier one wins when a line matches two.
pub(super) const FAMILIES: &[&Family] = &[
    &sanitizer::FAMILY,
    &lockdep::FAMILY,
    &hang::FAMILY,
    &fault::FAMILY,
    &bug::FAMILY,
    &warning::FAMILY,
    &panic::FAMILY,
    &harness::FAMILY,
];

/// Lines that continue the report that is open in their context, and start one only if none is.
pub(super) const CONTINUATIONS: &str = r"^(?:Oops: (?:[0-9a-f]{4} \[#|Oops: |invalid opcode)|Oops(?: - [^:]*)? \[#|Internal error: (?:Oops|:)|invalid opcode: |Kernel panic - not syncing|kernel tried to execute)";
/// The same, as long as no stack was printed.
pub(super) const EARLY_CONTINUATIONS: &str = r"^(?:Internal error: |Oops|kernel stack overflow \()";

/// Lines that only a booting kernel prints: no report reaches across them.
pub(super) const BOOT_BANNERS: &str =
    r"^(?:Linux version \d+\.\d|Booting the kernel|Decompressing Linux\.\.\.)";
/// What firmware prints first: a machine that had printed anything before was running.
pub(super) const FIRMWARE_BANNERS: &[&str] =
    &["SeaBIOS (version", "UEFI firmware (version", "U-Boot SPL ", "OpenSBI v"];
/// Title when a boot banner stands where a kernel had long been running.
pub(super) const REBOOT_TITLE: &str = "unexpected kernel reboot";

/// Lines that show that memory, disk or programs of the guest failed first: what follows is no finding.
pub(super) const SUPPRESSING: &[&str] = &[
    // programs that smashed themselves, or whose memory or file system went away
    r"\*\*\* stack smashing detected \*\*\*",
    r"INIT: PANIC: segmentation violation",
    r"signal SIGBUS: bus error|SYZFAIL: SIGBUS",
    // the Go part of the harness out of memory, or hit in its own runtime
    r"(?:fatal error: )?runtime: (?:out of memory|cannot allocate)|fatal error: unexpected signal during runtime execution",
    r"fatal error: runtime: (?:out of memory|cannot allocate memory)|cannot allocate memory in non-memory-cgroup",
    r"panic: (?:failed to (?:start executor binary|create temp dir)|executor \d+: failed: pthread_create failed)",
    // the harness and the way in killed for memory
    r"(?:Out of memory: Kill(?:ed)? process|Memory cgroup out of memory: Kill(?:ed)? process|Killed process) \d+,? \((?:syz-(?:fuzzer|execprog|agent|manager|executor)|sshd)\)",
    r"lowmemorykiller: Killing 'syz-(?:fuzzer|execprog|executor)",
];
