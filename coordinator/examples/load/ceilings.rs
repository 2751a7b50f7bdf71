//! What this machine can do at best, measured in the same run: a disk that syncs, a journal with
//! nothing above it, calls with nothing behind them.

use anyhow::{Context as _, bail};
use kulprit_coordinator::journal::{Candidate, Database, Fact, Journal, Standing};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use kulprit_proto::v1::agents_server::{Agents, AgentsServer};
use serde::Serialize;
use sqlx::Connection as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

const SPAN: Duration = Duration::from_secs(3);
/// Facts that are committed together.
const GROUP: usize = 64;
/// What the fact of a finished run takes, about.
const FACT_BYTES: usize = 300;
const CONNECTIONS: usize = 64;
const CALLERS: usize = 16;

/// All by the second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    pub fsyncs: f64,
    /// In transactions of 64.
    pub journal_facts: f64,
    /// Without TLS; the callers share the machine with the called.
    pub bare_calls: f64,
}

pub async fn measure(dir: &Path, url: Option<&str>) -> anyhow::Result<Ceilings> {
    let file = dir.join("fsync");
    let fsyncs = tokio::task::spawn_blocking(move || fsyncs(&file)).await??;
    Ok(Ceilings { fsyncs, journal_facts: journal(dir, url).await?, bare_calls: calls().await? })
}

fn fsyncs(path: &Path) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(path).context("make a file")?;
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < SPAN {
        file.write_all(&[0; 4096])?;
        file.sync_data().context("sync a file")?;
        count += 1;
    }
    std::fs::remove_file(path)?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

async fn journal(dir: &Path, url: Option<&str>) -> anyhow::Result<f64> {
    let journal = match url {
        None => Journal::open(&dir.join("ceiling.sqlite"), |_| {}).await?,
        Some(url) => {
            let state = dir.join("ceiling");
            std::fs::create_dir_all(&state)?;
            let mut candidate = Candidate::new(Database::parse(url)?, &state, "the load".into())?;
            let Standing::Leads(lead) = candidate.look().await? else { bail!("use {url}: it is in use") };
            Journal::lead(lead, |_| {}).await?
        }
    };
    let fact = Fact { at_ms: 1, kind: "item-finished", body: vec![7; FACT_BYTES] };
    let start = Instant::now();
    while start.elapsed() < SPAN {
        journal.append(vec![fact.clone(); GROUP]).await?;
    }
    let rate = journal.committed().facts as f64 / start.elapsed().as_secs_f64();
    journal.close().await?;
    if let Some(url) = url {
        // The coordinator is to find it empty.
        let mut connection = sqlx::PgConnection::connect(url).await.context("empty the database")?;
        let text = "DROP TABLE kulprit_facts, kulprit_leader, kulprit_schema";
        sqlx::raw_sql(text).execute(&mut connection).await.context("empty the database")?;
    }
    Ok(rate)
}

/// Answers at once, and knows nothing.
struct Bare;

#[tonic::async_trait]
impl Agents for Bare {
    async fn sync(&self, _: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        Ok(Response::new(v1::SyncResponse::default()))
    }

    async fn complete(
        &self,
        _: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        Ok(Response::new(v1::CompleteResponse::default()))
    }

    async fn append_log(
        &self,
        _: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::AppendLogResponse>, Status> {
        Ok(Response::new(v1::AppendLogResponse {}))
    }

    async fn upload(&self, _: Request<v1::UploadRequest>) -> Result<Response<v1::UploadResponse>, Status> {
        Ok(Response::new(v1::UploadResponse::default()))
    }

    async fn uploaded(
        &self,
        _: Request<v1::UploadedRequest>,
    ) -> Result<Response<v1::UploadedResponse>, Status> {
        Ok(Response::new(v1::UploadedResponse::default()))
    }

    async fn download(
        &self,
        _: Request<v1::DownloadRequest>,
    ) -> Result<Response<v1::DownloadResponse>, Status> {
        Ok(Response::new(v1::DownloadResponse::default()))
    }

    type SourceStream = tokio_stream::Empty<Result<v1::SourceUpdate, Status>>;

    async fn source(&self, _: Request<v1::SourceRequest>) -> Result<Response<Self::SourceStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

async fn calls() -> anyhow::Result<f64> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tonic::transport::Server::builder().add_service(AgentsServer::new(Bare));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let (count, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = AgentsClient::new(Link::plain(&url)?);
        for _ in 0..CALLERS {
            let (mut client, count) = (client.clone(), count.clone());
            callers.spawn(async move {
                while start.elapsed() < SPAN {
                    client.complete(v1::CompleteRequest::default()).await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), Status>(())
            });
        }
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    server.abort();
    Ok(rate)
}
