//! Measures the search on the built-in worlds: `make bench-search` writes its tables.
//!
//! GRAPH(.gz) FAMILIES WIDTHS TRIALS SEED [RULES] [-v | -t]: a line for each family and width.
//!   `-v` prints the trials that were not answered right, `-t` what was seen in them too. TRIALS
//!   may be a range, FIRST..END.
//! figures GRAPH(.gz) RESULTS OUT FAMILIES WIDTHS TRIALS OTHERS SEED: measures what RESULTS (JSON lines,
//!   appended) lacks, and writes the tables and plots to the directory OUT.
//! growth GRAPH(.gz) COMMITS: one search among so many commits; figures runs it as a process.
//!
//! `KULPRIT_BENCH_THREADS` is the number of threads, else 2.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a program with hands of its own")]

mod figures;
mod growth;
mod measure;
mod plot;
mod tables;

use kulprit_common::simulate::{Family, Graph, Report, Rules, Terrain};
use measure::{Plan, Prior, Record, expected, measure};
use std::io::Read as _;
use std::num::NonZeroUsize;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["figures", path, results, out, families, widths, trials, others, seed] => {
            let order = figures::Order {
                path: path.to_string(),
                families: families.split(',').map(str::parse).collect::<Result<_, _>>()?,
                widths: widths.split(',').map(str::parse).collect::<Result<_, _>>()?,
                trials: trials.parse()?,
                others: others.parse()?,
                seed: seed.parse()?,
            };
            figures::write(&order, &read(path)?, results.as_ref(), out.as_ref())
        }
        ["growth", path, commits] => growth::one(&read(path)?, commits.parse()?),
        [path, families, widths, trials, seed, rest @ ..] => {
            print(&read(path)?, families, widths, trials, seed, rest)
        }
        _ => {
            Err("arguments: GRAPH FAMILIES WIDTHS TRIALS SEED [kulprit|git|syzkaller|nth-section] [-v | -t]"
                .into())
        }
    }
}

fn print(
    graph: &Graph,
    families: &str,
    widths: &str,
    trials: &str,
    seed: &str,
    rest: &[&str],
) -> Result<(), Failed> {
    let rules = match rest.first() {
        Some(&"git") => Rules::Git,
        Some(&"syzkaller") => Rules::Syzkaller,
        Some(&"nth-section") => Rules::NthSection,
        Some(_) | None => Rules::Kulprit,
    };
    let traced = rest.contains(&"-t");
    let (first, end) = trials.split_once("..").unwrap_or(("0", trials));
    let (first, end): (u64, u64) = (first.parse()?, end.parse()?);
    let (bare, terrain) = (measure::without_paths(graph), Terrain::new(graph));
    println!("{}", tables::LINE_HEAD);
    for family in families.split(',') {
        for width in widths.split(',') {
            let family: Family = family.parse()?;
            let agents: NonZeroUsize = width.parse()?;
            let seed = seed.parse()?;
            let prior = Prior::Known;
            let (bare, terrain) = (&bare, &terrain);
            let plan = Plan { graph, bare, terrain, seed, rules, prior, family, agents, traced };
            let reports = measure(&plan, first..end);
            if traced || rest.contains(&"-v") {
                for (report, trace) in reports.iter().filter(|(report, _)| !expected(family, report)) {
                    print_odd(report, graph, trace);
                }
            }
            let records: Vec<Record> =
                reports.iter().map(|(report, _)| Record::new("", family, report)).collect();
            println!("{}", tables::line(&format!("{family:?}"), agents.get(), &records));
        }
    }
    Ok(())
}

fn print_odd(report: &Report, graph: &Graph, trace: &str) {
    let truth = report.truth.unwrap_or_default();
    let place = report.suspects.iter().position(|suspect| suspect.index == truth);
    let lead: Vec<_> =
        report.suspects.iter().take(3).map(|it| (it.index, (it.probability * 1000.0) as u32)).collect();
    println!(
        "  trial {} {:?} culprit {:?} truth {truth} of {} at {place:?} of {} resolvable {:?} {lead:?} wall {:.1} h runs {} visits {}\n{trace}",
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

fn read(path: &str) -> Result<Graph, Failed> {
    let bytes = std::fs::read(path)?;
    let mut text = String::new();
    if path.ends_with(".gz") {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text)?;
    } else {
        text = String::from_utf8(bytes)?;
    }
    Ok(Graph::parse(&text)?)
}
