//! Agents that speak for themselves to a coordinator whose store is a real S3 server: what they are told, and
//! what they are refused.

mod farm;

use farm::planted::{Planted, Shape};
use farm::s3::{S3, artifact, http};
use farm::{Farm, Process};
use kulprit_common::artifact::Artifact;
use kulprit_common::farm::fact::Fact;
use kulprit_common::outcome::{AttemptEnd, Build, BuildOutcome, Kernel, Product, ToolchainFacts};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use kulprit_proto::v1::upload_response::How;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// What an agent says of itself; it has the image that toolchains are looked for in.
fn speaks(agent: &str, sequence: u64, holding: Vec<v1::Holding>) -> v1::SyncRequest {
    let info = v1::AgentInfo {
        version: kulprit_proto::VERSION.into(),
        slots: vec![v1::Slot { cores: 1, memory_mib: 4096 }],
        images: vec![farm::hands::IMAGE.into()],
        can_build: true,
        ..Default::default()
    };
    v1::SyncRequest {
        agent: agent.into(),
        session: 1,
        sequence,
        info: Some(info),
        holding,
        ..Default::default()
    }
}

/// Syncs until there is work.
async fn given(client: &mut AgentsClient<Link>, agent: &str, sequence: &mut u64) -> v1::Assignment {
    loop {
        *sequence += 1;
        let answer = client.sync(speaks(agent, *sequence, vec![])).await.expect("an answer").into_inner();
        assert!(answer.artifacts_presigned);
        if let Some(work) = answer.assignments.into_iter().next() {
            return work;
        }
    }
}

fn end(work: &v1::Assignment, product: Product) -> v1::CompleteRequest {
    v1::CompleteRequest {
        agent: "a".into(),
        session: 1,
        attempt: work.attempt,
        item: work.item.clone(),
        end: Some(AttemptEnd::Done(product).into()),
    }
}

fn toolchain() -> Product {
    let image_id = farm::hands::IMAGE.into();
    Product::Toolchain(ToolchainFacts { image_id, gcc: "gcc".into(), ld: "ld".into() })
}

/// A farm whose artifacts are in a bucket, with a job that waits for agents.
fn with_a_job(dir: &Path) -> Option<(S3, Farm, Process)> {
    let s3 = S3::start(&dir.join("s3"))?;
    let farm = Farm::new(&dir.join("farm"));
    let coordinator = farm.coordinator_with(|command| s3.tell(command));
    let planted = Planted::new(dir, Shape { commits: 3, culprit: 1, build_s: 0, build_mib: 0 });
    let job = planted.job("job").to_string_lossy().into_owned();
    assert!(farm.kulprit(&["bisect", "start", &job]).status.success());
    Some((s3, farm, coordinator))
}

