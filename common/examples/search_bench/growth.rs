//! How a choice and the memory grow with the history.

use crate::Failed;
use crate::measure::{Plan, Prior, Record, measure, without_paths};
use kulprit_common::id::RevisionId;
use kulprit_common::simulate::{Family, Graph, Node, Rules, Terrain};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

pub const SIZES: [usize; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];
const AGENTS: usize = 16;
const TRIALS: u64 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grown {
    pub commits: usize,
    pub choose_ms_mean: f64,
    pub choose_ms_max: f64,
    /// The process at its largest, the graph as it was read included.
    pub memory_mb: f64,
}

/// Searches among this many commits, and prints what it took.
pub fn one(graph: &Graph, commits: usize) -> Result<(), Failed> {
    let graph = grown(graph, commits);
    let terrain = Terrain::new(&graph);
    let plan = Plan {
        graph: &graph,
        bare: &without_paths(&grown(&graph, 1)),
        terrain: &terrain,
        seed: 1,
        rules: Rules::Kulprit,
        prior: Prior::Known,
        family: Family::S2,
        agents: NonZeroUsize::new(AGENTS).ok_or("no agents")?,
        traced: false,
    };
    let reports = measure(&plan, 0..TRIALS);
    let records: Vec<Record> =
        reports.iter().map(|(report, _)| Record::new("", plan.family, report)).collect();
    let grown = Grown {
        commits,
        choose_ms_mean: crate::tables::mean(&records, |record| record.choose_ms_mean),
        choose_ms_max: records.iter().map(|record| record.choose_ms_max).fold(0.0, f64::max),
        memory_mb: peak_mb().unwrap_or(f64::NAN),
    };
    println!("{}", serde_json::to_string(&grown)?);
    Ok(())
}

/// The first commits of a graph, or the graph on top of itself as often as it takes. A last
/// commit takes in all that would be left open.
fn grown(graph: &Graph, commits: usize) -> Graph {
    let mut nodes: Vec<Node> = Vec::with_capacity(commits);
    let mut open: Vec<bool> = Vec::with_capacity(commits);
    while nodes.len() < commits {
        let at = nodes.len();
        let (base, own) = (at / graph.len() * graph.len(), (at % graph.len()) as u32);
        let node = graph.node(own);
        let mut parents: Vec<u32> = node.parents.iter().map(|parent| parent + base as u32).collect();
        if at + 1 == commits {
            parents = (0u32..).zip(&open).filter(|(_, open)| **open).map(|(at, _)| at).collect();
        } else if parents.is_empty() && base > 0 {
            parents.push(base as u32 - 1);
        }
        parents.iter().for_each(|&parent| open[parent as usize] = false);
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
        nodes.push(Node { id: RevisionId::from_bytes(id), parents, ..node.clone() });
        open.push(true);
    }
    Graph::new(nodes).expect("a graph with ids of its own")
}

fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}
