//! Who gets in and who does not: real coordinators, agents and commands over real TLS.

mod farm;

use farm::secure::{Farm, SOON, block_on, link, sync};
use farm::{figure, text, wait_for};
use kulprit_common::access::{AccessFact, Principal};
use kulprit_common::farm::fact::Fact;
use kulprit_proto::tls::{Link, Trust};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use kulprit_proto::v1::jobs_client::JobsClient;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tonic::Code;

fn refused(output: &Output, words: &str) {
    let said = text(&output.stderr);
    assert!(!output.status.success(), "not refused: {}", text(&output.stdout));
    assert!(said.contains(words), "{words:?} is not in: {said}");
}

/// The row of the table of faults that these tests hold.
const MEMBERS: &str = "certificate expires in flight; revoked agent; wrong CA; stolen token used twice; agent asks for another's attempt; viewer tries to cancel";

#[test]
fn a_token_lets_in_once_and_everything_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let key = std::fs::metadata(farm.credentials("olga").join("key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);

    let token = farm.token(&["--role", "viewer", "--labels", "team=x", "--ttl", "5m"]);
    assert!(farm.join("vera", &token).status.success());
    assert!(farm.join("vera", &token).status.success(), "the same key again: an answer may be lost");
    refused(&farm.join("mallory", &token), "used already, by viewer/vera");
    assert!(farm.farm.said("coordinator").contains("a join was refused"));
    assert!(!farm.credentials("mallory").join("cert.pem").exists());

    let short = farm.token(&["--role", "agent", "--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1500));
    refused(&farm.join("late", &short), "expired at");
    let other = farm.token(&["--role", "agent"]);
    let listed = text(&farm.kulprit(&["token", "list"]).stdout);
    assert!(listed.contains("used by viewer/vera") && listed.contains("operator/olga"), "{listed}");
    let open = listed.lines().find(|line| line.contains(" open ")).expect("one is open").split(' ').next();
    assert!(farm.kulprit(&["token", "revoke", open.expect("an id")]).status.success());
    refused(&farm.join("late", &other), "was revoked");
    let again = farm.token(&["--role", "viewer"]);
    std::fs::remove_file(farm.credentials("vera").join("key.pem")).unwrap();
    refused(&farm.join("vera", &again), "made with --name vera");

    coordinator.stop();
    let facts = farm.farm.facts();
    let olga: Principal = "operator/olga".parse().unwrap();
    let created = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Access(AccessFact::TokenCreated { by, .. }) if *by == olga));
    assert_eq!(created.count(), 4);
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Access(AccessFact::TokenRevoked { .. }))));
    let secret = token.rsplit('-').next().unwrap();
    let journal = std::fs::read(dir.path().join("coordinator/journal.sqlite")).unwrap();
    let raw = hex::decode(secret).unwrap();
    let kept = journal.windows(raw.len()).any(|it| it == raw) || text(&journal).contains(secret);
    assert!(!kept, "only a hash of a token is kept");
    figure(MEMBERS, "token used twice: the second is refused, and says by whom it was used");
}

#[test]
fn roles_are_kept_apart_and_agents_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let viewer = farm.joined("vera", "viewer");
    let agent = farm.joined("a1", "agent");
    refused(&farm.as_member("vera", &["bisect", "cancel", "1"], |_| {}), "Cancel is not for viewer/vera");
    refused(
        &farm.as_member("vera", &["token", "create", "--role", "operator"], |_| {}),
        "is not for viewer/vera",
    );
    refused(&farm.as_member("a1", &["bisect", "list"], |_| {}), "is not for agent/a1");
    assert!(farm.as_member("vera", &["bisect", "list"], |_| {}).status.success());

    block_on(async {
        let mut agents = AgentsClient::new(link(&farm.url(), &agent));
        let other = agents.sync(sync("a2")).await.expect_err("another's name");
        assert_eq!(
            (other.code(), other.message()),
            (Code::PermissionDenied, "agent: a1 cannot speak for a2")
        );
        assert!(agents.sync(sync("a1")).await.is_ok());
        let complete = v1::CompleteRequest {
            agent: "a2".into(),
            session: 1,
            attempt: 1,
            item: Some(v1::ItemKey { key: Some(v1::item_key::Key::Toolchain("x".into())) }),
            end: Some(v1::AttemptEnd { end: Some(v1::attempt_end::End::Released(v1::Released {})) }),
        };
        let status = agents.complete(complete).await.expect_err("another's attempt");
        assert_eq!(status.code(), Code::PermissionDenied);
        for (who, words) in [("a2", "cannot speak for"), ("a1", "does not hold")] {
            let chunk = v1::LogChunk { agent: who.into(), attempt: 7, offset: 0, data: vec![1] };
            let status = agents.append_log(tokio_stream::iter([chunk])).await.expect_err("another's log");
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains(words), "{status}");
        }
        let status =
            AgentsClient::new(link(&farm.url(), &viewer)).sync(sync("a1")).await.expect_err("a viewer");
        assert_eq!(status.code(), Code::PermissionDenied);
    });
    figure(MEMBERS, "viewer who cancels, agent who speaks for another: permission denied");
}

