//! A farm that speaks TLS.

use super::{text, wait_for};
use kulprit_common::id::Digest;
use kulprit_proto::tls::{self, Link, Trust, Wallet};
use kulprit_proto::v1;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// A farm with a CA of its own, and an operator's credentials.
pub struct Farm {
    pub farm: super::Farm,
    pub dir: PathBuf,
}

impl Farm {
    pub fn new(dir: &Path) -> Farm {
        let farm = super::Farm { scheme: "https", ..super::Farm::new(dir) };
        let it = Farm { farm, dir: dir.to_owned() };
        let output = it.command(&["ca", "init", "--operator", "olga", "--state"], |command| {
            command.arg(dir.join("coordinator")).args(["--coordinator", &it.url()]);
        });
        assert!(output.status.success(), "{}", text(&output.stderr));
        it
    }

    pub fn url(&self) -> String {
        self.farm.url()
    }

    pub fn start(&self, life_s: u64) -> super::Process {
        self.farm.coordinator_with(|command| {
            command.args(["--leaf-life-s", &life_s.to_string()]);
        })
    }

    pub fn credentials(&self, who: &str) -> PathBuf {
        self.dir.join("credentials").join(who)
    }

    /// `kulprit` as the operator.
    pub fn kulprit(&self, args: &[&str]) -> Output {
        self.command(args, |_| {})
    }

    pub fn command(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        self.as_member("olga", args, change)
    }

    pub fn as_member(&self, who: &str, args: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        let mut command = super::kulprit_command();
        command.args(args).env("KULPRIT_CREDENTIALS", self.credentials(who));
        change(&mut command);
        command.output().expect("kulprit runs")
    }

    pub fn token(&self, args: &[&str]) -> String {
        let output = self.kulprit(&[&["token", "create"], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    pub fn join(&self, who: &str, token: &str) -> Output {
        self.as_member(who, &["join", "--name", who, "--coordinator", &self.url(), token], |_| {})
    }

    pub fn joined(&self, who: &str, role: &str) -> PathBuf {
        let output = self.join(who, &self.token(&["--role", role]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.credentials(who)
    }

    pub fn agent(&self, name: &str, token: Option<&str>) -> super::Process {
        self.farm.agent_with(name, |command| {
            command.envs(token.map(|token| ("KULPRIT_JOIN", token)));
        })
    }

    /// Of the farm's CA.
    pub fn ca(&self) -> Digest {
        let pem = std::fs::read_to_string(self.credentials("olga").join(tls::CA_FILE)).expect("a CA");
        tls::fingerprint(&tls::certificates(&pem, "the CA").expect("a certificate")[0])
    }

    pub fn wait_for_agent(&self, name: &str, state: &str) {
        wait_for(&format!("{name} to be {state}"), SOON, || {
            let output = self.kulprit(&["agent", "list", "-o", "json"]);
            let agents: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let agents = agents.as_array().cloned().unwrap_or_default();
            agents.iter().any(|it| it["id"] == name && it["state"] == state)
        });
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime starts").block_on(future)
}

pub fn link(url: &str, credentials: &Path) -> Link {
    let wallet = Wallet::open(credentials).expect("credentials");
    Link::secure(url, Trust::Wallet(wallet)).expect("a link")
}

/// A draining agent is answered at once.
pub fn sync(agent: &str) -> v1::SyncRequest {
    v1::SyncRequest {
        agent: agent.into(),
        session: 1,
        sequence: 1,
        info: Some(v1::AgentInfo::default()),
        draining: true,
        ..Default::default()
    }
}
