//! A farm that is broken all the time, and the jobs that go through it.

pub mod faults;
pub mod jobs;
pub mod samples;

use crate::farm::dice::Dice;
use crate::farm::{Farm, Process, builds, cache, leftovers, processes, wait_for};
use faults::{Fault, between_ms};
use jobs::Jobs;
use nix::sys::signal::Signal;
use samples::Sample;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Compiling everything twice on a busy machine, and two searches.
const WARM_UP_MAX: Duration = Duration::from_secs(40 * 60);

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

    /// This, and what follows, says whether there was anything to do it to.
    fn kill(&mut self, away: Duration) -> bool {
        let Some(mut process) = self.process.take() else { return false };
        process.kill9();
        (self.asleep, self.back) = (None, Instant::now() + away);
        true
    }

    fn pause(&mut self, for_: Duration) -> bool {
        let Some(process) = self.process.as_ref().filter(|_| self.asleep.is_none()) else { return false };
        process.signal(Signal::SIGSTOP);
        self.asleep = Some(Instant::now() + for_);
        true
    }

    fn wake(&mut self) {
        if let (Some(process), Some(_)) = (&self.process, self.asleep.take()) {
            process.signal(Signal::SIGCONT);
        }
    }

    fn terminate(&mut self, away: Duration) -> bool {
        self.wake();
        let Some(mut process) = self.process.take() else { return false };
        process.stop();
        self.back = Instant::now() + away;
        true
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
    /// Jobs, and what they took.
    warmed_up: (usize, Duration),
}

impl Soak {
    pub fn start(seed: u64) -> Soak {
        let dir = tempfile::Builder::new().prefix("kulprit-soak-").tempdir().expect("a directory");
        // Of its own, or tests that run meanwhile could have what was warmed up thrown away.
        let kept = cache().join("soak");
        let farm = Farm { agents_cache: kept.join("cache"), ..Farm::new(dir.path()) };
        let coordinator = Member::new(farm.coordinator());
        let agents = AGENTS.map(|name| (name, Member::new(farm.agent(name)))).into();
        let jobs = Jobs::new(&kept);
        let (dice, faults, samples) = (Dice(seed), BTreeMap::new(), Vec::new());
        let (start, warmed_up) = (Instant::now(), (0, Duration::ZERO));
        Soak { dir, farm, coordinator, agents, jobs, dice, faults, samples, start, warmed_up }
    }

    /// Has the work done without faults that only the first build of a repository needs. Times count
    /// from its end.
    pub fn warm_up(&mut self) {
        self.jobs.warm_up(&self.farm);
        wait_for("the first job of each history", WARM_UP_MAX, || {
            self.look_at_jobs();
            self.open() == 0
        });
        self.warmed_up = (self.jobs.ended(), self.start.elapsed());
        self.start = Instant::now();
    }

    pub fn break_something(&mut self) {
        let fault = faults::draw(&mut self.dice);
        let agent = AGENTS[self.dice.below(AGENTS.len() as u64) as usize];
        let short = between_ms(&mut self.dice, 1_000, 4_000);
        let long = between_ms(&mut self.dice, 35_000, 50_000);
        let away = between_ms(&mut self.dice, 0, 8_000);
        let member = self.agents.get_mut(agent).expect("one of ours");
        let happened = match fault {
            Fault::AgentPaused => member.pause(short),
            Fault::AgentOutOfContact => member.pause(long),
            Fault::AgentKilled => member.kill(away),
            Fault::AgentTerminated => member.terminate(away),
            Fault::CoordinatorPaused => self.coordinator.pause(short),
            Fault::CoordinatorKilled => self.coordinator.kill(away / 2),
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
        let sample = Sample::take(self.start.elapsed(), pid(&self.coordinator), &agents, &self.farm);
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
        assert_eq!(faults::guests(self.dir.path()), Vec::<i32>::new());
        let builds = builds(&self.farm.facts());
        assert!(builds.values().all(|times| *times == 1), "built twice: {builds:?}");
        let (before, took) = self.warmed_up;
        println!("soak: warmed up by {before} jobs in {:.1} min", took.as_secs_f64() / 60.0);
        println!(
            "soak: {} jobs, all right; with them {} builds, none twice",
            self.jobs.ended() - before,
            builds.len()
        );
        (std::mem::take(&mut self.samples), std::mem::take(&mut self.faults))
    }
}

impl Drop for Soak {
    /// What failed after most of an hour will hardly do so again: its journal, artifacts and logs stay.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!(
                "soak: {:?}; all there is to look at stays in {}",
                self.faults,
                self.dir.path().display()
            );
        }
    }
}
