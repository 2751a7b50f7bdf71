//! `kulprit doctor`: what this machine needs to build and boot, or a farm that runs, checked, with
//! what to do.
//!
//! Engine, QEMU and toolchains are the agent's business: its program checks them (`--check`).

mod farm;
mod job;
mod reach;

use super::args::{DoctorArgs, Output};
use super::bisect::print;
use super::failure::Failure;
use super::run::{cache_dir, program, temporary_base};
use super::story::one_line;
use super::tables;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Two canaries of five seconds, an engine that hangs, and a loaded machine.
const AGENT_LIMIT: Duration = Duration::from_secs(90);
/// Work trees and objects of two agents, a mirror, artifacts of a search.
const FREE_GIB_WANTED: u64 = 20;
const FREE_GIB_MIN: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Warning,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: String,
    status: Status,
    detail: String,
    /// What to do; empty where nothing is.
    hint: String,
}

/// A line of `kulprit-agent --check`.
#[derive(Deserialize)]
struct AgentLine {
    check: String,
    ok: bool,
    /// Does not keep the agent from working.
    #[serde(default)]
    warning: bool,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    hint: String,
}

pub async fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    if args.farm {
        return conclude(&farm::checks(&args.to).await, args.output);
    }
    let state = args.state.clone().unwrap_or_else(temporary_base);
    let cache = cache_dir(args.cache.as_deref())?;
    let (job_file, job) = args.job.as_deref().map(job::file).unzip();
    let job = job.flatten();
    let mut checks = vec![program_check("kulprit-coordinator")];
    checks.extend(agent_checks(&state, &cache, job.as_ref().and_then(|job| job.toolchain())).await);
    checks.push(disk_check("state disk", &state));
    checks.push(disk_check("cache disk", &cache));
    checks.push(git_check().await);
    checks.extend(job_file);
    checks.extend(job.as_ref().and_then(job::repository));
    conclude(&checks, args.output)
}

fn conclude(checks: &[Check], output: Output) -> Result<u8, Failure> {
    print(output, || table(checks), || value(checks))?;
    Ok(u8::from(checks.iter().any(|check| check.status == Status::Failed)))
}

impl Check {
    fn new(name: &str, status: Status, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { name: name.into(), status, detail: detail.into(), hint: hint.into() }
    }
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "failed",
        }
    }
}

fn program_check(name: &str) -> Check {
    match program(name) {
        Ok(path) => Check::new(name, Status::Ok, path.display().to_string(), ""),
        Err(_) => Check::new(
            name,
            Status::Failed,
            "neither beside kulprit nor in PATH",
            "cargo build --release makes all three programs",
        ),
    }
}

/// `image` is the toolchain that the job names, in place of the usual ones.
async fn agent_checks(state: &Path, cache: &Path, image: Option<&str>) -> Vec<Check> {
    let name = "kulprit-agent";
    let found = program_check(name);
    let Ok(agent) = program(name) else { return vec![found] };
    let mut command = Command::new(&agent);
    command.arg("--check").arg("--state").arg(state).arg("--cache").arg(cache);
    command.args(image.iter().flat_map(|image| ["--check-image", image]));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed =
        |why: String| Check::new("agent's checks", Status::Failed, why, format!("try {}", shown(&agent)));
    match tokio::time::timeout(AGENT_LIMIT, command.output()).await {
        Err(_) => vec![found, failed(format!("not done after {} s", AGENT_LIMIT.as_secs()))],
        Ok(Err(error)) => vec![found, failed(error.to_string())],
        Ok(Ok(output)) => {
            let checks = agent_lines(&String::from_utf8_lossy(&output.stdout));
            if checks.is_empty() {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or("nothing was said");
                return vec![found, failed(format!("{}: {}", output.status, one_line(first)))];
            }
            std::iter::once(found).chain(checks).collect()
        }
    }
}

fn shown(agent: &Path) -> String {
    format!("`{} --check --state DIR` by hand", agent.display())
}

