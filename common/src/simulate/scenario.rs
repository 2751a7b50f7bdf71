//! The built-in families of worlds: how often the bug shows, and what stands in the way.
//! Where the regions lie is in `terrain`.

use super::dice::Dice;
use super::graph::Graph;
use super::terrain::{Region, Terrain};
use super::world::{Answer, Request, Said};
use crate::crash::Target;

/// A family of worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    S0,
    S1,
    S2,
    S3,
    S4,
    /// As S1, but the good end has the bug.
    N0,
    /// As S1, but the bug never shows.
    N1,
}

impl std::str::FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [
            ("S0", Family::S0),
            ("S1", Family::S1),
            ("S2", Family::S2),
            ("S3", Family::S3),
            ("S4", Family::S4),
            ("N0", Family::N0),
            ("N1", Family::N1),
        ];
        let found = all.iter().find(|(known, _)| *known == name);
        found.map(|&(_, family)| family).ok_or(format!("{name:?} is none of S0, S1, S2, S3, S4, N0, N1"))
    }
}

/// The figures of a family.
struct Figures {
    rate: f64,
    broken: usize,
    unrelated: usize,
    infra: f64,
    alias: f64,
    files_named: f64,
}

impl Family {
    fn figures(self) -> Figures {
        let seeds =
            Figures { rate: 1.0, broken: 1, unrelated: 1, infra: 0.008, alias: 0.2, files_named: 0.8 };
        match self {
            Family::S0 => Figures { broken: 0, unrelated: 0, infra: 0.0, alias: 0.0, ..seeds },
            Family::S1 | Family::N0 => seeds,
            Family::N1 => Figures { rate: 0.0, ..seeds },
            Family::S2 => Figures { rate: 0.5, ..seeds },
            Family::S3 => Figures { rate: 0.2, ..seeds },
            Family::S4 => {
                Figures { rate: 0.3, broken: 3, unrelated: 3, infra: 0.03, files_named: 0.6, ..seeds }
            }
        }
    }
}

/// Shares of the commits that cannot be reverted, and of titles that look like the target.
const CONFLICTS: f64 = 0.25;
const ALIAS_ALIKE: f64 = 0.8;
const UNRELATED_ALIKE: f64 = 0.05;
const NEWEST: f64 = 0.01;

/// One world of a family.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub bad: u32,
    pub good: Option<u32>,
    pub crash: Target,
    pub culprit: u32,
    rate: f64,
    infra: f64,
    seed: u64,
    has_bug: Vec<bool>,
    broken: Vec<Region>,
    unrelated: Vec<Other>,
    alias: Option<(Region, Target)>,
}

#[derive(Clone, Debug)]
struct Other {
    region: Region,
    crash: Target,
    boot_failures: f64,
    crashes: f64,
}

impl Scenario {
    /// Makes the world of this family and seed on a graph whose last commit is the bad end.
    pub fn new(graph: &Graph, terrain: &Terrain, family: Family, tail: f64, seed: u64) -> Self {
        let figures = family.figures();
        let mut dice = Dice::named(seed, &[1]);
        let culprit = culprit(graph, tail, &mut dice);
        let crash = target(graph, culprit, figures.files_named, &mut dice);
        let has_bug = graph.descendants(culprit);
        let broken: Vec<Region> =
            (0..figures.broken).map(|_| terrain.region(graph, (0.03, 0.2), &mut dice)).collect();
        let unrelated = (0..figures.unrelated)
            .map(|_| {
                let severe = dice.chance(1.0 / 3.0);
                Other {
                    region: terrain.region(graph, (0.02, 0.15), &mut dice),
                    crash: other_title(&crash, UNRELATED_ALIKE, &mut dice),
                    boot_failures: if severe { 0.4 } else { 0.2 },
                    crashes: if severe { 0.6 } else { 0.1 },
                }
            })
            .collect();
        let alias = dice.chance(figures.alias).then(|| {
            let share = has_bug.iter().filter(|&&has| has).count() as f64 / graph.len() as f64;
            let region = terrain.region_below(graph, culprit, (0.2 * share, 0.8 * share), &mut dice);
            (region, other_title(&crash, ALIAS_ALIKE, &mut dice))
        });
        let usable = |at: u32| !broken.iter().any(|region| region.holds(at));
        let good = (family == Family::N0).then(|| {
            let fit = terrain.between(culprit, &has_bug, usable, &mut dice);
            fit.or_else(|| terrain.between(culprit, &has_bug, |_| true, &mut dice))
        });
        let good = good.flatten();
        let (rate, infra) = (figures.rate, figures.infra);
        Scenario {
            bad: graph.tip(),
            good,
            crash,
            culprit,
            rate,
            infra,
            seed,
            has_bug,
            broken,
            unrelated,
            alias,
        }
    }

