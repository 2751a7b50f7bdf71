//! The farm under load: its directory, its CA, its coordinator process, its jobs.

use crate::history::History;
use anyhow::{Context as _, bail, ensure};
use kulprit_common::access::{Member, Role};
use kulprit_coordinator::door::authority::{self, Authority, Request};
use kulprit_coordinator::journal;
use kulprit_coordinator::ready::Ready;
use kulprit_proto::tls;
use serde::Serialize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const STARTING: Duration = Duration::from_secs(60);
const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether jobs have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Place {
    dir: PathBuf,
    programs: PathBuf,
    /// The database of the journal, where it is not in a file.
    journal: Option<String>,
    port: u16,
    artifacts_port: u16,
    authority: Arc<Authority>,
}

/// A coordinator that dies with the load.
pub struct Coordinator(Child);

impl Coordinator {
    pub fn id(&self) -> u32 {
        self.0.id().unwrap_or_default()
    }

    /// As a machine dies.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill().await.context("kill the coordinator")
    }
}

/// What jobs came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Answers {
    pub right: usize,
    /// Ended without naming a commit.
    pub none: usize,
    pub wrong: usize,
    pub open: usize,
}

impl Place {
    pub fn new(dir: &Path, programs: &Path, journal: Option<String>) -> anyhow::Result<Place> {
        let ca = authority::directory(&dir.join("state"));
        Authority::init(&ca)?;
        let authority = Authority::load(&ca, LEAF_LIFE)?.context("the CA that was just made is there")?;
        let free = || std::net::TcpListener::bind("127.0.0.1:0").context("find a free port");
        let (grpc, artifacts) = (free()?, free()?);
        let place = Place {
            dir: dir.into(),
            programs: programs.into(),
            journal,
            port: grpc.local_addr()?.port(),
            artifacts_port: artifacts.local_addr()?.port(),
            authority: Arc::new(authority),
        };
        place.enrol(&operator()?)?;
        std::fs::write(dir.join("repro.sh"), "#!/bin/sh\n")?;
        Ok(place)
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Gives a member its certificate; yields the directory that holds it.
    pub fn enrol(&self, member: &Member) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join("credentials").join(member.name.to_string());
        std::fs::create_dir_all(&dir)?;
        let key = tls::new_key()?;
        let request = Request::read(&tls::request(&key)?).map_err(anyhow::Error::msg)?;
        std::fs::write(dir.join(tls::CERT_FILE), self.authority.sign(request, member)?)?;
        std::fs::write(dir.join(tls::CA_FILE), &self.authority.ca_pem)?;
        let mut file = std::fs::OpenOptions::new();
        let mut file =
            file.write(true).create(true).truncate(true).mode(0o600).open(dir.join(tls::KEY_FILE))?;
        std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes())?;
        Ok(dir)
    }

    /// Starts a coordinator, and waits until it serves.
    pub async fn start(&self) -> anyhow::Result<Coordinator> {
        let ready = self.dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join("coordinator.log"))?;
        let child = Command::new(self.programs.join("kulprit-coordinator"))
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--listen-artifacts", &format!("127.0.0.1:{}", self.artifacts_port)])
            .arg("--state")
            .arg(self.dir.join("state"))
            .arg("--ready-file")
            .arg(&ready)
            .arg("--tied-to-parent")
            .args(self.journal.iter().flat_map(|url| ["--journal", url]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the coordinator in {}", self.programs.display()))?;
        let coordinator = Coordinator(child);
        let start = Instant::now();
        while Ready::read(&ready)?.is_none() {
            ensure!(start.elapsed() < STARTING, "the coordinator does not serve after {STARTING:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(coordinator)
    }

    pub async fn journal_bytes(&self) -> anyhow::Result<u64> {
        Ok(journal::Place::new(self.journal.as_deref(), &self.dir.join("state"))?.size().await)
    }

    async fn kulprit(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = Command::new(self.programs.join("kulprit"))
            .args(args)
            .args(["-o", "json", "--coordinator", &self.url()])
            .env("KULPRIT_CREDENTIALS", self.dir.join("credentials").join(operator()?.name.to_string()))
            .stdin(Stdio::null())
            .output()
            .await
            .context("run kulprit")?;
        if !output.status.success() {
            bail!("kulprit {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("read what kulprit {args:?} says"))
    }

    async fn submit(&self, history: &History, number: u32) -> anyhow::Result<()> {
        let name = job_name(number);
        let lines = [
            format!("name = \"{name}\""),
            format!("repository = \"{}\"", history.repository.display()),
            "bad = \"main\"".into(),
            format!("good = \"{}\"", history.commits[0]),
            "mode = \"cause\"".into(),
            "toolchain = \"kulprit/gcc-10\"".into(),
            "[config]".into(),
            "make_target = \"tinyconfig\"".into(),
            format!("make_args = [\"FOR={name}\"]"),
            "[reproducer]".into(),
            "script = \"repro.sh\"".into(),
            "[runs]".into(),
            "max = 40".into(),
            "first_max = 40".into(),
            "[machine]".into(),
            "memory_mib = 64".into(),
        ];
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, lines.join("\n"))?;
        self.kulprit(&["bisect", "start", &file.to_string_lossy()]).await.map(|_| ())
    }

    async fn open_jobs(&self) -> anyhow::Result<usize> {
        let jobs = self.kulprit(&["bisect", "list"]).await?;
        let all = jobs.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(all.iter().filter(|job| job["ending"].is_null()).count())
    }

    /// Holds every ending against what was planted.
    pub async fn answers(&self, history: &History) -> anyhow::Result<Answers> {
        let jobs = self.kulprit(&["bisect", "list"]).await?;
        let mut answers = Answers::default();
        for job in jobs.as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = job["job"]["name"].as_str().context("a job has a name")?;
            let planted = history.commits[history.culprit(name)].to_string();
            match (&job["ending"], job["ending"]["culprit"].as_str()) {
                (serde_json::Value::Null, _) => answers.open += 1,
                (_, Some(found)) if found == planted => answers.right += 1,
                (_, Some(_)) => answers.wrong += 1,
                (_, None) => answers.none += 1,
            }
        }
        Ok(answers)
    }
}

fn operator() -> anyhow::Result<Member> {
    Ok(Member { role: Role::Operator, name: "olga".parse().map_err(anyhow::Error::msg)? })
}

fn job_name(number: u32) -> String {
    format!("job-{number}")
}

/// Submits jobs for as long as it is polled, so that so many are open.
pub async fn keep_open(place: Place, history: Arc<History>, open: u32) {
    let mut number = 0;
    loop {
        // While the coordinator is away there is nothing to submit to.
        if let Ok(now) = place.open_jobs().await {
            for _ in now..open as usize {
                if place.submit(&history, number).await.is_err() {
                    break;
                }
                number += 1;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
