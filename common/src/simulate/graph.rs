//! A whole commit graph with the paths its commits touch, and the ranges cut out of it.

use crate::history::{Commit, History};
use crate::id::{RevisionId, TreeId};
use std::collections::HashMap;

/// One commit of a graph, parents before children.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: RevisionId,
    pub parents: Vec<u32>,
    pub time: i64,
    pub files: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<RevisionId, u32>,
}

/// A text that is not a graph; it names the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGraph {
    #[error("line {line}: {column} is {text:?}, expected {expected}")]
    Column { line: usize, column: &'static str, text: String, expected: &'static str },
    #[error("the graph holds no commit")]
    Empty,
    #[error("commit {0} stands twice")]
    Twice(RevisionId),
}

impl Graph {
    pub fn new(nodes: Vec<Node>) -> Result<Self, InvalidGraph> {
        let mut index = HashMap::with_capacity(nodes.len());
        for (at, node) in (0u32..).zip(&nodes) {
            if index.insert(node.id, at).is_some() {
                return Err(InvalidGraph::Twice(node.id));
            }
        }
        if nodes.is_empty() {
            return Err(InvalidGraph::Empty);
        }
        Ok(Graph { nodes, index })
    }

    /// Reads lines of tab-separated columns: index, commit (hex), indices of the parents,
    /// commit time, number of files, paths. Lines with `#` and empty ones are skipped.
    pub fn parse(text: &str) -> Result<Self, InvalidGraph> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
        let nodes = (0u32..).zip(lines).map(|(at, (line, text))| node(at, line + 1, text));
        Graph::new(nodes.collect::<Result<_, _>>()?)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: `new` refuses an empty graph.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    pub fn find(&self, id: &RevisionId) -> Option<u32> {
        self.index.get(id).copied()
    }

    pub fn tip(&self) -> u32 {
        u32::try_from(self.nodes.len() - 1).expect("indices of parents are 32 bits wide")
    }

    /// Which commits `of` has among its ancestors, itself included.
    pub fn ancestors(&self, of: u32) -> Vec<bool> {
        let mut set = vec![false; self.len()];
        set[of as usize] = true;
        for at in (0..=of as usize).rev() {
            if set[at] {
                self.nodes[at].parents.iter().for_each(|&parent| set[parent as usize] = true);
            }
        }
        set
    }

    /// How many of `among`, which must ascend, each of them has among its ancestors, itself included.
    ///
    /// Sets of ancestors are handed on from parent to child and let go with the last child, so no more of
    /// them are kept than there are lines of development side by side.
    pub fn weights(&self, among: &[u32]) -> Vec<usize> {
        let inside = |at: &u32| -> Vec<usize> {
            let parents = self.node(*at).parents.iter();
            parents.filter_map(|parent| among.binary_search(parent).ok()).collect()
        };
        let parents: Vec<Vec<usize>> = among.iter().map(inside).collect();
        let mut children = vec![0usize; among.len()];
        parents.iter().flatten().for_each(|&parent| children[parent] += 1);
        let mut below: Vec<Vec<u64>> = vec![Vec::new(); among.len()];
        let mut weights = Vec::with_capacity(among.len());
        for (n, parents) in parents.iter().enumerate() {
            let mut all = vec![0u64; among.len().div_ceil(64)];
            for &parent in parents {
                all.iter_mut().zip(&below[parent]).for_each(|(all, below)| *all |= below);
                children[parent] -= 1;
                if children[parent] == 0 {
                    below[parent] = Vec::new();
                }
            }
            all[n / 64] |= 1 << (n % 64);
            weights.push(all.iter().map(|word| word.count_ones() as usize).sum());
            if children[n] > 0 {
                below[n] = all;
            }
        }
        weights
    }

    /// Which commits descend from `of`, itself included.
    pub fn descendants(&self, of: u32) -> Vec<bool> {
        let mut set = vec![false; self.len()];
        set[of as usize] = true;
        for (at, node) in self.nodes.iter().enumerate().skip(of as usize + 1) {
            set[at] = node.parents.iter().any(|&parent| set[parent as usize]);
        }
        set
    }

    /// What `bad` reaches and `good` does not; without `good`, all that `bad` reaches.
    pub fn range(&self, good: Option<u32>, bad: u32) -> Vec<u32> {
        let wanted = self.ancestors(bad);
        let known = good.map_or_else(|| vec![false; self.len()], |good| self.ancestors(good));
        (0..=bad).filter(|&at| wanted[at as usize] && !known[at as usize]).collect()
    }