#[test]
fn another_farms_ca_is_refused_on_both_sides() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (farm, other) = (Farm::new(one.path()), Farm::new(two.path()));
    let (_first, _second) = (farm.start(3600), other.start(3600));
    // The client refuses the coordinator, before anything is said.
    let at_other = ["bisect", "list", "--coordinator", &other.url()];
    refused(&farm.kulprit(&at_other), "not of the CA known here");
    // The token's secret is not told to a coordinator of another CA.
    let token = farm.token(&["--role", "viewer"]);
    let join = ["join", "--coordinator", &other.url(), &token];
    refused(&farm.as_member("x", &join, |_| {}), "not of the CA known here");
    assert!(farm.join("vera", &token).status.success(), "and so it was not used up");
    // The coordinator refuses a certificate of another CA, even from one who trusts it.
    let mixed = farm.credentials("mixed");
    std::fs::create_dir_all(&mixed).unwrap();
    for (from, file) in [("vera", "cert.pem"), ("vera", "key.pem")] {
        std::fs::copy(farm.credentials(from).join(file), mixed.join(file)).unwrap();
    }
    std::fs::copy(other.credentials("olga").join("ca.pem"), mixed.join("ca.pem")).unwrap();
    refused(&farm.as_member("mixed", &at_other, |_| {}), "the coordinator does not know the CA");
    // Nor without a certificate.
    block_on(async {
        let ca = kulprit_proto::tls::certificates(
            &std::fs::read_to_string(farm.credentials("olga").join("ca.pem")).unwrap(),
            "ca",
        );
        let pin = kulprit_proto::tls::fingerprint(&ca.unwrap()[0]);
        let bare = Link::secure(&farm.url(), Trust::Pinned(pin)).unwrap();
        let status = JobsClient::new(bare).list(v1::ListRequest {}).await.expect_err("no certificate");
        assert_eq!(status.code(), Code::Unauthenticated);
    });
    figure(MEMBERS, "another CA: refused on both sides, the token not told");
}

#[test]
fn certificates_are_renewed_in_flight_and_the_expired_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(9);
    let token = farm.token(&["--role", "agent", "--labels", "zone=eu"]);
    let mut agent = farm.agent("a1", Some(&token));
    farm.wait_for_agent("a1", "online");
    let viewer = farm.joined("vera", "viewer");
    let first = std::fs::read(dir.path().join("a1/credentials/cert.pem")).unwrap();
    // A stream that outlives several certificates, and an agent that is never lost.
    std::thread::sleep(Duration::from_secs(25));
    assert!(agent.is_running(), "{}", farm.farm.said("a1"));
    farm.wait_for_agent("a1", "online");
    let renewed = farm.farm.said("a1").matches("certificate renewed").count();
    assert!(renewed >= 2, "{renewed}: {}", farm.farm.said("a1"));
    assert_ne!(std::fs::read(dir.path().join("a1/credentials/cert.pem")).unwrap(), first);
    // Nobody renewed the viewer's.
    refused(&farm.as_member("vera", &["bisect", "list"], |_| {}), "they have expired");
    block_on(async {
        let status = JobsClient::new(link(&farm.url(), &viewer)).list(v1::ListRequest {}).await;
        let said = kulprit_proto::tls::said(&status.expect_err("expired"));
        assert!(said.contains("expired"), "{said}");
    });
    figure(
        MEMBERS,
        &format!("certificates of 9 s: renewed {renewed} times in flight in 25 s, the expired refused"),
    );
}

