//! A control group for one QEMU, where the agent may make one. It caps memory; its absence is no error.

use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// A group lets itself be removed only a moment after its last process is gone.
const REMOVAL_TRIES: u32 = 20;

/// Removed when dropped, which is to come after the process's end.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group below the agent's own, with at most `memory_bytes_max` of memory.
    pub fn create(name: &str, memory_bytes_max: u64) -> Option<Cgroup> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let (parent, limit) = memory_hierarchy(&own)?;
        let group = Cgroup { path: parent.join(name) };
        if let Err(error) = fs::create_dir(&group.path)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            std::mem::forget(group);
            return None;
        }
        // Without the controller the file is not there, and the group of no use.
        fs::write(group.path.join(limit), memory_bytes_max.to_string()).ok()?;
        // Swap would only be more memory, and slow. Kernels without it lack the files.
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        let _ = fs::write(group.path.join("memory.memsw.limit_in_bytes"), memory_bytes_max.to_string());
        Some(group)
    }

    pub fn add(&self, pid: Pid) -> std::io::Result<()> {
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
        for _ in 0..REMOVAL_TRIES {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// Where the agent's memory is accounted, and the name of the limit there, from /proc/self/cgroup:
/// version 1 has a line for each controller, version 2 one line `0::/path` (cgroups(7)).
fn memory_hierarchy(own: &str) -> Option<(PathBuf, &'static str)> {
    let field = |wanted: &dyn Fn(&str, &str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(id, controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    if let Some(path) = field(&|_, controllers| controllers.split(',').any(|name| name == "memory")) {
        return Some((Path::new(ROOT).join("memory").join(path), "memory.limit_in_bytes"));
    }
    field(&|id, _| id == "0").map(|path| (Path::new(ROOT).join(path), "memory.max"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_understood() {
        let cases = [
            ("4:memory:/a\n0::/\n", Some(("/sys/fs/cgroup/memory/a", "memory.limit_in_bytes"))),
            ("4:cpu,memory:/\n", Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))),
            ("0::/system.slice/agent\n", Some(("/sys/fs/cgroup/system.slice/agent", "memory.max"))),
            ("", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(path, limit)| (PathBuf::from(path), limit));
            assert_eq!(memory_hierarchy(text), expected, "{text}");
        }
    }
}
