//! Where a run keeps things: state, logs, caches, results.

use super::super::args::RunArgs;
use super::super::failure::Failure;
use super::super::say::say;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Marks a state directory that we made, and so may remove.
const TEMPORARY_MARK: &str = ".made-by-kulprit-run";

/// Ends the name of a state directory that is being removed.
const REMOVED: &str = ".removed";

/// What a coordinator's journal and the logs of a run need at least.
const STATE_MIB_MIN: u64 = 64;

/// Sets how much disk an agent wants free, here as for the agents that inherit it.
const BUILD_MIB_ENV: &str = "KULPRIT_DISK_MIN_MIB";

/// What the agent wants free when nobody says otherwise.
const BUILD_MIB_DEFAULT: u64 = 4096;

pub struct Places {
    pub state: PathBuf,
    /// Ours to remove, also when it was named to resume.
    pub temporary: bool,
    pub cache: PathBuf,
    _lock: Flock<File>,
}

impl Places {
    /// Makes the directories and locks the state.
    pub fn prepare(args: &RunArgs) -> Result<Self, Failure> {
        let cache = cache_dir(args.cache.as_deref())?;
        make(&cache, "--cache")?;
        if let Some(out) = &args.out {
            make(out, "--out")?;
        }
        let state = match &args.state {
            Some(state) => state.clone(),
            None => temporary()?,
        };
        make(&state, "--state")?;
        if let Err(refused) = check_room(&state) {
            if args.state.is_none() {
                let _ = std::fs::remove_dir_all(&state);
            }
            return Err(refused);
        }
        let lock = lock(&state)?;
        make(&state.join("logs"), "--state")?;
        Ok(Places {
            temporary: state.join(TEMPORARY_MARK).exists(),
            state: absolute(&state)?,
            cache: absolute(&cache)?,
            _lock: lock,
        })
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("logs").join(format!("{name}.log"))
    }

    /// Where the results of a job go.
    pub fn results(&self, args: &RunArgs, name: &str, id: &str) -> PathBuf {
        match (&args.out, self.temporary) {
            (Some(out), _) => out.clone(),
            (None, true) => unused(&format!("kulprit-{}-{id}", file_name(name))),
            (None, false) => self.state.join("results").join(id),
        }
    }

    /// Removes a temporary state directory. Its work trees and objects are so many files that this
    /// takes minutes, so a process of its own goes on with it when this one has ended.
    pub fn remove(&self) {
        let mut aside = self.state.clone().into_os_string();
        aside.push(REMOVED);
        let dir = match std::fs::rename(&self.state, &aside) {
            Ok(()) => PathBuf::from(aside),
            Err(_) => self.state.clone(),
        };
        let mut remover = Command::new("rm");
        remover.args(["-rf", "--"]).arg(&dir).current_dir("/");
        remover.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own it does not hear of a terminal that closes.
        if remover.process_group(0).spawn().is_ok() {
            return;
        }
        say(&format!("removing {}", dir.display()));
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            say(&format!("warning: {} could not be removed: {error}", dir.display()));
        }
    }
}

/// Without room for a journal and logs the coordinator could not even say why it ends; without
/// room for a build a new search would only wait. One that is taken up may be at its end.
fn check_room(state: &Path) -> Result<(), Failure> {
    let Ok(stat) = nix::sys::statvfs::statvfs(state) else { return Ok(()) };
    let free_mib = stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20;
    let is_new = !state.join("coordinator").exists();
    let (least, why) = match std::env::var(BUILD_MIB_ENV).ok().and_then(|it| it.parse().ok()) {
        _ if !is_new => (STATE_MIB_MIN, String::new()),
        Some(set) => (STATE_MIB_MIN.max(set), format!(" ({BUILD_MIB_ENV})")),
        None => (BUILD_MIB_DEFAULT, format!(" (or fewer, if {BUILD_MIB_ENV} says so)")),
    };
    if free_mib >= least {
        return Ok(());
    }
    Err(Failure::Input(format!(
        "--state: {free_mib} MiB are free in {}, and {least} MiB are needed{why}; make room, or name a directory \
         elsewhere",
        state.display()
    )))
}

/// The name, or the first of it with a number behind that nothing has: results of another run
/// are somebody's answer.
fn unused(name: &str) -> PathBuf {
    let numbered = (2u32..).map(|number| PathBuf::from(format!("{name}.{number}")));
    let mut names = std::iter::once(PathBuf::from(name)).chain(numbered);
    names.find(|path| !path.exists()).expect("numbers do not end")
}

/// The cache: as given, or the user's.
pub fn cache_dir(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = given {
        return Ok(dir.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    dir.map(|dir| dir.join("kulprit"))
        .ok_or_else(|| Failure::Input("--cache: HOME is not set; name a directory".into()))
}

/// Where temporary state goes: work trees are too large for a /tmp in memory.
pub fn temporary_base() -> PathBuf {
    let given = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let usual = || [PathBuf::from("/var/tmp")].into_iter().find(|dir| dir.is_dir());
    given.or_else(usual).unwrap_or_else(std::env::temp_dir)
}

fn temporary() -> Result<PathBuf, Failure> {
    let base = temporary_base();
    let made = tempfile::Builder::new().prefix("kulprit-").tempdir_in(&base);
    let made = made.and_then(|dir| {
        std::fs::write(dir.path().join(TEMPORARY_MARK), "removed by `kulprit run` when it is done\n")?;
        Ok(dir.keep())
    });
    made.map_err(|error| {
        Failure::Input(format!("{}: {error}; name another with --state DIR", base.display()))
    })
}

fn make(dir: &Path, flag: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::Input(format!("{flag} {}: {error}", dir.display())))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::internal(format!("find {}", path.display()), error))
}

fn lock(state: &Path) -> Result<Flock<File>, Failure> {
    let path = state.join("run.lock");
    let refused = |why: String| Failure::Input(format!("--state {}: {why}", state.display()));
    let file = File::create(&path).map_err(|error| refused(error.to_string()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| refused("another `kulprit run` is using this directory".into()))
}

/// A job's name as part of a file's.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let text: String = name.chars().map(plain).take(60).collect();
    text.trim_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        for (name, expected) in [
            ("demo", "demo"),
            ("uaf in foo/bar", "uaf-in-foo-bar"),
            ("../..", ""),
            ("größe", "gr--e"),
            ("a b.", "a-b"),
        ] {
            assert_eq!(file_name(name), expected, "{name}");
        }
        assert_eq!(file_name(&"x".repeat(100)).len(), 60);
    }
}
