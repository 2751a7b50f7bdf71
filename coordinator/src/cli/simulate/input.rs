//! The files and repositories a simulation reads.

use super::super::args::SimulateArgs;
use super::super::failure::Failure;
use flate2::read::MultiGzDecoder;
use git2::{DiffOptions, Repository, Sort};
use kulprit_common::id::RevisionId;
use kulprit_common::simulate::{Graph, Node, World};
use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

/// A graph of this size is far beyond any range; a larger file is not one.
const GRAPH_BYTES_MAX: u64 = 2 << 30;
/// Paths of one commit that are looked at, as in recorded graphs.
const PATHS_MAX: usize = 40;

pub fn world(path: &Path) -> Result<World, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Input(format!("--world: {}: {error}", path.display())))?;
    World::parse(&text).map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
}

pub fn graph(args: &SimulateArgs) -> Result<Graph, Failure> {
    if let Some(path) = &args.history {
        return recorded(path);
    }
    match (&args.repo, &args.good, &args.bad) {
        (Some(repo), Some(good), Some(bad)) => from_repository(repo, good, bad)
            .map_err(|error| Failure::Input(format!("--repo {}: {}", repo.display(), error.message()))),
        (_, _, _) => Err(Failure::Input("--history FILE is missing, or --repo with --good and --bad".into())),
    }
}

fn recorded(path: &Path) -> Result<Graph, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::Input(format!("--history: {}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(&bytes[..]).take(GRAPH_BYTES_MAX).read_to_string(&mut text)
    } else {
        (&bytes[..]).take(GRAPH_BYTES_MAX).read_to_string(&mut text)
    };
    read.map_err(|error| wrong(&error))?;
    Graph::parse(&text).map_err(|error| wrong(&error))
}

fn from_repository(path: &Path, good: &str, bad: &str) -> Result<Graph, git2::Error> {
    let repository = Repository::open(path)?;
    let commit = |rev: &str| repository.revparse_single(rev)?.peel_to_commit();
    let (good, bad) = (commit(good)?, commit(bad)?);
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(bad.id())?;
    walk.hide(good.id())?;
    let mut index: HashMap<git2::Oid, u32> = HashMap::new();
    let mut nodes = Vec::new();
    for (at, id) in (0u32..).zip(walk) {
        let commit = repository.find_commit(id?)?;
        let mut bytes = [0; 20];
        bytes.copy_from_slice(commit.id().as_bytes());
        nodes.push(Node {
            id: RevisionId::from_bytes(bytes),
            parents: commit.parent_ids().filter_map(|parent| index.get(&parent).copied()).collect(),
            time: commit.time().seconds(),
            files: paths(&repository, &commit)?,
        });
        index.insert(commit.id(), at);
    }
    Graph::new(nodes)
        .map_err(|error| git2::Error::from_str(&format!("the range between --good and --bad: {error}")))
}

/// What a commit touches; nothing for a merge.
fn paths(repository: &Repository, commit: &git2::Commit<'_>) -> Result<Vec<String>, git2::Error> {
    if commit.parent_count() > 1 {
        return Ok(Vec::new());
    }
    let before = commit.parents().next().map(|parent| parent.tree()).transpose()?;
    let mut options = DiffOptions::new();
    options.skip_binary_check(true).ignore_submodules(true).context_lines(0);
    let diff = repository.diff_tree_to_tree(before.as_ref(), Some(&commit.tree()?), Some(&mut options))?;
    let path = |delta: git2::DiffDelta<'_>| Some(delta.new_file().path()?.to_string_lossy().into_owned());
    Ok(diff.deltas().filter_map(path).take(PATHS_MAX).collect())
}
