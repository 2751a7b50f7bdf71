//! The reader of symbols and debug information: arbitrary bytes, and a real ELF file with damage.
#![no_main]

#[path = "../../coordinator/src/vmlinux/mod.rs"]
#[allow(dead_code, reason = "only reading from memory is tried")]
mod vmlinux;

use std::process::Command;
use std::sync::LazyLock;

use kulprit_common::crash::{Spot, Symbols};
use libfuzzer_sys::fuzz_target;
use vmlinux::Vmlinux;

/// Two functions, one inlined into the other; enough for every table that is read.
const SOURCE: &str = "static inline __attribute__((always_inline)) int beta(int *p) { return *p + 1; }\n\
    int alpha(int *p) { return beta(p) * 2; }\nint main(void) { int x = 3; return alpha(&x); }\n";

/// The same program with plain and with compressed debug information, old and new, and unlinked as a
/// module is.
static REAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let flags: [&[&str]; 4] = [&["-gdwarf-5"], &["-gdwarf-4"], &["-gdwarf-5", "-gz"], &["-gdwarf-5", "-c"]];
    flags.iter().map(|flags| compiled(flags)).collect()
});

fn compiled(flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (source, elf) = (folder.path().join("a.c"), folder.path().join("a.elf"));
    std::fs::write(&source, SOURCE).expect("the folder can be written to");
    let mut gcc = Command::new("gcc");
    // The same bytes in every run, or a failing input would fail only once.
    gcc.arg(format!("-ffile-prefix-map={}=/src", folder.path().display())).current_dir(folder.path());
    gcc.args(["-O2", "-nostdlib", "-static", "-Wl,-e,main"]).args(flags).arg("-o").arg(&elf).arg(&source);
    assert!(gcc.status().expect("gcc is installed").success(), "gcc {flags:?}");
    std::fs::read(&elf).expect("gcc wrote the file")
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((&kind, patches)) if (kind as usize) < REAL.len() => {
            asked(&damaged(REAL[kind as usize].clone(), patches));
        }
        _ => asked(input),
    }
});

/// Three bytes each: where, counted from the end of the last one, and the new byte.
fn damaged(mut elf: Vec<u8>, patches: &[u8]) -> Vec<u8> {
    let mut at = 0usize;
    for patch in patches.chunks_exact(3) {
        at = (at + usize::from(u16::from_le_bytes([patch[0], patch[1]]))) % elf.len();
        elf[at] = patch[2];
    }
    elf
}

fn asked(elf: &[u8]) {
    let Ok(vmlinux) = Vmlinux::read(elf, None) else { return };
    for address in [0, 0x40_1000, 0x40_1010, u64::MAX] {
        if let Some(spot) = vmlinux.spot_at(address) {
            assert!(spot.offset < spot.size, "{spot:?}");
            vmlinux.places(&spot, true);
        }
    }
    for name in ["alpha", "main", ""] {
        for offset in [0, 3, 7, u64::MAX] {
            for size in [0, 7, 16] {
                let spot = Spot { function: name.into(), offset, size, module: None };
                vmlinux.places(&spot, offset & 1 == 1);
            }
        }
    }
}
