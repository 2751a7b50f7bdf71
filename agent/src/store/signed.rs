//! Artifacts in a cloud's store: the coordinator signs each request, the agent makes it. There are no keys here.

mod patience;
#[cfg(test)]
mod tests;

use super::{chunks, store};
use crate::store::cache::disk;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kulprit_common::artifact::{Artifact, error_field};
use kulprit_common::id::{AgentId, Attempt};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_proto::tls::{self, Link};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use kulprit_proto::v1::upload_response::How;
use patience::{Moved, Patience};
use reqwest::header::{CONTENT_LENGTH, ETAG};
use reqwest::{Body, Response, StatusCode};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tonic::{Code, Status};

/// A whole request, with its upload: a kernel with debug data over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Of what a store says of an error, and how long each piece of it is waited for.
const WHY_BYTES_MAX: usize = 8 << 10;
const WHY_LIMIT: Duration = Duration::from_secs(5);

/// Parts of one upload that are under way at once; each is held in memory.
const PARTS_MAX: usize = 2;

/// Bytes of a part that are handed over at once.
const PIECE_BYTES: usize = 1 << 18;

/// Asks and transfers for one attempt.
#[derive(Clone)]
pub(super) struct Signed {
    client: AgentsClient<Link>,
    agent: AgentId,
    pub attempt: Attempt,
    http: Http,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("agent", &self.agent)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Why a step came to nothing.
enum Trouble {
    /// It may be over soon.
    Passing(String),
    /// The store does not take it as it is signed, or as it arrived.
    Refused(String),
    Final(Infra),
}

/// What of an upload in parts has got there.
#[derive(Default)]
struct Sent {
    upload: String,
    etags: Vec<String>,
}

impl Signed {
    pub fn new(client: AgentsClient<Link>, agent: AgentId) -> Result<Signed, Infra> {
        let http = Http::new(&agent)?;
        Ok(Signed { client, agent, attempt: Attempt(0), http })
    }

    /// Stores a file; says whether it had to be sent.
    pub async fn upload(&self, path: &Path, artifact: &Artifact) -> Result<bool, Infra> {
        let (mut sent, mut patience) = (Sent::default(), Patience::new(Instant::now()));
        loop {
            let before = sent.etags.len();
            match self.send(path, artifact, &mut sent, &patience.moved()).await {
                Ok(Some(was_sent)) => return Ok(was_sent),
                Ok(None) => {}
                Err(trouble) => {
                    if sent.etags.len() > before {
                        patience = Patience::new(Instant::now());
                    }
                    patience.bear(trouble).await?;
                }
            }
        }
    }

    /// Asks for a way and goes it; `None` where there is more to go.
    async fn send(
        &self,
        path: &Path,
        artifact: &Artifact,
        sent: &mut Sent,
        moved: &Moved,
    ) -> Result<Option<bool>, Trouble> {
        match self.ask_upload(artifact, sent).await? {
            How::Stored(v1::Stored {}) => return Ok(Some(false)),
            How::Whole(v1::Whole { request }) => {
                let file = chunks(path).await.map_err(Trouble::Final)?;
                self.http.put(need(request)?, watched(file, moved), artifact.size).await?;
            }
            How::Parts(parts) => {
                self.send_parts(path, artifact, &parts, sent, moved).await?;
                if (sent.etags.len() as u64) < artifact.size.div_ceil(parts.part_bytes) {
                    return Ok(None);
                }
            }
        }
        let request = v1::UploadedRequest {
            agent: self.agent.to_string(),
            attempt: self.attempt.0,
            artifact: Some((*artifact).into()),
            upload: sent.upload.clone(),
            etags: sent.etags.clone(),
        };
        let answer = self.client.clone().uploaded(timed(request)).await.map_err(heard)?;
        if answer.into_inner().stored {
            return Ok(Some(true));
        }
        *sent = Sent::default();
        Err(Trouble::Refused("it is not there, although it was sent".into()))
    }

    async fn ask_upload(&self, artifact: &Artifact, sent: &Sent) -> Result<How, Trouble> {
        let request = v1::UploadRequest {
            agent: self.agent.to_string(),
            attempt: self.attempt.0,
            artifact: Some((*artifact).into()),
            upload: sent.upload.clone(),
            first: u32::try_from(sent.etags.len()).unwrap_or(u32::MAX),
        };
        let answer = self.client.clone().upload(timed(request)).await.map_err(heard)?;
        answer.into_inner().how.ok_or_else(nonsense)
    }

    /// Sends the parts that are signed, and notes each as it has got there.
    async fn send_parts(
        &self,
        path: &Path,
        artifact: &Artifact,
        parts: &v1::Parts,
        sent: &mut Sent,
        moved: &Moved,
    ) -> Result<(), Trouble> {
        if parts.upload != sent.upload {
            *sent = Sent { upload: parts.upload.clone(), etags: Vec::new() };
        }
        let first = u64::from(parts.first);
        // Where all parts were sent before, none is signed: what is left to do is to say so.
        let is_over = first.saturating_mul(parts.part_bytes) >= artifact.size;
        let goes_on = !parts.requests.is_empty() || is_over;
        if first != sent.etags.len() as u64 || parts.part_bytes == 0 || !goes_on {
            return Err(nonsense());
        }
        let one = |(index, request): (u64, v1::Presigned)| async move {
            let from = (first + index) * parts.part_bytes;
            let length = parts.part_bytes.min(artifact.size.saturating_sub(from));
            let bytes = read_part(path, from, length).await.map_err(Trouble::Final)?;
            let answer = self.http.put(request, watched(pieces(bytes), moved), length).await?;
            let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
            etag.map(str::to_owned).ok_or_else(|| Trouble::Passing("the store named no part".into()))
        };
        let sending = (0u64..).zip(parts.requests.iter().cloned()).map(one);
        let mut sending = futures::stream::iter(sending).buffered(PARTS_MAX);
        while let Some(etag) = sending.next().await {
            sent.etags.push(etag?);
        }
        Ok(())
    }

