//! Agents that are killed, stopped and left alone in the middle of real containers, and kernels
//! that fail wherever they go. The kernels are small and the guests played, the rest is real.

mod farm;

use farm::fake_store::{FakeStore, Mode};
use farm::hands::{AtWork, World, plain};
use farm::planted::{Planted, Shape};
use farm::small::{Small, started};
use farm::{Farm, LONG, Process, builds, figure, leftovers, processes, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::{ItemKey, Work};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

const KILLED: &str = "agent kill -9 in build / boot / upload";
const STOPPED: &str = "agent stopped 2 min (SIGSTOP), then continued";
const RESTARTED: &str = "coordinator restarted with agents busy";
const POISON: &str = "poison item";

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// What an agent holds of a kind, by its log: as much as it has slots, so that not all of it need
/// find room at another at once.
fn in_hand(log: &str, kind: &str) -> Vec<String> {
    let is_over = |item: &str| {
        let starts = log.lines().find(|line| line.contains(" starts ") && line.contains(item));
        let attempt =
            starts.and_then(|line| line.split_whitespace().find(|word| word.starts_with("attempt=")));
        attempt.is_some_and(|it| log.lines().any(|line| line.contains("reported") && line.contains(it)))
    };
    started(log).into_iter().filter(|item| item.starts_with(kind) && !is_over(item)).collect()
}

/// Each item has one ending that counts, and each build one.
fn counted_once(facts: &[Fact]) {
    let mut finished: Vec<&ItemKey> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::ItemFinished { item, .. } => Some(item),
            _ => None,
        })
        .collect();
    let all = finished.len();
    finished.sort();
    finished.dedup();
    assert_eq!(finished.len(), all, "an item was counted twice");
    assert!(builds(facts).values().all(|times| *times == 1));
}

/// Stops everything and looks for what is left of it.
fn nothing_is_left(dir: &Path, mut agents: Vec<(&str, Process)>, mut coordinator: Process) {
    agents.iter_mut().for_each(|(_, agent)| agent.stop());
    coordinator.stop();
    let names: Vec<&str> = agents.iter().map(|(name, _)| *name).collect();
    assert_eq!(leftovers(&names), Vec::<String>::new());
    assert_eq!(processes(&dir.to_string_lossy()), Vec::<String>::new());
}

/// Kills an agent at an activity; its work goes on elsewhere, and its next life cleans up.
fn killed_while(activity: &str, shape: Shape, boot_s: u32, item: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(small) = Small::new(dir.path(), shape, boot_s) else { return };
    // Room for all there is to do, so that what is freed is begun at once.
    let small = Small { slots: 6, ..small };
    let (farm, store) = (Farm::new(&dir.path().join("farm")), FakeStore::start());
    let names = ["first", "second"].map(|name| format!("faults-{}-{name}", activity));
    let [first, second] = names.each_ref().map(String::as_str);
    let coordinator = farm.coordinator_with(|command| {
        command.args(["--artifacts", FakeStore::URL]);
        store.tell(command);
    });
    let start = |name: &str| small.start(&farm, name, |_| {});
    let mut victim = start(first);
    small.submit(&farm, "job");
    // What an agent does is heard of with its next sync only; its log says it at once.
    wait_for("work", LONG, || started(&farm.said(first)).iter().any(|it| it.starts_with(item)));
    match activity {
        "building" => wait_for("a container", LONG, || !leftovers(&[first]).is_empty()),
        "booting" => {
            let qemu = dir.path().join("qemu").to_string_lossy().into_owned();
            wait_for("a guest", LONG, || !processes(&format!("{qemu} -nodefaults")).is_empty());
        }
        _ => {
            store.set(Mode::Slow(Duration::from_secs(5)));
            farm.wait_for_activity(first, "uploading", LONG);
        }
    }
    victim.kill9();
    let killed = Instant::now();
    store.set(Mode::Well);
    let lost = in_hand(&farm.said(first), item);
    assert!(!lost.is_empty(), "it held nothing: {}", farm.said(first));
    let state_of_first = || {
        let agents = farm.json(&["agent", "list"]);
        let agents = agents.as_array().cloned().unwrap_or_default();
        agents.into_iter().find(|agent| agent["id"] == first).map(|agent| agent["state"].clone())
    };
    wait_for("its work to be free", Duration::from_secs(60), || {
        state_of_first().is_some_and(|state| state == "lost")
    });
    let took = seconds(killed);
    assert!(took <= 45.0, "requeued after {took:.1} s");
    // One that had been there before would have made other runs, and the lost ones may not be wanted any more.
    let helper = start(second);
    wait_for("the work to go on elsewhere", Duration::from_secs(60), || {
        started(&farm.said(second)).iter().any(|it| lost.contains(it))
    });
    let again = start(first);
    small.wait_for_culprit(&farm, "1");
    nothing_is_left(dir.path(), vec![(first, again), (second, helper)], coordinator);
    counted_once(&farm.facts());
    figure(KILLED, &format!("{activity}: requeued after {took:.1} s, one verdict, nothing left"));
}

