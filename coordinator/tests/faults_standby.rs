//! Two coordinators and one journal: whatever becomes of the one that leads, the other goes on, and
//! the search ends with the right answer and nothing counted twice.

mod farm;
mod postgres;

use farm::hands::{AtWork, Hand, World};
use farm::planted::{Planted, Shape};
use farm::{Farm, Process, figure, kulprit, scrape, text, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use nix::sys::signal::Signal;
use postgres::{Line, Server, url};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What agents may wait until the job goes on.
const RESUMED: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(120);
const ROW: &str = "coordinator killed, paused, cut off or stopped, with a standby";

/// A farm of two coordinators that share a journal and a store, with a job under way.
struct Pair {
    dir: tempfile::TempDir,
    server: &'static Server,
    database: String,
    first: Farm,
    second: Farm,
    world: Arc<World>,
    job: PathBuf,
    culprit: String,
    _hands: AtWork,
}

impl Pair {
    fn new() -> Option<Pair> {
        let server = postgres::server()?;
        let dir = tempfile::tempdir().expect("a directory");
        let planted = Planted::new(dir.path(), Shape { commits: 40, culprit: 17, build_s: 0, build_mib: 0 });
        let (job, culprit) = (planted.job("job"), planted.culprit.to_string());
        let world = World::new(planted);
        let [first, second] = ["first", "second"].map(|name| Farm::new(&dir.path().join(name)));
        let list = format!("{},{}", first.url(), second.url());
        let hand =
            |name| Hand::new(name, Link::plain(&list).expect("a link"), &world, Duration::from_millis(150));
        let hands = AtWork::start(|| ["h1", "h2"].map(hand).into());
        Some(Pair {
            database: server.database(),
            server,
            first,
            second,
            world,
            job,
            culprit,
            _hands: hands,
            dir,
        })
    }

    /// What both are told.
    fn start(&self, farm: &Farm, port: u16, is_awaited: bool) -> Process {
        let settings = |command: &mut std::process::Command| {
            command.args(["--journal", &url(port, &self.database)]);
            command.arg("--artifacts").arg(self.dir.path().join("artifacts"));
        };
        if is_awaited { farm.coordinator_with(settings) } else { farm.coordinator_unawaited(settings) }
    }

    /// One that leads, by a port of the database, and one that stands by.
    fn both(&self, port: u16) -> (Process, Process) {
        let first = self.start(&self.first, port, true);
        let second = self.start(&self.second, self.server.port, false);
        wait_for("one to stand by", SOON, || self.second.said("coordinator").contains("standing by"));
        (first, second)
    }

    fn kulprit(&self, args: &[&str]) -> std::process::Output {
        let list = format!("{},{}", self.second.url(), self.first.url());
        kulprit(&[args, &["--coordinator", &list]].concat())
    }

    fn begin(&self) {
        let output = self.kulprit(&["bisect", "start", &self.job.to_string_lossy()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        wait_for("some work to be done", SOON, || self.world.with_seen(|seen| seen.answered.len() > 6));
    }

    /// How long it took from a moment until work was given or taken by the second.
    fn resumed(&self, since: Instant) -> Duration {
        let mut serving = None;
        loop {
            if serving.is_none() && self.second_serves() {
                serving = Some(Instant::now());
            }
            let sign = |from| self.world.with_seen(|seen| seen.signs.iter().copied().find(|it| *it > from));
            if let Some(sign) = serving.and_then(sign) {
                return sign - since;
            }
            assert!(since.elapsed() < SOON, "the job does not go on: {}", self.second.said("coordinator"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn second_serves(&self) -> bool {
        self.second.state.join("ready.json").exists()
    }

    fn end(&self) {
        let show = || {
            let output = self.kulprit(&["bisect", "list", "-o", "json"]);
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
        };
        wait_for("the end of the job", SOON, || !show()[0]["ending"].is_null());
        let jobs = show();
        assert_eq!(jobs[0]["ending"]["culprit"], self.culprit.as_str(), "{jobs}");
        assert_eq!(jobs.as_array().map(Vec::len), Some(1), "one request is one job");
    }

    /// Holds the journal against what agents were told. Yields the epochs in which there are facts.
    fn check(&self) -> BTreeSet<i64> {
        let facts = self.server.facts(&self.database);
        let lives = |fact: &(i64, Fact)| match fact.1 {
            Fact::EpochStarted { epoch } => Some((fact.0, epoch)),
            _ => None,
        };
        let lives: Vec<_> = facts.iter().filter_map(lives).collect();
        assert!(lives.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1), "{lives:?}");
        let epochs: Vec<i64> = facts.iter().map(|fact| fact.0).collect();
        assert!(epochs.is_sorted(), "an old epoch wrote behind a new one: {epochs:?}");
        let finished = facts.iter().filter_map(|(_, fact)| match fact {
            Fact::ItemFinished { attempt, item, .. } => Some((*attempt, item.clone())),
            _ => None,
        });
        let finished: Vec<_> = finished.collect();
        let kept: BTreeSet<_> = finished.iter().map(|(attempt, _)| *attempt).collect();
        assert_eq!(kept.len(), finished.len(), "an attempt is counted once");
        let builds = finished.iter().filter(|(_, item)| matches!(item, ItemKey::Build(_)));
        let builds: Vec<_> = builds.map(|(_, item)| item).collect();
        assert_eq!(builds.iter().collect::<BTreeSet<_>>().len(), builds.len(), "a build is finished once");
        self.world.with_seen(|seen| {
            for (attempt, item, answer) in &seen.answered {
                let is_kept = kept.contains(attempt) || *answer == v1::CompleteAnswer::Stale;
                assert!(is_kept, "{attempt} of {item} was acknowledged and is lost");
            }
        });
        epochs.into_iter().collect()
    }

    /// The one that leads no longer ends by itself, saying why.
    fn wait_for_refusal(&self, process: &mut Process, words: &[&str]) {
        wait_for("the old one to end", Duration::from_secs(20), || !process.is_running());
        let said = self.first.said("coordinator");
        let last = said.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
        assert!(words.iter().any(|words| last.contains(words)), "{said}");
    }
}

fn told(what: &str, took: Duration) {
    assert!(took < RESUMED, "{what}: the job went on after {took:?}");
    figure(ROW, &format!("{what}: work goes on after {:.1} s", took.as_secs_f64()));
}

#[test]
fn when_the_leader_is_killed() {
    let Some(pair) = Pair::new() else { return };
    let (mut first, mut second) = pair.both(pair.server.port);
    pair.begin();
    assert!(!pair.second_serves());
    first.kill9();
    told("kill -9", pair.resumed(Instant::now()));
    pair.end();
    // The dead one comes back, and stands by.
    let mut back = pair.start(&pair.first, pair.server.port, false);
    wait_for("it to stand by", SOON, || pair.first.said("coordinator").contains("standing by"));
    assert_eq!(pair.check(), BTreeSet::from([1, 2]));
    back.stop();
    second.stop();
}

#[test]
fn when_the_leader_is_paused_and_goes_on() {
    let Some(pair) = Pair::new() else { return };
    let (mut first, mut second) = pair.both(pair.server.port);
    pair.begin();
    first.signal(Signal::SIGSTOP);
    told("SIGSTOP", pair.resumed(Instant::now()));
    let taken = pair.server.facts_kept(&pair.database);
    first.signal(Signal::SIGCONT);
    // Where the pause fell into a question to the database, it looks at the clock before it asks again.
    let over =
        ["another coordinator leads the farm since, and epoch 1 is over", "has not confirmed it for 7 s"];
    pair.wait_for_refusal(&mut first, &over);
    assert!(taken > 0);
    pair.end();
    assert_eq!(pair.check(), BTreeSet::from([1, 2]));
    second.stop();
}

/// One that cannot serve must not keep the lead from those that can, however often it is started again.
#[test]
fn one_that_takes_over_and_cannot_serve_gives_the_lead_up() {
    let Some(pair) = Pair::new() else { return };
    // A process that just ended would have said nothing over it.
    let line = Line::to(pair.server);
    let mut first = pair.start(&pair.first, pair.server.port, true);
    let mut second = pair.start(&pair.second, line.port, false);
    wait_for("one to stand by", SOON, || pair.second.said("coordinator").contains("standing by"));
    line.slow_down();
    let state = pair.second.state.join("coordinator");
    // It is opened once the lead is taken.
    std::fs::remove_dir_all(state.join("logs")).ok();
    std::fs::write(state.join("logs"), "in the way").expect("written");
    first.stop();
    wait_for("the second to fail", SOON, || !second.is_running());
    assert!(pair.second.said("coordinator").contains("open the live logs"));
    assert!(pair.server.is_given_up(&pair.database), "others have to wait for its silence");
    pair.start(&pair.first, pair.server.port, true).stop();
}

#[test]
fn when_the_leader_is_cut_off_from_the_database() {
    let Some(pair) = Pair::new() else { return };
    let line = Line::to(pair.server);
    let (mut first, mut second) = pair.both(line.port);
    pair.begin();
    line.silence();
    told("cut off from the database", pair.resumed(Instant::now()));
    pair.wait_for_refusal(&mut first, &["has not confirmed it for 7 s"]);
    pair.end();
    line.mend();
    assert_eq!(pair.check(), BTreeSet::from([1, 2]));
    second.stop();
}

#[test]
fn when_the_leader_is_stopped() {
    let Some(pair) = Pair::new() else { return };
    let (mut first, mut second) = pair.both(pair.server.port);
    pair.begin();
    let told_at = Instant::now();
    first.signal(Signal::SIGTERM);
    let took = pair.resumed(told_at);
    told("SIGTERM", took);
    assert!(took < Duration::from_secs(8), "it gives the lead up: {took:?}");
    wait_for("the end of the first", SOON, || !first.is_running());
    pair.end();
    assert_eq!(pair.check(), BTreeSet::from([1, 2]));
    second.stop();
}

#[test]
fn a_standby_serves_nobody_and_says_who_does() {
    let Some(pair) = Pair::new() else { return };
    let ops = scrape::free_address();
    let mut first = pair.start(&pair.first, pair.server.port, true);
    let mut second = pair.second.coordinator_unawaited(|command| {
        command.args(["--journal", &pair.server.url(&pair.database)]);
        command.args(["--listen-ops", &ops]);
    });
    wait_for("one to stand by", SOON, || pair.second.said("coordinator").contains("standing by"));
    let output = pair.second.kulprit(&["bisect", "list"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("standing by: {} leads the farm", pair.first.url())), "{said}");
    // With both addresses it is found who serves.
    assert!(pair.kulprit(&["bisect", "list"]).status.success());
    let seen = text(&pair.kulprit(&["doctor", "--farm", "-o", "json"]).stdout);
    let seen: Vec<serde_json::Value> = serde_json::from_str(&seen).expect("an array");
    for (farm, words) in [(&pair.first, "leads"), (&pair.second, "standing by: ")] {
        let name = format!("coordinator {}", farm.url());
        let it = seen.iter().find(|it| it["check"] == *name).unwrap_or_else(|| panic!("{seen:#?}"));
        let is_so = it["detail"].as_str().is_some_and(|detail| detail.starts_with(words));
        assert!(is_so && it["status"] == "ok", "{it:#}");
    }
    let get = |path: &str| scrape::get(&ops, path).expect("it is served");
    let leads = || scrape::value(&get("/metrics").1, "kulprit_leading");
    assert_eq!(get("/healthz").0, 200);
    let (status, body) = get("/readyz");
    assert!(status == 503 && body.contains("leads the farm"), "{status} {body}");
    assert_eq!(leads(), Some(0.0));
    first.stop();
    wait_for("it to be ready", SOON, || get("/readyz").0 == 200);
    assert_eq!(leads(), Some(1.0));
    assert!(pair.second.kulprit(&["bisect", "list"]).status.success());
    second.stop();
}

/// One coordinator alone, killed in the middle: its next life need not wait for its last.
#[test]
fn a_coordinator_takes_over_from_its_own_last_life_at_once() {
    let Some(pair) = Pair::new() else { return };
    let mut first = pair.start(&pair.first, pair.server.port, true);
    pair.begin();
    first.kill9();
    let begun = Instant::now();
    let mut first = pair.start(&pair.first, pair.server.port, true);
    let took = begun.elapsed();
    figure(ROW, &format!("kill -9 and the same one again: serves after {:.1} s", took.as_secs_f64()));
    assert!(!pair.first.said("coordinator").contains("standing by"), "it waits for nobody");
    pair.end();
    assert_eq!(pair.check(), BTreeSet::from([1, 2]));
    first.stop();
}

/// A backup in the middle of a job, a lost database, and a new one that is gone on with.
#[test]
fn a_lost_database_is_restored_from_a_copy() {
    let Some(pair) = Pair::new() else { return };
    let mut first = pair.start(&pair.first, pair.server.port, true);
    pair.begin();
    let copy = pair.dir.path().join("copy.sqlite");
    let run = |verb: &str, database: &str, file: &Path| {
        let mut command = farm::command("kulprit-coordinator");
        command.args([verb, "--journal", &pair.server.url(database)]).arg(file).output().expect("it runs")
    };
    let output = run("backup", &pair.database, &copy);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run("restore", &pair.database, &copy);
    assert!(text(&output.stderr).contains("stop that first"), "{}", text(&output.stderr));
    first.kill9();
    let new = pair.server.database();
    let output = run("restore", &new, &copy);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pair = Pair { database: new, ..pair };
    let mut first = pair.start(&pair.first, pair.server.port, true);
    pair.end();
    first.stop();
    let facts = pair.server.facts(&pair.database);
    let last = facts.iter().rev().find_map(|(_, fact)| match fact {
        Fact::EpochStarted { epoch } => Some(*epoch),
        _ => None,
    });
    assert!(last.expect("a life") > 10_000, "{last:?}");
}

/// With certificates: members and whoever joins find the one that serves among both addresses.
#[test]
fn with_tls_members_find_who_serves() {
    let Some(server) = postgres::server() else { return };
    let (database, dir) = (server.database(), tempfile::tempdir().expect("a directory"));
    let first = farm::secure::Farm::new(&dir.path().join("first"));
    let second = Farm { scheme: "https", ..Farm::new(&dir.path().join("second")) };
    let states = [first.dir.join("coordinator"), second.state.join("coordinator")];
    std::fs::create_dir_all(&states[1]).expect("made");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(states[0].join("ca")).arg(&states[1]).status();
    assert!(copied.expect("cp runs").success());
    let settings = |command: &mut std::process::Command| {
        command
            .args(["--journal", &server.url(&database)])
            .arg("--artifacts")
            .arg(dir.path().join("artifacts"));
    };
    let mut leads = first.farm.coordinator_with(settings);
    let mut stands_by = second.coordinator_unawaited(settings);
    wait_for("one to stand by", SOON, || second.said("coordinator").contains("standing by"));
    let list = format!("{},{}", second.url(), first.url());
    let at = |who: &str, coordinator: &str, args: &[&str]| {
        first.as_member(who, &[args, &["--coordinator", coordinator]].concat(), |_| {})
    };
    let refused = at("olga", &second.url(), &["bisect", "list"]);
    assert!(text(&refused.stderr).contains("standing by: https://"), "{}", text(&refused.stderr));
    let made = at("olga", &list, &["token", "create", "--role", "viewer"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout).trim().to_owned();
    let refused = at("vic", &second.url(), &["join", "--name", "vic", &token]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("standing by"),
        "a token is not used up"
    );
    let joined = at("vic", &list, &["join", "--name", "vic", &token]);
    assert!(joined.status.success(), "{}", text(&joined.stderr));
    leads.stop();
    // By what was kept when it joined.
    wait_for("the other to serve", SOON, || {
        first.as_member("vic", &["bisect", "list"], |_| {}).status.success()
    });
    stands_by.stop();
}
