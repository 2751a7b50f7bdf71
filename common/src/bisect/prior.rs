//! What is believed before anything runs: which commits are likely to be the culprit.

use crate::crash::Target;
use crate::history::History;
use std::collections::HashMap;

/// Shares of the prior (SEARCH.md). The even part caps what a misleading crash can cost at
/// log₂(1/0.3) = 1.7 bits.
const EVEN: f64 = 0.3;
const FILES: f64 = 0.4;
const DIRECTORIES: f64 = 0.1;
const RECENT: f64 = 0.2;
/// A merge is a culprit only where its parents clash.
const MERGE: f64 = 0.2;
/// A change to documentation alone: not impossible, since builds read odd files.
const PROSE: f64 = 0.3;
/// Files of the trace that count; behind them everything is generic.
const FILES_MAX: usize = 8;

/// Weights of the commits, summing to 1. Without any paths all weigh the same.
pub(super) fn weights(history: &History, target: Option<&Target>) -> Vec<f64> {
    let len = history.len();
    if !history.has_files() {
        return vec![1.0 / len as f64; len];
    }
    let recent: f64 = (1..=len).map(|rank| 1.0 / rank as f64).sum();
    let mut weights: Vec<f64> =
        (0..len).map(|at| EVEN / len as f64 + RECENT / recent / (len - at) as f64).collect();
    let files = target.map(|target| &target.files[..]).unwrap_or_default();
    let named: Vec<(&str, f64)> = files
        .iter()
        .take(FILES_MAX)
        .enumerate()
        .map(|(n, file)| (file.as_str(), 1.0 / (n + 1) as f64))
        .collect();
    let directory = |path: &str| path.rsplit_once('/').map_or("", |(directory, _)| directory).to_string();
    spread(&mut weights, history, FILES, &named, |path| path.to_string());
    spread(&mut weights, history, DIRECTORIES, &named, directory);
    for (at, weight) in weights.iter_mut().enumerate() {
        let commit = &history.commits()[at];
        if commit.parents.len() + commit.outside.len() > 1 {
            *weight *= MERGE;
        } else if is_prose(history.files(at as u32)) {
            *weight *= PROSE;
        }
    }
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// Gives `share` to the commits that touch what is named: to each name its part, the top of
/// the trace most, and to each commit that touches it an equal part of that.
fn spread(
    weights: &mut [f64],
    history: &History,
    share: f64,
    named: &[(&str, f64)],
    key: impl Fn(&str) -> String,
) {
    let mut touched: HashMap<String, (f64, Vec<usize>)> = HashMap::new();
    for (file, weight) in named {
        touched.entry(key(file)).or_default().0 += weight;
    }
    for at in 0..weights.len() {
        for path in history.files(at as u32) {
            if let Some((_, commits)) = touched.get_mut(&key(path))
                && commits.last() != Some(&at)
            {
                commits.push(at);
            }
        }
    }
    let touched: Vec<_> = touched.into_values().filter(|(_, commits)| !commits.is_empty()).collect();
    let sum: f64 = touched.iter().map(|(weight, _)| weight).sum();
    for (weight, commits) in touched {
        commits.iter().for_each(|&at| weights[at] += share * weight / sum / commits.len() as f64);
    }
}

fn is_prose(files: &[String]) -> bool {
    let prose = |file: &String| {
        file.ends_with(".rst")
            || file.ends_with(".md")
            || file.ends_with(".txt")
            || file == "MAINTAINERS"
            || file.starts_with("Documentation/")
            || file.starts_with("doc/")
    };
    !files.is_empty() && files.iter().all(prose)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Commit;
    use crate::id::{RevisionId, TreeId};

    #[test]
    fn commits_that_touch_the_trace_lead_and_nothing_is_impossible() {
        let commit = |at: u8| Commit {
            id: RevisionId::from_bytes([at; 20]),
            tree: TreeId::from_bytes([0; 20]),
            parents: if at == 0 { vec![] } else { vec![u32::from(at) - 1] },
            outside: vec![],
            time: 0,
            subject: String::new(),
        };
        let files = |at: usize| match at {
            3 => vec!["drivers/foo/foo.c".to_string()],
            4 => vec!["drivers/foo/bar.c".to_string()],
            5 => vec!["doc/foo.rst".to_string()],
            _ => vec![format!("lib/{at}.c")],
        };
        let history = History::new((0..40).map(commit).collect()).expect("a line");
        assert!(weights(&history, None).iter().all(|&weight| weight == 1.0 / 40.0));
        let history = history.with_files((0..40).map(files).collect());
        let target = Target {
            title: "WARNING in foo".into(),
            alt_titles: vec![],
            frames: vec![],
            files: vec!["drivers/foo/foo.c".into(), "not/there.c".into()],
        };
        let weights = weights(&history, Some(&target));
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(weights[3] > 0.4 && weights[3] > 3.0 * weights[4] && weights[4] > 5.0 * weights[2]);
        assert!(weights[5] > 0.0 && weights[5] < weights[2] && weights[39] > weights[20]);
    }
}
