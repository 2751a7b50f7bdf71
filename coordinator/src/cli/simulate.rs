//! `kulprit simulate`: searches in virtual time, in a built-in world or in one that a program
//! answers for. What is decided is decided in `kulprit_common::simulate`.

mod input;
mod oracle;
mod summary;

use super::args::{Format, PolicyName, SimulateArgs};
use super::bisect::write_text;
use super::failure::Failure;
use kulprit_common::job::Mode;
use kulprit_common::simulate::{
    Answer, Case, Dice, Graph, InvalidCase, Kernel, Report, Request, Rules, Scenario, Source, Terrain, World,
};
use oracle::Oracle;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

pub async fn simulate(args: SimulateArgs) -> Result<u8, Failure> {
    let world = input::world(&args.world)?;
    let graph = input::graph(&args)?;
    let bench = Bench { args: &args, world: &world, graph: &graph, terrain: Terrain::new(&graph) };
    bench.check()?;
    let mut reports = Vec::new();
    bench.trials(|report| {
        if args.output.format == Format::Json {
            let line = serde_json::to_string(&report)
                .map_err(|error| Failure::internal("write a trial as JSON", error))?;
            write_text(&format!("{line}\n"))?;
        }
        reports.push(report);
        Ok(())
    })?;
    if args.output.format == Format::Table {
        write_text(&summary::text(&reports))?;
    }
    Ok(0)
}

/// All that the trials share.
struct Bench<'a> {
    args: &'a SimulateArgs,
    world: &'a World,
    graph: &'a Graph,
    terrain: Terrain,
}

impl Bench<'_> {
    fn check(&self) -> Result<(), Failure> {
        let last = self.graph.tip();
        if matches!(self.world.source, Source::Scenario { .. })
            && (self.world.bad.is_some_and(|bad| bad != last) || self.world.good.is_some())
        {
            return Err(Failure::Input(format!(
                "{}: bad, good: a scenario chooses its own ends; leave them out",
                self.args.world.display()
            )));
        }
        Ok(())
    }

    /// Runs the trials on all processors; `take` gets them in order, each as soon as it may.
    fn trials(&self, mut take: impl FnMut(Report) -> Result<(), Failure>) -> Result<(), Failure> {
        let next = AtomicU32::new(0);
        let (sender, receiver) = mpsc::channel();
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.args.trials as usize) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let trial = next.fetch_add(1, Ordering::Relaxed);
                        if trial >= self.args.trials || sender.send((trial, self.trial(trial))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let (mut due, mut waiting) = (0, BTreeMap::new());
            for (trial, report) in receiver {
                waiting.insert(trial, report);
                while let Some(report) = waiting.remove(&due) {
                    due += 1;
                    // No further trial is begun once one has failed.
                    let taken = report.and_then(&mut take);
                    if taken.is_err() {
                        next.store(u32::MAX / 2, Ordering::Relaxed);
                        return taken;
                    }
                }
            }
            Ok(())
        })
    }

    fn trial(&self, trial: u32) -> Result<Report, Failure> {
        let seed = Dice::named(self.args.seed, &[u64::from(trial)]).roll();
        match &self.world.source {
            Source::Scenario { family, tail } => {
                let scenario = Scenario::new(self.graph, &self.terrain, *family, *tail, seed);
                let (truth, resolvable) = (scenario.culprit, scenario.resolvable(self.graph));
                let case = self.case(scenario.bad, scenario.good, scenario.crash.clone());
                let mut report = self.run(trial, &case, &mut BuiltIn(scenario))?;
                (report.truth, report.resolvable) = (Some(truth), Some(resolvable));
                Ok(report)
            }
            Source::Oracle(command) => {
                let bad = self.world.bad.unwrap_or(self.graph.tip());
                let crash = self.world.crash.clone().ok_or_else(|| {
                    Failure::Input(format!("{}: crash: is missing", self.args.world.display()))
                })?;
                let mut oracle = Oracle::start(command, trial, seed)?;
                self.run(trial, &self.case(bad, self.world.good, crash), &mut oracle)
            }
        }
    }

    fn case(&self, bad: u32, good: Option<u32>, crash: kulprit_common::crash::Target) -> Case<'_> {
        let rules = match self.args.policy {
            PolicyName::Kulprit => Rules::Kulprit,
            PolicyName::Syzkaller => Rules::Syzkaller,
            PolicyName::Git => Rules::Git,
            PolicyName::NthSection => Rules::NthSection,
        };
        let mode = match self.world.source {
            Source::Scenario { .. } => Mode::Cause,
            Source::Oracle(_) => self.world.mode,
        };
        Case {
            graph: self.graph,
            mode,
            bad,
            good,
            crash,
            costs: self.world.costs,
            agents: self.args.agents,
            rules,
        }
    }

    fn run<K: Kernel>(&self, trial: u32, case: &Case<'_>, kernel: &mut K) -> Result<Report, Failure>
    where
        Failure: From<K::Error>,
    {
        let began = Instant::now();
        let clock_ms = || began.elapsed().as_secs_f64() * 1000.0;
        let outcome = case.run(kernel, &clock_ms).map_err(|error: InvalidCase| {
            Failure::Input(format!("{}: {error}", self.args.world.display()))
        })??;
        Ok(Report::new(trial, outcome))
    }
}

struct BuiltIn(Scenario);

impl Kernel for BuiltIn {
    type Error = Failure;

    fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        Ok(self.0.answer(request))
    }
}
