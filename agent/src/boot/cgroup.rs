//! A control group for one QEMU, where the agent may make one. It caps memory; its absence is no error.

mod parent;

use nix::unistd::Pid;
use parent::Parent;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A group lets itself be removed only a moment after its last process is gone.
const REMOVAL_TRIES: u32 = 20;

/// Below which group guests have groups of their own, or why they have none. The first call finds
/// out, and moves the agent out of the way where that is needed.
pub fn place() -> Result<&'static Path, &'static str> {
    parent::found().map(|parent| parent.path.as_path())
}

/// Removed when dropped, which is to come after the process's end.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group for a guest, with at most `memory_bytes_max` of memory.
    pub fn create(name: &str, memory_bytes_max: u64) -> Option<Cgroup> {
        let parent = parent::found().ok()?;
        Cgroup::below(parent, name, memory_bytes_max)
            .inspect_err(|error| tracing::warn!(%error, name, "a guest's memory is not capped"))
            .ok()
    }

    fn below(parent: &Parent, name: &str, limit: u64) -> io::Result<Cgroup> {
        let path = parent.path.join(name);
        // One that is left of an earlier guest would count that one's end as this one's.
        let _ = fs::remove_dir(&path);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let group = Cgroup { path };
        // Without the controller the file is not there, and the group of no use.
        fs::write(group.path.join(parent.limit), limit.to_string())?;
        // Swap would only be more memory, and slow. Kernels without it lack the files.
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        let _ = fs::write(group.path.join("memory.memsw.limit_in_bytes"), limit.to_string());
        Ok(group)
    }

    pub fn add(&self, pid: Pid) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Whether the kernel killed something in the group for want of memory.
    pub fn out_of_memory(&self) -> bool {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(group: &Path) {
    for _ in 0..REMOVAL_TRIES {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(()) | Err(_) => return,
        }
    }
}
