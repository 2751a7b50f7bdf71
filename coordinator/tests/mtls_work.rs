//! Members at work while certificates, CAs and rights change: what is under way goes on, and
//! whoever is out is out at the next call.

mod farm;

use farm::idler::{Idler, submit};
use farm::secure::{Farm, SOON, block_on, link};
use farm::{text, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::id::Digest;
use kulprit_coordinator::door::authority::Authority;
use kulprit_proto::tls::{self, Link, Trust, Wallet};
use kulprit_proto::v1;
use kulprit_proto::v1::jobs_client::JobsClient;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// The row of the table of faults that these tests hold.
const MEMBERS: &str = "certificate expires in flight; revoked agent; wrong CA; stolen token used twice; agent asks for another's attempt; viewer tries to cancel";

fn secure(url: &str, wallet: &Arc<Wallet>) -> Link {
    Link::secure(url, Trust::Wallet(wallet.clone())).expect("a link")
}

#[test]
fn a_busy_agents_certificate_is_renewed_and_its_work_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    // Between renewal and expiry there is time for a sync, which a busy agent waits for 8 s.
    let mut coordinator = farm.start(36);
    let credentials = farm.joined("a1", "agent");
    submit(&farm);
    let attempt = block_on(async {
        let wallet = Wallet::open(&credentials).unwrap();
        let link = secure(&farm.url(), &wallet);
        tokio::spawn(tls::keep_current(link.clone(), wallet.clone()));
        let mut agent = Idler::new("a1", link);
        let work = agent.take_work().await;
        // One stream that is open all the while, as that of a long build is.
        let (chunks, receiver) = mpsc::channel(8);
        let mut client = agent.client.clone();
        let logging = tokio::spawn(async move { client.append_log(ReceiverStream::new(receiver)).await });
        let mut shown = vec![wallet.current().validity.until];
        let mut offset = 0;
        let give_up = tokio::time::Instant::now() + 2 * SOON;
        while shown.len() < 3 {
            assert!(tokio::time::Instant::now() < give_up, "renewed at {shown:?}");
            let answer = agent.sync().await.expect("the agent is never refused");
            assert_eq!((answer.revoke.len(), answer.assignments.len()), (0, 1), "nor is its work taken away");
            let data = b"line\n".to_vec();
            let chunk = v1::LogChunk { agent: "a1".into(), attempt: work.attempt, offset, data };
            // The connection that it began on ends with the certificate that was shown there.
            if chunks.send(chunk).await.is_ok() {
                offset += 5;
            }
            let until = wallet.current().validity.until;
            if shown.last() != Some(&until) {
                shown.push(until);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(chunks);
        let _ = logging.await.expect("no panic");
        assert_eq!(agent.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Recorded);
        assert_eq!(agent.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Duplicate);
        work.attempt
    });
    coordinator.stop();
    let finished = |fact: &Fact| matches!(fact, Fact::ItemFinished { attempt: it, .. } if it.0 == attempt);
    assert_eq!(farm.farm.facts().into_iter().filter(finished).count(), 1);
}

#[test]
fn an_agent_touches_no_attempt_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let (own, other) = (farm.joined("a1", "agent"), farm.joined("a2", "agent"));
    submit(&farm);
    block_on(async {
        let mut holder = Idler::new("a1", link(&farm.url(), &own));
        let mut thief = Idler::new("a2", link(&farm.url(), &other));
        let work = holder.take_work().await;
        holder.log(work.attempt, 0, "one\n").await.expect("its own log");
        // Ending it, by its own name and by the holder's.
        assert_eq!(thief.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Stale);
        thief.name = "a1";
        assert_eq!(thief.complete(&work).await.expect_err("another's name").code(), Code::PermissionDenied);
        thief.name = "a2";
        // Saying that it holds it.
        thief.held = Some(work.clone());
        let answer = thief.sync().await.expect("an answer");
        assert_eq!((answer.revoke, answer.assignments.len()), (vec![work.attempt], 0));
        let refused = thief.log(work.attempt, 4, "forged\n").await.expect_err("another's log");
        assert_eq!(refused.code(), Code::PermissionDenied);
        // The holder has noticed nothing, and nor has who reads its log.
        holder.log(work.attempt, 4, "two\n").await.expect("its own log");
        let id = format!("{:x}", work.attempt);
        let log = farm.kulprit(&["bisect", "log", "1", "--attempt", &id]);
        assert_eq!(text(&log.stdout), "one\ntwo\n", "{}", text(&log.stderr));
        assert_eq!(holder.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Recorded);
        assert_eq!(thief.complete(&work).await.expect("an answer"), v1::CompleteAnswer::Duplicate);
    });
    farm::figure(MEMBERS, "agent at another's attempt: STALE or permission denied, its log untouched");
}

#[test]
fn a_denied_agent_is_refused_at_its_next_call_and_others_get_its_work() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let (own, other) = (farm.joined("a1", "agent"), farm.joined("a2", "agent"));
    submit(&farm);
    block_on(async {
        let mut agent = Idler::new("a1", link(&farm.url(), &own));
        let work = agent.take_work().await;
        assert!(farm.kulprit(&["agent", "revoke", "a1"]).status.success());
        // Whether over the connection that is there until it is cut, or over a new one.
        agent.complete(&work).await.expect_err("it is shut out");
        agent.log(work.attempt, 0, "late").await.expect_err("it is shut out");
        agent.sync().await.expect_err("it is shut out");
        let mut anew = Idler::new("a1", link(&farm.url(), &own));
        let again = anew.complete(&work).await.expect_err("it is shut out");
        assert_eq!((again.code(), again.message()), (Code::PermissionDenied, "agent/a1 has been revoked"));
        let mut next = Idler::new("a2", link(&farm.url(), &other));
        let taken = next.take_work().await;
        assert_eq!(taken.item, work.item);
        assert_ne!(taken.attempt, work.attempt);
    });
}