/// The checks in the agent's output; what is no check is skipped.
fn agent_lines(output: &str) -> Vec<Check> {
    let parsed = output.lines().filter_map(|line| serde_json::from_str::<AgentLine>(line).ok());
    parsed
        .map(|line| {
            let status = match (line.ok, line.warning) {
                (true, false) => Status::Ok,
                (_, true) => Status::Warning,
                (false, false) => Status::Failed,
            };
            Check::new(&line.check, status, line.detail, line.hint)
        })
        .collect()
}

fn disk_check(name: &str, dir: &Path) -> Check {
    // The directory need not exist yet; its disk does.
    let existing =
        dir.ancestors().find(|dir| dir.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    match nix::sys::statvfs::statvfs(&existing) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size()) >> 30;
            judge_disk(name, free, dir)
        }
        Err(error) => Check::new(name, Status::Warning, format!("{}: {error}", existing.display()), ""),
    }
}

fn judge_disk(name: &str, free_gib: u64, dir: &Path) -> Check {
    let (status, hint) = match free_gib {
        0..FREE_GIB_MIN => {
            (Status::Failed, format!("free {FREE_GIB_MIN} GiB at least, or name a directory elsewhere"))
        }
        FREE_GIB_MIN..FREE_GIB_WANTED => {
            (Status::Warning, format!("a long search takes {FREE_GIB_WANTED} GiB"))
        }
        _ => (Status::Ok, String::new()),
    };
    Check::new(name, status, format!("{free_gib} GiB free in {}", dir.display()), hint)
}

async fn git_check() -> Check {
    match Command::new("git").arg("--version").stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) if output.status.success() => {
            Check::new("git", Status::Ok, one_line(&String::from_utf8_lossy(&output.stdout)), "")
        }
        Ok(_) | Err(_) => Check::new(
            "git",
            Status::Warning,
            "the git command is not there; kulprit does without it",
            "install git to replay a bisection log",
        ),
    }
}

fn table(checks: &[Check]) -> String {
    let mut table = tables::table(["CHECK", "STATUS", "FOUND"]);
    for check in checks {
        table.add_row([&check.name, check.status.as_str(), &one_line(&check.detail)]);
    }
    let mut text = tables::render(&table);
    let hints: Vec<&Check> =
        checks.iter().filter(|it| it.status != Status::Ok && !it.hint.is_empty()).collect();
    if !hints.is_empty() {
        text.push_str("\nwhat to do:\n");
        hints.iter().for_each(|check| text.push_str(&format!("  {}: {}\n", check.name, check.hint)));
    }
    text
}

fn value(checks: &[Check]) -> Value {
    let one = |check: &Check| {
        json!({
            "check": check.name,
            "status": check.status.as_str(),
            "ok": check.status != Status::Failed,
            "detail": check.detail,
            "hint": check.hint,
        })
    };
    Value::Array(checks.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_lines_are_read() {
        let output = r#"
starting
{"check":"qemu","ok":true,"detail":"QEMU 7.2","hint":""}
{"check":"kvm canary","ok":false,"warning":true,"detail":"the guest hung","hint":"guests run under TCG"}
{"check":"engine","ok":false,"detail":"no socket","hint":"start Docker","more":1}
{"check":"of another form"}
"#;
        let checks = agent_lines(output);
        let expected = [
            Check::new("qemu", Status::Ok, "QEMU 7.2", ""),
            Check::new("kvm canary", Status::Warning, "the guest hung", "guests run under TCG"),
            Check::new("engine", Status::Failed, "no socket", "start Docker"),
        ];
        assert_eq!(checks, expected);
        assert_eq!(
            table(&checks),
            "CHECK       STATUS   FOUND\n\
             qemu        ok       QEMU 7.2\n\
             kvm canary  warning  the guest hung\n\
             engine      failed   no socket\n\
             \n\
             what to do:\n  kvm canary: guests run under TCG\n  engine: start Docker\n"
        );
        assert_eq!(value(&checks)[2]["status"], "failed");
        assert_eq!(agent_lines("garbage"), []);
    }

    #[test]
    fn little_disk_is_said() {
        for (free, status) in
            [(0, Status::Failed), (4, Status::Failed), (5, Status::Warning), (20, Status::Ok)]
        {
            assert_eq!(judge_disk("disk", free, Path::new("/x")).status, status, "{free}");
        }
    }
}