#[test]
fn a_revoked_agent_is_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let mut agent = farm.agent("a1", Some(&farm.token(&["--role", "agent"])));
    farm.wait_for_agent("a1", "online");
    // An idle agent's sync is parked for 20 s: it ends now, and the next one is refused.
    let start = std::time::Instant::now();
    assert!(farm.kulprit(&["agent", "revoke", "a1"]).status.success());
    wait_for("the end of the revoked agent", Duration::from_secs(15), || !agent.is_running());
    figure(MEMBERS, &format!("revoked agent: out after {:.1} s", start.elapsed().as_secs_f64()));
    assert!(farm.farm.said("a1").contains("agent/a1 has been revoked"), "{}", farm.farm.said("a1"));
    farm.wait_for_agent("a1", "revoked");
    // It stays out over a restart of the coordinator, and with any token but one for its name.
    coordinator.stop();
    let mut coordinator = farm.start(3600);
    let mut again = farm.agent("a1", None);
    wait_for("the refusal", SOON, || !again.is_running());
    std::fs::remove_dir_all(dir.path().join("a1/credentials")).unwrap();
    let mut again = farm.agent("a1", Some(&farm.token(&["--role", "agent"])));
    wait_for("the refusal", SOON, || !again.is_running());
    let _back = farm.agent("a1", Some(&farm.token(&["--role", "agent", "--name", "a1"])));
    farm.wait_for_agent("a1", "online");
    refused(&farm.kulprit(&["operator", "revoke", "olga"]), "nobody revokes themselves");
    coordinator.stop();
    let revoked =
        |fact: &Fact| matches!(fact, Fact::Access(AccessFact::Revoked { by: Principal::Member(_), .. }));
    assert_eq!(farm.farm.facts().iter().filter(|fact| revoked(fact)).count(), 1);
}

#[test]
fn plaintext_stays_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--listen", "--listen-artifacts"] {
        let mut command = farm::command("kulprit-coordinator");
        command.args(["--listen", "127.0.0.1:0", "--listen-artifacts", "127.0.0.1:0"]);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut command = farm::command("kulprit-coordinator");
        let address = args.iter().position(|it| it == flag).expect("given") + 1;
        for (index, arg) in args.iter().enumerate() {
            if index == address {
                command.arg("0.0.0.0:0")
            } else {
                command.arg(arg)
            };
        }
        let output = command.arg("--state").arg(dir.path()).output().expect("it runs");
        refused(&output, &format!("serve {flag} 0.0.0.0:0: without TLS only loopback addresses are served"));
    }
    let mut command = farm::command("kulprit-agent");
    let agent = command.args(["--coordinator", "http://10.0.0.1:1", "--state"]).arg(dir.path());
    refused(&agent.output().expect("it runs"), "without TLS only loopback addresses are dialled");
    refused(&farm::kulprit(&["bisect", "list", "--coordinator", "http://10.0.0.1:1"]), "only loopback");
    // A coordinator with a CA speaks no plaintext, not even here.
    let farm = Farm::new(&dir.path().join("secure"));
    let _coordinator = farm.start(3600);
    let plain = farm.url().replace("https", "http");
    assert!(!farm.kulprit(&["bisect", "list", "--coordinator", &plain]).status.success());
}

