//! A farm that is broken all the time, and the jobs that go through it.

pub mod faults;
pub mod jobs;
pub mod samples;

use crate::farm::dice::Dice;
use crate::farm::{Farm, Process, builds, leftovers, processes};
use faults::{Fault, between_ms};
use jobs::Jobs;
use nix::sys::signal::Signal;
use samples::Sample;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub const AGENTS: [&str; 3] = ["soak-a", "soak-b", "soak-c"];

/// A process, or when to start it again.
struct Member {
    process: Option<Process>,
    /// Stopped until then.
    asleep: Option<Instant>,
    /// Started again then.
    back: Instant,
}

impl Member {
    fn new(process: Process) -> Member {
        Member { process: Some(process), asleep: None, back: Instant::now() }
    }

    fn kill(&mut self, away: Duration) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        (self.asleep, self.back) = (None, Instant::now() + away);
    }

    fn pause(&mut self, for_: Duration) {
        if let Some(process) = self.process.as_ref().filter(|_| self.asleep.is_none()) {
            process.signal(Signal::SIGSTOP);
            self.asleep = Some(Instant::now() + for_);
        }
    }

    fn wake(&mut self) {
        if let (Some(process), Some(_)) = (&self.process, self.asleep.take()) {
            process.signal(Signal::SIGCONT);
        }
    }

    fn terminate(&mut self, away: Duration) {
        self.wake();
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
        self.back = Instant::now() + away;
    }

    /// Wakes it or starts it when its time has come; a process that ended by itself is a failure.
    fn mend(&mut self, start: impl FnOnce() -> Process) {
        if self.asleep.is_some_and(|until| until <= Instant::now()) {
            self.wake();
        }
        if let Some(process) = &mut self.process {
            assert!(process.is_running(), "a process ended by itself");
        } else if self.back <= Instant::now() {
            *self = Member::new(start());
        }
    }
}

pub struct Soak {
    dir: tempfile::TempDir,
    farm: Farm,
    coordinator: Member,
    agents: BTreeMap<&'static str, Member>,
    jobs: Jobs,
    dice: Dice,
    faults: BTreeMap<&'static str, usize>,
    samples: Vec<Sample>,
    start: Instant,
}

impl Soak {
    pub fn start(seed: u64) -> Soak {
        let dir = tempfile::Builder::new().prefix("kulprit-soak-").tempdir().expect("a directory");
        let farm = Farm::new(dir.path());
        let coordinator = Member::new(farm.coordinator());
        let agents = AGENTS.map(|name| (name, Member::new(farm.agent(name)))).into();
        let jobs = Jobs::new();
        let (dice, faults, samples) = (Dice(seed), BTreeMap::new(), Vec::new());
        Soak { dir, farm, coordinator, agents, jobs, dice, faults, samples, start: Instant::now() }
    }

    pub fn break_something(&mut self) {
        let fault = faults::draw(&mut self.dice);
        let agent = AGENTS[self.dice.below(AGENTS.len() as u64) as usize];
        let short = between_ms(&mut self.dice, 1_000, 4_000);
        let long = between_ms(&mut self.dice, 35_000, 50_000);
        let away = between_ms(&mut self.dice, 0, 8_000);
        let member = self.agents.get_mut(agent).expect("one of ours");
        let happened = match fault {
            Fault::AgentPaused => {
                member.pause(short);
                true
            }
            Fault::AgentOutOfContact => {
                member.pause(long);
                true
            }
            Fault::AgentKilled => {
                member.kill(away);
                true
            }
            Fault::AgentTerminated => {
                member.terminate(away);
                true
            }
            Fault::CoordinatorPaused => {
                self.coordinator.pause(short);
                true
            }
            Fault::CoordinatorKilled => {
                self.coordinator.kill(away / 2);
                true
            }
            Fault::GuestKilled => faults::kill_a_guest(self.dir.path(), &mut self.dice),
            Fault::ContainerKilled => faults::kill_a_container(&AGENTS, &mut self.dice),
        };
        *self.faults.entry(fault.name()).or_default() += usize::from(happened);
    }

    /// Starts what is down and wakes what sleeps, when its time has come.
    pub fn mend(&mut self) {
        self.coordinator.mend(|| self.farm.coordinator());
        for (name, member) in &mut self.agents {
            member.mend(|| self.farm.agent(name));
        }
    }

    pub fn bring_everything_up(&mut self) {
        let now = Instant::now();
        for member in self.agents.values_mut().chain([&mut self.coordinator]) {
            member.wake();
            member.back = now;
        }
        self.mend();
    }

    /// Until the next fault; pauses end when they should meanwhile.
    pub fn breathe(&mut self) {
        let until = Instant::now() + between_ms(&mut self.dice, 3_000, 8_000);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            self.mend();
        }
    }

    fn can_be_asked(&self) -> bool {
        self.coordinator.process.is_some() && self.coordinator.asleep.is_none()
    }

    pub fn look_at_jobs(&mut self) {
        if self.can_be_asked() {
            self.jobs.look(&self.farm, self.start.elapsed());
        }
    }

    pub fn keep_open(&mut self, open: usize) {
        while self.can_be_asked() && self.jobs.open() < open {
            self.jobs.submit(&self.farm);
        }
    }

    pub fn open(&self) -> usize {
        self.jobs.open()
    }

    pub fn sample(&mut self) {
        let pid = |member: &Member| member.process.as_ref().map(Process::id);
        let agents: Vec<u32> = self.agents.values().filter_map(pid).collect();
        let sample = Sample::take(self.start.elapsed(), pid(&self.coordinator), &agents, self.dir.path());
        println!("soak: {sample}; jobs {}", self.jobs);
        self.samples.push(sample);
    }

    /// Stops everything; what is left behind, built twice or answered wrong is a failure.
    pub fn finish(mut self) -> (Vec<Sample>, BTreeMap<&'static str, usize>) {
        for member in self.agents.values_mut().chain([&mut self.coordinator]) {
            member.terminate(Duration::ZERO);
        }
        assert_eq!(leftovers(&AGENTS), Vec::<String>::new());
        assert_eq!(processes(&self.dir.path().to_string_lossy()), Vec::<String>::new());
        let builds = builds(&self.farm.facts());
        assert!(builds.values().all(|times| *times == 1), "built twice: {builds:?}");
        println!("soak: {} jobs, all right; {} builds, none twice", self.jobs.ended(), builds.len());
        (self.samples, self.faults)
    }
}
