//! Runs in real QEMU, with a real kernel where KULPRIT_TEST_KERNEL names one.

use kulprit_agent::boot::{BootRequest, QemuConfig, boot};
use kulprit_common::job::{Machine, ReproducerKind, Timeouts};
use kulprit_common::outcome::{Outcome, Phase};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Boots with a script, and gives back what was observed and the console.
async fn run(kernel: &PathBuf, script: &str, name: &str) -> (Outcome, String) {
    let dir = tempfile::tempdir().unwrap();
    let request = BootRequest {
        kernel,
        build_id: "",
        reproducer: script.as_bytes(),
        kind: ReproducerKind::Script,
        args: &["an argument".to_owned()],
        machine: &Machine::default(),
        timeouts: &Timeouts { reproducer_s: 5, ..Timeouts::default() },
        work_dir: dir.path(),
        name,
    };
    let (live, _) = mpsc::channel(1);
    // Nobody's QEMU, where the tests may become nobody.
    let user = nix::unistd::geteuid().is_root().then_some((65534, 65534));
    let report = boot(&QemuConfig { user, ..QemuConfig::default() }, request, live, CancellationToken::new())
        .await
        .unwrap();
    eprintln!("{name}: {:?} in {:?}", report.outcome, report.duration);
    let console = std::fs::read(report.console).unwrap();
    (report.outcome, String::from_utf8_lossy(&console).into_owned())
}

#[tokio::test]
async fn a_real_kernel_boots_runs_and_crashes() {
    let Some(kernel) = std::env::var_os("KULPRIT_TEST_KERNEL").map(PathBuf::from) else {
        eprintln!("skipped: KULPRIT_TEST_KERNEL names no kernel");
        return;
    };
    let (outcome, console) = run(&kernel, "#!/bin/bash\necho \"got $1\"; exit 3\n", "real-exit").await;
    assert_eq!(outcome, Outcome::Ok, "{console}");
    assert!(console.contains("got an argument"), "{console}");
    let (outcome, console) = run(&kernel, "sleep 1000\n", "real-timeout").await;
    assert_eq!(outcome, Outcome::Ok, "{console}");
    let crash = "[ -e /proc/sysrq-trigger ] || echo no sysrq here\necho c >/proc/sysrq-trigger\n";
    let (outcome, console) = run(&kernel, crash, "real-crash").await;
    if console.contains("no sysrq here") {
        eprintln!("skipped: a crash, since the kernel has no CONFIG_MAGIC_SYSRQ");
    } else {
        let phases: Vec<_> = outcome.crashes().iter().map(|crash| crash.phase).collect();
        assert!(phases.contains(&Phase::Reproducer), "{outcome:?} {console}");
    }
    let (outcome, console) = run(&kernel, "kill -9 1; reboot -f\n", "real-restart").await;
    assert!(matches!(outcome, Outcome::Hung { .. }), "{outcome:?} {console}");
}
