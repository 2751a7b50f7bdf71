//! What a farm shows of itself, to scrapers, probes, collectors and those who read its logs.

mod farm;

use farm::idler::Idler;
use farm::planted::Shape;
use farm::scrape::{Collector, Received, free_address, get, value};
use farm::secure::{self, block_on};
use farm::small::Small;
use farm::{Farm, text, wait_for};
use kulprit_common::id::Digest;
use kulprit_coordinator::journal::{self, Journal};
use kulprit_proto::journal as wire;
use kulprit_proto::tls::{Link, Trust};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SOON: Duration = Duration::from_secs(60);

/// Facts that take a coordinator a while to read.
const MANY: usize = 200_000;

fn fill_journal(state: &Path) {
    std::fs::create_dir_all(state).expect("a directory");
    block_on(async {
        let journal = Journal::open(&state.join("journal.sqlite"), |_| ()).await.expect("it opens");
        let came = |number: usize| {
            let agent = format!("a{}", number % 7).parse().expect("a name");
            let at = kulprit_common::time::Timestamp(1);
            let fact = kulprit_common::farm::fact::Fact::AgentCame { agent, at };
            journal::Fact { at_ms: 1, kind: wire::kind(&fact), body: wire::encode(fact) }
        };
        journal.append((0..MANY).map(came).collect()).await.expect("they are kept");
        journal.close().await.expect("it closes");
    });
}

