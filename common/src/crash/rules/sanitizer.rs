//! KASAN, KMSAN, KCSAN, KFENCE, UBSAN.

use super::{Family, Rule, Stack, Text};

pub(super) const FAMILY: Family = Family {
    benign: &[],
    rules: &[
        // KASAN, addresses without a function
        Rule::bare(r"BUG: KASAN: (?P<kind>[a-z-]+) on address", "KASAN: {kind} {access}")
            .then(r"^(?P<access>Read|Write) (?:of size|at addr) ")
            .traced(),
        // KASAN, freeing what is not allocated
        Rule::new(
            r"BUG: KASAN: (?:double-free or )?invalid-free in (?P<frame>\S+)",
            "KASAN: invalid-free in {frame}",
        )
        .alts(&["invalid-free in {frame}"])
        .from(&[Stack, Text]),
        Rule::new(r"BUG: KASAN: double-free in (?P<frame>\S+)", "KASAN: double-free in {frame}")
            .alts(&["invalid-free in {frame}"])
            .from(&[Stack, Text]),
        // KASAN, every access; old kernels print the access first or the address in the same line
        Rule::new(r"BUG: KASAN: (?P<kind>[a-z-]+) in (?P<frame>\S+)", "KASAN: {kind} {access} in {frame}")
            .then(r"^\s*(?P<access>Read|Write) (?:of size|at addr) ")
            .alts(&["bad-access in {frame}"])
            .from(&[Text, Stack]),
        Rule::bare(r"BUG: (?P<what>KASAN: .+)", "{what}").traced(),
        // KMSAN; what a device is told without being initialised is known by who allocated it, too
        Rule::new(
            r"BUG: (?P<kind>KMSAN: kernel-usb-infoleak) in (?P<frame>\S+)",
            "{kind} in {frame}",
        )
        .alts(&["KMSAN origin in {origin}"])
        .from(&[Text, Stack]),
        Rule::new(r"BUG: (?P<kind>KMSAN: [a-z-]+) in (?P<frame>\S+)", "{kind} in {frame}")
            .alts(&["bad-access in {frame}"])
            .from(&[Text, Stack]),
        Rule::bare(r"BUG: (?P<what>KMSAN: .+)", "{what}").traced(),
        // KCSAN names both racing functions itself
        Rule::new(
            r"BUG: KCSAN: (?P<kind>[a-z:\- ]+?) in (?P<frame>\S+) / (?P<other>\S+)",
            "KCSAN: {kind} in {frame} / {other}",
        )
        .from(&[Text]),
        Rule::new(r"BUG: KCSAN: (?P<kind>[a-z:\- ]+?) in (?P<frame>\S+)", "KCSAN: {kind} in {frame}")
            .from(&[Text]),
        // KFENCE
        Rule::new(
            r"BUG: KFENCE: (?P<kind>(?:use-after-free|out-of-bounds|invalid) (?:read|write)) in (?P<frame>\S+)",
            "KFENCE: {kind} in {frame}",
        )
        .alts(&["bad-access in {frame}"])
        .from(&[Text, Stack]),
        Rule::new(r"BUG: KFENCE: (?P<kind>use-after-free|out-of-bounds|invalid read|invalid write)", "KFENCE: {kind} in {frame}")
            .alts(&["bad-access in {frame}"]),
        Rule::new(
            r"BUG: KFENCE: invalid free in (?P<frame>\S+)",
            "KFENCE: invalid free in {frame}",
        )
        .alts(&["invalid-free in {frame}"])
        .from(&[Text, Stack]),
        Rule::new(r"BUG: KFENCE: (?P<kind>[a-z -]+?) in (?P<frame>\S+)", "KFENCE: {kind} in {frame}")
            .from(&[Text, Stack]),
        // UBSAN; old kernels say only that behaviour was undefined
        Rule::new(r"UBSAN: Undefined behaviour in ", "UBSAN: undefined-behaviour in {frame}"),
        Rule::new(r"UBSAN: (?P<kind>[a-z-]+) in ", "UBSAN: {kind} in {frame}"),
    ],
    catch_all: &[],
};
