//! The tables and plots of docs/search-figures.md. What was measured is kept as JSON lines, so
//! that an interrupted run goes on where it was.

use crate::Failed;
use crate::growth::{Grown, SIZES};
use crate::measure::{Plan, Prior, Record, measure, without_paths};
use crate::plot::{Plot, Point, svg};
use crate::tables::{LINE_HEAD, line, mean, wilson};
use kulprit_common::simulate::{Family, Graph, Rules, Terrain};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;

/// Trials that are measured and kept at once.
const STEP: u64 = 20;
/// Sequential rounds that any search needs on 15,560 commits (SEARCH.md, bounds), by width.
const ROUNDS: [(usize, u32); 5] = [(1, 14), (2, 9), (4, 6), (8, 5), (16, 4)];
/// The start, and the certificate.
const ROUNDS_BESIDE: u32 = 2;
const BINS: [f64; 8] = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0];

pub struct Order {
    pub path: String,
    pub families: Vec<Family>,
    pub widths: Vec<NonZeroUsize>,
    pub trials: u64,
    /// Of the other rules, and of `kulprit` without a prior and with a misleading one.
    pub others: u64,
    pub seed: u64,
}

/// What one line of a table is about.
#[derive(Clone, Copy)]
struct Cell {
    rules: Rules,
    prior: Prior,
    family: Family,
    agents: NonZeroUsize,
    trials: u64,
}

impl Cell {
    fn name(&self, seed: u64) -> String {
        let Cell { rules, prior, family, agents, .. } = self;
        format!("{rules:?} {prior:?} {family:?} {agents} {seed}")
    }
}

type Known = BTreeMap<String, BTreeMap<u64, Record>>;

pub fn write(order: &Order, graph: &Graph, results: &Path, out: &Path) -> Result<(), Failed> {
    let mut known = load(results)?;
    let mut kept = std::fs::OpenOptions::new().create(true).append(true).open(results)?;
    let (bare, terrain) = (without_paths(graph), Terrain::new(graph));
    let cells = cells(order);
    for cell in &cells {
        let name = cell.name(order.seed);
        let plan = Plan {
            graph,
            bare: &bare,
            terrain: &terrain,
            seed: order.seed,
            rules: cell.rules,
            prior: cell.prior,
            family: cell.family,
            agents: cell.agents,
            traced: false,
        };
        let have: BTreeSet<u64> = known.entry(name.clone()).or_default().keys().copied().collect();
        for first in (0..cell.trials).step_by(STEP as usize) {
            let end = (first + STEP).min(cell.trials);
            if (first..end).all(|trial| have.contains(&trial)) {
                continue;
            }
            for (report, _) in measure(&plan, first..end) {
                let record = Record::new(&name, cell.family, &report);
                writeln!(kept, "{}", serde_json::to_string(&record)?)?;
                known.entry(name.clone()).or_default().insert(record.trial, record);
            }
        }
        eprintln!("{name}: {} trials", cell.trials);
        // After every cell, so that an interrupted run leaves what it has.
        put(order, &cells, &known, &[], out)?;
    }
    let grown = SIZES.iter().map(|commits| grow(&order.path, *commits)).collect::<Result<Vec<_>, _>>()?;
    put(order, &cells, &known, &grown, out)
}

fn load(results: &Path) -> Result<Known, Failed> {
    let mut known = Known::new();
    let text = if results.exists() { std::fs::read_to_string(results)? } else { String::new() };
    // The last line of an interrupted run may be half a line.
    for record in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
        known.entry(record.cell.clone()).or_default().insert(record.trial, record);
    }
    Ok(known)
}

fn cells(order: &Order) -> Vec<Cell> {
    let Order { ref families, ref widths, trials, .. } = *order;
    let one = NonZeroUsize::MIN;
    let mut cells = Vec::new();
    for &agents in widths {
        for &family in families {
            cells.push(Cell { rules: Rules::Kulprit, prior: Prior::Known, family, agents, trials });
        }
    }
    let trials = order.others;
    for &agents in widths {
        let (rules, prior, family) = (Rules::Kulprit, Prior::None, Family::S0);
        cells.push(Cell { rules, prior, family, agents, trials });
    }
    let (rules, prior, family) = (Rules::Kulprit, Prior::Misleading, Family::S0);
    cells.push(Cell { rules, prior, family, agents: one, trials });
    let widest = widths.iter().copied().filter(|width| width.get() <= 8).max().unwrap_or(one);
    for (rules, agents) in [(Rules::Git, one), (Rules::Syzkaller, one), (Rules::NthSection, widest)] {
        for &family in families {
            cells.push(Cell { rules, prior: Prior::Known, family, agents, trials });
        }
    }
    cells
}

