//! Jobs with known answers, one after the other, in few repositories: what makes a build cheap is kept
//! for each of them. Every job has kernels of its own all the same, by a backport of one line.

use crate::farm::{self, Farm, cache, text};
use git2::{FileMode, Repository, Signature, Time, build::TreeUpdateBuilder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Seeds of the demo's histories, which plant different bugs.
const SEEDS: [&str; 2] = ["1", "2"];
/// In every kernel, and nothing in the histories touches it.
const MARKED: &str = "lib/ctype.c";

/// A copy of one of the demo's histories, to which commits can be added.
struct History {
    repository: PathBuf,
    /// With job.toml and what it names.
    folder: PathBuf,
    culprit: String,
}

impl History {
    fn copy(seed: &str, to: &Path) -> History {
        let name = format!("history-{seed}");
        let from = cache().join("demo").join(&name);
        let culprit = farm::truth(&from, "culprit");
        let (repository, folder) = (to.join(format!("{name}.git")), to.join(&name));
        for old in [&repository, &folder] {
            let _ = std::fs::remove_dir_all(old);
        }
        std::fs::create_dir_all(&folder).expect("a directory");
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--bare", "--shared"]).arg(from.with_extension("git")).arg(&repository);
        assert!(git.status().expect("git runs").success(), "{} is cloned", from.display());
        for file in std::fs::read_dir(&from).expect("a directory").flatten() {
            std::fs::copy(file.path(), folder.join(file.file_name())).expect("copied");
        }
        History { repository, folder, culprit }
    }

    /// Writes the job file of a job that has its own commit put into every revision.
    fn job(&self, number: usize) -> PathBuf {
        let fix = self.mark(number).expect("a commit can be added");
        let mut job = self.plain_job();
        job.insert("name".into(), format!("soak-{number}").into());
        let backport = toml::Table::from_iter([("fix".into(), fix.to_string().into())]);
        job.insert("backports".into(), vec![toml::Value::from(backport)].into());
        self.write(&format!("soak-{number}"), &job)
    }

    /// The job file of the history as it is.
    fn warm_up_job(&self) -> PathBuf {
        self.write("warm-up", &self.plain_job())
    }

    fn plain_job(&self) -> toml::Table {
        let text = std::fs::read_to_string(self.folder.join("job.toml")).expect("a job file");
        let mut job: toml::Table = text.parse().expect("TOML");
        job.insert("repository".into(), self.repository.to_str().expect("UTF-8").into());
        job
    }

    fn write(&self, name: &str, job: &toml::Table) -> PathBuf {
        let path = self.folder.join(format!("{name}.toml"));
        std::fs::write(&path, job.to_string()).expect("written");
        path
    }

    /// A commit beside the bad end that no answer depends on, but the bytes of every kernel do, so that
    /// neither builds nor runs of other jobs can stand for this one's.
    fn mark(&self, number: usize) -> Result<git2::Oid, git2::Error> {
        let repository = Repository::open(&self.repository)?;
        let bad = repository.revparse_single("main")?.peel_to_commit()?;
        let mut text =
            repository.find_blob(bad.tree()?.get_path(Path::new(MARKED))?.id())?.content().to_vec();
        text.extend_from_slice(format!("\nconst char soak_mark[] = \"{number}\";\n").as_bytes());
        let blob = repository.blob(&text)?;
        let mut marked = TreeUpdateBuilder::new();
        let tree = marked.upsert(MARKED, blob, FileMode::Blob).create_updated(&repository, &bad.tree()?)?;
        let who = Signature::new("Soak", "soak@example.org", &Time::new(1_670_803_200, 0))?;
        let (branch, subject) = (format!("refs/heads/soak-{number}"), format!("lib: mark kernels {number}"));
        repository.commit(Some(&branch), &who, &who, &subject, &repository.find_tree(tree)?, &[&bad])
    }
}

struct Job {
    culprit: String,
    has_ended: bool,
}

pub struct Jobs {
    histories: Vec<History>,
    jobs: BTreeMap<String, Job>,
}

impl Jobs {
    /// Copies the histories to a directory that should be the same each time: agents keep what they
    /// compiled by the repository's path.
    pub fn new(dir: &Path) -> Jobs {
        let histories = SEEDS.map(|seed| History::copy(seed, dir)).into();
        Jobs { histories, jobs: BTreeMap::new() }
    }

    pub fn open(&self) -> usize {
        self.jobs.values().filter(|job| !job.has_ended).count()
    }

    pub fn ended(&self) -> usize {
        self.jobs.len() - self.open()
    }

    /// A job for each history as it is, after which every later build is cheap.
    pub fn warm_up(&mut self, farm: &Farm) {
        for history in &self.histories {
            let (id, job) = start(farm, &history.warm_up_job(), &history.culprit);
            self.jobs.insert(id, job);
        }
    }

    /// Histories take turns.
    pub fn submit(&mut self, farm: &Farm) {
        let number = self.jobs.len();
        let history = &self.histories[number % self.histories.len()];
        let (id, job) = start(farm, &history.job(number), &history.culprit);
        self.jobs.insert(id, job);
    }

    pub fn look(&mut self, farm: &Farm, at: Duration) {
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| !job.has_ended) {
            let shown = farm.json(&["bisect", "show", id]);
            if shown["ending"].is_null() {
                continue;
            }
            assert_eq!(shown["ending"]["culprit"], job.culprit.as_str(), "job {id}: {shown}");
            println!("soak: {:.1} min: job {id} ended right", at.as_secs_f64() / 60.0);
            job.has_ended = true;
        }
    }
}

fn start(farm: &Farm, file: &Path, culprit: &str) -> (String, Job) {
    let output = farm.kulprit(&["bisect", "start", &file.to_string_lossy(), "-o", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let started: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let id = started["job"].as_str().expect("its id").to_owned();
    (id, Job { culprit: culprit.into(), has_ended: false })
}

impl std::fmt::Display for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} open, {} ended right", self.open(), self.ended())
    }
}
