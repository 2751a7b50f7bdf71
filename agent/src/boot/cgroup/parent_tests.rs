use super::*;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[test]
fn both_versions_are_understood() {
    let one = |path: &str| Some(Hierarchy::One(path.into()));
    let two = |path: &str| Some(Hierarchy::Two(path.into()));
    let cases = [
        ("4:memory:/a\n0::/\n", one("/sys/fs/cgroup/memory/a")),
        ("4:cpu,memory:/\n", one("/sys/fs/cgroup/memory/")),
        ("0::/system.slice/agent\n", two("/sys/fs/cgroup/system.slice/agent")),
        ("0::/\n", two("/sys/fs/cgroup/")),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(hierarchy(text), expected, "{text}");
    }
}

/// What can be limited in version 2; where version 1 holds the memory, another stands for it.
const CONTROLLERS: [(&str, &str); 3] =
    [("memory", "memory.max"), ("pids", "pids.max"), ("hugetlb", "hugetlb.2MB.max")];

/// A group as systemd makes one for a service, in the kernel's own hierarchy of version 2.
struct Unit {
    path: PathBuf,
    controller: &'static str,
    limit: &'static str,
    /// The hierarchy's root, if the controller was switched on there for the test.
    switched: Option<PathBuf>,
    /// The switch is one for all tests. Let go of last.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Unit {
    /// None where there is no such hierarchy, or none to write to.
    fn new(name: &str) -> Option<Unit> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = PathBuf::from(mounts.find(|fields| fields[2] == "cgroup2")?[1]);
        let held = |(name, _): &&(&str, &str)| lists(&root.join("cgroup.controllers"), name);
        let (controller, limit) = *CONTROLLERS.iter().find(held)?;
        let subtree = root.join("cgroup.subtree_control");
        let mut switched = None;
        if !lists(&subtree, controller) {
            fs::write(&subtree, format!("+{controller}")).ok()?;
            switched = Some(root.clone());
        }
        let path = root.join(format!("kulprit-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Unit { path, controller, limit, switched, _turn: turn })
    }

    /// As `Delegate=yes` does.
    fn delegate(&self) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&self.path, "user.delegate", b"1", flags).unwrap();
    }

    fn start(&self) -> Process {
        let process = Process::start();
        fs::write(self.path.join("cgroup.procs"), process.pid().to_string()).unwrap();
        process
    }

    fn settle(&self, process: &Process) -> Result<PathBuf, String> {
        settle(&self.path, process.pid(), self.controller)
    }

    fn processes(&self, group: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path.join(group).join("cgroup.procs")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                remove(&entry.path());
            }
        }
        remove(&self.path);
        if let Some(root) = &self.switched {
            let _ = fs::write(root.join("cgroup.subtree_control"), format!("-{}", self.controller));
        }
    }
}

struct Process(Child);

impl Process {
    fn start() -> Process {
        Process(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn in_a_delegated_group_of_version_2_guests_have_groups_beside_the_agent() {
    let Some(unit) = Unit::new("delegated") else {
        return eprintln!("skipped: no hierarchy of version 2 with a controller that may be written to");
    };
    let agent = unit.start();
    let refused = fs::write(unit.path.join("cgroup.subtree_control"), format!("+{}", unit.controller));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy, "a process is in it");
    let why = unit.settle(&agent).unwrap_err();
    assert!(why.contains("was not left to the agent"), "{why}");
    assert_eq!(unit.processes(""), [agent.pid().to_string()], "and nothing was changed");

    unit.delegate();
    assert_eq!(unit.settle(&agent), Ok(unit.path.clone()));
    assert_eq!(unit.processes(LEAF), [agent.pid().to_string()]);
    let parent = Parent { path: unit.path.clone(), limit: unit.limit };
    let group = Cgroup::below(&parent, "kulprit-guest", 64 << 20).expect("it takes the limit");
    let guest = Process::start();
    group.add(nix::unistd::Pid::from_raw(guest.pid().cast_signed())).expect("a guest can be in it");
    assert_eq!(unit.processes("kulprit-guest"), [guest.pid().to_string()]);

    // A later life in the same group finds the leaf there, and guests of the earlier one.
    std::mem::forget(group);
    let leaf = unit.path.join(LEAF);
    assert_eq!(settle(&leaf, agent.pid(), unit.controller), Ok(unit.path.clone()));
    assert!(!unit.path.join("kulprit-guest").exists(), "its guest is ended and its group removed");
    drop(agent);
    // As systemd does before it puts a process there.
    fs::write(unit.path.join("cgroup.subtree_control"), format!("-{}", unit.controller)).unwrap();
    let agent = unit.start();
    assert_eq!(unit.settle(&agent), Ok(unit.path.clone()));
    assert_eq!(unit.processes(LEAF), [agent.pid().to_string()]);
    Cgroup::below(&parent, "kulprit-guest", 64 << 20).expect("it takes the limit again");
}

#[test]
fn a_group_that_others_are_in_is_left_alone() {
    let Some(unit) = Unit::new("shared") else {
        return eprintln!("skipped: no hierarchy of version 2 with a controller that may be written to");
    };
    unit.delegate();
    let (agent, other) = (unit.start(), unit.start());
    let why = unit.settle(&agent).unwrap_err();
    assert!(why.contains(&format!("process {} is in it", other.pid())), "{why}");
    assert_eq!(unit.processes("").len(), 2);
    assert!(!unit.path.join(LEAF).exists());
}

#[test]
fn a_group_without_the_controller_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
    let why = settle(dir.path(), 1, "memory").unwrap_err();
    assert!(why.ends_with("lacks the controller memory"), "{why}");
}
