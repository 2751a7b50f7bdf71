//! What belongs to being a process: logging, locks, ending with the parent.

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Logs to standard error; `KULPRIT_LOG` filters.
pub fn init_logging(json: bool) {
    let filter = EnvFilter::try_from_env("KULPRIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}

/// Prints an error as `failed to …` with its causes.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    // Where nothing can be written, a full disk perhaps, the exit code still says it.
    let _ = writeln!(std::io::stderr(), "error: failed to {error:#}");
    ExitCode::FAILURE
}

/// The kernel ends this process when the one that started it ends, however that one dies.
pub fn die_with_parent() {
    let parent = nix::unistd::getppid();
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM) {
        tracing::warn!(%error, "cannot be tied to the parent process");
    }
    // The parent may have gone before the call took effect.
    if nix::unistd::getppid() != parent {
        std::process::exit(1);
    }
}

/// One agent to a state directory.
pub fn lock(path: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).with_context(|| {
        format!("lock {}: another agent uses this state directory; give --state", path.display())
    })
}
