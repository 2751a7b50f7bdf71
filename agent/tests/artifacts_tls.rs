//! Artifacts between an agent and a coordinator that speaks TLS: the agent shows its certificate,
//! and without one there is nothing to be had.

use bytes::Bytes;
use kulprit_agent::store::{AgentStore, Cache};
use kulprit_proto::tls::Wallet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program of ours that is built beside this test, or `None`.
fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_kulprit-agent")).with_file_name(name);
    if !path.exists() {
        eprintln!("skipped: {} is missing: cargo build --workspace --bins", path.display());
    }
    path.exists().then_some(path)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn artifacts_go_both_ways_with_a_certificate() {
    let (Some(kulprit), Some(coordinator)) = (program("kulprit"), program("kulprit-coordinator")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (state, ready) = (dir.path().join("state"), dir.path().join("ready.json"));
    let issue = |args: &[&str], credentials: &str| {
        let mut command = Command::new(&kulprit);
        command.args(args).arg("--state").arg(&state).arg("--credentials").arg(dir.path().join(credentials));
        assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
    };
    issue(&["ca", "init", "--operator", "o"], "operator");
    issue(&["ca", "issue", "--role", "agent", "--name", "a1"], "agent");
    let mut command = Command::new(&coordinator);
    command.args(["--listen", "127.0.0.1:0", "--listen-artifacts", "127.0.0.1:0"]);
    command.arg("--state").arg(&state).arg("--ready-file").arg(&ready).stderr(Stdio::null());
    let _coordinator = Running(command.spawn().unwrap());
    let start = Instant::now();
    while !ready.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the coordinator does not come up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let url = said["artifacts"].as_str().unwrap();
    assert!(url.starts_with("https://"), "{url}");

    let wallet = Wallet::open(&dir.path().join("agent")).unwrap();
    let store = AgentStore::open(url, Some(&wallet)).unwrap();
    let cache = Cache::open(dir.path().join("cache"), 1 << 30).unwrap();
    let bytes = Bytes::from(vec![7; 3_000_000]);
    let artifact = store.upload_bytes(bytes.clone()).await.unwrap();
    let cached = store.download(&artifact, &cache).await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), bytes);

    // An operator may read, and may not write.
    let operator = Wallet::open(&dir.path().join("operator")).unwrap();
    let reader = AgentStore::open(url, Some(&operator)).unwrap();
    let other = Cache::open(dir.path().join("other"), 1 << 30).unwrap();
    assert!(reader.download(&artifact, &other).await.is_ok());
    assert!(reader.upload_bytes(Bytes::from_static(b"new")).await.is_err());
}
