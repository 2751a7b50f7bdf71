//! Noise at both ports, from strangers and from members: it is refused, and the coordinator goes
//! on serving with the memory it had.

mod farm;

use axum::body::HttpBody;
use farm::dice::Dice;
use farm::secure::{Farm, block_on, link, sync};
use http::{HeaderValue, Request};
use kulprit_common::access::METHODS;
use kulprit_proto::tls::{Link, SteadyClock, Trust, Wallet, client_config};
use kulprit_proto::v1::agents_client::AgentsClient;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tower::Service as _;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Whoever talks nonsense has been answered or dropped by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// The row of the table of faults that these tests hold.
const NOISE: &str = "malformed, oversized, out-of-order protocol messages (fuzzed)";
/// What the coordinator may grow by; a message may have 32 MiB.
const GROWTH_KIB_MAX: u64 = 256 << 10;

/// Senseless bytes, the same ones in every run.
struct Noise(Dice);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.below(end as u64)).expect("it is small")
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..=self.below(max)).map(|_| self.0.next() as u8).collect()
    }

    /// HTTP/2 frames with a plausible head and a senseless rest.
    fn frames(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..=self.below(8) {
            let body = self.bytes(200);
            let declared = if self.below(4) == 0 { self.below(1 << 24) } else { body.len() };
            all.extend_from_slice(&u32::try_from(declared).expect("24 bits").to_be_bytes()[1..]);
            all.extend([self.below(12) as u8, self.0.next() as u8]);
            all.extend_from_slice(&(self.0.next() as u32 & 0x8000_000f).to_be_bytes());
            all.extend(body);
        }
        all
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("in kB")
}

async fn tls_stream(address: &str, trust: Trust, protocol: &str) -> TlsStream<TcpStream> {
    let mut config = client_config(trust, SteadyClock::shared()).expect("TLS");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let tcp = TcpStream::connect(address).await.expect("the port is open");
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake")
}

/// Says it, says no more, and listens to the end; the other end must come to one.
async fn say(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, bytes: &[u8]) {
    // Whoever hears nonsense may hang up before its end.
    let _ = io.write_all(bytes).await;
    let _ = io.shutdown().await;
    let mut answer = Vec::new();
    let listened = tokio::time::timeout(PATIENCE, io.take(1 << 20).read_to_end(&mut answer)).await;
    assert!(listened.is_ok(), "neither an answer nor an end to {bytes:02x?}");
}

/// The farm still does what it is for.
async fn serves(farm: &Farm, agent: &Path) {
    let mut agents = AgentsClient::new(link(&farm.url(), agent));
    agents.sync(sync("a1")).await.expect("a member is served");
}

#[test]
fn garbage_at_the_ports_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let agent = farm.joined("a1", "agent");
    let before = resident_kib(coordinator.id());
    let ports =
        [(farm.farm.port, "h2"), (farm.farm.artifacts_port, "h2"), (farm.farm.artifacts_port, "http/1.1")];
    block_on(async {
        let wallet = Wallet::open(&agent).unwrap();
        let mut noise = Noise(Dice(5));
        for (port, protocol) in ports {
            let address = format!("127.0.0.1:{port}");
            for round in 0..60 {
                // Plain, with the beginning of a handshake now and then.
                let mut bytes = noise.bytes(600);
                if round % 3 == 0 {
                    bytes.splice(0..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
                }
                say(TcpStream::connect(&address).await.unwrap(), &bytes).await;
            }
            for round in 0..60 {
                // Within TLS, from a stranger and from a member in turn.
                let ca = Trust::Pinned(farm.ca());
                let trust = if round % 2 == 0 { ca } else { Trust::Wallet(wallet.clone()) };
                let bytes = match round % 3 {
                    0 => noise.bytes(600),
                    1 => [PREFACE, SETTINGS, &noise.frames()].concat(),
                    _ => [b"PUT /sha256/00/".as_slice(), &noise.bytes(200), b" HTTP/1.1\r\n\r\n"].concat(),
                };
                say(tls_stream(&address, trust, protocol).await, &bytes).await;
            }
        }
        serves(&farm, &agent).await;
    });
    assert!(coordinator.is_running(), "{}", farm.farm.said("coordinator"));
    assert!(!farm.farm.said("coordinator").contains("panicked"), "{}", farm.farm.said("coordinator"));
    let after = resident_kib(coordinator.id());
    assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
    farm::figure(NOISE, &format!("360 connections of garbage: {before} KiB before, {after} KiB after"));
}

