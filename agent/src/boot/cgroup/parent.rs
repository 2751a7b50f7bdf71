//! Where guests' groups are made: found once, for the agent's own group may change by finding it.
//!
//! Version 1 lets a group have processes and children with limits. Version 2 does not: a controller
//! is passed on to children only while the group itself has no process (cgroups(7), "no internal
//! processes"). So there the agent moves into a leaf of its own, beside which guests have theirs.

use super::{Cgroup, remove};
use crate::boot::qemu::NAME_PREFIX;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const ROOT: &str = "/sys/fs/cgroup";
/// The agent's own group in the one that was delegated to it.
const LEAF: &str = "agent";
/// Set to 1 by systemd on a group that it leaves to the service in it. The first is for all to
/// read, since systemd 251; the second for processes with CAP_SYS_ADMIN.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];
const PROBE_BYTES: u64 = 64 << 20;

/// A group below which there may be groups with a limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub path: PathBuf,
    /// The file that takes the limit.
    pub limit: &'static str,
}

/// The same at every call.
pub(super) fn found() -> Result<&'static Parent, &'static str> {
    static FOUND: OnceLock<Result<Parent, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(String::as_str)
}

fn find() -> Result<Parent, String> {
    let own =
        fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("no control groups: {error}"))?;
    let parent = match hierarchy(&own).ok_or("the kernel has no control groups for memory")? {
        Hierarchy::One(path) => Parent { path, limit: "memory.limit_in_bytes" },
        Hierarchy::Two(own) => {
            Parent { path: settle(&own, std::process::id(), "memory")?, limit: "memory.max" }
        }
    };
    // Rights, a read-only mount, a kernel without the controller: a group tells better than any look.
    let probe = format!("{NAME_PREFIX}probe-{}", std::process::id());
    match Cgroup::below(&parent, &probe, PROBE_BYTES) {
        Ok(_) => Ok(parent),
        Err(error) => Err(format!("no control group can be made below {}: {error}", parent.path.display())),
    }
}

/// The agent's group where its memory is accounted, by the version of control groups.
#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    One(PathBuf),
    Two(PathBuf),
}

/// From /proc/self/cgroup: version 1 has a line for each controller, version 2 one line `0::/path`.
fn hierarchy(own: &str) -> Option<Hierarchy> {
    let field = |wanted: &dyn Fn(&str, &str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(id, controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    if let Some(path) = field(&|_, controllers| controllers.split(',').any(|name| name == "memory")) {
        return Some(Hierarchy::One(Path::new(ROOT).join("memory").join(path)));
    }
    field(&|id, _| id == "0").map(|path| Hierarchy::Two(Path::new(ROOT).join(path)))
}

/// Makes a group of version 2 fit for groups with limits, and says which one it is: that in which
/// the process `pid` was started, which is in a leaf of it afterwards.
///
/// A group is taken only where systemd's mark says that it is this service's, and nobody else is in
/// it. Variables such as NOTIFY_SOCKET would be inherited by whatever a service starts, and say
/// nothing of `Delegate=`; in a group that is not delegated systemd may undo what is done here.
fn settle(own: &Path, pid: u32, controller: &str) -> Result<PathBuf, String> {
    // Started anew by itself, it is in the leaf already.
    let outer = own.parent().filter(|outer| own.ends_with(LEAF) && is_delegated(outer));
    let unit = outer.unwrap_or(own);
    let (name, subtree) = (unit.display(), unit.join("cgroup.subtree_control"));
    if !lists(&unit.join("cgroup.controllers"), controller) {
        return Err(format!("the control group {name} lacks the controller {controller}"));
    }
    // Else it is the hierarchy's root, which may have both processes and limited children.
    if outer.is_some() || !lists(&subtree, controller) {
        if !is_delegated(unit) {
            return Err(format!("the control group {name} was not left to the agent"));
        }
        if outer.is_none() {
            move_to_leaf(unit, pid).map_err(|why| format!("the control group {name}: {why}"))?;
        }
        fs::write(&subtree, format!("+{controller}"))
            .map_err(|error| format!("+{controller} into {}: {error}", subtree.display()))?;
        sweep(unit);
    }
    Ok(unit.to_owned())
}

fn move_to_leaf(unit: &Path, pid: u32) -> Result<(), String> {
    let processes = fs::read_to_string(unit.join("cgroup.procs")).map_err(|error| error.to_string())?;
    if let Some(other) = processes.lines().find(|line| **line != pid.to_string()) {
        return Err(format!("process {other} is in it besides the agent"));
    }
    let leaf = unit.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("create {LEAF} in it: {error}"));
        }
        Ok(()) | Err(_) => {}
    }
    fs::write(leaf.join("cgroup.procs"), pid.to_string()).map_err(|error| format!("move to {LEAF}: {error}"))
}

/// Ends guests of an earlier life, and removes their groups.
fn sweep(unit: &Path) {
    for entry in fs::read_dir(unit).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(NAME_PREFIX) {
            // Kernels before 5.14 lack the file; there a group with a process in it stays.
            let _ = fs::write(entry.path().join("cgroup.kill"), "1");
            remove(&entry.path());
        }
    }
}

fn is_delegated(group: &Path) -> bool {
    DELEGATED.iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, *name, &mut value) == Ok(1) && value == *b"1"
    })
}

fn lists(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().any(|it| it == word)
}

#[cfg(test)]
#[path = "parent_tests.rs"]
mod tests;