#[test]
fn artifacts_need_a_certificate_too() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let (agent, viewer) = (farm.joined("a1", "agent"), farm.joined("vera", "viewer"));
    let digest = kulprit_common::id::Digest::of(b"kernel").to_string();
    let path = format!("https://127.0.0.1:{}/sha256/{}/{digest}", farm.farm.artifacts_port, &digest[..2]);
    let curl = |credentials: Option<&Path>, args: &[&str]| {
        let mut command = Command::new("curl");
        // Over HTTP/2 this curl loses an answer that comes before it has sent its body.
        command.args(["--http1.1", "-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(args);
        command.arg("--cacert").arg(farm.credentials("olga").join("ca.pem"));
        command.args(["--connect-to", &format!("localhost::127.0.0.1:{}", farm.farm.artifacts_port)]);
        if let Some(dir) = credentials {
            command.arg("--cert").arg(dir.join("cert.pem")).arg("--key").arg(dir.join("key.pem"));
        }
        let output = command.arg(path.replace("127.0.0.1", "localhost")).output().expect("curl runs");
        text(&output.stdout)
    };
    let put = ["-X", "PUT", "--data-binary", "kernel"];
    assert_eq!(curl(None, &[]), "401");
    assert_eq!(curl(None, &put), "401");
    assert_eq!(curl(Some(&viewer), &put), "403");
    assert_eq!(curl(Some(&agent), &put), "201");
    assert_eq!(curl(Some(&viewer), &[]), "200");
}

#[test]
fn what_makes_no_sense_is_refused_and_the_coordinator_lives() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let agent = farm.joined("a1", "agent");
    let address = format!("127.0.0.1:{}", farm.farm.port);
    // Not TLS at all, in several ways, and connections that say nothing.
    let mut idle = Vec::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0x16, 3, 1, 0xff, 0xff],
        &[0xff; 4096],
    ] {
        for _ in 0..20 {
            let mut tcp = TcpStream::connect(&address).expect("connected");
            let _ = tcp.write_all(bytes);
            idle.push(tcp);
        }
    }
    block_on(async {
        let mut agents = AgentsClient::new(link(&farm.url(), &agent))
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX);
        let huge = v1::SyncRequest { have: vec![vec![0; 40 << 20]], ..sync("a1") };
        let status = agents.sync(huge).await.expect_err("too large");
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        let unnamed = agents.sync(sync("../../etc")).await.expect_err("no name");
        assert_eq!(unnamed.code(), Code::InvalidArgument);
        let csr = v1::RenewRequest { csr: vec![0x30; 5000] };
        let mut enrol = v1::enrol_client::EnrolClient::new(link(&farm.url(), &agent));
        assert_eq!(enrol.renew(csr).await.expect_err("no request").code(), Code::InvalidArgument);
        let large = v1::RenewRequest { csr: vec![0x30; 1 << 20] };
        assert_eq!(enrol.renew(large).await.expect_err("too large").code(), Code::OutOfRange);
        let join = v1::JoinRequest { secret: vec![1; 16], csr: vec![], name: "x".into() };
        assert_eq!(enrol.join(join).await.expect_err("no request").code(), Code::InvalidArgument);
        let other = kulprit_proto::tls::request(&kulprit_proto::tls::new_key().unwrap()).unwrap();
        let status = enrol.renew(v1::RenewRequest { csr: other }).await.expect_err("another key");
        assert!(status.message().contains("another key"), "{status}");
        assert!(agents.sync(sync("a1")).await.is_ok());
    });
    assert!(coordinator.is_running());
    drop(idle);
    assert!(farm.kulprit(&["bisect", "list"]).status.success());
}

#[test]
fn what_operators_do_is_recorded_with_who_did_it() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    // A repository that never answers keeps the job open.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let repository = format!("http://{}/linux.git", silent.local_addr().unwrap());
    let job = dir.path().join("job.toml");
    std::fs::write(dir.path().join("repro.sh"), "#!/bin/sh\n").unwrap();
    let lines = [
        "name = \"who\"",
        &format!("repository = \"{repository}\""),
        "bad = \"main\"",
        "mode = \"cause\"",
        "[config]",
        "make_target = \"tinyconfig\"",
        "[reproducer]",
        "script = \"repro.sh\"",
    ];
    std::fs::write(&job, lines.join("\n")).unwrap();
    let submitted = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
    let cancelled = farm.kulprit(&["bisect", "cancel", "1"]);
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    coordinator.stop();
    let olga: Principal = "operator/olga".parse().unwrap();
    let facts = farm.farm.facts();
    assert!(facts.iter().any(|fact| matches!(fact, Fact::JobSubmitted { by, .. } if *by == olga)));
    assert!(facts.iter().any(|fact| matches!(fact, Fact::CancelRequested { by, .. } if *by == olga)));
}
