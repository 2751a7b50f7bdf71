//! Measures the search on the built-in worlds: `make bench` prints its table.
//!
//! Arguments: GRAPH(.gz) FAMILIES WIDTHS TRIALS SEED [RULES] [-v | -t]
//! `-v` prints the trials that were not answered right, `-t` what was seen in them too. TRIALS
//! may be a range, FIRST..END. `KULPRIT_BENCH_THREADS` is the number of threads, else 2.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a program with hands of its own")]

use kulprit_common::job::Mode;
use kulprit_common::simulate::{
    Answer, Case, Dice, Ending, Family, Graph, Kernel, Report, Request, Rules, Said, Scenario, Terrain,
};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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
            Said::Crashed { title, .. } if *title == built.scenario.crash.title => "T".into(),
            Said::Crashed { title, frames, .. } => {
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, families, widths, trials, seed, rest @ ..] = &arguments[..] else {
        return Err(
            "arguments: GRAPH FAMILIES WIDTHS TRIALS SEED [kulprit|git|syzkaller|nth-section] [-v]".into()
        );
    };
    let rules = match rest.first().map(String::as_str) {
        Some("git") => Rules::Git,
        Some("syzkaller") => Rules::Syzkaller,
        Some("nth-section") => Rules::NthSection,
        Some(_) | None => Rules::Kulprit,
    };
    let verbose = rest.iter().any(|argument| argument == "-v" || argument == "-t");
    let graph = read(path)?;
    let (first, end) = trials.split_once("..").unwrap_or(("0", trials));
    let (trials, seed): (Range<u64>, u64) = (first.parse()?..end.parse()?, seed.parse()?);
    let terrain = Terrain::new(&graph);
    let traced = rest.iter().any(|argument| argument == "-t");
    let plan = Plan { graph: &graph, terrain, trials, seed, rules, traced };
    println!(
        "family agents trials | correct of resolvable | wrong | truth listed | runs mean | wall h median, p95 | visits | choice ms mean, max"
    );
    for family in families.split(',') {
        for width in widths.split(',') {
            let family: Family = family.parse()?;
            let agents: NonZeroUsize = width.parse()?;
            let reports = measure(&plan, family, agents);
            if verbose {
                reports.iter().filter(|(report, _)| !expected(family, report)).for_each(|(report, trace)| {
                    print_odd(report, &graph);
                    if traced {
                        println!("{trace}");
                    }
                });
            }
            let reports: Vec<Report> = reports.into_iter().map(|(report, _)| report).collect();
            print_line(family, agents, &reports);
        }
    }
    Ok(())
}

fn print_odd(report: &Report, graph: &Graph) {
    let truth = report.truth.unwrap_or_default();
    let place = report.suspects.iter().position(|suspect| suspect.index == truth);
    let lead: Vec<_> =
        report.suspects.iter().take(3).map(|it| (it.index, (it.probability * 1000.0) as u32)).collect();
    println!(
        "  trial {} {:?} culprit {:?} truth {truth} of {} at {place:?} of {} resolvable {:?} {lead:?} wall {:.1} h runs {} visits {}",
        report.trial,
        report.ending,
        report.culprit,
        graph.len(),
        report.suspects.len(),
        report.resolvable,
        report.wall_s / 3600.0,
        report.runs,
        report.visits,
    );
}

fn read(path: &str) -> Result<Graph, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let mut text = String::new();
    if path.ends_with(".gz") {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text)?;
    } else {
        text = String::from_utf8(bytes)?;
    }
    Ok(Graph::parse(&text)?)
}

/// What is measured, whatever the family and the width.
struct Plan<'a> {
    graph: &'a Graph,
    terrain: Terrain,
    trials: Range<u64>,
    seed: u64,
    rules: Rules,
    traced: bool,
}

fn measure(plan: &Plan, family: Family, agents: NonZeroUsize) -> Vec<(Report, String)> {
    let Plan { graph, ref terrain, ref trials, seed, rules, traced } = *plan;
    let next = AtomicU64::new(trials.start);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let trial = next.fetch_add(1, Ordering::Relaxed);
            if trial >= trials.end {
                return reports;
            }
            let seed = Dice::named(seed, &[trial]).roll();
            let scenario = Scenario::new(graph, terrain, family, 0.0, seed);
            let case = Case {
                graph,
                mode: Mode::Cause,
                bad: scenario.bad,
                good: scenario.good,
                crash: scenario.crash.clone(),
                costs: kulprit_common::bisect::Costs::default(),
                agents,
                rules,
            };
            let truth = (scenario.culprit, scenario.resolvable(graph));
            let began = Instant::now();
            let clock = || on_cpu_ms().unwrap_or_else(|| began.elapsed().as_secs_f64() * 1000.0);
            let mut built = Built { scenario, seen: Vec::new() };
            let outcome = case.run(&mut built, &clock).expect("a sound case").expect("never fails");
            let mut report = Report::new(trial as u32, outcome);
            (report.truth, report.resolvable) = (Some(truth.0), Some(truth.1));
            let trace = if traced { trace(&built, graph) } else { String::new() };
            reports.push((report, trace));
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

fn expected(family: Family, report: &Report) -> bool {
    match family {
        Family::N0 => report.ending == Ending::GoodEndIsBad,
        Family::N1 => report.ending == Ending::NotReproduced,
        Family::S0 | Family::S1 | Family::S2 | Family::S3 | Family::S4 => {
            report.ending == Ending::Culprit && report.culprit == report.truth
        }
    }
}

/// The thread's time on a processor, where the system tells: the machine may be busy.
fn on_cpu_ms() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

fn print_line(family: Family, agents: NonZeroUsize, reports: &[Report]) {
    let total = reports.len() as f64;
    let counted: Vec<&Report> = match family {
        Family::N0 | Family::N1 => reports.iter().collect(),
        _ => reports.iter().filter(|report| report.resolvable == Some(true)).collect(),
    };
    let right = counted.iter().filter(|report| expected(family, report)).count();
    let wrong = reports
        .iter()
        .filter(|report| report.ending == Ending::Culprit && report.culprit != report.truth)
        .count();
    let listed = reports
        .iter()
        .filter(|report| report.suspects.iter().any(|it| Some(it.index) == report.truth))
        .count();
    let mut walls: Vec<f64> = reports.iter().map(|report| report.wall_s / 3600.0).collect();
    walls.sort_by(f64::total_cmp);
    let quantile = |q: f64| walls[((walls.len() - 1) as f64 * q).round() as usize];
    let mean = |value: &dyn Fn(&Report) -> f64| reports.iter().map(value).sum::<f64>() / total;
    let (low, high) = wilson(right, counted.len());
    println!(
        "{family:?} {agents:>2} {:>4} | {:.3} [{low:.3}, {high:.3}] of {} | {:.3} | {:.3} | {:.0} | {:.2}, {:.1} | {:.1} | {:.1}, {:.0}",
        reports.len(),
        right as f64 / counted.len().max(1) as f64,
        counted.len(),
        wrong as f64 / total,
        listed as f64 / total,
        mean(&|report| f64::from(report.runs)),
        quantile(0.5),
        quantile(0.95),
        mean(&|report| f64::from(report.visits)),
        mean(&|report| report.choose_ms_mean),
        reports.iter().map(|report| report.choose_ms_max).fold(0.0, f64::max),
    );
}

/// The 95 % interval of a share (Wilson 1927).
fn wilson(right: usize, of: usize) -> (f64, f64) {
    let (n, z) = (of.max(1) as f64, 1.96f64);
    let share = right as f64 / n;
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    (middle - half, (middle + half).min(1.0))
}