/// A CA in a directory, as `kulprit ca init` makes it, and files of the coordinator from it.
struct OwnCa {
    dir: std::path::PathBuf,
}

impl OwnCa {
    fn new(farm: &Farm, name: &str) -> Self {
        let dir = farm.dir.join(name);
        let output =
            farm.as_member(&format!("{name}-olga"), &["ca", "init", "--operator", "olga"], |command| {
                command.arg("--state").arg(&dir).args(["--coordinator", &farm.url()]);
            });
        assert!(output.status.success(), "{}", text(&output.stderr));
        OwnCa { dir }
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.dir.join("ca/ca.pem")).unwrap()
    }

    /// Certificate and key of a coordinator.
    fn coordinator(&self) -> (String, String) {
        let authority = Authority::load(&self.dir.join("ca"), Duration::from_secs(3600)).unwrap();
        authority.expect("it is there").coordinator(&[]).unwrap()
    }
}

/// Puts files in place as a careful tool would.
fn put(dir: &Path, name: &str, text: &str) {
    tls::write_private(&dir.join(name), text).unwrap();
}

#[test]
fn ca_files_are_swapped_while_connections_live() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let (one, two) = (OwnCa::new(&farm, "one"), OwnCa::new(&farm, "two"));
    let files = dir.path().join("files");
    let (chain, key) = one.coordinator();
    for (name, text) in [("ca.pem", &one.pem()), ("cert.pem", &chain), ("key.pem", &key)] {
        put(&files, name, text);
    }
    let mut coordinator = farm.farm.coordinator_with(|command| {
        for (flag, name) in [("--tls-ca", "ca.pem"), ("--tls-cert", "cert.pem"), ("--tls-key", "key.pem")] {
            command.arg(flag).arg(files.join(name));
        }
    });
    let served = |who: &str| farm.as_member(who, &["bisect", "list"], |_| {}).status.success();
    assert!(served("one-olga") && !served("two-olga"));
    block_on(async {
        let mut old = JobsClient::new(link(&farm.url(), &farm.credentials("one-olga")));
        old.list(v1::ListRequest {}).await.expect("one is trusted");

        // What is half written changes nothing.
        put(&files, "key.pem", "-----BEGIN PRIVATE KEY-----\n");
        wait_for("a word on the torn file", SOON, || {
            farm.farm.said("coordinator").contains("the one in use stays")
        });
        old.list(v1::ListRequest {}).await.expect("over the connection that is there");
        assert!(served("one-olga"), "and over new ones");

        // Both are trusted, and the coordinator shows two's certificate.
        let (chain, key) = two.coordinator();
        put(&files, "ca.pem", &format!("{}{}", two.pem(), one.pem()));
        put(&files, "key.pem", &key);
        put(&files, "cert.pem", &chain);
        wait_for("two to be served", SOON, || served("two-olga"));
        old.list(v1::ListRequest {}).await.expect("the connection has outlived the change");
        let members = farm.credentials("one-olga");
        std::fs::write(members.join("ca.pem"), format!("{}{}", one.pem(), two.pem())).unwrap();
        assert!(served("one-olga"), "a member of one who trusts two");

        // One is trusted no more: its members are out, connected or not.
        put(&files, "ca.pem", &two.pem());
        wait_for("one to be refused", SOON, || !served("one-olga"));
        let refused = old.list(v1::ListRequest {}).await.expect_err("its CA is no longer trusted");
        assert_ne!(refused.code(), Code::Ok);
        assert!(served("two-olga"));
    });
    assert!(coordinator.is_running());
}

