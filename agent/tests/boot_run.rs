//! Whole runs with a fake QEMU: a script that plays a guest's console and result lines.

use bytes::Bytes;
use kulprit_agent::boot::{BootError, BootReport, BootRequest, QemuConfig, boot};
use kulprit_common::job::{Machine, ReproducerKind, Timeouts};
use kulprit_common::outcome::{InfraClass, Outcome, Phase};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Finds its descriptors and the nonces as QEMU and the guest would, in the arguments and the initramfs.
const PRELUDE: &str = r#"#!/bin/bash
fds=()
while [ $# -gt 0 ]; do
    case $1 in
    -add-fd) fd=${2#fd=}; fds+=("${fd%%,*}") ;;
    -initrd) plan=$(tr '\0' '\n' <"$2" | grep -a -E '^(nonce|marker)=') ;;
    -name) name=${2#guest=} ;;
    esac
    shift
done
eval "$plan"
console() { printf '%s\n' "$@" >&"${fds[0]}"; }
result() { printf '\nkulprit %s %s\n' "$nonce" "$1" >&"${fds[1]}"; }
mark() { result "$1"; console "[    2.000000] kulprit $marker $1"; }
crash() {
    console "[    3.000000] ------------[ cut here ]------------" \
        "[    3.000001] WARNING: CPU: 0 PID: 71 at fs/planted.c:17 planted_bug+0x12/0x20" \
        "[    3.000002] RIP: 0010:planted_bug+0x12/0x20" "[    3.000003] Call Trace:" \
        "[    3.000004]  do_syscall_64+0x35/0x80" "[    3.000005] ---[ end trace 0 ]---"
}
up() { console "[    0.000000] Linux version 6.1.0"; mark up; result settled; }
start() { up; mark start; }
"#;

/// A directory, a fake QEMU in it, and what it is run with.
struct Fake {
    dir: tempfile::TempDir,
    config: QemuConfig,
    timeouts: Timeouts,
    build_id: &'static str,
    cancel: CancellationToken,
}

fn fake(script: &str) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let qemu = dir.path().join("qemu");
    std::fs::write(&qemu, format!("{PRELUDE}{script}\n")).unwrap();
    std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("bzImage"), "kernel").unwrap();
    let timeouts = Timeouts {
        first_byte_s: 4,
        boot_s: 20,
        settle_ms: 0,
        silence_s: 4,
        drain_ms: 300,
        ..Timeouts::default()
    };
    Fake {
        config: QemuConfig { qemu, ..QemuConfig::default() },
        dir,
        timeouts,
        build_id: "",
        cancel: CancellationToken::new(),
    }
}

impl Fake {
    async fn run(&self) -> Result<BootReport, BootError> {
        let (live, mut watcher) = mpsc::channel::<Bytes>(16);
        let kernel = self.dir.path().join("bzImage");
        let request = BootRequest {
            kernel: &kernel,
            build_id: self.build_id,
            reproducer: b"binary",
            kind: ReproducerKind::Binary,
            args: &[],
            machine: &Machine::default(),
            timeouts: &self.timeouts,
            work_dir: self.dir.path(),
            name: "fake",
        };
        let report = boot(&self.config, request, live, self.cancel.clone()).await;
        if let Ok(report) = &report {
            let stored = std::fs::metadata(&report.console).unwrap().len();
            assert_eq!(stored > 0, watcher.try_recv().is_ok(), "who watches sees the console");
        }
        self.assert_nothing_left();
        report
    }

    /// No process still runs the fake, as a real QEMU would be found by its arguments.
    fn assert_nothing_left(&self) {
        let qemu = self.config.qemu.to_str().unwrap().as_bytes().to_vec();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let found = command.windows(qemu.len()).any(|window| window == qemu);
            assert!(!found, "left behind: {}", String::from_utf8_lossy(&command));
        }
        let left: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().flatten().collect();
        assert!(left.len() <= 3, "{left:?}");
    }

    async fn outcome(&self) -> Outcome {
        self.run().await.unwrap().outcome
    }

    async fn infra(&self) -> (InfraClass, String) {
        match self.run().await.unwrap_err() {
            BootError::Infra(infra) => (infra.class, infra.reason),
            BootError::Cancelled => panic!("nobody cancelled"),
        }
    }
}

fn phases(outcome: &Outcome) -> Vec<Phase> {
    outcome.crashes().iter().map(|crash| crash.phase).collect()
}

#[tokio::test]
async fn a_run_without_a_crash_is_ok_however_the_reproducer_ends() {
    for ending in ["exit code 0", "exit code 3", "exit signal 11", "timeout"] {
        let outcome = fake(&format!("start; result '{ending}'; result done")).outcome().await;
        assert_eq!(outcome, Outcome::Ok, "{ending}");
    }
}

