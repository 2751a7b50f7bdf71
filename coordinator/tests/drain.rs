//! What a playbook asks of the command line: whether a machine has joined, and that an agent is set
//! aside and has nothing in hand any more. A real coordinator, real commands over TLS.

mod farm;

use farm::idler::{Idler, submit};
use farm::secure::{Farm, link};
use farm::{kulprit_command, text};
use kulprit_proto::v1;
use serde_json::Value;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

fn value(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

fn drain(farm: &Farm, reason: &str, limit: &str) -> Child {
    let mut command = kulprit_command();
    command.args(["agent", "drain", "a1", "--reason", reason, "--limit", limit, "-o", "json"]);
    command.env("KULPRIT_CREDENTIALS", farm.credentials("olga"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kulprit runs")
}

fn end(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

#[test]
fn an_agent_is_drained_once_it_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let credentials = farm.joined("a1", "agent");
    submit(&farm);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut idler = runtime.block_on(async { Idler::new("a1", link(&farm.url(), &credentials)) });
    let work = runtime.block_on(idler.take_work());

    let mut waiting = drain(&farm, "a new kernel", "5m");
    std::thread::sleep(Duration::from_secs(3));
    assert!(waiting.try_wait().unwrap().is_none(), "it still holds {:?}", work.item);
    let impatient = end(drain(&farm, "another", "1s"));
    assert_eq!(impatient.status.code(), Some(1));
    assert!(text(&impatient.stderr).contains("1 in hand still"), "{}", text(&impatient.stderr));

    let taken = runtime.block_on(idler.complete(&work)).expect("an answer");
    assert_eq!(taken, v1::CompleteAnswer::Recorded, "what it held it finished");
    idler.held = None;
    let drained = end(waiting);
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    assert_eq!(value(&drained)["set_aside"], true);
    runtime.block_on(idler.sync()).expect("an answer");
    assert!(idler.held.is_none(), "it is given nothing more");

    let again = value(&end(drain(&farm, "another", "1m")));
    assert_eq!(again["set_aside"], false);
    let agents = value(&farm.kulprit(&["agent", "list", "-o", "json"]));
    assert_eq!((&agents[0]["state"], &agents[0]["reason"]), (&"quarantined".into(), &"a new kernel".into()));

    let unknown = farm.kulprit(&["agent", "drain", "a2", "--reason", "x"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("there is no agent a2"), "{}", text(&unknown.stderr));
}

#[test]
fn credentials_say_whose_they_are_without_asking_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let olga = farm.kulprit(&["whoami", "-o", "json"]);
    let olga = value(&olga);
    assert_eq!((&olga["role"], &olga["name"]), (&"operator".into(), &"olga".into()));
    assert_eq!(olga["ca"], farm.ca().to_string());
    let said = text(&farm.kulprit(&["whoami"]).stdout);
    assert!(said.starts_with("operator/olga, for another 23h"), "{said}");

    let nobody = farm.as_member("nobody", &["whoami"], |_| {});
    assert_eq!(nobody.status.code(), Some(2));
    let mut coordinator = farm.start(2);
    let brief = farm.joined("vera", "viewer");
    coordinator.stop();
    std::thread::sleep(Duration::from_millis(2500));
    let expired = farm.as_member("vera", &["whoami"], |_| {});
    assert_eq!(expired.status.code(), Some(2), "{}", brief.display());
    assert!(text(&expired.stderr).contains("they have expired"), "{}", text(&expired.stderr));
}
