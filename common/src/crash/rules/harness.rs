//! Failures of what runs inside the guest, of firmware beneath it, and of Rust code in the kernel.

use super::{Family, Rule};

pub(super) const FAMILY: Family = Family {
    benign: &[r"\S fatal error: "],
    rules: &[
        Rule::bare(r"SYZFATAL: (?P<what>.*)", "SYZFATAL: {what}").alts(&["SYZFATAL"]),
        Rule::bare(r"SYZFAIL: (?P<what>.*)", "SYZFAIL: {what}"),
        Rule::bare(
            r"trusty: panic.*ASSERT FAILED at \([^)]*\): (?P<what>.*)",
            "trusty: ASSERT FAILED: {what}",
        ),
        Rule::bare(r"trusty: panic(?: \(caller 0x[0-9a-f]+\))?: (?P<what>.*)", "trusty: panic: {what}"),
        Rule::bare(r"(?:^fatal error: |^panic: runtime error)", "go runtime error")
            .only_if(r"^(?:goroutine \d|runtime stack:|runtime\.)"),
        Rule::new(r"rust_kernel: panicked at", "{what} in {frame}")
            .only_if(r"^(?P<what>\S.*?)\.?$")
            .absorbs(r"^kernel BUG at rust/"),
    ],
    catch_all: &[],
};