/// A call with whatever bytes; its gRPC status.
async fn call(link: &mut Link, method: &str, frame: Vec<u8>) -> Code {
    let request = Request::post(format!("/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(frame)))
        .expect("a request");
    let answer = tokio::time::timeout(PATIENCE, link.call(request)).await.expect("an answer in time");
    let answer = answer.expect("the connection lives");
    let code = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|it: &HeaderValue| Code::from_bytes(it.as_bytes()))
    };
    if let Some(code) = code(answer.headers()) {
        return code;
    }
    let mut body = answer.into_body();
    loop {
        let next = std::future::poll_fn(|cx| HttpBody::poll_frame(std::pin::Pin::new(&mut body), cx));
        let frame = tokio::time::timeout(PATIENCE, next).await.expect("an end in time");
        let frame = frame.expect("a status comes last").expect("the stream lives");
        if let Some(trailers) = frame.trailers_ref() {
            return code(trailers).expect("a status");
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[test]
fn senseless_messages_are_refused_by_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let agent = farm.joined("a1", "agent");
    let members = [agent.clone(), farm.credentials("olga"), farm.joined("vera", "viewer")];
    let before = resident_kib(coordinator.id());
    block_on(async {
        let mut noise = Noise(Dice(7));
        let mut links: Vec<Link> = members.iter().map(|it| link(&farm.url(), it)).collect();
        for (method, _) in METHODS.iter().filter(|(name, _)| name.starts_with("kulprit.")) {
            for link in &mut links {
                for _ in 0..25 {
                    let message = noise.bytes(300);
                    let mut frame = framed(&message);
                    match noise.below(5) {
                        // Not compressed as it says, cut off, longer than it says, too long.
                        0 => frame[0] = 1,
                        1 => frame.truncate(frame.len() / 2),
                        2 => frame.extend(noise.bytes(20)),
                        3 => frame[1..5].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]),
                        _ => {}
                    }
                    let code = call(link, method, frame).await;
                    // By chance it may mean something to a call that only reads.
                    let reads = ["List", "Get", "Status"].iter().any(|it| method.contains(it));
                    assert!(reads || code != Code::Ok, "{method} took {message:02x?}");
                }
            }
        }
        for (method, size) in [
            ("kulprit.v1.Enrol/Join", 65 << 10),
            ("kulprit.v1.Agents/Sync", 33 << 20),
            ("kulprit.v1.Agents/Complete", 33 << 20),
            ("kulprit.v1.Agents/AppendLog", 33 << 20),
        ] {
            let code = call(&mut links[0], method, framed(&vec![0; size])).await;
            assert_eq!(code, Code::OutOfRange, "{method}");
        }
        assert_eq!(call(&mut links[1], "kulprit.v1.Access/Nothing", framed(&[])).await, Code::Unimplemented);
        serves(&farm, &agent).await;
    });
    assert!(coordinator.is_running(), "{}", farm.farm.said("coordinator"));
    assert!(!farm.farm.said("coordinator").contains("panicked"), "{}", farm.farm.said("coordinator"));
    let after = resident_kib(coordinator.id());
    assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
    farm::figure(
        NOISE,
        &format!("every call with noise and 33 MiB: refused, {before} KiB before, {after} KiB after"),
    );
}

#[test]
fn one_member_cannot_take_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    let _coordinator = farm.start(3600);
    let greedy = farm.joined("greedy", "viewer");
    let agent = farm.joined("a1", "agent");
    block_on(async {
        let wallet = Wallet::open(&greedy).unwrap();
        let address = format!("127.0.0.1:{}", farm.farm.port);
        let mut open = Vec::new();
        for _ in 0..80 {
            let trust = Trust::Wallet(wallet.clone());
            let mut io = tls_stream(&address, trust, "h2").await;
            // HTTP/2 servers speak first; one that is not welcome hears nothing but the end.
            let served = tokio::time::timeout(PATIENCE, io.read_u8()).await.expect("a word or an end");
            open.push((served.is_ok(), io));
        }
        let served = open.iter().filter(|(served, _)| *served).count();
        assert_eq!(served, 64, "so many connections of one member, and no more");
        serves(&farm, &agent).await;
        drop(open);
        farm::wait_for("room for the member again", PATIENCE, || {
            farm.as_member("greedy", &["bisect", "list"], |_| {}).status.success()
        });
    });
}
