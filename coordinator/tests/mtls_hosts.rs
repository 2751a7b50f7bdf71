//! A farm over two hosts.

mod farm;

use farm::hosts::{ADDRESSES, Hosts};
use farm::{text, wait_for};
use std::process::Child;
use std::time::Duration;

/// Ends with the test. `ip netns exec` becomes the program, so this is its process.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says what the processes said, where the test fails.
struct Logs(std::path::PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        for name in ["coordinator.log", "agent.log"].into_iter().filter(|_| std::thread::panicking()) {
            eprintln!("{name}:\n{}", std::fs::read_to_string(self.0.join(name)).unwrap_or_default());
        }
    }
}

#[test]
fn an_agent_joins_and_syncs_across_hosts() {
    let Some(hosts) = Hosts::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _logs = Logs(dir.path().to_owned());
    let url = format!("https://{}:7453", ADDRESSES[0]);
    let credentials = dir.path().join("olga");
    let kulprit = |host: usize, args: &[&str]| {
        let mut command = hosts.on(host, "kulprit");
        let output =
            command.args(args).env("KULPRIT_CREDENTIALS", &credentials).output().expect("kulprit runs");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let state = dir.path().join("coordinator");
    kulprit(
        0,
        &["ca", "init", "--operator", "olga", "--coordinator", &url, "--state", &state.to_string_lossy()],
    );
    let log = |name: &str| std::fs::File::create(dir.path().join(name)).expect("a log");
    let mut command = hosts.on(0, "kulprit-coordinator");
    command.args(["--listen", "0.0.0.0:7453", "--listen-artifacts", "0.0.0.0:7454", "--state"]).arg(&state);
    let _coordinator = Running(command.stderr(log("coordinator.log")).spawn().expect("it starts"));
    wait_for("the coordinator", Duration::from_secs(30), || {
        std::fs::read_to_string(dir.path().join("coordinator.log")).is_ok_and(|log| log.contains("serving"))
    });
    let token = kulprit(1, &["token", "create", "--role", "agent", "--labels", "host=b"]);
    let file = dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    let mut command = hosts.on(1, "kulprit-agent");
    command.args(["--name", "b", "--coordinator", &url, "--accelerator", "tcg", "--join-file"]).arg(&file);
    command.arg("--state").arg(dir.path().join("agent")).env_remove("KULPRIT_CACHE");
    let _agent = Running(command.stderr(log("agent.log")).spawn().expect("it starts"));
    let said = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    // On a machine that is busy with other things an answer may take longer than a command waits.
    wait_for("the agent to be online", Duration::from_secs(150), || {
        let mut command = hosts.on(1, "kulprit");
        command.args(["agent", "list", "-o", "json"]).env("KULPRIT_CREDENTIALS", &credentials);
        let list = text(&command.output().expect("kulprit runs").stdout);
        list.contains("\"online\"") && list.contains("host=b")
    });
    assert!(said("agent.log").contains("joined the farm"), "{}", said("agent.log"));
    assert!(!said("agent.log").contains("cannot use the artifact store"), "{}", said("agent.log"));
}