#[test]
fn probes_follow_the_life_of_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let farm = Farm::new(dir.path());
    fill_journal(&farm.state.join("coordinator"));
    let ops = free_address();
    let mut coordinator = farm.coordinator_unawaited(|command| {
        command.args(["--listen-ops", &ops]);
    });
    let mut starting = 0;
    wait_for("the coordinator to be ready", SOON, || {
        for _ in 0..100 {
            match get(&ops, "/readyz") {
                Some((200, _)) => return true,
                Some((code, why)) => {
                    assert!(code == 503 && why.contains("the journal is being read"), "{code} {why}");
                    assert_eq!(get(&ops, "/healthz").expect("it lives").0, 200);
                    starting += 1;
                }
                None => {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    });
    assert!(starting > 0, "it was not ready while it read {MANY} facts");
    let (code, figures) = get(&ops, "/metrics").expect("an answer");
    assert_eq!((code, value(&figures, "kulprit_driver_up")), (200, Some(1.0)), "{figures}");
    assert!(value(&figures, "kulprit_journal_size_bytes").expect("it is there") > 1e6);
    assert_eq!(value(&figures, "kulprit_agents{state=\"online\"}"), Some(0.0));
    assert_eq!(get(&ops, "/").expect("an answer").0, 404);

    block_on(async {
        let mut idler = Idler::new("a1", Link::plain(&farm.url()).expect("a link"));
        idler.sync().await.expect("an answer");
    });
    let figures = get(&ops, "/metrics").expect("an answer").1;
    assert_eq!(value(&figures, "kulprit_agents{state=\"online\"}"), Some(1.0));

    // Somebody who has not yet said all keeps it from ending at once.
    let mut upload = TcpStream::connect(("127.0.0.1", farm.artifacts_port)).expect("it listens");
    let digest = Digest::of(b"never sent").to_string();
    let path = format!("/sha256/{}/{digest}", &digest[..2]);
    write!(upload, "PUT {path} HTTP/1.1\r\nhost: farm\r\ncontent-length: 10\r\n\r\nnever").expect("said");
    std::thread::sleep(Duration::from_millis(500));
    coordinator.signal(Signal::SIGTERM);
    let mut stopping = None;
    while let Some((code, why)) = get(&ops, "/readyz") {
        stopping = (code == 503).then_some(why).or(stopping);
    }
    assert_eq!(stopping.as_deref(), Some("not ready: it is stopping\n"));
    coordinator.stop();
}

#[test]
fn health_is_for_everybody_and_reflection_for_members() {
    let dir = tempfile::tempdir().unwrap();
    let farm = secure::Farm::new(dir.path());
    let mut coordinator = farm.start(3600);
    let viewer = farm.joined("vera", "viewer");
    block_on(async {
        let stranger = Link::secure(&farm.url(), Trust::Pinned(farm.ca())).expect("a link");
        let asked = |service: &str| HealthCheckRequest { service: service.into() };
        let mut health = HealthClient::new(stranger.clone());
        for service in ["", "kulprit.v1.Jobs"] {
            let answer = health.check(asked(service)).await.expect("an answer").into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        let unknown = health.check(asked("kulprit.v1.Secrets")).await.expect_err("there is none");
        assert_eq!(unknown.code(), tonic::Code::NotFound);
        let watched = health.watch(asked("")).await.expect_err("it is for members");
        assert_eq!(watched.code(), tonic::Code::Unauthenticated);
        let refused = services(stranger).await.expect_err("it is for members");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let listed = services(secure::link(&farm.url(), &viewer)).await.expect("an answer");
        for service in ["kulprit.v1.Jobs", "kulprit.v1.Agents", "grpc.health.v1.Health"] {
            assert!(listed.iter().any(|it| it == service), "{service} is not in {listed:?}");
        }
    });
    coordinator.stop();
}

async fn services(link: Link) -> Result<Vec<String>, tonic::Status> {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(link);
    let mut answers = client.server_reflection_info(tokio_stream::iter([question])).await?.into_inner();
    let answer = answers.message().await?.and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    Ok(list.service.into_iter().map(|it| it.name).collect())
}

/// A job on real agents, whose kernels build in moments and whose guests are played by a script.
#[test]
fn a_job_is_measured_and_traced_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape { commits: 6, culprit: 3, build_s: 0, build_mib: 0 };
    let Some(small) = Small::new(dir.path(), shape, 0) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (collector, at) = runtime.block_on(Collector::start());
    let endpoint = format!("http://{at}");
    let farm = Farm::new(&dir.path().join("farm"));
    let (ops, agent_ops) = (free_address(), free_address());
    let mut coordinator = farm.coordinator_with(|command| {
        command.args(["--listen-ops", &ops, "--log-format", "json"]);
        command.env("KULPRIT_LOG", "info,kulprit_coordinator::telemetry=debug");
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    });
    let mut agent = small.start(&farm, "a1", |command| {
        command.args(["--listen-ops", &agent_ops, "--log-format", "json"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    });
    small.submit(&farm, "measured");
    let job = farm.json(&["bisect", "list"])[0]["job"]["id"].as_str().expect("an id").to_owned();
    small.wait_for_culprit(&farm, &job);
    assert_eq!(get(&agent_ops, "/readyz").expect("an answer"), (200, "ready\n".into()));
    coordinator_measures(&get(&ops, "/metrics").expect("an answer").1);
    agent_measures(&get(&agent_ops, "/metrics").expect("an answer").1);
    agent.stop();
    coordinator.stop();
    let judged: BTreeSet<String> = farm
        .facts()
        .iter()
        .filter_map(|fact| match fact {
            kulprit_common::farm::fact::Fact::Judged { judged, .. } => {
                Some(judged.judgement.revision.to_string())
            }
            _ => None,
        })
        .collect();
    check_traces(&collector.spans(), &job, &judged);
    logs_name_what_they_are_about(&farm, &job);
}

fn coordinator_measures(figures: &str) {
    let of = |series: &str| value(figures, series).unwrap_or_else(|| panic!("{series} is not in\n{figures}"));
    assert_eq!(of("kulprit_jobs_submitted_total"), 1.0);
    assert_eq!(of("kulprit_jobs_ended_total{ending=\"culprit\"}"), 1.0);
    assert_eq!(of("kulprit_jobs{stage=\"ended\"}"), 1.0);
    assert_eq!(of("kulprit_agents{state=\"online\"}"), 1.0);
    assert_eq!(of("kulprit_slots"), 2.0);
    assert_eq!(of("kulprit_items{kind=\"build\",state=\"ready\"}"), 0.0);
    let built = of("kulprit_completions_total{answer=\"recorded\",ending=\"done\",kind=\"build\"}");
    assert!(built >= 3.0, "{built} builds");
    assert_eq!(of("kulprit_attempt_seconds_count{ending=\"done\",kind=\"build\"}"), built);
    assert!(of("kulprit_grants_total{kind=\"build\"}") >= built);
    assert_eq!(
        of("kulprit_grant_wait_seconds_count{kind=\"build\"}"),
        of("kulprit_grants_total{kind=\"build\"}")
    );
    assert!(of("kulprit_grant_wait_seconds_sum{kind=\"toolchain\"}") < 60.0);
    assert!(of("kulprit_journal_commit_seconds_count") > 3.0);
    assert!(of("kulprit_journal_commit_facts_sum") >= of("kulprit_facts_total{kind=\"judged\"}"));
    assert!(of("kulprit_store_transfer_bytes_total{direction=\"in\"}") > 1000.0);
    assert!(of("kulprit_store_transfers_total{direction=\"out\",ending=\"done\"}") >= 1.0);
    assert!(of("kulprit_syncs_total{answer=\"answered\"}") > 3.0);
    assert!(of("kulprit_disk_free_bytes{dir=\"state\"}") > 1e6);
}

fn agent_measures(figures: &str) {
    let of = |series: &str| value(figures, series).unwrap_or_else(|| panic!("{series} is not in\n{figures}"));
    let built = of("kulprit_agent_build_seconds_count{outcome=\"built\"}");
    assert!(built >= 3.0);
    assert_eq!(of("kulprit_agent_stage_seconds_count{ending=\"done\",stage=\"build\"}"), built);
    assert!(of("kulprit_agent_attempts_total{ending=\"done\",kind=\"build\"}") >= built);
    assert!(of("kulprit_agent_boot_seconds_count{outcome=\"crashed\"}") >= 1.0);
    assert!(of("kulprit_agent_boot_seconds_count{outcome=\"ok\"}") >= 1.0);
    assert!(of("kulprit_agent_transfer_bytes_total{direction=\"out\"}") > 1000.0);
    assert!(of("kulprit_agent_contact_age_seconds") < 30.0);
    assert_eq!(of("kulprit_agent_able{work=\"build\"}"), 1.0);
    assert_eq!(of("kulprit_agent_slots"), 2.0);
    assert!(of("kulprit_agent_disk_free_bytes{dir=\"cache\"}") > 1e6);
}

/// One trace to a revision, of both programs, in which every span but the first has its parent.
fn check_traces(spans: &[Received], job: &str, judged: &BTreeSet<String>) {
    let mut traces: BTreeMap<Vec<u8>, Vec<&Received>> = BTreeMap::new();
    for received in spans {
        traces.entry(received.span.trace_id.clone()).or_default().push(received);
    }
    let mut traced = BTreeSet::new();
    for trace in traces.values() {
        let ids: BTreeSet<&Vec<u8>> = trace.iter().map(|it| &it.span.span_id).collect();
        let top: Vec<&&Received> = trace.iter().filter(|it| it.span.parent_span_id.is_empty()).collect();
        assert!(!top.is_empty(), "a trace without a beginning: {trace:#?}");
        let same = top.iter().all(|it| it.span.span_id == top[0].span.span_id);
        assert!(same, "a trace with several beginnings: {trace:#?}");
        for received in trace {
            let parent = &received.span.parent_span_id;
            assert!(parent.is_empty() || ids.contains(parent), "{received:?} has no parent in {trace:#?}");
            assert_eq!(received.attribute("kulprit.job").as_deref(), Some(job), "{received:?}");
            assert!(received.span.start_time_unix_nano <= received.span.end_time_unix_nano);
        }
        let Some(revision) = top[0].attribute("kulprit.revision") else { continue };
        let of =
            |service: &str, name: &str| trace.iter().any(|it| it.service == service && it.span.name == name);
        if of("kulprit-coordinator", "attempt: build") {
            assert!(of("kulprit-coordinator", "wait for a slot: build"), "{trace:#?}");
            for stage in ["work: build", "checkout", "build", "upload"] {
                assert!(of("kulprit-agent", stage), "{stage} is not in {trace:#?}");
            }
        }
        assert!(traced.insert(revision), "a revision with two traces");
    }
    assert!(judged.is_subset(&traced), "{judged:?} {traced:?}");
    let booted = |it: &&Received| it.service == "kulprit-agent" && it.span.name == "boot";
    assert!(spans.iter().filter(booted).count() >= 2);
}

fn logs_name_what_they_are_about(farm: &Farm, job: &str) {
    let lines = |name: &str| -> Vec<serde_json::Value> {
        let log = farm.said(name);
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    let about = |line: &serde_json::Value| {
        let ids = [&line["span"], &line["fields"]];
        ["job", "item", "attempt", "agent"]
            .into_iter()
            .filter(|key| ids.iter().any(|it| it[*key].is_string()))
            .collect::<Vec<_>>()
    };
    for program in ["coordinator", "a1"] {
        let full = lines(program).into_iter().find(|line| about(line).len() == 4);
        let full = full.unwrap_or_else(|| panic!("{program}: {}", farm.said(program)));
        assert!(full.to_string().contains(job), "{full}");
    }
}

/// A collector that is away, or takes and never answers, holds nothing up.
#[test]
fn a_farm_does_without_its_collector() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    for endpoint in [silent, format!("http://{}", free_address())] {
        let dir = tempfile::tempdir().unwrap();
        let farm = Farm::new(&dir.path().join("farm"));
        let mut coordinator = farm.coordinator_with(|command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        });
        let shape = Shape { commits: 5, culprit: 2, build_s: 0, build_mib: 0 };
        let planted = farm::planted::Planted::new(dir.path(), shape);
        let culprit = planted.culprit.to_string();
        let file = planted.job("quick");
        let world = farm::hands::World::new(planted);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _within = runtime.enter();
        let link = Link::plain(&farm.url()).expect("a link");
        let hands = ["h1", "h2"].map(|name| {
            let hand = farm::hands::Hand::new(name, link.clone(), &world, Duration::from_millis(1));
            runtime.spawn(hand.work())
        });
        assert!(farm.kulprit(&["bisect", "start", &file.to_string_lossy()]).status.success());
        wait_for("the end of the job", SOON, || {
            farm.json(&["bisect", "list"])[0]["ending"]["culprit"] == culprit.as_str()
        });
        hands.iter().for_each(tokio::task::JoinHandle::abort);
        let stopped = Instant::now();
        coordinator.stop();
        assert!(stopped.elapsed() < Duration::from_secs(12), "{:?}", stopped.elapsed());
        assert!(farm.said("coordinator").contains("sends traces"), "{}", farm.said("coordinator"));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_string_lossy().into_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for (arguments, variable, problem) in [
        (vec!["--listen-ops", &taken], ("X", "y"), "choose another port with --listen-ops"),
        (vec![], ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317"), "TLS is not spoken with collectors"),
        (vec![], ("OTEL_EXPORTER_OTLP_ENDPOINT", "c"), "write http://HOST:PORT"),
        (vec!["--log-format", "xml"], ("X", "y"), "possible values: text, json"),
    ] {
        let mut command = farm::command("kulprit-coordinator");
        command.args(["--state", &state, "--listen", "127.0.0.1:0", "--listen-artifacts", "127.0.0.1:0"]);
        let output = command.args(&arguments).env(variable.0, variable.1).output().expect("it runs");
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(problem), "{arguments:?} {variable:?}: {said}");
    }
    let output = farm::command("kulprit-coordinator").env_remove("KULPRIT_STATE").output().expect("it runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--state <DIR>"), "{said}");
}