#[test]
fn a_request_that_does_not_prove_its_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let token = farm.token(&["--role", "viewer"]);
    let token: kulprit_common::access::TokenText = token.parse().unwrap();
    block_on(async {
        let bare = Link::secure(&farm.url(), Trust::Pinned(token.ca)).unwrap();
        let mut enrol = v1::enrol_client::EnrolClient::new(bare);
        let mut csr = tls::request(&tls::new_key().unwrap()).unwrap();
        *csr.last_mut().unwrap() ^= 1;
        let join = v1::JoinRequest { secret: token.secret.to_vec(), csr, name: "vera".into() };
        let status = enrol.join(join).await.expect_err("somebody else's key perhaps");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    });
    assert!(farm.join("vera", &token.to_string()).status.success(), "and the token is not used up");
    assert!(!farm.farm.said("coordinator").contains(&hex::encode(token.secret)), "nor is it logged");
    assert!(farm.farm.said("coordinator").contains(&Digest::of(&token.secret).short()));
}

/// A way to the coordinator that lets the first caller's request through and no answer back.
///
/// The caller speaks three times: hello, the end of the handshake, and, having heard the
/// coordinator's first frame, its request.
async fn deaf_at_first(to: u16) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut coordinator = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            if !std::mem::take(&mut first) {
                tokio::spawn(
                    async move { tokio::io::copy_bidirectional(&mut caller, &mut coordinator).await },
                );
                continue;
            }
            let (mut spoken, mut calling) = (0, false);
            let (mut said, mut heard) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            // It hangs up once there is an answer that the caller will never see.
            loop {
                tokio::select! {
                    read = caller.read(&mut said) => {
                        let count = read.unwrap_or(0);
                        coordinator.write_all(&said[..count]).await.unwrap();
                        spoken += usize::from(!calling);
                        calling = true;
                        if count == 0 { break }
                    }
                    read = coordinator.read(&mut heard) => {
                        let count = read.unwrap_or(0);
                        if count == 0 || count > ANSWER_BYTES_MIN && spoken >= 3 { break }
                        if spoken < 3 {
                            caller.write_all(&heard[..count]).await.unwrap();
                            calling = false;
                        }
                    }
                }
            }
        }
    });
    port
}

/// A certificate and the CA's are longer than any frame of control.
const ANSWER_BYTES_MIN: usize = 500;

#[test]
fn a_lost_answer_to_a_join_costs_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let token = farm.token(&["--role", "viewer"]);
    block_on(async {
        let url = format!("https://127.0.0.1:{}", deaf_at_first(farm.farm.port).await);
        let mut command = tokio::process::Command::new(farm::kulprit_command().get_program());
        command.args(["join", "--name", "vera", "--coordinator", &url, &token]);
        let output = command.env("KULPRIT_CREDENTIALS", farm.credentials("vera")).output().await.unwrap();
        assert!(!output.status.success(), "the answer was lost, and yet: {}", text(&output.stdout));
        assert!(farm.farm.said("coordinator").contains("joined"), "{}", farm.farm.said("coordinator"));
    });
    let joined = farm.join("vera", &token);
    assert!(joined.status.success(), "{}", text(&joined.stderr));
    let other = farm.join("mallory", &token);
    assert!(text(&other.stderr).contains("used already, by viewer/vera"), "{}", text(&other.stderr));
}
