//! Jobs with known answers, one after the other.

use crate::farm::{Farm, cache, text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Seeds of the demo's histories that are taken, where they are there.
const HISTORIES: u32 = 24;

struct Job {
    truth: String,
    has_ended: bool,
}

pub struct Jobs {
    /// Of the demo, with job.toml and truth.toml.
    histories: Vec<PathBuf>,
    jobs: BTreeMap<String, Job>,
}

impl Jobs {
    pub fn new() -> Jobs {
        let all = (1..=HISTORIES).map(|seed| cache().join(format!("demo/history-{seed}")));
        let histories: Vec<PathBuf> = all.filter(|it| it.join("job.toml").exists()).collect();
        assert!(!histories.is_empty(), "scripts/demo-history makes them");
        Jobs { histories, jobs: BTreeMap::new() }
    }

    pub fn open(&self) -> usize {
        self.jobs.values().filter(|job| !job.has_ended).count()
    }

    pub fn ended(&self) -> usize {
        self.jobs.len() - self.open()
    }

    /// Histories take turns, so that revisions get built as long as there are any that were not.
    pub fn submit(&mut self, farm: &Farm) {
        let history = &self.histories[self.jobs.len() % self.histories.len()];
        let job = history.join("job.toml").to_string_lossy().into_owned();
        let output = farm.kulprit(&["bisect", "start", &job, "-o", "json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let started: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let id = started["job"].as_str().expect("its id").to_owned();
        let truth = crate::farm::truth(history, "culprit");
        self.jobs.insert(id, Job { truth, has_ended: false });
    }

    pub fn look(&mut self, farm: &Farm, at: Duration) {
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| !job.has_ended) {
            let shown = farm.json(&["bisect", "show", id]);
            if shown["ending"].is_null() {
                continue;
            }
            assert_eq!(shown["ending"]["culprit"], job.truth.as_str(), "job {id}: {shown}");
            println!("soak: {:.1} min: job {id} ended right", at.as_secs_f64() / 60.0);
            job.has_ended = true;
        }
    }
}

impl std::fmt::Display for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} open, {} ended right", self.open(), self.ended())
    }
}
