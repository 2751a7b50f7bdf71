//! An object store that is slow, refuses, is gone, and gives and takes other bytes than it should.

mod farm;

use farm::fake_store::{FakeStore, Mode};
use farm::planted::Shape;
use farm::small::{Small, started};
use farm::{Farm, LONG, figure, leftovers, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::outcome::InfraClass;
use std::time::{Duration, Instant};

const AWAY: &str = "artifact store slow, 503, gone for 2 min";
const DAMAGED: &str = "corrupt or truncated artifact, either direction";
const SHAPE: Shape = Shape { commits: 3, culprit: 1, build_s: 2, build_mib: 0 };

/// Does something to the store while an agent builds, waits for the culprit, and yields how long
/// it took since and what failed meanwhile.
fn under_way(name: &str, agents: &[&str], trouble: impl FnOnce(&mut FakeStore)) -> Option<(f64, Vec<Fact>)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let small = Small { slots: 1, ..Small::new(dir.path(), SHAPE, 0)? };
    let (farm, mut store) = (Farm::new(&dir.path().join("farm")), FakeStore::start());
    let mut coordinator = farm.coordinator_with(|command| {
        command.args(["--artifacts", FakeStore::URL]);
        store.tell(command);
    });
    let names: Vec<String> = agents.iter().map(|agent| format!("faults-{name}-{agent}")).collect();
    let mut running: Vec<_> = names.iter().map(|agent| small.start(&farm, agent, |_| {})).collect();
    small.submit(&farm, "job");
    // What an agent does is heard of with its next sync only; its log says it at once.
    wait_for("a build", LONG, || started(&farm.said(&names[0])).iter().any(|it| it.starts_with("build:")));
    let begun = Instant::now();
    trouble(&mut store);
    small.wait_for_culprit(&farm, "1");
    let took = begun.elapsed().as_secs_f64();
    running.iter_mut().for_each(farm::Process::stop);
    coordinator.stop();
    assert_eq!(leftovers(&names.iter().map(String::as_str).collect::<Vec<_>>()), Vec::<String>::new());
    Some((took, farm.facts()))
}

fn failed(facts: &[Fact]) -> Vec<(InfraClass, String, String)> {
    let failed = facts.iter().filter_map(|fact| match fact {
        Fact::AttemptFailed { agent, infra, .. } => {
            Some((infra.class, infra.reason.clone(), agent.to_string()))
        }
        _ => None,
    });
    failed.collect()
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn a_store_that_is_slow_or_refuses_is_waited_for() {
    for (name, mode, time) in [
        ("slow", Mode::Slow(Duration::from_secs(2)), Duration::from_secs(20)),
        ("refusing", Mode::Refusing, Duration::from_secs(30)),
    ] {
        let ended = under_way(name, &["a"], |store| {
            store.set(mode);
            std::thread::sleep(time);
            store.set(Mode::Well);
        });
        let Some((took, facts)) = ended else { return };
        assert_eq!(failed(&facts), [], "attempts wait");
        figure(
            AWAY,
            &format!("{name} for {} s: right answer after {took:.1} s, no attempt failed", time.as_secs()),
        );
    }
}

#[test]
#[ignore = "takes two minutes and more: scripts/faults runs it"]
fn a_store_that_is_gone_for_two_minutes_is_waited_for() {
    let away = Duration::from_secs(120);
    let ended = under_way("gone", &["a"], |store| {
        store.go();
        std::thread::sleep(away);
        store.come_back();
    });
    let Some((took, facts)) = ended else { return };
    assert_eq!(failed(&facts), [], "attempts wait");
    figure(AWAY, &format!("gone for 120 s: right answer after {took:.1} s, no attempt failed"));
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn what_was_damaged_is_never_used() {
    for (name, mode) in [
        ("flipped", Mode::Flipping),
        ("truncated", Mode::Truncating),
        ("damaged on its way up", Mode::DamagedOnTheWay),
    ] {
        let ended = under_way(name.split(' ').next().expect("a word"), &["a", "b"], |store| {
            store.set_for(mode, "a");
        });
        let Some((took, facts)) = ended else { return };
        let failed = failed(&facts);
        assert!(!failed.is_empty(), "{name}: no attempt ended by it");
        for (class, reason, _) in &failed {
            assert_eq!(*class, InfraClass::Artifact, "{name}: {reason}");
        }
        assert!(failed.iter().all(|(_, _, by)| by.ends_with("-a")), "{name}: {failed:?}");
        let (_, reason, by) = &failed[0];
        let retried = facts.iter().filter_map(|fact| match fact {
            Fact::AttemptFailed { item, .. } => Some(item),
            _ => None,
        });
        let finished_by = |item: &ItemKey| {
            facts.iter().find_map(|fact| match fact {
                Fact::ItemFinished { item: it, agent, .. } if it == item => Some(agent.to_string()),
                _ => None,
            })
        };
        // What a search wants no more by then is nobody's.
        let elsewhere: Vec<String> = retried.filter_map(finished_by).collect();
        assert!(
            !elsewhere.is_empty() && elsewhere.iter().all(|by| by.ends_with("-b")),
            "{name}: {elsewhere:?}"
        );
        let (times, reason) = (failed.len(), shortened(reason));
        figure(
            DAMAGED,
            &format!(
                "{name}: infra {times} times at {by} (\"{reason}\"), made again elsewhere; right answer after {took:.1} s"
            ),
        );
    }
}

/// Without digests and addresses, which are long.
fn shortened(reason: &str) -> String {
    let said = reason.split(" http").next().unwrap_or(reason);
    let words = said.split(' ').map(|word| if word.len() == 64 { &word[..12] } else { word });
    words.collect::<Vec<_>>().join(" ")
}
