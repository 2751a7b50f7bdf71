//! What tests of a cloud's store share, whichever server plays it.

use super::s3::{artifact, http};
use super::text;
use futures::TryStreamExt as _;
use kulprit_common::id::Digest;
use kulprit_coordinator::artifacts::{Condition, Presigned, Store, StoreError};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub const HOUR: Duration = Duration::from_secs(3600);

/// Settings of a cloud are those of a process: a test with one runs in a process of its own.
const CHILD: &str = "KULPRIT_TEST_CLOUD_CHILD";

/// The directory of such a process; `None` in the one that starts it, which has made it and has the server up.
pub fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs the test of this name in a process that has the keys.
pub fn run_child(name: &str, dir: &std::path::Path, settings: Vec<(&'static str, String)>) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture"]).envs(settings).env(CHILD, dir);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

pub fn send(method: &str, request: &Presigned, body: &[u8]) -> u16 {
    http(method, &request.url, &request.headers, body).0
}

/// Bytes that are not all the same.
pub fn large(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// What every store does alike; `spoil` has other bytes stand under a digest.
pub async fn behaves(store: &Store, spoil: impl AsyncFn(&Digest, &'static str)) {
    store.try_out().await.unwrap();
    let kernel = store.put("kernel".into()).await.unwrap();
    assert_eq!(kernel, artifact(b"kernel"));
    assert_eq!(store.get_bytes(&kernel.digest, 6).await.unwrap(), "kernel");
    let (dir, bytes) = (tempfile::tempdir().unwrap(), large(12_000_000));
    std::fs::write(dir.path().join("vmlinux"), &bytes).unwrap();
    let vmlinux = store.put_file(&dir.path().join("vmlinux")).await.unwrap();
    assert_eq!(store.get_bytes(&vmlinux.digest, u64::MAX).await.unwrap(), bytes);
    let wrong = futures::stream::iter([Ok("other".into())]);
    let refused = store.receive(Digest::of(b"this"), wrong, 100).await;
    assert!(matches!(refused, Err(StoreError::Mismatch { .. })));

    let mut listed: Vec<_> = store.list().try_collect().await.unwrap();
    listed.sort_by_key(|it| it.size);
    let sizes: Vec<_> = listed.iter().map(|it| (it.digest, it.size)).collect();
    assert_eq!(sizes, [(kernel.digest, 6), (vmlinux.digest, vmlinux.size)], "what was refused is not there");
    assert!(listed.iter().all(|it| it.modified.0 > 1_700_000_000_000));

    assert_eq!(store.look_at(&kernel.digest).await.unwrap(), Condition::Whole);
    assert_eq!(store.look_at(&Digest::of(b"none")).await.unwrap(), Condition::Missing);
    spoil(&kernel.digest, "kernal").await;
    assert_eq!(store.look_at(&kernel.digest).await.unwrap(), Condition::Corrupt);
    assert!(matches!(store.get_bytes(&kernel.digest, 6).await, Err(StoreError::Corrupt(_))));
    assert_eq!(store.remove_corrupt(&vmlinux.digest).await.unwrap(), Condition::Whole);
    assert_eq!(store.remove_corrupt(&kernel.digest).await.unwrap(), Condition::Corrupt);
    assert_eq!(store.size(&kernel.digest).await.unwrap(), None);

    assert!(!store.remove_unused(&vmlinux.digest, HOUR).await.unwrap(), "it was in use just now");
    assert!(store.exists(&vmlinux.digest).await.unwrap());
    assert!(store.remove_unused(&vmlinux.digest, Duration::ZERO).await.unwrap());
    assert!(!store.exists(&vmlinux.digest).await.unwrap());
    assert!(store.remove_unused(&vmlinux.digest, Duration::ZERO).await.unwrap(), "gone already is gone");
    assert_eq!(store.list().try_collect::<Vec<_>>().await.unwrap(), []);
    let empty = store.put("".into()).await.unwrap();
    assert_eq!(store.get_bytes(&empty.digest, 0).await.unwrap(), "");
    store.remove(&empty.digest).await.unwrap();
}

/// A coordinator with these settings that is refused its store; what it says.
pub fn refused(url: &str, change: impl FnOnce(&mut Command)) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = super::command("kulprit-coordinator");
    command.arg("--state").arg(dir.path()).args(["--artifacts", url]);
    command.args(["--listen", "127.0.0.1:0", "--listen-artifacts", "127.0.0.1:0"]);
    change(&mut command);
    let said = std::fs::File::create(dir.path().join("said")).expect("a file");
    let child = command.stdin(std::process::Stdio::null()).stderr(said).spawn().expect("it starts");
    let mut process = super::Process::of(child);
    super::wait_for("a coordinator to refuse", Duration::from_secs(20), || !process.is_running());
    std::fs::read_to_string(dir.path().join("said")).expect("what it said")
}
