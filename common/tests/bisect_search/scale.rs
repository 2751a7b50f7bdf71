//! Real graphs: cost in revisions and runs, and the time a choice takes. The graph is kept
//! outside the project (dags/README.md there).

use crate::tables::words;
use crate::world::{Arrival, Dice, Graph, Saw, World, drive};
use std::io::Read;
use std::time::Duration;

/// The u-boot history `copies` times on top of itself, with commit 0 as the good end below
/// every root.
pub fn uboot(copies: usize) -> Option<Graph> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/dags/uboot-2024.01-2026.07.tsv.gz");
    let file = std::fs::read(path).ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut text).expect("gzip of text");
    let mut graph = Graph { parents: vec![vec![]] };
    for _ in 0..copies {
        let below = graph.tip();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let parents = line.split('\t').nth(2).expect("a column of parents");
            let parents = parents.split(',').filter(|parent| !parent.is_empty());
            let mut parents: Vec<usize> =
                parents.map(|parent| parent.parse::<usize>().expect("an index") + below + 1).collect();
            if parents.is_empty() {
                parents.push(below);
            }
            graph.parents.push(parents);
        }
    }
    Some(graph)
}

/// Searches for some culprits; returns the mean revisions and runs, and the longest choice.
fn measure(graph: &Graph, width: usize, silent: bool, trials: u64) -> (f64, f64, Duration) {
    let (mut builds, mut runs, mut longest) = (0, 0, Duration::ZERO);
    for seed in 0..trials {
        let culprit = 1 + Dice(seed).roll(graph.tip());
        let mut bug = vec![false; graph.parents.len()];
        for at in 0..bug.len() {
            bug[at] = at == culprit || graph.parents[at].iter().any(|&parent| bug[parent]);
        }
        // A twentieth of the history, well away from the culprit, does not boot.
        let broken = (culprit + graph.tip() / 3) % graph.tip();
        let broken = broken..broken + graph.tip() / 20;
        let tip = graph.tip();
        let kernel = |at: usize, _| match (silent && at != tip && broken.contains(&at), bug[at]) {
            (true, _) => Saw::BootFailed,
            (false, true) => Saw::Target,
            (false, false) => Saw::Ok,
        };
        let ended = drive(&World::new(graph.clone(), kernel), width, Arrival::InOrder);
        assert_eq!(words(&ended.finding), format!("culprit {culprit}"));
        builds += ended.builds;
        runs += ended.runs;
        longest = longest.max(ended.choose_max);
    }
    (builds as f64 / trials as f64, runs as f64 / trials as f64, longest)
}

#[test]
fn a_choice_among_thirty_thousand_commits_is_quick() {
    for copies in [1, 2] {
        let Some(graph) = uboot(copies) else { return println!("skipped: the graph is not here") };
        for (width, silent, builds_max) in [(1, false, 19.0), (8, false, 50.0), (8, true, 70.0)] {
            let trials = if cfg!(debug_assertions) { 2 } else { 10 };
            let (builds, runs, longest) = measure(&graph, width, silent, trials);
            println!(
                "{} commits, width {width}, broken stretch {silent}: {builds} revisions, {runs} runs, {longest:?} at most for a choice",
                graph.tip()
            );
            assert!(builds <= builds_max, "{builds} revisions");
            // Unoptimised code is not what is promised; it only must not hang.
            let limit = if cfg!(debug_assertions) { 5000 } else { 100 };
            assert!(longest < Duration::from_millis(limit), "{longest:?} for a choice");
        }
    }
}