const SHORT: Shape = Shape { commits: 3, culprit: 1, build_s: 1, build_mib: 0 };

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn killed_in_a_build() {
    killed_while("building", Shape { build_s: 8, ..SHORT }, 0, "build:");
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn killed_in_a_boot() {
    killed_while("booting", SHORT, 4, "run:");
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn killed_in_an_upload() {
    killed_while("uploading", Shape { build_s: 3, ..SHORT }, 0, "build:");
}

#[test]
#[ignore = "takes two minutes and more: scripts/faults runs it"]
fn stopped_for_two_minutes_and_continued() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The container goes on while its agent does not, and is still there when that wakes up.
    let Some(small) = Small::new(dir.path(), Shape { build_s: 150, ..SHORT }, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let coordinator = farm.coordinator();
    let (first, second) = ("faults-stopped", "faults-awake");
    let sleeper = small.start(&farm, first, |_| {});
    small.submit(&farm, "job");
    farm.wait_for_activity(first, "building", LONG);
    let lost = in_hand(&farm.said(first), "build:");
    sleeper.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let other = small.start(&farm, second, |_| {});
    wait_for("the work to go on elsewhere", Duration::from_secs(60), || {
        started(&farm.said(second)).iter().any(|it| lost.contains(it))
    });
    let requeued = seconds(stopped);
    std::thread::sleep(Duration::from_secs(120).saturating_sub(stopped.elapsed()));
    let containers = leftovers(&[first]);
    assert!(!containers.is_empty(), "its container is still there");
    sleeper.signal(Signal::SIGCONT);
    let continued = Instant::now();
    // It may be given other work at once, and so have other containers.
    wait_for("its work to end", Duration::from_secs(30), || {
        !leftovers(&[first]).iter().any(|it| containers.contains(it))
    });
    let killed = seconds(continued);
    wait_for("word of it", Duration::from_secs(10), || farm.said(first).contains("out of contact"));
    let done = |farm: &Farm| farm.json(&["bisect", "show", "1"])["ending"].is_null();
    assert!(done(&farm), "nothing was decided by that");
    assert!(farm.kulprit(&["bisect", "cancel", "1"]).status.success());
    nothing_is_left(dir.path(), vec![(first, sleeper), (second, other)], coordinator);
    counted_once(&farm.facts());
    let told = format!("requeued after {requeued:.1} s; its container gone {killed:.1} s after it went on");
    figure(STOPPED, &told);
}

/// What an agent sends that has slept through its lease, in the one message that matters.
#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn a_late_complete_is_stale() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let world = World::new(Planted::new(dir.path(), SHORT));
    let job = world.planted().job("job");
    // Its lease runs out between its only sync and its completion.
    let (late, begun) = farm::secure::block_on(async {
        let link = kulprit_proto::tls::Link::plain(&farm.url()).expect("an address");
        let mut sleeper = farm::hands::Sleeper::new("sleeper", link);
        let submitted = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
        assert!(submitted.status.success());
        let work = sleeper.take_work().await;
        let begun = Instant::now();
        let _hands = AtWork::start(|| vec![plain(&farm, "awake", &world, 10)]);
        wait_for("the work to go on elsewhere", Duration::from_secs(60), || {
            world.with_seen(|seen| !seen.order.is_empty())
        });
        let requeued = seconds(begun);
        assert!((30.0..=46.0).contains(&requeued), "requeued after {requeued:.1} s");
        let answers = [sleeper.complete(&work).await, sleeper.complete(&work).await];
        assert_eq!(answers, [kulprit_proto::v1::CompleteAnswer::Stale; 2]);
        wait_for("the end of a job", LONG, || !farm.json(&["bisect", "show", "1"])["ending"].is_null());
        (work.attempt, requeued)
    });
    assert_eq!(farm.json(&["bisect", "show", "1"])["ending"]["culprit"], world.planted().culprit.to_string());
    coordinator.stop();
    let facts = farm.facts();
    counted_once(&facts);
    let counts =
        facts.iter().any(|fact| matches!(fact, Fact::ItemFinished { attempt, .. } if attempt.0 == late));
    assert!(!counts, "the late one was kept");
    figure(STOPPED, &format!("late Complete: STALE twice, after the item went to another at {begun:.1} s"));
}

#[test]
fn a_restarted_coordinator_takes_busy_agents_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(small) = Small::new(dir.path(), Shape { build_s: 20, ..SHORT }, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let (first, second) = ("faults-busy-a", "faults-busy-b");
    let agents = [first, second].map(|name| (name, small.start(&farm, name, |_| {})));
    small.submit(&farm, "job");
    farm.wait_for_activity(first, "building", LONG);
    farm.wait_for_activity(second, "building", LONG);
    // What is begun later may be dropped by the search, and wanted again.
    let held: Vec<String> =
        [first, second].iter().flat_map(|name| in_hand(&farm.said(name), "build:")).collect();
    coordinator.kill9();
    std::thread::sleep(Duration::from_secs(2));
    let restarted = Instant::now();
    coordinator = farm.coordinator();
    farm.wait_for_activity(first, "building", Duration::from_secs(20));
    farm.wait_for_activity(second, "building", Duration::from_secs(20));
    let adopted = seconds(restarted);
    assert!(adopted <= 5.5, "taken back after {adopted:.1} s");
    small.wait_for_culprit(&farm, "1");
    let said = farm.said(first) + &farm.said(second);
    for item in &held {
        assert_eq!(
            started(&said).iter().filter(|it| *it == item).count(),
            1,
            "{item} was begun again: {said}"
        );
        let dropped = |line: &str| line.contains("is dropped") && line.contains(item.as_str());
        assert!(!said.lines().any(dropped), "{item} was taken away: {said}");
    }
    nothing_is_left(dir.path(), agents.into(), coordinator);
    counted_once(&farm.facts());
    figure(
        RESTARTED,
        &format!("both builds in hand taken back {adopted:.1} s after the restart, none repeated"),
    );
}

/// Whether it is the bad end of one job, which a search cannot do without.
fn is_poisoned(world: &World, work: &Work) -> bool {
    let Work::Build(work) = work else { return false };
    let is_bad_end = world.planted().commits.last() == Some(&work.revision);
    // The bad end without some commit is another kernel.
    is_bad_end && work.patches.is_empty() && work.kernel.make_args.iter().any(|it| it == "FOR=poisoned")
}

#[test]
fn a_poisoned_item_is_given_up_and_the_queue_flows() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let shape = Shape { commits: 9, culprit: 6, build_s: 0, build_mib: 0 };
    let world = World::new(Planted::new(dir.path(), shape));
    *world.poisoned.lock().expect("whole") = Some(is_poisoned);
    let _hands = AtWork::start(|| ["a", "b"].map(|name| plain(&farm, name, &world, 20)).into());
    let begun = Instant::now();
    for name in ["poisoned", "other"] {
        let job = world.planted().job(name);
        assert!(farm.kulprit(&["bisect", "start", &job.to_string_lossy()]).status.success());
    }
    let ended = |job: &str| {
        wait_for("the end of a job", LONG, || !farm.json(&["bisect", "show", job])["ending"].is_null());
        farm.json(&["bisect", "show", job])["ending"].clone()
    };
    assert_eq!(ended("2")["culprit"], world.planted().culprit.to_string(), "the queue flows");
    let other = seconds(begun);
    let end = ended("1");
    assert!(end["culprit"].is_null() && end.to_string().contains("went up in smoke"), "{end}");
    let took = seconds(begun);
    coordinator.stop();
    let facts = farm.facts();
    counted_once(&facts);
    let mut failed: std::collections::BTreeMap<ItemKey, Vec<String>> = Default::default();
    for fact in &facts {
        if let Fact::AttemptFailed { item, agent, .. } = fact {
            failed.entry(item.clone()).or_default().push(agent.to_string());
        }
    }
    let all: Vec<&Vec<String>> = failed.values().collect();
    let [agents] = all[..] else { panic!("one item failed, not {failed:?}") };
    assert_eq!(agents.len(), 3, "{agents:?}");
    assert!(agents.iter().any(|it| it != &agents[0]), "by one agent alone");
    let told = format!(
        "given up after 3 failures on two agents in {took:.1} s, its job says why; another job done in {other:.1} s"
    );
    figure(POISON, &told);
}

#[test]
fn an_agent_that_starts_without_qemu_boots_once_it_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.coordinator();
    let qemu = dir.path().join("qemu");
    let mut agent = farm.agent_with("faults-no-qemu", |command| {
        command.args(["--disk-min-mib", "1024"]).arg("--qemu").arg(&qemu);
    });
    let boots = || farm.json(&["agent", "list"])[0]["can_boot"].as_bool();
    wait_for("the agent to say that it cannot boot", LONG, || boots() == Some(false));
    std::os::unix::fs::symlink("/usr/bin/qemu-system-x86_64", &qemu).expect("a link");
    wait_for("the agent to find QEMU", LONG, || boots() == Some(true));
    agent.stop();
    coordinator.stop();
}
