//! The canary's bytes are those of its source, and QEMU runs them.

use kulprit_agent::boot::{Accelerator, QemuConfig};
use kulprit_agent::canary;
use std::path::Path;
use std::process::Command;

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn the_bytes_are_the_sources() {
    if !installed("as") || !installed("ld") {
        eprintln!("skipped: binutils are not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/canary.S");
    let run = |program: &mut Command| assert!(program.current_dir(dir.path()).status().unwrap().success());
    run(Command::new("as").args(["--64", "-o", "canary.o"]).arg(source));
    run(Command::new("ld").args("-N -Ttext=0x100000 --oformat binary -o canary.bin canary.o".split(' ')));
    let assembled = std::fs::read(dir.path().join("canary.bin")).unwrap();
    assert_eq!(assembled, canary::CANARY);
    assert!(assembled.len() <= 512);
}

#[tokio::test]
async fn tcg_runs_it_where_qemu_is_installed() {
    let config = QemuConfig::default();
    if !installed("qemu-system-x86_64") {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return;
    }
    assert_eq!(canary::check(&config, Accelerator::Tcg).await, Ok(()));
    // Whether KVM works here is the machine's affair; the answer has to come either way.
    let found = canary::find(&config).await.unwrap();
    assert_eq!(found.kvm_refused.is_some(), found.accelerator == Accelerator::Tcg);
    eprintln!("{found:?}");
}

#[tokio::test]
async fn a_qemu_that_fails_is_named_with_the_reason() {
    let cases = [("/nonexistent/qemu", "No such file"), ("/bin/true", "exited with status 0")];
    for (qemu, expected) in cases {
        let config = QemuConfig { qemu: qemu.into(), ..QemuConfig::default() };
        let broken = canary::find(&config).await.unwrap_err();
        assert!(broken.tcg.contains(expected), "{broken}");
    }
}
