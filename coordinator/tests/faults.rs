//! What happens to a farm of real processes when things break under it.

mod farm;

use farm::small::started;
use farm::{Farm, history, leftovers, processes, text, wait_for};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Builds and boots are slow on a busy machine; faults are not.
const WHOLE: Duration = Duration::from_secs(10 * 60);

/// Amazon's metadata service, as far as it tells of the end of a spot instance.
struct Metadata {
    url: String,
    is_notified: Arc<AtomicBool>,
}

impl Metadata {
    fn serve() -> Metadata {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let is_notified = Arc::new(AtomicBool::new(false));
        let notified = is_notified.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = Metadata::answer(stream, notified.load(Ordering::SeqCst));
            }
        });
        Metadata { url, is_notified }
    }

    fn answer(mut stream: TcpStream, is_notified: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let asked = lines.next().transpose()?.unwrap_or_default();
        let mut has_token = false;
        for header in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            has_token |= header.eq_ignore_ascii_case("x-aws-ec2-metadata-token: permitted");
        }
        let (status, body) = match asked.as_str() {
            "PUT /latest/api/token HTTP/1.1" => ("200 OK", "permitted"),
            _ if !has_token => ("401 Unauthorized", ""),
            "GET /latest/meta-data/spot/instance-action HTTP/1.1" if is_notified => {
                ("200 OK", r#"{"action": "terminate", "time": "2026-11-21T18:02:00Z"}"#)
            }
            _ => ("404 Not Found", "not found"),
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }
}

#[test]
fn a_notice_of_preemption_hands_work_on_at_once() {
    let Some(history) = history() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.coordinator();
    let metadata = Metadata::serve();
    let mut leaving = farm.agent_with("faults-spot", |command| {
        command.args(["--disk-min-mib", "1024", "--preemption", "aws", "--metadata-url", &metadata.url]);
        command.args(["--drain-s", "600"]);
    });
    let job = history.join("job.toml").to_string_lossy().into_owned();
    let output = farm.kulprit(&["bisect", "start", &job]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    farm.wait_for_activity("faults-spot", "building", WHOLE);
    assert!(leaving.is_running());

    metadata.is_notified.store(true, Ordering::SeqCst);
    let notified = Instant::now();
    wait_for("the agent to leave", Duration::from_secs(15), || !leaving.is_running());
    let left = notified.elapsed();
    assert_eq!(leftovers(&["faults-spot"]), Vec::<String>::new());
    assert!(farm.said("faults-spot").contains("terminate at 2026-11-21T18:02:00Z"), "it says why it leaves");

    // A lost agent's work would stay where it is for 42 s.
    let mut other = farm.agent("faults-other");
    let patience = Duration::from_secs(40).saturating_sub(notified.elapsed());
    // Its log says it at once; the farm hears of it with the next sync only.
    wait_for("the build to go on elsewhere", patience, || {
        started(&farm.said("faults-other")).iter().any(|it| it.starts_with("build:"))
    });
    let (left_s, taken_s) = (left.as_secs_f64(), notified.elapsed().as_secs_f64());
    farm::figure(
        "preemption notice",
        &format!("left {left_s:.1} s after the notice, given to another, started then, after {taken_s:.1} s"),
    );
    other.stop();
    coordinator.stop();
    assert_eq!(leftovers(&["faults-other"]), Vec::<String>::new());
    assert_eq!(processes(&dir.path().to_string_lossy()), Vec::<String>::new());
}
