//! What the test's own process, in which the agent's code runs, takes.

/// Resident memory in MiB.
pub fn memory_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}
