//! Trials on the built-in worlds, and what is kept of each.

use kulprit_common::bisect::Costs;
use kulprit_common::crash::Target;
use kulprit_common::job::Mode;
use kulprit_common::simulate::{
    Answer, Case, Dice, Ending, Family, Graph, Kernel, Node, Report, Request, Rules, Said, Scenario, Terrain,
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the search knows of the commits' paths and the crash's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prior {
    /// As the world has them.
    Known,
    /// No paths: all commits are alike.
    None,
    /// The crash names files of other commits only.
    Misleading,
}

/// What is measured.
pub struct Plan<'a> {
    pub graph: &'a Graph,
    /// The same without paths.
    pub bare: &'a Graph,
    pub terrain: &'a Terrain,
    pub seed: u64,
    pub rules: Rules,
    pub prior: Prior,
    pub family: Family,
    pub agents: NonZeroUsize,
    pub traced: bool,
}

/// What is kept of a trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub cell: String,
    pub trial: u64,
    pub right: bool,
    /// Another commit was named.
    pub wrong: bool,
    pub listed: bool,
    pub resolvable: bool,
    /// The probability of the likeliest commit, and whether it is the one.
    pub claimed: f64,
    pub claim_right: bool,
    pub runs: u32,
    pub visits: u32,
    pub wall_h: f64,
    /// The wall time in first visits.
    pub rounds: f64,
    pub choose_ms_mean: f64,
    pub choose_ms_max: f64,
}

impl Record {
    pub fn new(cell: &str, family: Family, report: &Report) -> Self {
        let lead = report.suspects.first();
        let costs = Costs::default();
        Record {
            cell: cell.into(),
            trial: u64::from(report.trial),
            right: expected(family, report),
            wrong: report.ending == Ending::Culprit && report.culprit != report.truth,
            listed: report.suspects.iter().any(|it| Some(it.index) == report.truth),
            resolvable: report.resolvable == Some(true) || family == Family::N1,
            claimed: lead.map_or(0.0, |lead| lead.probability),
            claim_right: lead.is_some_and(|lead| Some(lead.index) == report.truth),
            runs: report.runs,
            visits: report.visits,
            wall_h: report.wall_s / 3600.0,
            rounds: report.wall_s / (costs.build_s + costs.visit_s),
            choose_ms_mean: report.choose_ms_mean,
            choose_ms_max: report.choose_ms_max,
        }
    }
}

/// The graph as if nobody knew what its commits touch.
pub fn without_paths(graph: &Graph) -> Graph {
    let bare = |at: u32| Node { files: vec![], ..graph.node(at).clone() };
    Graph::new((0..=graph.tip()).map(bare).collect()).expect("the commits of a graph")
}

struct Built {
    scenario: Scenario,
    seen: Vec<(Request, Said)>,
}

impl Kernel for Built {
    type Error = std::convert::Infallible;

    fn ask(&mut self, request: Request) -> Result<Answer, Self::Error> {
        let answer = self.scenario.answer(request);
        self.seen.push((request, answer.said.clone()));
        Ok(answer)
    }
}

/// The trials in order, each with what was seen in it if that was asked for.
pub fn measure(plan: &Plan, trials: Range<u64>) -> Vec<(Report, String)> {
    let next = AtomicU64::new(trials.start);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let trial = next.fetch_add(1, Ordering::Relaxed);
            if trial >= trials.end {
                return reports;
            }
            reports.push(one(plan, trial));
        }
    };
    let threads = std::env::var("KULPRIT_BENCH_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut reports: Vec<(Report, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no trial panics")).collect()
    });
    reports.sort_by_key(|(report, _)| report.trial);
    reports
}

fn one(plan: &Plan, trial: u64) -> (Report, String) {
    let seed = Dice::named(plan.seed, &[trial]).roll();
    let scenario = Scenario::new(plan.graph, plan.terrain, plan.family, 0.0, seed);
    let mut crash = scenario.crash.clone();
    if plan.prior == Prior::Misleading {
        crash.files = foreign_files(plan.graph, scenario.culprit, seed);
    }
    let case = Case {
        graph: if plan.prior == Prior::None { plan.bare } else { plan.graph },
        mode: Mode::Cause,
        bad: scenario.bad,
        good: scenario.good,
        crash,
        costs: Costs::default(),
        agents: plan.agents,
        rules: plan.rules,
    };
    let truth = (scenario.culprit, scenario.resolvable(plan.graph));
    let began = Instant::now();
    let clock = || on_cpu_ms().unwrap_or_else(|| began.elapsed().as_secs_f64() * 1000.0);
    let mut built = Built { scenario, seen: Vec::new() };
    let outcome = case.run(&mut built, &clock).expect("a sound case").expect("never fails");
    let mut report = Report::new(trial as u32, outcome);
    (report.truth, report.resolvable) = (Some(truth.0), Some(truth.1));
    let trace = if plan.traced { trace(&built, plan.graph) } else { String::new() };
    (report, trace)
}

/// Three files that commits touch, none of them the culprit's.
fn foreign_files(graph: &Graph, culprit: u32, seed: u64) -> Vec<String> {
    let mut dice = Dice::named(seed, &[4]);
    let own = &graph.node(culprit).files;
    let mut draw = || graph.node(dice.index(graph.len()) as u32).files.first().cloned();
    let drawn = std::iter::from_fn(|| Some(draw())).take(1000).flatten();
    drawn.filter(|file| !own.contains(file)).take(3).collect()
}

/// The thread's time on a processor, where the system tells: the machine may be busy.
pub fn on_cpu_ms() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

pub fn expected(family: Family, report: &Report) -> bool {
    match family {
        Family::N0 => report.ending == Ending::GoodEndIsBad,
        Family::N1 => report.ending == Ending::NotReproduced,
        Family::S0 | Family::S1 | Family::S2 | Family::S3 | Family::S4 => {
            report.ending == Ending::Culprit && report.culprit == report.truth
        }
    }
}

/// A line for each look: the kernel, whether it has the bug, and its runs.
fn trace(built: &Built, graph: &Graph) -> String {
    let has_bug = graph.descendants(built.scenario.culprit);
    let mut text = built.scenario.good.map(|good| format!("    good {good}")).unwrap_or_default();
    let mut last = None;
    for (request, said) in &built.seen {
        let kernel = (request.index, request.revert);
        if last != Some(kernel) {
            let bug = has_bug[request.index as usize] && request.revert != Some(built.scenario.culprit);
            let reverted = request.revert.map(|commit| format!("-{commit}")).unwrap_or_default();
            text += &format!("\n    {}{reverted}{} ", request.index, if bug { "*" } else { "" });
            last = Some(kernel);
        }
        text += &match said {
            Said::Ok => ".".to_string(),
            Said::Crashed(told) if told.title == built.scenario.crash.title => "T".into(),
            Said::Crashed(Target { title, frames, .. }) => {
                let alike = frames.iter().any(|frame| built.scenario.crash.frames.contains(frame));
                format!("[{}{}]", &title[title.len() - 4..], if alike { "~" } else { "" })
            }
            Said::BootFailed { title: None } => "b".into(),
            Said::BootFailed { title: Some(title) } => format!("b{}", &title[title.len() - 4..]),
            Said::BuildFailed { .. } => "n".into(),
            Said::Infra { .. } => "i".into(),
            Said::RevertConflict => "conflict".into(),
        };
    }
    text
}
