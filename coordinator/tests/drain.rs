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

/// One that died is known by the journal alone: by a coordinator that was started just now, which waits
/// for what agents hold, and by a later one.
#[test]
fn a_dead_agent_is_drained_and_shut_out_by_coordinators_that_never_heard_it() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let credentials = farm.joined("a1", "agent");
    farm.joined("a3", "agent");
    submit(&farm);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async { Idler::new("a1", link(&farm.url(), &credentials)).take_work().await });
    coordinator.kill9();

    let mut coordinator = farm.start(3600);
    let state = |name: &str| {
        let agents = value(&farm.kulprit(&["agent", "list", "-o", "json"]));
        let found = agents.as_array().and_then(|all| all.iter().find(|it| it["id"] == name)).cloned();
        found.map_or(Value::Null, |it| it["state"].clone())
    };
    assert_eq!([state("a1"), state("a3"), state("a2")], ["lost".into(), "lost".into(), Value::Null]);
    let impatient = end(drain(&farm, "dead", "1s"));
    assert_eq!(impatient.status.code(), Some(1), "it may hold what it held before");
    assert!(text(&impatient.stderr).contains("what is not known"), "{}", text(&impatient.stderr));
    let drained = end(drain(&farm, "dead", "2m"));
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    assert_eq!(value(&drained)["state"], "lost");
    let doctor = farm.kulprit(&["doctor", "--farm"]);
    let said = text(&doctor.stdout);
    assert!(said.contains("0 online and 2 lost") && said.contains("kulprit agent revoke a1"), "{said}");
    let released = farm.kulprit(&["agent", "release", "a1"]);
    assert!(released.status.success(), "{}", text(&released.stderr));
    coordinator.stop();

    // Long after; and once more after it was shut out.
    for (started, is) in ["lost", "revoked"].into_iter().enumerate() {
        let mut coordinator = farm.start(3600);
        let drained = end(drain(&farm, "dead", "10s"));
        assert!(drained.status.success(), "{started}: {}", text(&drained.stderr));
        assert_eq!((&value(&drained)["state"], state("a1")), (&is.into(), is.into()), "{started}");
        let unknown = farm.kulprit(&["agent", "drain", "a2", "--reason", "x"]);
        assert_eq!(unknown.status.code(), Some(2), "{started}: {}", text(&unknown.stdout));
        let revoked = farm.kulprit(&["agent", "revoke", "a1"]);
        assert!(revoked.status.success(), "{started}: {}", text(&revoked.stderr));
        assert_eq!(state("a1"), "revoked", "{started}");
        coordinator.stop();
    }
}
