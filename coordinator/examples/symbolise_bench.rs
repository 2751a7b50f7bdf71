//! How long a vmlinux takes to load, and a report of 300 frames to get its source lines.
//!
//! `cargo run --release -p kulprit-coordinator --example symbolise_bench -- VMLINUX`; the kernel
//! needs debug information. Times stand beside reading the same file in the same run.

use kulprit_common::crash::{Symbols as _, symbolise};
use kulprit_coordinator::vmlinux::Vmlinux;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

const FRAMES: usize = 300;
/// Where the text of x86-64 kernels begins, and an odd step through it, so that frames differ.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const STEP: u64 = 4099;

fn main() -> anyhow::Result<()> {
    let path: PathBuf =
        std::env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| anyhow::anyhow!("VMLINUX"))?;
    let (bytes, reading) = timed(|| std::fs::read(&path));
    let size = bytes?.len();
    let (vmlinux, loading) = timed(|| Vmlinux::open(&path, None));
    let vmlinux = vmlinux?;
    anyhow::ensure!(vmlinux.has_lines(), "{} has no debug information", path.display());
    let mut report = String::from("Call Trace:\n");
    let spots = (0..100_000).filter_map(|at| vmlinux.spot_at(TEXT + at * STEP));
    for spot in spots.take(FRAMES) {
        writeln!(report, " {}+{:#x}/{:#x}", spot.function, spot.offset, spot.size)?;
    }
    let frames = report.lines().count() - 1;
    let (first, cold) = timed(|| symbolise(&report, &vmlinux));
    let (_, warm) = timed(|| symbolise(&report, &vmlinux));
    println!(
        "{} MiB read in {reading:.0} ms, loaded in {loading:.0} ms = {:.1} times that",
        size >> 20,
        loading / reading
    );
    println!(
        "{frames} frames became {} lines: {cold:.1} ms the first time, {warm:.1} ms the second = {:.2} and {:.2} times reading",
        first.report.lines().count() - 1,
        cold / reading,
        warm / reading
    );
    Ok(())
}

/// A result, and the milliseconds it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1000.0)
}
