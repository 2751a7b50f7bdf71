//! The reference's own cases, kept outside the project (bisect-cases/README.md there).

use crate::tables::words;
use crate::world::{Arrival, Graph, Saw, World, drive, id, question};
use kulprit_common::bisect::Finding;
use kulprit_common::job::Mode;
use serde_json::Value;
use std::collections::BTreeMap;

/// The repository of the README: subjects to commits.
struct Repository {
    graph: Graph,
    subjects: BTreeMap<u32, usize>,
}

impl Repository {
    fn new() -> Self {
        let mut repository = Repository { graph: Graph::default(), subjects: BTreeMap::new() };
        let root = repository.commit(None, vec![]);
        for _ in 0..2 {
            let first = repository.commit(None, vec![root]);
            repository.commit(None, vec![first]);
        }
        let mut tip = repository.commit(None, vec![root]);
        for subject in (4..10).flat_map(|release| (0..6).map(move |n| release * 100 + n)) {
            let side: &[u32] = match subject {
                700 => &[500, 650],
                804 => &[700, 790, 791, 792],
                _ => &[],
            };
            let mut parents = vec![tip];
            if let [fork, side @ ..] = side {
                let fork = repository.subjects[fork];
                let merged =
                    side.iter().fold(fork, |at, &subject| repository.commit(Some(subject), vec![at]));
                parents.push(merged);
            }
            tip = repository.commit(Some(subject), parents);
        }
        let file = repository.commit(None, vec![repository.subjects[&800]]);
        [851, 852].iter().fold(file, |at, &subject| repository.commit(Some(subject), vec![at]));
        repository
    }

    fn commit(&mut self, subject: Option<u32>, parents: Vec<usize>) -> usize {
        self.graph.parents.push(parents);
        let at = self.graph.tip();
        self.subjects.extend(subject.map(|subject| (subject, at)));
        at
    }
}

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn flag(&self, name: &str) -> bool {
        self.0[name].as_bool().unwrap_or(false)
    }

    fn subject(&self, name: &str) -> Option<u32> {
        let value = &self.0[name];
        value.as_u64().map(|n| n as u32).or_else(|| value.as_str()?.parse().ok())
    }

    fn interval(&self, name: &str) -> Option<std::ops::RangeInclusive<u32>> {
        let bounds = self.0[name].as_array()?;
        Some(bounds[0].as_u64()? as u32..=bounds[1].as_u64()? as u32)
    }

    fn world<'a>(&'a self, repository: &'a Repository) -> World<'a> {
        let subjects: BTreeMap<usize, u32> = repository.subjects.iter().map(|(&s, &at)| (at, s)).collect();
        let start = repository.subjects[&self.subject("start").expect("a start")];
        let mut question = question(start, None);
        let reachable = repository.graph.ancestors(start);
        let tags =
            (4..10).rev().map(|release| (format!("v{release}.0"), repository.subjects[&(release * 100)]));
        question.releases =
            tags.filter(|(_, at)| reachable.contains(at)).map(|(tag, at)| (tag, id(at))).collect();
        if self.flag("fix") {
            question.mode = Mode::Fix;
            question.good = Some(id(repository.subjects[&905]));
        }
        let contains = move |at: usize, subject: Option<u32>| {
            subject.map(|s| {
                repository.subjects.get(&s).is_some_and(|c| repository.graph.ancestors(at).contains(c))
            })
        };
        let same = self.interval("same");
        let names = subjects.clone();
        let kernel = move |at: usize, run: u32| {
            let named = subjects.get(&at).copied();
            let broken = self.interval("broken").zip(named).is_some_and(|(broken, s)| broken.contains(&s));
            let bug = contains(at, self.subject("introduced")).unwrap_or(true);
            let fixed = contains(at, self.subject("fixCommit")).unwrap_or(false);
            match (broken, bug && !fixed) {
                (true, _) => Saw::BootFailed,
                (false, true) if self.flag("flaky") && run % 5 != 2 => Saw::Ok,
                (false, true) => Saw::Target,
                // A lost connection is infra: the farm repeats the run, nobody hears of it.
                (false, false) if self.flag("syzfail") && run == 0 => Saw::NoReproducerStart,
                (false, false) => Saw::Ok,
            }
        };
        let fingerprint = move |at: usize| {
            let shared = same.as_ref().zip(names.get(&at)).is_some_and(|(same, s)| same.contains(s));
            if shared { u64::MAX } else { at as u64 }
        };
        World {
            graph: repository.graph.clone(),
            question,
            kernel: Box::new(kernel),
            fingerprint: Box::new(fingerprint),
        }
    }

    /// Whether a finding agrees with the reference's answer on the commits.
    fn agrees(&self, repository: &Repository, finding: &Finding) -> bool {
        let expect = &self.0["expect"];
        let at = |subject: u32| repository.subjects[&subject];
        if expect["error"].is_string() {
            return !matches!(finding, Finding::Culprit { .. } | Finding::Suspects { .. });
        }
        let answer = self.subject(if self.flag("fix") { "fixCommit" } else { "introduced" });
        match (expect["n"].as_u64(), finding) {
            (Some(0), Finding::Blocked { by }) => {
                let end = expect["oldestLatest"].as_u64().expect("the deciding end") as u32;
                by.contains(&id(at(end)).to_string())
            }
            // The script lets one kernel behave differently at its several commits. We run a
            // kernel once for all of them, so that the change is found at one end of the block.
            (Some(1), Finding::Culprit { revision, .. }) if expect["noop"] == true => {
                let same = self.interval("same").expect("equal kernels");
                [id(at(*same.start())), id(at(*same.end()) + 1)].contains(revision)
            }
            (Some(1), Finding::Culprit { revision, .. }) => {
                Some(*revision) == answer.map(|answer| id(at(answer)))
            }
            (Some(n), Finding::Suspects { suspects, .. }) => suspects.len() as u64 == n,
            (_, _) => false,
        }
    }
}

#[test]
fn the_references_cases_come_out_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/bisect-cases/cases.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} is not here");
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let repository = Repository::new();
    let (mut revisions, mut kernels, mut runs, mut wrong) = (0, 0, 0, Vec::new());
    for value in &cases {
        let case = Case(value);
        let world = case.world(&repository);
        for width in [1, 2, 4] {
            let ended = drive(&world, width, Arrival::InOrder);
            if width == 1 {
                println!(
                    "{:45} {:3} revisions {:3} kernels {:3} runs  {}",
                    value["name"],
                    ended.builds,
                    ended.kernels,
                    ended.runs,
                    words(&ended.finding)
                );
                revisions += ended.builds;
                kernels += ended.kernels;
                runs += ended.runs;
            }
            if !case.agrees(&repository, &ended.finding) {
                wrong.push(format!("{} at width {width}: {}", value["name"], words(&ended.finding)));
            }
        }
    }
    println!(
        "{} cases, one revision at a time: {revisions} revisions built, {kernels} tested in {runs} runs",
        cases.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}