#[test]
fn no_agent_is_signed_for_what_is_not_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some((_s3, farm, mut coordinator)) = with_a_job(dir.path()) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = AgentsClient::new(Link::plain(&farm.url()).expect("an address"));
        let mut sequence = 0;
        let work = given(&mut client, "a", &mut sequence).await;
        let log = artifact(b"a log");
        let up = |agent: &str, artifact: Artifact| v1::UploadRequest {
            agent: agent.into(),
            attempt: work.attempt,
            artifact: Some(artifact.into()),
            ..Default::default()
        };
        let refused = client.upload(up("b", log)).await.expect_err("another's attempt");
        assert_eq!(refused.code(), Code::PermissionDenied);
        let refused = client.upload(up("a", Artifact { size: 1 << 40, ..log })).await.expect_err("too large");
        assert!(
            refused.code() == Code::InvalidArgument && refused.message().contains("artifact: has"),
            "{refused}"
        );
        let answer = client.upload(up("a", log)).await.expect("its own").into_inner();
        assert!(matches!(answer.how, Some(How::Whole(_))));
        let sent = artifact(b"sent");
        let answer = client.upload(up("a", sent)).await.expect("its own").into_inner();
        let Some(How::Whole(v1::Whole { request: Some(put) })) = answer.how else { panic!("it is small") };
        let headers: Vec<_> = put.headers.iter().map(|it| (it.name.as_str(), it.value.clone())).collect();
        assert_eq!(http("PUT", &put.url, &headers, b"sent").0, 200);
        let was_sent = |artifact: Artifact| v1::UploadedRequest {
            agent: "a".into(),
            attempt: work.attempt,
            artifact: Some(artifact.into()),
            ..Default::default()
        };
        let other = Artifact { size: 1, ..sent };
        for refused in [
            client.uploaded(was_sent(other)).await.expect_err("another size").code(),
            client.upload(up("a", other)).await.expect_err("another size").code(),
        ] {
            assert_eq!(refused, Code::InvalidArgument);
        }
        assert!(client.uploaded(was_sent(sent)).await.expect("an answer").into_inner().stored, "it stays");
        let down = v1::DownloadRequest {
            agent: "a".into(),
            attempt: work.attempt,
            artifact: Some(log.into()),
            damaged: true,
        };
        let refused = client.download(down).await.expect_err("nothing that it needs");
        assert_eq!(refused.code(), Code::PermissionDenied);

        client.complete(end(&work, toolchain())).await.expect("an answer");
        let build = given(&mut client, "a", &mut sequence).await;
        // It never sent what it speaks of.
        let kernel = Kernel {
            image: log,
            vmlinux: log,
            config: log,
            fingerprint: log.digest,
            build_id: String::new(),
        };
        let product = Build { outcome: BuildOutcome::Built(kernel), log, duration_ms: 1 };
        client.complete(end(&build, Product::Build(product))).await.expect("an answer");
    });
    coordinator.stop();
    let failed: Vec<String> = farm
        .facts()
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::AttemptFailed { infra, .. } => Some(infra.reason),
            _ => None,
        })
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].starts_with("its kernel is not in the artifact store: "), "{failed:?}");
}

/// The packs that lead to an attempt's source.
async fn packs(client: &mut AgentsClient<Link>, attempt: u64) -> Vec<v1::Artifact> {
    let request = v1::SourceRequest { agent: "a".into(), attempt, ..Default::default() };
    let mut updates = client.source(request).await.expect("its own").into_inner();
    while let Some(update) = updates.message().await.expect("an answer") {
        if !update.packs.is_empty() {
            return update.packs.into_iter().filter_map(|it| it.pack).collect();
        }
    }
    panic!("no packs are named")
}

async fn fetch(client: &mut AgentsClient<Link>, attempt: u64, artifact: v1::Artifact) -> Result<(), Status> {
    let artifact = Some(artifact);
    let request = v1::DownloadRequest { agent: "a".into(), attempt, artifact, damaged: false };
    client.download(request).await.map(drop)
}

/// What an attempt was told of is remembered by one life of the coordinator alone.
#[test]
fn packs_of_an_earlier_life_are_asked_for_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some((s3, farm, mut coordinator)) = with_a_job(dir.path()) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = AgentsClient::new(Link::plain(&farm.url()).expect("an address"));
        let mut sequence = 0;
        let work = given(&mut client, "a", &mut sequence).await;
        client.complete(end(&work, toolchain())).await.expect("an answer");
        let build = given(&mut client, "a", &mut sequence).await;
        let pack = packs(&mut client, build.attempt).await.remove(0);
        fetch(&mut client, build.attempt, pack.clone()).await.expect("it was told of it");

        coordinator.kill9();
        coordinator = farm.coordinator_with(|command| s3.tell(command));
        let holding = v1::Holding { attempt: build.attempt, item: build.item.clone(), ..Default::default() };
        let begun = Instant::now();
        let refused = loop {
            sequence += 1;
            // The line to the coordinator before this one is gone.
            while client.sync(speaks("a", sequence, vec![holding.clone()])).await.is_err() {
                assert!(begun.elapsed() < farm::LONG, "{}", farm.said("coordinator"));
            }
            match fetch(&mut client, build.attempt, pack.clone()).await {
                Err(status) if status.code() == Code::Unavailable && begun.elapsed() < farm::LONG => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                fetched => break fetched.expect_err("it was not told of it"),
            }
        };
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        assert!(refused.message().contains("ask for the source again"), "{refused}");
        assert!(packs(&mut client, build.attempt).await.contains(&pack), "it was packed before");
        fetch(&mut client, build.attempt, pack).await.expect("now it is told of it");
    });
    coordinator.stop();
}
