//! A coordinator that is killed wherever it keeps something, again and again, through whole jobs:
//! nothing that was acknowledged is lost, nothing is built twice, and each life takes the job up.

mod farm;

use farm::hands::{AtWork, World, plain};
use farm::planted::{Planted, Shape};
use farm::{Farm, builds, figure, text};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::job::Job;
use kulprit_common::job::file::{Input, JobFile, Place};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::jobs_client::JobsClient;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROW: &str = "coordinator kill -9 at every persist boundary";
/// What a restarted coordinator may take until the job goes on.
const RESUMED: Duration = Duration::from_secs(5);
/// What a whole job may take, and more.
const STUCK: Duration = Duration::from_secs(60);
/// More than a job has facts.
const LIVES_MAX: usize = 600;

fn request(path: &Path) -> v1::SubmitRequest {
    let file = JobFile::parse(&std::fs::read_to_string(path).expect("it is there")).expect("a job file");
    let dir = path.parent().and_then(Path::to_str).expect("a directory");
    let place = Place { dir, stem: "job" };
    let mut read = |input: &Input| std::fs::read(place.path(&input.path)).map_err(|error| error.to_string());
    let (job, reproducer): (Job, Vec<u8>) = file.resolve(&place, &mut read).expect("a whole job");
    v1::SubmitRequest { request: "once".into(), job: Some(job.into()), reproducer }
}

