//! Operators see what is in quarantine and let it go: a real coordinator, killed in between, and
//! real commands over TLS.

mod farm;

use farm::idler::{Idler, submit};
use farm::secure::{Farm, block_on, link};
use farm::text;
use kulprit_common::access::Principal;
use kulprit_common::farm::fact::{Fact, QuarantineFact};
use kulprit_proto::v1;
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

fn refused(output: &Output, words: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "not refused: {}", text(&output.stdout));
    assert!(said.contains(words), "{words:?} is not in: {said}");
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json(farm: &Farm, args: &[&str]) -> Value {
    let output = farm.kulprit(&[args, &["-o", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// Until every try that the farm allows has failed.
async fn fail_all(agents: &mut [Idler], reason: &str) {
    let mut failed = 0;
    let start = Instant::now();
    while failed < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "it was tried {failed} times");
        for agent in &mut *agents {
            if failed < 3 {
                let work = agent.take_work().await;
                assert_eq!(agent.fail(&work, reason).await.expect("an answer"), v1::CompleteAnswer::Recorded);
                agent.held = None;
                failed += 1;
            }
        }
    }
}

#[test]
fn what_is_in_quarantine_is_shown_and_let_go_by_operators_alone() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let (one, two) = (farm.joined("a1", "agent"), farm.joined("a2", "agent"));
    farm.joined("vera", "viewer");
    submit(&farm);
    block_on(async {
        let idlers = [("a1", &one), ("a2", &two)];
        let mut idlers = idlers.map(|(name, own)| Idler::new(name, link(&farm.url(), own)));
        fail_all(&mut idlers, "no such image").await;
    });
    let item = "toolchain:some/image";
    let shown = done(&farm.kulprit(&["bisect", "show", "1"]));
    assert!(shown.contains("in quarantine:") && shown.contains(item), "{shown}");
    assert!(shown.contains("no such image") && shown.contains("kulprit bisect release 1"), "{shown}");
    let given_up = json(&farm, &["bisect", "show", "1"])["progress"]["quarantined"][0].clone();
    assert_eq!((&given_up["item"], &given_up["revision"]), (&item.into(), &Value::Null), "{given_up}");

    done(&farm.kulprit(&["agent", "quarantine", "a1", "--reason", "a new disk"]));
    coordinator.kill9();
    let mut coordinator = farm.start(3600);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut idler = runtime.block_on(async { Idler::new("a1", link(&farm.url(), &one)) });
    runtime.block_on(idler.sync()).expect("an answer");
    let listed = json(&farm, &["agent", "list"]);
    let agent = listed.as_array().and_then(|all| all.iter().find(|it| it["id"] == "a1")).cloned();
    let agent = agent.expect("it is listed");
    assert_eq!((&agent["state"], &agent["reason"]), (&"quarantined".into(), &"a new disk".into()));
    assert!(agent["quarantined_ms"].is_u64() && agent["quarantined_until_ms"].is_null(), "{agent}");
    let listed = done(&farm.kulprit(&["agent", "list"]));
    assert!(listed.contains("until it is released: a new disk"), "{listed}");

    let as_viewer = |args: &[&str]| farm.as_member("vera", args, |_| {});
    refused(&as_viewer(&["agent", "release", "a1"]), "AgentRelease is not for viewer/vera");
    refused(&as_viewer(&["agent", "quarantine", "a2", "--reason", "x"]), "is not for viewer/vera");
    refused(&as_viewer(&["bisect", "release", "1", item]), "Release is not for viewer/vera");
    refused(&farm.kulprit(&["agent", "release", "a3"]), "there is no agent a3");
    refused(&farm.kulprit(&["agent", "quarantine", "a1", "--reason", " "]), "reason: say");
    refused(&farm.kulprit(&["bisect", "release", "2", item]), "there is no job 2");
    refused(&farm.kulprit(&["bisect", "release", "1", "1234567"]), item);

    done(&farm.kulprit(&["bisect", "release", "1", item]));
    done(&farm.kulprit(&["agent", "release", "a1"]));
    refused(&farm.kulprit(&["agent", "release", "a1"]), "a1 is not in quarantine");
    refused(&farm.kulprit(&["bisect", "release", "1", item]), "nothing in quarantine");
    runtime.block_on(async {
        let work = idler.take_work().await;
        assert_eq!(idler.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Recorded);
    });
    let progress = json(&farm, &["bisect", "show", "1"])["progress"].clone();
    assert_eq!((&progress["stage"], &progress["ended_ms"]), (&"searching".into(), &Value::Null));
    assert_eq!(progress["quarantined"], Value::Array(vec![]));

    coordinator.stop();
    let olga: Principal = "operator/olga".parse().unwrap();
    let facts = farm.farm.facts();
    let by = facts.iter().filter_map(|fact| match fact {
        Fact::Quarantine(
            QuarantineFact::AgentSetAside { by, .. }
            | QuarantineFact::AgentReleased { by, .. }
            | QuarantineFact::ItemsReleased { by, .. },
        ) => Some(by),
        _ => None,
    });
    assert_eq!(by.collect::<Vec<_>>(), [&olga; 3]);
}
