//! `BUG:` and `kernel BUG at`, and memory leaks.

use super::{Family, Rule, Stack, Text, Through};

pub(super) const FAMILY: Family = Family {
    benign: &[r"DEBUG", r"BIOS BUG|BIOS: BUG|Firmware Bug"],
    rules: &[
        // assertions
        Rule::new(r"kernel BUG at (?:\S*/)?mm/usercopy\.c", "BUG: bad usercopy in {frame}"),
        Rule::new(r"kernel BUG at (?:\S*/)?lib/list_debug\.c", "BUG: corrupted list in {frame}")
            .alts(&["bad-access in {frame}"]),
        Rule::new(r"kernel BUG at ", "kernel BUG in {frame}"),
        // contexts in which something must not be done
        Rule::new(
            r"BUG: sleeping function called from invalid context at",
            "BUG: sleeping function called from invalid context in {frame}",
        ),
        Rule::new(r"BUG: scheduling while atomic", "BUG: scheduling while atomic in {frame}")
            .through(Through::Waiting),
        Rule::new(
            r"BUG: using (?P<call>\w+\(\)) in preemptible",
            "BUG: using {call} in preemptible code in {frame}",
        ),
        // memory management
        Rule::new(r"BUG: memory leak", "memory leak in {frame}")
            .then(r"^unreferenced object 0x")
            .from(&[Stack])
            .through(Through::Allocation),
        Rule::new(r"BUG: Bad page state", "BUG: Bad page state in {frame}"),
        Rule::bare(r"BUG: Bad page (?P<what>map|cache)", "BUG: Bad page {what}").traced(),
        Rule::bare(r"BUG: Bad rss-counter state", "BUG: Bad rss-counter state"),
        Rule::bare(r"BUG: non-zero (?P<what>nr_\w+) on freeing mm", "BUG: non-zero {what} on freeing mm"),
        Rule::bare(
            r"BUG: non-zero pgtables_bytes on freeing mm",
            "BUG: non-zero pgtables_bytes on freeing mm: NUM",
        ),
        Rule::new(
            r"BUG (?P<cache>\S+) \(.*\): (?P<what>[A-Z][^0-9]+?)(?:\. 0x.*)?$",
            "BUG: {what} in {frame}",
        ),
        // file systems
        Rule::bare(
            r"BUG: Dentry .*still in use.*\[(?P<how>\w+) of (?P<fs>[^\]]+)\]",
            "BUG: Dentry still in use in {how}",
        )
        .alts(&["BUG: Dentry still in use [{how} of {fs}]"])
        .traced()
        .absorbs(r"^WARNING:"),
        Rule::bare(r"VFS: Busy inodes after unmount", "VFS: Busy inodes after unmount (use-after-free)"),
        Rule::bare(
            r"VFS: Close: file count is (?:0|zero)",
            "VFS: Close: file count is zero (use-after-free)",
        ),
        // work items that leave with a lock
        Rule::new(
            r"BUG: workqueue leaked (?:atomic|lock)",
            "BUG: workqueue leaked lock or atomic in {frame}",
        )
        .then(r"(?:last function: |workfn=)(?P<frame>\S+)")
        .from(&[Text, Stack]),
        // what the harness saw in user space
        Rule::bare(r"BUG: executor-detected bug", "BUG: executor-detected bug"),
        // calls through pointers of the wrong type
        Rule::new(r"CFI failure at (?P<frame>\S+)", "CFI failure in {frame}").from(&[Text, Stack]),
        Rule::new(r"CFI failure \(", "CFI failure in {frame}"),
        // the lock checker's own tables
        Rule::bare(r"BUG: (?P<what>MAX_\w+) too low!", "BUG: {what} too low!"),
        // network devices that never go away
        Rule::bare(
            r"unregister_netdevice: waiting for .* to become free",
            "unregister_netdevice: waiting for DEV to become free",
        ),
        // what SLUB tells about an object whose report's beginning is lost
        Rule::bare(r"INFO: (?P<what>(?:Freed|Allocated) in \S+ age=.*)", "INFO: {what}").traced(),
    ],
    catch_all: &[Rule::bare(r"BUG: (?P<what>\S.*)", "BUG: {what}").traced()],
};
