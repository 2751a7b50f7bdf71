//! What belongs to being a process: locks, ending with the parent.

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

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

/// Greater than that of any earlier life with this file: the time, unless the clock was set back.
pub fn start_number(path: &Path) -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let earlier = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let number = earlier.map_or(now, |earlier| now.max(earlier.saturating_add(1)));
    let new = path.with_extension("new");
    let kept = std::fs::write(&new, number.to_string()).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = kept {
        tracing::warn!(%error, path = %path.display(), "the number of this life is not kept");
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lives_have_greater_numbers_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        let first = start_number(&path);
        assert!(start_number(&path) > first);
        // Written hours ahead, or torn.
        std::fs::write(&path, (first + 36_000_000).to_string()).unwrap();
        assert_eq!(start_number(&path), first + 36_000_001);
        std::fs::write(&path, "12x").unwrap();
        assert!(start_number(&path) >= first);
    }
}
