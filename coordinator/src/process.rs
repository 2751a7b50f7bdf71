//! What every process of ours does alike: signals, ending with its parent.

use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

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

/// A thousand agents are two thousand connections: takes all the descriptors that may be had.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

pub fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |name| name.to_string_lossy().into_owned())
}

/// Waits for SIGTERM or SIGINT.
pub async fn terminated() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
