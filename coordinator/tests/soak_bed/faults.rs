//! What breaks, and how often.

use crate::farm::dice::Dice;
use crate::farm::text;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    AgentPaused,
    AgentOutOfContact,
    AgentKilled,
    AgentTerminated,
    CoordinatorPaused,
    CoordinatorKilled,
    GuestKilled,
    ContainerKilled,
}

/// With one of them every few seconds, work must still get done: what costs an attempt is rarer.
const WEIGHTS: [(Fault, u64); 8] = [
    (Fault::AgentPaused, 45),
    (Fault::CoordinatorPaused, 25),
    (Fault::AgentKilled, 6),
    (Fault::AgentTerminated, 3),
    (Fault::CoordinatorKilled, 8),
    (Fault::AgentOutOfContact, 2),
    (Fault::GuestKilled, 4),
    (Fault::ContainerKilled, 3),
];

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::AgentPaused => "agent paused for seconds",
            Fault::AgentOutOfContact => "agent paused for longer than its lease",
            Fault::AgentKilled => "agent killed",
            Fault::AgentTerminated => "agent terminated",
            Fault::CoordinatorPaused => "coordinator paused",
            Fault::CoordinatorKilled => "coordinator killed",
            Fault::GuestKilled => "guest killed",
            Fault::ContainerKilled => "container killed",
        }
    }
}

/// Says which never happened.
pub fn missing(happened: &BTreeMap<&'static str, usize>) -> Vec<&'static str> {
    let names = WEIGHTS.iter().map(|(fault, _)| fault.name());
    names.filter(|name| happened.get(name).is_none_or(|times| *times == 0)).collect()
}

pub fn draw(dice: &mut Dice) -> Fault {
    let mut point = dice.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (fault, weight) in WEIGHTS {
        match point.checked_sub(weight) {
            Some(rest) => point = rest,
            None => return fault,
        }
    }
    unreachable!("the point is below the sum")
}

pub fn between_ms(dice: &mut Dice, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + dice.below(most - least))
}

fn one_of<T>(dice: &mut Dice, mut all: Vec<T>) -> Option<T> {
    if all.is_empty() {
        return None;
    }
    let chosen = dice.below(all.len() as u64) as usize;
    Some(all.swap_remove(chosen))
}

/// Every QEMU of our agents: one that has a file below the directory open.
pub fn guests(dir: &Path) -> Vec<i32> {
    let is_ours = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        name.starts_with("qemu-system") && targets.any(|target| target.starts_with(dir))
    };
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

/// One of them, if there is any now.
pub fn kill_a_guest(dir: &Path, dice: &mut Dice) -> bool {
    one_of(dice, guests(dir)).is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
}

/// A container of one of our agents, if there is any now.
pub fn kill_a_container(agents: &[&str], dice: &mut Dice) -> bool {
    let running = |agent: &&str| {
        let filter = format!("label=kulprit.agent={agent}");
        let output = Command::new("docker").args(["ps", "-q", "--filter", &filter]).output();
        text(&output.expect("docker runs").stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    one_of(dice, agents.iter().flat_map(running).collect()).is_some_and(|id| {
        let killed = Command::new("docker").args(["kill", &id]).output().expect("docker runs");
        killed.status.success()
    })
}
