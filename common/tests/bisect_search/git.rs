//! git itself as the oracle: its picks on a line, and its end of our replay. Skipped where
//! git is not installed.

use crate::properties::scenario;
use crate::world::{Arrival, Graph, Saw, World, drive, id, number};
use kulprit_common::bisect::{Assumption, Bisection, Evidence, Finding, Step, replay};
use kulprit_common::id::Digest;
use kulprit_common::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A bare repository with the commits of a graph, removed when dropped.
struct Repository {
    path: PathBuf,
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Repository {
    /// Nothing where there is no git.
    fn new(graph: &Graph, name: &str) -> Option<Self> {
        Command::new("git").arg("--version").output().ok()?;
        let path = std::env::temp_dir().join(format!("kulprit-bisect-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        git(&path, &["init", "-q", "."], "");
        let mut stream = String::new();
        for (at, parents) in graph.parents.iter().enumerate() {
            let message = at.to_string();
            stream += &format!("commit refs/heads/c{at}\nmark :{}\n", at + 1);
            stream += &format!(
                "committer A <a@b> {} +0000\ndata {}\n{message}\n",
                1_700_000_000 + at * 60,
                message.len()
            );
            for (n, parent) in parents.iter().enumerate() {
                stream += &format!("{} :{}\n", if n == 0 { "from" } else { "merge" }, parent + 1);
            }
            stream += &format!("M 100644 inline file\ndata {}\n{message}\n\n", message.len());
        }
        git(&path, &["fast-import", "--quiet"], &stream);
        let refs = git(&path, &["for-each-ref", "--format=%(refname:short) %(objectname)"], "");
        let mut names = vec![String::new(); graph.parents.len()];
        for line in refs.lines() {
            let (commit, name) = line.split_once(' ').expect("two words");
            names[commit[1..].parse::<usize>().expect("a number")] = name.into();
        }
        let numbers = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Some(Repository { path, names, numbers })
    }

    /// What git would try next.
    fn bisect(&self, bad: usize, good: &[usize]) -> usize {
        let mut args = vec!["rev-list", "--bisect", &self.names[bad], "--not"];
        args.extend(good.iter().map(|&at| self.names[at].as_str()));
        let text = git(&self.path, &args, "");
        self.numbers[text.trim()]
    }
}

fn git(path: &Path, args: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .current_dir(path)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("git reads");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// git's rule on a line of `len` suspects: the first weight from 2 on that is close enough to
/// the half (`approx_halfway` in bisect.c), else the closest one.
fn halfway(len: i64) -> i64 {
    let off = |weight: i64| (2 * weight - len).abs();
    let close = (2..len).find(|&weight| off(weight) <= 1 || off(weight) < len / 1024);
    close.unwrap_or_else(|| (1..len).min_by_key(|&weight| off(weight)).unwrap_or(1))
}

/// Searches a line with one agent, and asks `oracle` about every pick. What git assumes has to be
/// said: else a quiet kernel stays a little in doubt, and what is below it keeps some weight.
fn follow(len: usize, culprit: usize, oracle: impl Fn(usize, usize) -> usize) {
    let graph = Graph::line(len + 1);
    let mut search = Bisection::new(crate::world::question(len, Some(0))).assuming(Assumption::Exact);
    let (mut bad, mut good) = (len, 0);
    loop {
        let (revision, runs) = match search.next_step(NonZeroUsize::MIN) {
            Step::LoadHistory { .. } => {
                search.set_history(graph.history(0, len));
                continue;
            }
            Step::Done(_) => return,
            Step::Certify(candidates) => (candidates[0].revision, candidates[0].runs),
            Step::Evaluate(candidates) => {
                let at = number(&candidates[0].revision);
                if ![0, len].contains(&at) {
                    assert_eq!(at, oracle(bad, good), "between {good} and {bad}, of {len}");
                    if at >= culprit { bad = at } else { good = at }
                }
                (candidates[0].revision, candidates[0].runs)
            }
        };
        let at = number(&revision);
        search.record(Evidence::Built { revision, fingerprint: Digest::of(&at.to_be_bytes()) });
        let outcome = crate::world::outcome(if at >= culprit { Saw::Target } else { Saw::Ok });
        for index in 0..runs {
            search.record(Evidence::Run { revision, index, outcome: outcome.clone() });
        }
    }
}

#[test]
fn one_agent_on_a_clean_line_picks_what_git_picks() {
    let rule = |bad: usize, good: usize| good + halfway((bad - good) as i64) as usize;
    for len in 1..70 {
        (1..=len).step_by(3).for_each(|culprit| follow(len, culprit, rule));
    }
    for len in [1023, 1024, 2047, 2048, 3071, 5000] {
        [1, len / 3, len].into_iter().for_each(|culprit| follow(len, culprit, rule));
    }
    let Some(repository) = Repository::new(&Graph::line(3300), "line") else {
        return println!("skipped: no git here");
    };
    for (len, culprit) in [(2, 1), (3, 3), (7, 4), (64, 11), (100, 99), (1024, 700), (2199, 1500), (3299, 7)]
    {
        follow(len, culprit, |bad, good| repository.bisect(bad, &[good]));
    }
}

/// The first-parent line of the recorded graph, as long as it is; git's picks on the real thing.
#[test]
fn a_line_as_long_as_a_real_one_is_cut_as_git_cuts_it() {
    let Some(graph) = crate::scale::uboot(1) else { return println!("skipped: the graph is not here") };
    let first = |at: &usize| graph.parents[*at].first().copied();
    let len = std::iter::successors(Some(graph.tip()), first).count() - 1;
    let Some(repository) = Repository::new(&Graph::line(len + 1), "real-line") else {
        return println!("skipped: no git here");
    };
    for culprit in [1, len / 5, len / 2 + 7, len] {
        follow(len, culprit, |bad, good| repository.bisect(bad, &[good]));
    }
}

/// With merges git's order among equals is its own, so the picks are held to its evenness. A
/// kernel that is no suspect may cut more evenly, which git never asks.
#[test]
fn one_agent_on_a_clean_history_cuts_as_evenly_as_git() {
    let (mut picks, mut as_even) = (0, 0);
    for seed in 0..40 {
        let (graph, culprit) = scenario(seed);
        let Some(repository) = Repository::new(&graph, &format!("even-{seed}")) else {
            return println!("skipped: no git here");
        };
        let bug: Vec<bool> =
            (0..graph.parents.len()).map(|at| graph.ancestors(at).contains(&culprit)).collect();
        let tip = graph.tip();
        let (mut bad, mut good) = (tip, vec![0]);
        let mut search = Bisection::new(crate::world::question(tip, Some(0))).assuming(Assumption::Exact);
        loop {
            let candidates = match search.next_step(NonZeroUsize::MIN) {
                Step::LoadHistory { .. } => {
                    search.set_history(graph.history(0, tip));
                    continue;
                }
                Step::Done(finding) => {
                    assert!(matches!(finding, Finding::Culprit { revision, .. } if revision == id(culprit)));
                    break;
                }
                Step::Certify(candidates) => candidates,
                Step::Evaluate(candidates) => {
                    let at = number(&candidates[0].revision);
                    if ![0, tip].contains(&at) {
                        let left = suspects(&graph, bad, &good);
                        let off = |at: usize| {
                            let below = graph.ancestors(at).intersection(&left).count();
                            (2 * below).abs_diff(left.len()).max(1)
                        };
                        let theirs = repository.bisect(bad, &good);
                        assert!(off(at) <= off(theirs), "{at}, git {theirs}, of {left:?}, seed {seed}");
                        as_even += usize::from(off(at) == off(theirs));
                        picks += 1;
                        if bug[at] { bad = at } else { good.push(at) }
                    }
                    candidates
                }
            };
            let (revision, runs) = (candidates[0].revision, candidates[0].runs);
            let at = number(&revision);
            search.record(Evidence::Built { revision, fingerprint: Digest::of(&at.to_be_bytes()) });
            let outcome = crate::world::outcome(if bug[at] { Saw::Target } else { Saw::Ok });
            for index in 0..runs {
                search.record(Evidence::Run { revision, index, outcome: outcome.clone() });
            }
        }
    }
    assert!(picks > 150 && as_even * 10 > picks * 9, "{as_even} of {picks}");
}

fn suspects(graph: &Graph, bad: usize, good: &[usize]) -> BTreeSet<usize> {
    let cleared: BTreeSet<usize> = good.iter().flat_map(|&at| graph.ancestors(at)).collect();
    graph.ancestors(bad).difference(&cleared).copied().collect()
}

#[test]
fn git_replays_our_judgements_to_the_same_commit() {
    let mut replayed = 0;
    for seed in 0..20 {
        let (graph, culprit) = scenario(seed);
        let Some(repository) = Repository::new(&graph, &format!("replay-{seed}")) else {
            return println!("skipped: no git here");
        };
        let bug: Vec<bool> =
            (0..graph.parents.len()).map(|at| graph.ancestors(at).contains(&culprit)).collect();
        let tip = graph.tip();
        let kernel = |at: usize, _| match (at % 7 == 3 && at != tip, bug[at]) {
            (true, _) => Saw::BootFailed,
            (false, true) => Saw::Target,
            (false, false) => Saw::Ok,
        };
        let world = World::new(graph.clone(), kernel);
        let ended = drive(&world, 1 + seed as usize % 4, Arrival::Shuffled(seed));
        let Finding::Culprit { revision, .. } = &ended.finding else { continue };
        replayed += 1;
        assert_eq!(*revision, id(culprit));
        let mut log = format!("git bisect start '{}' '{}'\n", repository.names[tip], repository.names[0]);
        for judgement in replay(&ended.judgements) {
            let word = match judgement.verdict {
                Verdict::Good => "good",
                Verdict::Bad => "bad",
                Verdict::Skip => "skip",
            };
            log += &format!("git bisect {word} {}\n", repository.names[number(&judgement.revision)]);
        }
        let file = repository.path.join("replay.log");
        std::fs::write(&file, &log).expect("a file");
        git(&repository.path, &["checkout", "-q", "-f", &repository.names[tip]], "");
        let said = git(&repository.path, &["bisect", "replay", "replay.log"], "");
        let first = format!("{} is the first bad commit", repository.names[culprit]);
        assert!(said.contains(&first), "{log}\n{said}");
    }
    assert!(replayed >= 10, "{replayed} of 20 had an answer");
}
