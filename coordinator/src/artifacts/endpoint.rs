//! The artifact endpoint of the coordinator: what object_store's `HttpStore` speaks, and no more.

use super::transfer::Transfer;
use super::{Store, StoreError};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use kulprit_common::id::Digest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Uploads taken at once; each holds some 10 MiB. The rest wait.
const UPLOADS_MAX: usize = 32;

/// A sender that says nothing for this long has gone.
const SENDER_SILENCE_MAX: Duration = Duration::from_secs(60);

struct Endpoint {
    store: Arc<Store>,
    size_max: u64,
    uploads: Semaphore,
}

/// Serves `/sha256/<2 digits>/<64 digits>`: GET, HEAD and PUT of at most `size_max` bytes.
pub fn router(store: Arc<Store>, size_max: u64) -> Router {
    let endpoint = Endpoint { store, size_max, uploads: Semaphore::new(UPLOADS_MAX) };
    Router::new().route("/sha256/{prefix}/{digest}", get(read).put(write)).with_state(Arc::new(endpoint))
}

/// Sends an artifact; its headers alone for HEAD.
async fn read(
    method: Method,
    State(endpoint): State<Arc<Endpoint>>,
    Path((prefix, digest)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let digest = parse(&prefix, &digest)?;
    let reading = endpoint.store.get(&digest).await.inspect_err(|error| {
        // A question whether it is there comes before each upload.
        if method == Method::GET && matches!(error, StoreError::NotFound(_)) {
            endpoint.store.suspect(&digest);
        }
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, reading.artifact.size.to_string()),
        (header::LAST_MODIFIED, reading.modified_rfc2822),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    if method == Method::HEAD {
        return Ok(headers.into_response());
    }
    let mut transfer = Transfer::outgoing(reading.artifact.size);
    let store = endpoint.store.clone();
    let bytes = reading.bytes.inspect(move |chunk| {
        if matches!(chunk, Err(StoreError::Corrupt(_))) {
            store.suspect(&digest);
        }
        transfer.saw(chunk);
    });
    Ok((headers, Body::from_stream(bytes)).into_response())
}

async fn write(
    State(endpoint): State<Arc<Endpoint>>,
    Path((prefix, digest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let digest = parse(&prefix, &digest)?;
    let max = endpoint.size_max;
    if declared(&headers).is_some_and(|size| size > max) {
        return Err(StoreError::TooLarge { max }.into());
    }
    let _permit = endpoint.uploads.acquire().await.expect("the semaphore is never closed");
    let transfer = Transfer::incoming();
    let artifact = endpoint.store.receive(digest, incoming(body), max).await?;
    transfer.came(artifact.size);
    Ok((StatusCode::CREATED, [(header::ETAG, format!("\"{digest}\""))]).into_response())
}

/// Accepts the one spelling of a path, so that nothing else can be named.
fn parse(prefix: &str, digest: &str) -> Result<Digest, Refusal> {
    let parsed = digest.parse::<Digest>().map_err(|_| Refusal(StatusCode::NOT_FOUND, String::new()))?;
    if parsed.to_string() != digest || prefix != &digest[..2] {
        return Err(Refusal(StatusCode::NOT_FOUND, String::new()));
    }
    Ok(parsed)
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn incoming(body: Body) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let state = Some(body.into_data_stream());
    futures::stream::unfold(state, |state| async move {
        let mut chunks = state?;
        match tokio::time::timeout(SENDER_SILENCE_MAX, chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(StoreError::Sender(error.to_string())), None)),
            Err(_) => Some((Err(StoreError::Sender("nothing came for a minute".into())), None)),
        }
    })
    .boxed()
}

/// An answer other than success, with a reason for people.
struct Refusal(StatusCode, String);

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Mismatch { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Sender(_) => StatusCode::REQUEST_TIMEOUT,
            StoreError::Corrupt(_)
            | StoreError::BadUrl { .. }
            | StoreError::File { .. }
            | StoreError::OtherSize(_)
            | StoreError::Unsigned
            | StoreError::Books { .. }
            | StoreError::Unusable { .. }
            | StoreError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal(status, format!("failed to {error}\n"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