    /// What one run sees; the same for the same request.
    pub fn answer(&self, request: Request) -> Answer {
        let said = match request.revert {
            Some(commit) if Dice::named(self.seed, &[2, u64::from(commit)]).chance(CONFLICTS) => {
                Said::RevertConflict
            }
            Some(_) | None => self.run(request),
        };
        Answer { said, fingerprint: None }
    }

    fn run(&self, request: Request) -> Said {
        let Request { index, run, revert } = request;
        let name = [3, u64::from(index), u64::from(run), revert.map_or(0, |commit| u64::from(commit) + 1)];
        let mut dice = Dice::named(self.seed, &name);
        if dice.chance(self.infra) {
            return Said::Infra { reason: Some("connection lost".into()) };
        }
        if self.broken.iter().any(|region| region.holds(index)) {
            return Said::BootFailed { title: None };
        }
        for other in self.unrelated.iter().filter(|other| other.region.holds(index)) {
            let roll = dice.unit();
            if roll < other.boot_failures {
                return Said::BootFailed { title: Some(other.crash.title.clone()) };
            }
            if roll < other.boot_failures + other.crashes {
                return Said::Crashed(other.crash.clone());
            }
        }
        let has_bug = self.has_bug.get(index as usize).copied().unwrap_or(false);
        if !has_bug || revert == Some(self.culprit) || !dice.chance(self.rate) {
            return Said::Ok;
        }
        match &self.alias {
            Some((region, crash)) if region.holds(index) => Said::Crashed(crash.clone()),
            Some(_) | None => Said::Crashed(self.crash.clone()),
        }
    }

    /// Whether revisions alone can tell the culprit from every other commit; of a good end that
    /// is bad, whether it can be run at all.
    pub fn resolvable(&self, graph: &Graph) -> bool {
        let severe = |at: u32| {
            let other = self.unrelated.iter().filter(|other| other.region.holds(at));
            other.clone().any(|other| other.boot_failures + other.crashes >= 1.0)
        };
        let usable = |at: u32| !severe(at) && !self.broken.iter().any(|region| region.holds(at));
        if let Some(good) = self.good {
            return usable(good);
        }
        // Walking down from each usable commit without the bug clears all below it; a commit
        // is held by every usable one with the bug, or it is none of the suspects.
        let mut cleared = vec![false; graph.len()];
        for at in (0..=self.bad).rev() {
            let clean = !self.has_bug[at as usize] && usable(at);
            if clean || cleared[at as usize] {
                cleared[at as usize] = true;
                graph.node(at).parents.iter().for_each(|&parent| cleared[parent as usize] = true);
            }
        }
        // A suspect that all of them hold is held by the lowest of them too, and those are few.
        let mut above = vec![false; graph.len()];
        let mut suspects: Vec<bool> = cleared.iter().map(|cleared| !cleared).collect();
        for at in 0..=self.bad {
            let held = graph.node(at).parents.iter().any(|&parent| above[parent as usize]);
            let shows = self.has_bug[at as usize] && usable(at);
            above[at as usize] = held || shows;
            if shows && !held {
                let holds = graph.ancestors(at);
                suspects.iter_mut().zip(holds).for_each(|(suspect, held)| *suspect &= held);
            }
        }
        (0..=self.bad).all(|at| at == self.culprit || !suspects[at as usize])
    }
}

