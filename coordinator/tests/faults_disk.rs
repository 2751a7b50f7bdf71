//! Disks that run full, on either side.

mod farm;

use farm::hands::{AtWork, World, plain};
use farm::planted::{Planted, Shape};
use farm::small::Small;
use farm::{Farm, LONG, TinyDisk, figure, leftovers, text, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::outcome::InfraClass;
use std::path::Path;
use std::time::{Duration, Instant};

const ROW: &str = "agent disk full; coordinator disk full";

#[test]
fn an_agent_without_room_for_a_build_is_set_aside() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let shape = Shape { commits: 3, culprit: 1, build_s: 0, build_mib: 900 };
    let Some(small) = Small::new(dir.path(), shape, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let (full, roomy) = ("faults-full", "faults-roomy");
    let disk = TinyDisk::mount(&dir.path().join("agents").join(full), 600);
    let mut first = small.start(&farm, full, |_| {});
    small.submit(&farm, "job");
    let begun = Instant::now();
    let show = || farm.json(&["agent", "list"]);
    wait_for("the agent to be set aside", LONG, || show()[0]["state"] == "quarantined");
    let (aside, why) = (begun.elapsed().as_secs_f64(), show());
    assert!(why.to_string().contains("disk: "), "{why}");
    let mut second = small.start(&farm, roomy, |_| {});
    small.wait_for_culprit(&farm, "1");
    first.stop();
    second.stop();
    coordinator.stop();
    drop(disk);
    assert_eq!(leftovers(&[full, roomy]), Vec::<String>::new());
    for fact in farm.facts() {
        match fact {
            Fact::AttemptFailed { infra, .. } => assert_eq!(infra.class, InfraClass::Disk, "{infra:?}"),
            Fact::Judged { judged, .. } => assert_eq!(judged.unavailable, None, "a full disk is no verdict"),
            _ => {}
        }
    }
    figure(
        ROW,
        &format!(
            "agent: build ends as infra, set aside after {aside:.1} s with the reason; another builds it"
        ),
    );
}

/// Leaves so many KiB of a file system.
fn fill(dir: &Path, leave_kib: u64) {
    let stat = nix::sys::statvfs::statvfs(dir).expect("it is mounted");
    let free = stat.blocks_available() * stat.fragment_size();
    let filler = vec![0; usize::try_from(free.saturating_sub(leave_kib << 10)).expect("it is small")];
    // What does not fit is what was wanted.
    let _ = std::fs::write(dir.join("filler"), filler);
}

#[test]
fn a_coordinator_without_room_takes_no_job_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let shape = Shape { commits: 9, culprit: 5, build_s: 0, build_mib: 0 };
    let world = World::new(Planted::new(dir.path(), shape));
    let farm = Farm::new(&dir.path().join("farm"));
    let state = farm.state.join("coordinator");
    let disk = TinyDisk::mount(&state, 48);
    let start = || {
        farm.coordinator_unawaited(|command| {
            command.args(["--disk-min-mib", "16"]);
        })
    };
    let mut coordinator = start();
    let submit = |name: &str| {
        let job = world.planted().job(name);
        farm.kulprit(&["bisect", "start", &job.to_string_lossy()])
    };
    wait_for("the job to be taken", LONG, || submit("accepted").status.success());
    fill(&state, 8 << 10);
    let refused = submit("refused");
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("low on disk and takes no new job"), "{said}");

    // Nothing at all can be written any more, in the middle of the job.
    let hands = AtWork::start(|| ["a", "b"].map(|name| plain(&farm, name, &world, 200)).into());
    wait_for("work", LONG, || world.with_seen(|seen| seen.answered.len() >= 2));
    std::fs::remove_file(state.join("filler")).expect("it is there");
    fill(&state, 0);
    // Uploads wait; what has to be journalled ends the coordinator: an agent that was not there is.
    std::thread::sleep(Duration::from_secs(2));
    let full = Instant::now();
    let third = AtWork::start(|| vec![plain(&farm, "c", &world, 200)]);
    wait_for("the coordinator to end", Duration::from_secs(60), || !coordinator.is_running());
    let ended = full.elapsed().as_secs_f64();
    let log = farm.said("coordinator");
    assert!(log.contains("keep a fact") && log.contains("full"), "it says why: {log}");
    let mut again = start();
    wait_for("it to refuse to start", Duration::from_secs(20), || !again.is_running());

    std::fs::remove_file(state.join("filler")).expect("it is there");
    let room = Instant::now();
    coordinator = start();
    wait_for("the end of the job", LONG, || {
        let shown = farm.kulprit(&["bisect", "show", "1", "-o", "json"]);
        serde_json::from_slice::<serde_json::Value>(&shown.stdout).is_ok_and(|it| !it["ending"].is_null())
    });
    let took = room.elapsed().as_secs_f64();
    assert_eq!(farm.json(&["bisect", "show", "1"])["ending"]["culprit"], world.planted().culprit.to_string());
    assert!(submit("later").status.success(), "there is room again");
    drop((hands, third));
    coordinator.stop();
    let facts = farm.facts();
    drop(disk);
    world.with_seen(|seen| {
        for (attempt, item, answer) in &seen.answered {
            let kept = facts
                .iter()
                .any(|fact| matches!(fact, Fact::ItemFinished { attempt: it, .. } if it == attempt));
            assert!(kept, "{attempt} of {item}, {answer:?}, is lost");
        }
    });
    figure(
        ROW,
        &format!(
            "coordinator: low, refuses jobs with the reason; full, ends with it after {ended:.1} s; with room again, right answer after {took:.1} s, nothing lost"
        ),
    );
}
