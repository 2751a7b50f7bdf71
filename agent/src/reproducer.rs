//! Compiles reproducers with the toolchain's own gcc, and asks a toolchain what it is.

use crate::build::first_error;
use crate::container::{Access, Bind, Engine, Limits, RunSpec, Unfinished, infra_of_failure, run_logged};
use bytes::Bytes;
use kulprit_common::outcome::{InfraClass, ToolchainFacts};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Printing two versions takes milliseconds; the rest is for a loaded machine.
const FACTS_LIMIT: Duration = Duration::from_secs(120);

/// A static executable has a few MiB, and its temporary files are elsewhere.
const OUT: Access = Access::Writable { bytes_max: 1 << 30 };

/// C source to compile.
#[derive(Clone, Copy, Debug)]
pub struct CompileRequest<'a> {
    pub source: &'a [u8],
    /// More flags, behind ours.
    pub cflags: &'a [String],
    pub image_id: &'a str,
    /// An empty directory for this attempt; the executable stays in it.
    pub work_dir: &'a Path,
    pub limits: Limits,
    pub log: &'a Path,
    pub attempt_label: &'a str,
}

/// What compiling came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiled {
    /// A static executable.
    Ready(PathBuf),
    Failed {
        message: String,
    },
}

/// Compiles a reproducer. Warnings are its author's business.
pub async fn compile(
    engine: &Engine,
    request: CompileRequest<'_>,
    live: mpsc::Sender<Bytes>,
    cancel: CancellationToken,
) -> Result<Compiled, Unfinished> {
    let (inputs, out) = prepare(&request).map_err(|e| Unfinished::io("write the reproducer's source", &e))?;
    let ours = ["gcc", "-static", "-O1", "-pthread", "-w", "-o", "/out/reproducer", "/in/reproducer.c"];
    let mut argv: Vec<String> = ours.map(String::from).into();
    argv.extend(request.cflags.iter().cloned());
    let spec = RunSpec {
        image_id: request.image_id,
        argv,
        env: vec![("HOME", "/tmp".into()), ("LC_ALL", "C".into())],
        workdir: "/in",
        binds: vec![
            Bind { host: &inputs, container: "/in", access: Access::ReadOnly },
            Bind { host: &out, container: "/out", access: OUT },
        ],
        limits: request.limits,
        attempt: request.attempt_label,
    };
    let (exit, log) = run_logged(engine, &spec, request.log, live, &cancel).await?;
    if exit.code == 0 {
        return executable(&out).map(Compiled::Ready);
    }
    if let Some(infra) = infra_of_failure(exit, &request.limits, &log, &out) {
        return Err(Unfinished::Infra(infra));
    }
    let message = first_error(&log).unwrap_or_else(|| format!("gcc ended with code {}", exit.code));
    Ok(Compiled::Failed { message: message.replace("/in/", "") })
}

/// What the gcc and ld of an image say they are.
pub async fn toolchain_facts(
    engine: &Engine,
    image_id: &str,
    work_dir: &Path,
    attempt_label: &str,
    cancel: CancellationToken,
) -> Result<ToolchainFacts, Unfinished> {
    let script = "gcc --version && echo --- && ld --version";
    let spec = RunSpec {
        image_id,
        argv: ["/bin/sh", "-c", script].map(String::from).into(),
        env: vec![("LC_ALL", "C".into())],
        workdir: "/",
        binds: Vec::new(),
        limits: Limits { time: FACTS_LIMIT, log_bytes_max: 64 << 10, ..Limits::default() },
        attempt: attempt_label,
    };
    let (unheard, _) = mpsc::channel(1);
    let (exit, said) = run_logged(engine, &spec, &work_dir.join("toolchain.log"), unheard, &cancel).await?;
    let no_toolchain =
        |why: &str| Unfinished::infra(InfraClass::Toolchain, format!("{image_id} is not a toolchain: {why}"));
    if exit.code != 0 {
        return Err(no_toolchain(said.lines().last().unwrap_or("gcc or ld does not run")));
    }
    let (gcc, ld) = said.split_once("\n---\n").ok_or_else(|| no_toolchain("gcc or ld says nothing"))?;
    let first = |text: &str| text.lines().next().unwrap_or_default().trim().to_string();
    Ok(ToolchainFacts { image_id: image_id.into(), gcc: first(gcc), ld: first(ld) })
}

fn prepare(request: &CompileRequest<'_>) -> std::io::Result<(PathBuf, PathBuf)> {
    let (inputs, out) = (request.work_dir.join("in"), request.work_dir.join("out"));
    for dir in [&inputs, &out] {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    let source = inputs.join("reproducer.c");
    fs::write(&source, request.source)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644))?;
    if nix::unistd::geteuid().is_root() {
        let (uid, gid) = crate::container::container_user();
        chown(&out, Some(uid), Some(gid))?;
    }
    Ok((inputs, out))
}

/// The compiler's output, which must be a file and no symlink to one of ours.
fn executable(out: &Path) -> Result<PathBuf, Unfinished> {
    let path = out.join("reproducer");
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return Ok(path);
    }
    Err(Unfinished::infra(InfraClass::Internal, "gcc succeeded, but made no executable"))
}