    /// Opens an artifact for reading. `damaged` says that what was read before was not what it should be.
    pub async fn open(
        &self,
        artifact: &Artifact,
        damaged: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, Infra>>, Infra> {
        let mut patience = Patience::new(Instant::now());
        loop {
            match self.try_open(artifact, damaged).await {
                Ok(answer) => {
                    let broke = |error| store(format_args!("artifact store: {}", causes(&error)));
                    return Ok(answer.bytes_stream().map_err(broke).boxed());
                }
                Err(trouble) => patience.bear(trouble).await?,
            }
        }
    }

    async fn try_open(&self, artifact: &Artifact, damaged: bool) -> Result<Response, Trouble> {
        let request = v1::DownloadRequest {
            agent: self.agent.to_string(),
            attempt: self.attempt.0,
            artifact: Some((*artifact).into()),
            damaged,
        };
        let answer = self.client.clone().download(timed(request)).await.map_err(heard)?;
        self.http.get(need(answer.into_inner().request)?).await
    }
}

/// The clients for what is signed.
#[derive(Clone, Debug)]
struct Http {
    far: reqwest::Client,
    /// A proxy of the environment cannot reach this machine's loopback.
    near: reqwest::Client,
}

impl Http {
    fn new(agent: &AgentId) -> Result<Http, Infra> {
        let client = |change: fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder| {
            let builder = reqwest::Client::builder()
                // So that the store's own log says who made use of a signature.
                .user_agent(format!("kulprit-agent/{} ({agent})", kulprit_proto::VERSION))
                .timeout(REQUEST_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT);
            change(builder)
                .build()
                .map_err(|error| store(format_args!("cannot speak HTTP: {}", causes(&error))))
        };
        Ok(Http { far: client(|it| it)?, near: client(|it| it.no_proxy())? })
    }

    async fn put(&self, request: v1::Presigned, body: Body, length: u64) -> Result<Response, Trouble> {
        let mut sending = self.client(&request).put(&request.url).header(CONTENT_LENGTH, length).body(body);
        for header in request.headers {
            sending = sending.header(header.name, header.value);
        }
        answered(sending.send().await).await
    }

    async fn get(&self, request: v1::Presigned) -> Result<Response, Trouble> {
        answered(self.client(&request).get(&request.url).send().await).await
    }

    fn client(&self, request: &v1::Presigned) -> &reqwest::Client {
        if tls::is_loopback(&request.url) { &self.near } else { &self.far }
    }
}

async fn answered(answer: reqwest::Result<Response>) -> Result<Response, Trouble> {
    // Without its URL, whose signature is nobody else's business.
    let answer = answer.map_err(|error| Trouble::Passing(causes(&error.without_url())))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
    let said = match why(answer).await {
        Some(why) => format!("the store answers {status}: {why}"),
        None => format!("the store answers {status}"),
    };
    Err(if passes { Trouble::Passing(said) } else { Trouble::Refused(said) })
}

/// The store's own word for what it refuses, which tells a bucket that is not there from an object. The rest of
/// what it says may repeat the signature.
async fn why(mut answer: Response) -> Option<String> {
    let mut said = Vec::new();
    while said.len() < WHY_BYTES_MAX
        && let Ok(Ok(Some(piece))) = tokio::time::timeout(WHY_LIMIT, answer.chunk()).await
    {
        said.extend_from_slice(&piece);
    }
    error_field(&String::from_utf8_lossy(&said), "Code").map(str::to_owned)
}

/// A body that says when it goes.
fn watched(bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, moved: &Moved) -> Body {
    let moved = moved.clone();
    Body::wrap_stream(bytes.inspect(move |_| moved.at(Instant::now())))
}

fn pieces(mut bytes: Bytes) -> impl Stream<Item = std::io::Result<Bytes>> {
    futures::stream::iter(std::iter::from_fn(move || {
        let piece = bytes.split_to(PIECE_BYTES.min(bytes.len()));
        (!piece.is_empty()).then_some(Ok(piece))
    }))
}

async fn read_part(path: &Path, from: u64, length: u64) -> Result<Bytes, Infra> {
    let failed = |error| disk("read", path, error);
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 != length {
        let reason = format!("{} changed while it was sent", path.display());
        return Err(Infra { class: InfraClass::Internal, reason });
    }
    Ok(bytes.into())
}

/// The coordinator may be away, or not have heard of the attempt again since it restarted; an attempt that is
/// another's is cancelled by the next sync.
fn heard(status: Status) -> Trouble {
    let said = format!("the coordinator answers: {}", tls::said(&status));
    match status.code() {
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
            Trouble::Final(store(format_args!("{said}")))
        }
        _ => Trouble::Passing(said),
    }
}

fn need(request: Option<v1::Presigned>) -> Result<v1::Presigned, Trouble> {
    request.ok_or_else(nonsense)
}

fn nonsense() -> Trouble {
    let reason = "the coordinator's way to the artifact store makes no sense; is it newer?".into();
    Trouble::Final(Infra { class: InfraClass::Internal, reason })
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// An error with all that caused it.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
