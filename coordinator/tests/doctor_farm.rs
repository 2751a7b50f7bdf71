//! `kulprit doctor --farm` on farms that are well and that are not.

mod farm;

use farm::idler::Idler;
use farm::secure::{self, block_on, link};
use farm::{Farm, text};
use serde_json::Value;
use std::process::Output;

fn checks(output: &Output) -> Vec<Value> {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)));
    value.as_array().cloned().expect("an array")
}

#[track_caller]
fn check(checks: &[Value], name: &str, status: &str, words: &str) {
    let it = checks.iter().find(|it| it["check"] == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"));
    let said = format!("{} {}", it["detail"], it["hint"]);
    assert!(it["status"] == status && said.contains(words), "{words:?}: {it:#}");
}

#[test]
fn a_farm_is_looked_at_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let farm = secure::Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    farm.joined("vera", "viewer");
    let doctor = || {
        let url = farm.url();
        farm.as_member("vera", &["doctor", "--farm", "--coordinator", &url, "-o", "json"], |_| {})
    };
    let alone = doctor();
    assert_eq!(alone.status.code(), Some(1), "nobody is there to work");
    let seen = checks(&alone);
    check(&seen, "agents", "failed", "start an agent");
    check(&seen, "certificate of viewer/vera", "ok", " left");
    check(&seen, "coordinator's certificate", "ok", " left");
    for name in ["coordinator", "clock", "versions", "artifact store", "artifact endpoint"] {
        check(&seen, name, "ok", "");
    }
    for name in ["coordinator's disk", "journal"] {
        check(&seen, name, "ok", "");
    }
    let credentials = farm.joined("a1", "agent");
    block_on(async {
        let mut idler = Idler::new("a1", link(&farm.url(), &credentials));
        idler.sync().await.expect("an answer");
    });
    let seen = checks(&doctor());
    check(&seen, "agents", "failed", "none of them can boot guests");
    let quarantined =
        farm.kulprit(&["agent", "quarantine", "a1", "--reason", "odd", "--coordinator", &farm.url()]);
    assert!(quarantined.status.success(), "{}", text(&quarantined.stderr));
    check(&checks(&doctor()), "agent a1", "failed", "kulprit agent release a1");
    let mut table = farm::kulprit_command();
    table.args(["doctor", "--farm", "--coordinator", &farm.url()]);
    let table = table.env("KULPRIT_CREDENTIALS", farm.credentials("vera")).output().expect("it runs");
    assert!(text(&table.stdout).contains("what to do:\n"), "{}", text(&table.stdout));
    coordinator.stop();
    let mut coordinator = farm.start(3600);
    let seen = checks(&doctor());
    check(&seen, "agents", "failed", "0 online and 1 lost");
    check(&seen, "agent a1", "warning", "lost, not heard since the coordinator started");
    coordinator.stop();
    let away = doctor();
    assert_eq!(away.status.code(), Some(1));
    check(&checks(&away), "coordinator", "failed", "look whether kulprit-coordinator runs there");
}

#[test]
fn a_store_and_a_disk_that_fail_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let nobody = farm::scrape::free_address();
    let _coordinator = farm.coordinator_with(|command| {
        command.args(["--artifacts", "s3://bucket/", "--disk-min-mib", "1000000000"]);
        command.env("AWS_ENDPOINT", format!("http://{nobody}")).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s").env("AWS_REGION", "r");
    });
    let output = farm.kulprit(&["doctor", "--farm", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let seen = checks(&output);
    check(&seen, "artifact store", "failed", "s3://bucket/");
    check(&seen, "coordinator's disk", "failed", "make room");
    assert!(!seen.iter().any(|it| it["check"] == "coordinator's certificate"), "there is none");
}

/// Agents are told to fetch artifacts at the host that they called, where nobody listens.
#[test]
fn an_artifact_endpoint_that_cannot_be_reached_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let farm = secure::Farm::new(dir.path());
    let mut command = std::process::Command::new(farm::beside("kulprit-coordinator"));
    command.args(["--listen", farm.url().trim_start_matches("https://")]);
    command.args(["--listen-artifacts", &format!("127.0.0.2:{}", farm.farm.artifacts_port)]);
    command.arg("--state").arg(dir.path().join("coordinator"));
    let _coordinator = farm.farm.spawn("coordinator", command);
    let doctor = || farm.kulprit(&["doctor", "--farm", "-o", "json"]);
    farm::wait_for("the coordinator", secure::SOON, || {
        checks(&doctor()).iter().any(|it| it["check"] == "coordinator" && it["status"] == "ok")
    });
    let output = doctor();
    assert_eq!(output.status.code(), Some(1));
    let seen = checks(&output);
    check(&seen, "artifact store", "ok", "");
    let port = farm.farm.artifacts_port;
    check(&seen, "artifact endpoint", "failed", "cannot be reached from here: ");
    check(&seen, "artifact endpoint", "failed", &format!("let port {port} through"));
}

#[test]
fn each_address_of_several_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.coordinator();
    let nobody = format!("http://{}", farm::scrape::free_address());
    let list = format!("{nobody},{}", farm.url());
    let doctor = || checks(&farm::kulprit(&["doctor", "--farm", "-o", "json", "--coordinator", &list]));
    let seen = doctor();
    check(&seen, &format!("coordinator {}", farm.url()), "ok", "leads");
    check(&seen, &format!("coordinator {nobody}"), "warning", "does not answer");
    check(&seen, "artifact endpoint", "ok", "");
    let alone = checks(&farm.kulprit(&["doctor", "--farm", "-o", "json"]));
    assert!(
        !alone.iter().any(|it| it["check"].as_str().is_some_and(|name| name.contains("http"))),
        "{alone:?}"
    );
    coordinator.stop();
    check(&doctor(), &format!("coordinator {}", farm.url()), "warning", "does not answer");
}
