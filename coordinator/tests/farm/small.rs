//! Real agents with real containers whose kernels build in seconds, and whose guests are played by
//! a script in QEMU's place.

use super::planted::{Planted, Shape};
use super::{Process, command, text};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds its descriptors and the nonces as QEMU and the guest would, in the arguments and the
/// initramfs; answers the canary; crashes where the kernel says that it has the bug.
const QEMU: &str = r#"#!/bin/bash
fds=()
while [ $# -gt 0 ]; do
    case $1 in
    -add-fd) fd=${2#fd=}; fds+=("${fd%%,*}") ;;
    -initrd) initrd=$2 ;;
    -kernel) kernel=$2 ;;
    -name) name=${2#guest=} ;;
    esac
    shift
done
if [ "$name" = kulprit-canary ]; then
    printf 'kulprit canary in long mode\n' >&"${fds[0]}"
    exit 85
fi
plan=$(tr '\0' '\n' <"$initrd" | grep -a -E '^(nonce|marker)=')
eval "$plan"
console() { printf '%s\n' "$@" >&"${fds[0]}"; }
result() { printf '\nkulprit %s %s\n' "$nonce" "$1" >&"${fds[1]}"; }
mark() { result "$1"; console "[    2.000000] kulprit $marker $1"; }
console "[    0.000000] Linux version 6.1.0"
for ((i = 0; i < BOOT_S * 5; i++)); do sleep 0.2; console "[    1.000000] device $i"; done
mark up; result settled; mark start
if grep -q bug "$kernel"; then
    console "[    3.000000] ------------[ cut here ]------------" \
        "[    3.000001] WARNING: CPU: 0 PID: 71 at fs/planted.c:17 planted_bug+0x12/0x20" \
        "[    3.000002] RIP: 0010:planted_bug+0x12/0x20" "[    3.000003] Call Trace:" \
        "[    3.000004]  do_syscall_64+0x35/0x80" "[    3.000005] ---[ end trace 0 ]---"
    exec sleep 60
fi
result 'exit code 0'; result done
"#;

const IMAGE: &str = "kulprit/gcc-10";

/// What the agents of a test share.
pub struct Small {
    pub dir: PathBuf,
    pub planted: Planted,
    /// Of each agent.
    pub slots: u32,
}

impl Small {
    /// `None`, with a word, where there is no engine with the toolchain.
    pub fn new(dir: &Path, shape: Shape, boot_s: u32) -> Option<Small> {
        Small::with_ballast(dir, shape, boot_s, 0)
    }

    pub fn with_ballast(dir: &Path, shape: Shape, boot_s: u32, ballast: usize) -> Option<Small> {
        let inspected = Command::new("docker").args(["image", "inspect", IMAGE]).output();
        if !inspected.is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "{IMAGE} is missing");
            eprintln!("skipped: no container engine with {IMAGE}; `make test` provides it");
            return None;
        }
        // QEMU is nobody's, and has to reach the script.
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
        open(dir).expect("it is ours");
        let qemu = dir.join("qemu");
        std::fs::write(&qemu, QEMU.replace("BOOT_S", &boot_s.to_string())).expect("written");
        open(&qemu).expect("it is ours");
        Some(Small { dir: dir.to_owned(), planted: Planted::with_ballast(dir, shape, ballast), slots: 2 })
    }

    /// The rest of an agent's command line; each agent has a cache of its own.
    pub fn agent(&self, command: &mut Command, name: &str, url: &str) {
        command.args(["--name", name, "--coordinator", url, "--share-cores"]);
        command.arg("--slots").arg(self.slots.to_string());
        command.args([
            "--accelerator",
            "tcg",
            "--disk-min-mib",
            "512",
            "--slot-memory-mib",
            "1024",
            "--qemu",
        ]);
        command.arg(self.dir.join("qemu")).env("KULPRIT_DRAIN_S", "1");
        // Said, because `make test` has KULPRIT_CACHE name what all of this machine share.
        let state = self.dir.join("agents").join(name);
        command.arg("--cache").arg(state.join("cache")).arg("--state").arg(state);
    }

    pub fn start(&self, farm: &super::Farm, name: &str, change: impl FnOnce(&mut Command)) -> Process {
        let mut command = command("kulprit-agent");
        self.agent(&mut command, name, &farm.url());
        change(&mut command);
        farm.spawn(name, command)
    }

    pub fn submit(&self, farm: &super::Farm, job: &str) {
        let job = self.planted.job(job);
        self.submit_file(farm, &job);
    }

    /// Submits a job file in which the repository stands under another name.
    pub fn submit_as(&self, farm: &super::Farm, job: &str, repository: &str) {
        let job = self.planted.job(job);
        let text = std::fs::read_to_string(&job).expect("it was written");
        let known = self.planted.repository.display().to_string();
        std::fs::write(&job, text.replace(&known, repository)).expect("written");
        self.submit_file(farm, &job);
    }

    fn submit_file(&self, farm: &super::Farm, job: &Path) {
        let output = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Waits for the end of a job, which must be the culprit.
    pub fn wait_for_culprit(&self, farm: &super::Farm, job: &str) {
        let show = || farm.json(&["bisect", "show", job]);
        super::wait_for("the end of a job", super::LONG, || !show()["ending"].is_null());
        assert_eq!(show()["ending"]["culprit"], self.planted.culprit.to_string(), "{}", show());
    }
}

/// The items that an agent's log says it started, in order.
pub fn started(log: &str) -> Vec<String> {
    let starts = log.lines().filter(|line| line.contains(" starts "));
    starts
        .filter_map(|line| Some(line.split("item=").nth(1)?.split_whitespace().next()?.to_owned()))
        .collect()
}