#[tokio::test]
async fn a_crash_of_another_kernel_than_was_built_is_no_evidence() {
    let of_kernel = |build_id| Fake { build_id, ..fake("result 'kernel 0b'; start; crash; result done") };
    let (class, reason) = of_kernel("0a").infra().await;
    assert!(class == InfraClass::Artifact && reason.contains("another kernel"), "{class:?}: {reason}");
    for build_id in ["0b", ""] {
        let outcome = of_kernel(build_id).outcome().await;
        assert!(matches!(outcome, Outcome::Crashed(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn crashes_are_told_apart_by_their_phase() {
    let outcome = fake("console Linux; crash; sleep 0.2; start; result done").outcome().await;
    assert!(matches!(&outcome, Outcome::BootFailed { .. }), "{outcome:?}");
    assert_eq!(phases(&outcome), [Phase::Boot]);
    let outcome = fake("up; crash; mark start; result done").outcome().await;
    assert_eq!(phases(&outcome), [Phase::Settle]);
    let outcome = fake("start; crash; exec sleep 60").outcome().await;
    assert!(matches!(&outcome, Outcome::Crashed(_)), "{outcome:?}");
    assert_eq!(phases(&outcome), [Phase::Reproducer]);
    let outcome = fake("console Linux; crash; sleep 0.1; start; crash").outcome().await;
    assert!(matches!(&outcome, Outcome::Crashed(_)), "{outcome:?}");
    assert_eq!(phases(&outcome), [Phase::Boot, Phase::Reproducer]);
}

#[tokio::test]
async fn silence_and_restarts_have_their_names() {
    let dark = fake("exec sleep 60").outcome().await;
    assert!(
        matches!(&dark, Outcome::BootFailed { reason, .. } if reason == "no output within 4 s"),
        "{dark:?}"
    );
    let silent = fake("start; exec sleep 60").outcome().await;
    assert!(matches!(&silent, Outcome::Hung { reason } if reason.contains("no sign of life")), "{silent:?}");
    let restarted = fake("start").outcome().await;
    assert!(matches!(&restarted, Outcome::Hung { reason } if reason.contains("restarted")), "{restarted:?}");
    let refused = fake("start; result 'cannot-start Exec format error'; sleep 60").outcome().await;
    assert_eq!(refused, Outcome::NoReproducerStart { reason: "Exec format error".to_owned() });
    println!(
        "FAULT|hung or silent guest; QEMU killed; OOM-killed compile|silent: boot failed or hung with the time, never a crash|silence_and_restarts_have_their_names"
    );
}

#[tokio::test]
async fn results_without_the_nonce_are_ignored() {
    let forged = "start; nonce=0123456789abcdef; result 'exit code 0'; result done; exec sleep 60";
    let outcome = fake(forged).outcome().await;
    assert!(matches!(outcome, Outcome::Hung { .. }), "{outcome:?}");
}

#[tokio::test]
async fn an_endless_console_is_cut_and_read_on() {
    let mut fake = fake("start; yes 'the guest talks' | head -c 52428800 >&\"${fds[0]}\"; crash; sleep 60");
    fake.config.console_bytes_max = 1 << 20;
    fake.timeouts.silence_s = 120;
    let report = fake.run().await.unwrap();
    assert_eq!(phases(&report.outcome), [Phase::Reproducer]);
    let console = std::fs::read_to_string(&report.console).unwrap();
    assert!(console.len() < (1 << 20) + 200, "{}", console.len());
    assert!(console.starts_with("[    0.000000] Linux version") && console.contains("left out here"));
    assert!(console.ends_with("---[ end trace 0 ]---\n"), "the tail is kept");
}

#[tokio::test]
async fn what_qemu_does_is_never_the_kernels_fault() {
    let cases = [
        ("echo 'no such machine' >&2; exit 1", "QEMU exited with status 1: no such machine"),
        ("start; crash; echo 'qemu: fatal' >&2; kill -ABRT $$", "QEMU was killed by signal 6: qemu: fatal"),
        ("start; kill -KILL $$", "QEMU was killed by signal 9"),
        ("start; echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60", "KVM internal error"),
    ];
    for (script, expected) in cases {
        let (class, reason) = fake(script).infra().await;
        assert_eq!(class, InfraClass::Qemu, "{reason}");
        assert!(reason.contains(expected), "{reason}");
    }
    let mut missing = fake("");
    missing.config.qemu = "/nonexistent/qemu".into();
    assert_eq!(missing.infra().await.0, InfraClass::Qemu);
    let mut kvm = fake("exec sleep 60");
    kvm.config.accelerator = kulprit_agent::boot::Accelerator::Kvm;
    assert_eq!(kvm.infra().await.0, InfraClass::Qemu);
    println!(
        "FAULT|hung or silent guest; QEMU killed; OOM-killed compile|QEMU killed, aborted or missing: infra (qemu), 6 ways|what_qemu_does_is_never_the_kernels_fault"
    );
}

#[tokio::test]
async fn a_cancelled_or_dropped_run_leaves_nothing() {
    let cancelled = fake("start; sleep 60; true");
    let token = cancelled.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel();
    });
    let started = Instant::now();
    assert!(matches!(cancelled.run().await, Err(BootError::Cancelled)));
    assert!(started.elapsed() < Duration::from_secs(5));

    let dropped = fake("start; sleep 60; true");
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped.run()).await.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    dropped.assert_nothing_left();
}