/// Submits the same request until it is answered, then looks at the job until it has ended.
async fn operate(url: String, request: v1::SubmitRequest, ended: Arc<std::sync::OnceLock<v1::JobView>>) {
    let mut client = JobsClient::new(Link::plain(&url).expect("an address"));
    let job = loop {
        match client.submit(request.clone()).await {
            Ok(response) => break response.into_inner().job,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    loop {
        if let Ok(view) = client.get(v1::GetRequest { job: job.clone() }).await {
            let view = view.into_inner();
            if view.end.is_some() {
                return ended.set(view).expect("it is set once");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Facts that a job is made of.
fn weighty(facts: &[Fact]) -> usize {
    let is_weighty = |fact: &&Fact| {
        !matches!(fact, Fact::EpochStarted { .. } | Fact::AgentCame { .. } | Fact::AgentWent { .. })
    };
    facts.iter().filter(is_weighty).count()
}

/// What the lives of a coordinator came to.
#[derive(Default)]
struct Lives {
    count: usize,
    killed: usize,
    /// How many facts there were when it was killed.
    killed_at: BTreeSet<usize>,
    slowest: Duration,
}

/// Kills at each passing of a point: a life that got nowhere is followed by one that may pass it
/// once more often, so that none of the job's facts is gone past without a kill at it.
fn kill_at_every(point: &str, farm: &Farm, world: &World, is_over: impl Fn() -> bool) -> Lives {
    let mut lives = Lives::default();
    let mut at = 1;
    while !is_over() {
        let known = weighty(&farm.facts());
        let begun = Instant::now();
        let mut coordinator = farm.coordinator_unawaited(|command| {
            command.env("KULPRIT_FAILPOINT", format!("{point}:{at}")).env("KULPRIT_LOG", "warn");
        });
        lives.count += 1;
        assert!(lives.count < LIVES_MAX, "the job does not get on: {}", farm.said("coordinator"));
        let mut resumed = None;
        let sign = || world.with_seen(|seen| seen.signs.iter().copied().find(|sign| *sign > begun));
        while coordinator.is_running() && !is_over() {
            resumed = resumed.or_else(sign);
            let waited = resumed.map_or_else(|| begun.elapsed(), |at| at - begun);
            assert!(waited < RESUMED, "{point}: not resumed after {waited:?}: {}", farm.said("coordinator"));
            assert!(begun.elapsed() < STUCK, "{point}: the job stands still: {:?}", world.seen.lock());
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(resumed) = resumed {
            lives.slowest = lives.slowest.max(resumed - begun);
        }
        if is_over() {
            coordinator.kill9();
            break;
        }
        drop(coordinator);
        let after = weighty(&farm.facts());
        lives.killed += 1;
        lives.killed_at.insert(after);
        at = match after - known {
            0 => at + 1,
            1 => at,
            _ => (at - 1).max(1),
        };
    }
    lives
}

/// A whole job of which every life of the coordinator ends at a point.
fn survives_kills_at(points: &[&str]) {
    for point in points {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let farm = Farm::new(&dir.path().join("state"));
        std::fs::create_dir_all(farm.state.join("coordinator")).expect("made");
        let planted = Planted::new(dir.path(), Shape { commits: 9, culprit: 5, build_s: 0, build_mib: 0 });
        let culprit = planted.culprit;
        let submission = request(&planted.job("job"));
        let world = World::new(planted);
        let ended = Arc::new(std::sync::OnceLock::new());
        let _operator = {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime starts");
            runtime.spawn(operate(farm.url(), submission, ended.clone()));
            runtime
        };
        let _hands = AtWork::start(|| ["a", "b"].map(|name| plain(&farm, name, &world, 30)).into());
        let lives = kill_at_every(point, &farm, &world, || ended.get().is_some());

        let view = ended.get().expect("it has ended");
        assert_eq!(view.end.as_ref().expect("an end").culprit, culprit.to_string(), "{view:?}");
        let facts = farm.facts();
        nothing_is_lost(&facts, &world);
        let told = format!(
            "{point}: {} lives, {} kills at {} lengths of the journal, slowest resume {:.2} s",
            lives.count,
            lives.killed,
            lives.killed_at.len(),
            lives.slowest.as_secs_f64()
        );
        assert!(lives.killed > 3, "hardly ever killed: {told}");
        figure(ROW, &told);
    }
}

fn nothing_is_lost(facts: &[Fact], world: &World) {
    let kept: BTreeSet<_> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::ItemFinished { attempt, .. } => Some(*attempt),
            _ => None,
        })
        .collect();
    world.with_seen(|seen| {
        for (attempt, item, answer) in &seen.answered {
            assert_ne!(*answer, v1::CompleteAnswer::Stale, "{attempt} of {item} was done for nothing");
            assert!(kept.contains(attempt), "{attempt} of {item} was acknowledged and is lost");
        }
        // What a search wants no more is dropped, and may be wanted again; a restart drops nothing,
        // so that this is rare.
        let dropped = |item: &ItemKey| seen.dropped.iter().filter(|it| *it == item).count();
        let is_build = |item: &&ItemKey| matches!(item, ItemKey::Build(_));
        assert!(seen.dropped.iter().filter(is_build).count() <= 3, "taken away: {:?}", seen.dropped);
        let again: Vec<_> = seen.begun.iter().filter(|(item, times)| **times > 1 + dropped(item)).collect();
        assert!(again.is_empty(), "done again: {again:?}");
    });
    let twice: Vec<_> = builds(facts).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "journalled twice: {twice:?}");
    let submitted = facts.iter().filter(|fact| matches!(fact, Fact::JobSubmitted { .. })).count();
    assert_eq!(submitted, 1, "one request is one job");
}

#[test]
fn killed_after_each_commit_before_it_is_said() {
    survives_kills_at(&["after-commit"]);
}

#[test]
#[ignore = "a hundred restarts: scripts/faults runs it"]
fn killed_before_and_within_each_commit() {
    survives_kills_at(&["before-commit", "in-commit"]);
}

#[test]
#[ignore = "a hundred restarts: scripts/faults runs it"]
fn killed_around_answers_artifacts_logs_and_mirrors() {
    let points =
        ["before-answer", "before-artifact", "after-artifact", "log", "before-mirror", "after-mirror"];
    survives_kills_at(&points);
}

#[test]
fn a_ca_that_was_half_made_is_finished() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let init = |failpoint: Option<&str>| {
        let mut command = farm::kulprit_command();
        command.args(["ca", "init", "--operator", "olga", "--state"]).arg(dir.path().join("state"));
        command
            .env("KULPRIT_CREDENTIALS", dir.path().join("olga"))
            .env("KULPRIT_COORDINATOR", "https://localhost:1");
        command.envs(failpoint.map(|it| ("KULPRIT_FAILPOINT", it)));
        command.output().expect("kulprit runs")
    };
    assert_eq!(init(Some("ca:1")).status.code(), None, "it is killed");
    let key = std::fs::read(dir.path().join("state/ca/ca.key")).expect("the key is there");
    let finished = init(None);
    assert!(finished.status.success(), "{}", text(&finished.stderr));
    assert_eq!(std::fs::read(dir.path().join("state/ca/ca.key")).expect("still"), key, "it is the same");
    figure(ROW, "ca init: killed between key and certificate, finished by the next call with the same key");
}