    /// The range as the search takes it; nothing where `good` leaves nothing of it.
    pub fn history(&self, good: Option<u32>, bad: u32) -> Option<History> {
        let range = self.range(good, bad);
        let place: HashMap<u32, u32> = range.iter().copied().zip(0..).collect();
        let commit = |&at: &u32| {
            let node = self.node(at);
            let (inside, outside): (Vec<u32>, Vec<u32>) =
                node.parents.iter().partition(|parent| place.contains_key(parent));
            Commit {
                id: node.id,
                tree: TreeId::from_bytes([0; 20]),
                parents: inside.iter().map(|parent| place[parent]).collect(),
                outside: outside.iter().map(|&parent| self.node(parent).id).collect(),
                time: node.time,
                subject: String::new(),
            }
        };
        let files = range.iter().map(|&at| self.node(at).files.clone()).collect();
        Some(History::new(range.iter().map(commit).collect()).ok()?.with_files(files))
    }
}

fn node(at: u32, line: usize, text: &str) -> Result<Node, InvalidGraph> {
    let mut columns = text.split('\t');
    let mut next = || columns.next().unwrap_or_default();
    let wrong =
        |column, text: &str, expected| InvalidGraph::Column { line, column, text: text.into(), expected };
    let index = next();
    if index.parse() != Ok(at) {
        return Err(wrong("index", index, "the number of the commit, counted from 0"));
    }
    let name = next();
    let mut bytes = [0; 20];
    let given = name.len().min(40) / 2 * 2;
    let hex = name.get(..given).unwrap_or_default();
    if hex.len() < 8 || hex::decode_to_slice(hex, &mut bytes[..given / 2]).is_err() {
        return Err(wrong("commit", name, "8 to 40 hex digits"));
    }
    let parents = next();
    let parent = |text: &str| text.parse().ok().filter(|&parent: &u32| parent < at);
    let parents = parents
        .split(',')
        .filter(|parent| !parent.is_empty())
        .map(|text| {
            parent(text).ok_or_else(|| wrong("parents", text, "an index smaller than the commit's own"))
        })
        .collect::<Result<_, _>>()?;
    let time = next();
    let time = time.parse().map_err(|_| wrong("commit time", time, "seconds"))?;
    next();
    let files = next().split(' ').filter(|file| !file.is_empty()).map(str::to_string).collect();
    Ok(Node { id: RevisionId::from_bytes(bytes), parents, time, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\n0\tdc314185be49bfce\t\t5\t1\ta.c\n1\ta8a53cfa8de0a754\t0\t6\t2\tb.c d/e.h\n\
        2\t54ecce2cbf9061b7\t0\t7\t0\t\n3\tf072620dc9ffda00\t1,2\t8\t0\t\n";

    #[test]
    fn a_graph_is_read_and_cut() {
        let graph = Graph::parse(TEXT).expect("a graph");
        assert_eq!(graph.node(1).files, ["b.c", "d/e.h"]);
        assert_eq!(graph.range(Some(2), 3), [1, 3]);
        let history = graph.history(Some(2), 3).expect("a range");
        assert_eq!(history.commit(1).parents, [0]);
        assert_eq!(history.commit(1).outside, [graph.node(2).id]);
        assert_eq!(history.files(0), ["b.c", "d/e.h"]);
        assert!(graph.history(Some(3), 1).is_none());
    }

    #[test]
    fn weights_are_numbers_of_ancestors() {
        // A history in which every third commit merges a line begun up to 30 commits before.
        let text: String = (0u32..300)
            .map(|n| {
                let parents = match n {
                    0 => String::new(),
                    n if n % 3 == 0 => format!("{},{}", n - 1, n.saturating_sub(2 + n * 7 % 30)),
                    n => n.saturating_sub(1 + n * 11 % 4).to_string(),
                };
                format!("{n}\t{:016x}\t{parents}\t{n}\t0\t\n", u64::from(n + 1) << 40)
            })
            .collect();
        let graph = Graph::parse(&text).expect("a graph");
        for (good, bad) in [(None, 299), (Some(40), 298), (Some(200), 297)] {
            let range = graph.range(good, bad);
            let counted: Vec<usize> = range
                .iter()
                .map(|&of| {
                    let below = graph.ancestors(of);
                    range.iter().filter(|&&at| below[at as usize]).count()
                })
                .collect();
            assert_eq!(graph.weights(&range), counted, "from {good:?} to {bad}");
        }
    }

    #[test]
    fn a_line_that_is_no_commit_is_named() {
        for (text, expected) in [
            ("", "the graph holds no commit"),
            (
                "1\tdc314185\t\t5\t0\t",
                "line 1: index is \"1\", expected the number of the commit, counted from 0",
            ),
            ("0\tzz314185\t\t5\t0\t", "line 1: commit is \"zz314185\", expected 8 to 40 hex digits"),
            (
                "0\tdc314185\t0\t5",
                "line 1: parents is \"0\", expected an index smaller than the commit's own",
            ),
            ("0\tdc314185\t\tx", "line 1: commit time is \"x\", expected seconds"),
        ] {
            assert_eq!(Graph::parse(text).expect_err(text).to_string(), expected);
        }
    }
}