/// A process of its own, whose memory is its own.
fn grow(path: &str, commits: usize) -> Result<Grown, Failed> {
    let this = std::env::current_exe()?;
    let output = std::process::Command::new(this)
        .args(["growth", path, &commits.to_string()])
        .env("KULPRIT_BENCH_THREADS", "1")
        .output()?;
    if !output.status.success() {
        return Err(format!("growth {commits}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn put(order: &Order, cells: &[Cell], known: &Known, grown: &[Grown], out: &Path) -> Result<(), Failed> {
    let of = |cell: &Cell| -> Vec<Record> {
        known.get(&cell.name(order.seed)).into_iter().flat_map(|records| records.values().cloned()).collect()
    };
    let mut text = format!(
        "# Figures of the search\n\nWritten by `make bench-search`: {} trials a family and width of `kulprit`, {} of the others, seed {}, on\n\
         the graph of `../shared/dags`. Intervals are Wilson's, 95 %. Of N0, \"resolvable\" are the worlds whose good end can be\n\
         run at all, since another can only be suspected. Hours are virtual, certificates included; the time of a choice is real,\n\
         of one processor.\n\n## kulprit\n\n{LINE_HEAD}\n",
        order.trials, order.others, order.seed
    );
    let mut section = |title: Option<&str>, rules: Rules| {
        if let Some(title) = title {
            let _ = write!(text, "\n## {title}\n\n{LINE_HEAD}\n");
        }
        let cells = cells.iter().filter(|cell| cell.rules == rules && cell.prior == Prior::Known);
        for (cell, records) in cells.map(|cell| (cell, of(cell))).filter(|(_, records)| !records.is_empty()) {
            let _ = writeln!(text, "{}", line(&format!("{:?}", cell.family), cell.agents.get(), &records));
        }
    };
    section(None, Rules::Kulprit);
    section(Some("git bisect: one run a revision, any crash is bad"), Rules::Git);
    section(Some("The reference: ten runs, any crash is bad"), Rules::Syzkaller);
    section(Some("Even sections with the reference's rules"), Rules::NthSection);
    text += &priors(cells, &of);
    let all: Vec<Record> = cells
        .iter()
        .filter(|cell| cell.rules == Rules::Kulprit && !matches!(cell.family, Family::N0 | Family::N1))
        .flat_map(&of)
        .collect();
    text += &calibration(&all, out)?;
    text += &growth(grown, out)?;
    std::fs::write(out.join("search-figures.md"), text)?;
    Ok(())
}

/// What the prior is worth, and what a wrong one costs.
fn priors(cells: &[Cell], of: &dyn Fn(&Cell) -> Vec<Record>) -> String {
    let mut text = String::from(
        "\n## Without a prior, and with a misleading one (S0)\n\nA round is a first visit to a kernel. The bound is SEARCH.md's, and the start and the certificate beside it.\n\n\
         | prior | agents | trials | right | rounds | bound | visits |\n|---|---|---|---|---|---|---|\n",
    );
    for cell in cells.iter().filter(|cell| cell.prior != Prior::Known) {
        let records = of(cell);
        if records.is_empty() {
            continue;
        }
        let agents = cell.agents.get();
        let bound = ROUNDS.iter().find(|(width, _)| *width == agents);
        let bound = bound.map_or("–".into(), |(_, rounds)| format!("{rounds} + {ROUNDS_BESIDE}"));
        let _ = writeln!(
            text,
            "| {:?} | {agents} | {} | {:.3} | {:.1} | {bound} | {:.1} |",
            cell.prior,
            records.len(),
            mean(&records, |record| f64::from(u8::from(record.right))),
            mean(&records, |record| record.rounds),
            mean(&records, |record| f64::from(record.visits)),
        );
    }
    let visits = |prior: Prior| {
        let cell = cells.iter().find(|cell| cell.prior == prior && cell.agents == NonZeroUsize::MIN)?;
        let records = of(cell);
        (!records.is_empty()).then(|| mean(&records, |record| f64::from(record.visits)))
    };
    if let Some((misled, none)) = visits(Prior::Misleading).zip(visits(Prior::None)) {
        let _ = write!(text, "\nA misleading prior costs {:+.1} visits in the mean.\n", misled - none);
    }
    text
}

/// Whether what is claimed comes true as often as claimed.
fn calibration(records: &[Record], out: &Path) -> Result<String, Failed> {
    let mut text = String::from(
        "\n## Calibration\n\nOf the likeliest commit at the end of each search with a culprit (S0 to S4, all widths): what was claimed, and how\noften it was the one.\n\n![reliability](reliability.svg)\n\n| claimed | searches | claimed, mean | true |\n|---|---|---|---|\n",
    );
    let mut points = Vec::new();
    for (number, bin) in BINS.windows(2).enumerate() {
        let last = number + 2 == BINS.len();
        let inside = |record: &&Record| record.claimed >= bin[0] && (record.claimed < bin[1] || last);
        let inside: Vec<Record> = records.iter().filter(inside).cloned().collect();
        if inside.is_empty() {
            continue;
        }
        let right = inside.iter().filter(|record| record.claim_right).count();
        let claimed = mean(&inside, |record| record.claimed);
        let share = right as f64 / inside.len() as f64;
        let (low, high) = wilson(right, inside.len());
        let _ = writeln!(
            text,
            "| {} to {} | {} | {claimed:.3} | {share:.3} [{low:.3}, {high:.3}] |",
            bin[0],
            bin[1],
            inside.len()
        );
        points.push(Point { x: claimed, y: share, text: inside.len().to_string() });
    }
    let marks =
        || (0..=5).map(|tenth| (f64::from(tenth) / 5.0, format!("{:.1}", f64::from(tenth) / 5.0))).collect();
    let plot = Plot {
        title: "Claimed and true",
        x: "claimed probability of the likeliest commit",
        y: "share that was true (numbers: searches)",
        x_marks: marks(),
        y_marks: marks(),
        diagonal: true,
        series: vec![("searches of S0 to S4", points)],
    };
    std::fs::write(out.join("reliability.svg"), svg(&plot))?;
    Ok(text)
}

fn growth(grown: &[Grown], out: &Path) -> Result<String, Failed> {
    if grown.is_empty() {
        return Ok(String::new());
    }
    let mut text = String::from(
        "\n## Growth\n\nS2 with 16 agents on the first commits of the graph, and on copies of it on top of each other; memory is that of the\nwhole process at its largest, graph and paths included.\n\n![growth](growth.svg)\n\n| commits | choice, ms: mean, most | memory, MB |\n|---|---|---|\n",
    );
    for it in grown {
        let _ = writeln!(
            text,
            "| {} | {:.1}, {:.0} | {:.0} |",
            it.commits, it.choose_ms_mean, it.choose_ms_max, it.memory_mb
        );
    }
    // Both axes are logarithmic: from 1,000 to 100,000, and from 0.1 to 1,000.
    let x = |commits: usize| (commits as f64 / 1000.0).log10() / 2.0;
    let y = |value: f64| ((value.max(0.1) / 0.1).log10() / 4.0).min(1.0);
    let points = |value: &dyn Fn(&Grown) -> f64| -> Vec<Point> {
        let point =
            |it: &Grown| Point { x: x(it.commits), y: y(value(it)), text: format!("{:.1}", value(it)) };
        grown.iter().map(point).collect()
    };
    let plot = Plot {
        title: "Growth with the history",
        x: "commits",
        y: "ms, MB",
        x_marks: [1_000, 10_000, 100_000].map(|commits| (x(commits), commits.to_string())).into(),
        y_marks: [0.1, 1.0, 10.0, 100.0, 1000.0].map(|value| (y(value), value.to_string())).into(),
        diagonal: false,
        series: vec![
            ("a choice in the mean, ms", points(&|it| it.choose_ms_mean)),
            ("memory, MB", points(&|it| it.memory_mb)),
        ],
    };
    std::fs::write(out.join("growth.svg"), svg(&plot))?;
    Ok(text)
}