fn culprit(graph: &Graph, tail: f64, dice: &mut Dice) -> u32 {
    let newest = ((graph.len() as f64 * NEWEST).ceil() as usize).max(1);
    let first = if dice.chance(tail) { graph.len() - newest } else { 0 };
    let plain: Vec<u32> =
        (first as u32..=graph.tip()).filter(|&at| graph.node(at).parents.len() < 2).collect();
    if plain.is_empty() { graph.tip() } else { plain[dice.index(plain.len())] }
}

/// The crash, which names a file of the culprit among its own, or files of other commits only.
fn target(graph: &Graph, culprit: u32, files_named: f64, dice: &mut Dice) -> Target {
    let name = dice.roll() % 0xff_ffff;
    let frames = (0..4).map(|depth| format!("fn_{name:x}_{depth}")).collect();
    let mut files = Vec::new();
    let own = &graph.node(culprit).files;
    if !own.is_empty() && dice.chance(files_named) {
        files.push(own[dice.index(own.len())].clone());
    }
    while files.len() < 3 {
        let other = &graph.node(dice.index(graph.len()) as u32).files;
        match other.is_empty() {
            true => files.push(format!("lib/fn_{name:x}.c")),
            false => files.insert(dice.index(files.len() + 1), other[dice.index(other.len())].clone()),
        }
    }
    files.dedup();
    Target { title: format!("WARNING in fn_{name:x}_0"), alt_titles: vec![], frames, files }
}

/// Another title, which shares frames and files with the target as often as said.
fn other_title(target: &Target, alike: f64, dice: &mut Dice) -> Target {
    let name = dice.roll() % 0xff_ffff;
    let mut frames: Vec<String> = (0..4).map(|depth| format!("other_{name:x}_{depth}")).collect();
    let mut files = vec![format!("lib/other_{name:x}.c")];
    if dice.chance(alike) {
        frames.splice(1..3, target.frames.iter().take(2).cloned());
        files.extend(target.files.first().cloned());
    }
    Target { title: format!("BUG: bad access in other_{name:x}"), alt_titles: vec![], frames, files }
}

#[cfg(test)]
mod tests {
    use super::super::graph::Node;
    use super::*;
    use crate::id::RevisionId;

    fn graph(seed: u64) -> Graph {
        let mut dice = Dice::new(seed);
        let node = |at: u32| {
            let mut back = || at.checked_sub(1 + dice.index(6) as u32);
            let mut parents: Vec<u32> =
                back().into_iter().chain(back().filter(|_| at.is_multiple_of(3))).collect();
            if parents.is_empty() && at > 0 {
                parents.push(at - 1);
            }
            parents.dedup();
            let mut id = [7; 20];
            id[..4].copy_from_slice(&at.to_be_bytes());
            Node { id: RevisionId::from_bytes(id), parents, time: 0, files: vec![] }
        };
        Graph::new((0..120).map(node).collect()).expect("a graph")
    }

    /// Every other commit is told from the culprit by a usable one that has just one of the two.
    fn resolvable_plainly(scenario: &Scenario, graph: &Graph) -> bool {
        let usable = |at: u32| {
            let of = |other: &Other| other.region.holds(at) && other.boot_failures + other.crashes >= 1.0;
            !scenario.unrelated.iter().any(of) && !scenario.broken.iter().any(|region| region.holds(at))
        };
        (0..=scenario.bad).filter(|&suspect| suspect != scenario.culprit).all(|suspect| {
            let holds = graph.descendants(suspect);
            let tells = |at: u32| usable(at) && holds[at as usize] != scenario.has_bug[at as usize];
            (0..=scenario.bad).any(tells)
        })
    }

    #[test]
    fn worlds_are_resolvable_where_every_commit_is_told_apart() {
        let mut seen = [0, 0];
        for seed in 0..200 {
            let graph = graph(seed);
            let scenario = Scenario::new(&graph, &Terrain::new(&graph), Family::S4, 0.0, seed);
            let expected = resolvable_plainly(&scenario, &graph);
            assert_eq!(scenario.resolvable(&graph), expected, "seed {seed}");
            seen[usize::from(expected)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 20), "{seen:?}");
    }
}
