//! An object store that behaves as a test wants: what S3 answers to the few requests that kulprit
//! makes of it, over real HTTP.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use kulprit_common::id::Digest;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// Each answer takes so long.
    Slow(Duration),
    /// 503 to everything.
    Refusing,
    /// What is read has a byte that is another.
    Flipping,
    /// What is read has no end.
    Truncating,
    /// What is written is damaged on the way.
    DamagedOnTheWay,
}

struct Inner {
    objects: BTreeMap<String, Bytes>,
    /// Of uploads under way, by path.
    parts: BTreeMap<String, BTreeMap<u32, Bytes>>,
    mode: Mode,
    /// To which agents it behaves so, by the last word of their names; absent, to all.
    only: Option<&'static str>,
}

type Shared = Arc<Mutex<Inner>>;

pub struct FakeStore {
    shared: Shared,
    address: SocketAddr,
    serving: Option<tokio::runtime::Runtime>,
}

impl FakeStore {
    pub fn start() -> FakeStore {
        let inner = Inner { objects: BTreeMap::new(), parts: BTreeMap::new(), mode: Mode::Well, only: None };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let mut store = FakeStore { shared: Arc::new(Mutex::new(inner)), address, serving: None };
        store.serve(listener);
        store
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).expect("set");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let router = Router::new().fallback(answer).with_state(self.shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("taken");
            axum::serve(listener, router).await.expect("served");
        });
        self.serving = Some(runtime);
    }

    pub fn set(&self, mode: Mode) {
        self.shared.lock().expect("whole").mode = mode;
    }

    /// Behaves so to agents whose names end in `who`.
    pub fn set_for(&self, mode: Mode, who: &'static str) {
        let mut inner = self.shared.lock().expect("whole");
        (inner.mode, inner.only) = (mode, Some(who));
    }

    /// Nobody listens any more, and all connections end.
    pub fn go(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Is back, with what it had.
    pub fn come_back(&mut self) {
        let listener = super::retried("the port", || std::net::TcpListener::bind(self.address).ok());
        self.serve(listener);
    }

    /// What a coordinator is told to use it.
    pub fn tell(&self, command: &mut Command) {
        command.env("AWS_ENDPOINT", format!("http://{}", self.address)).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").env("AWS_REGION", "here");
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy);
        }
    }

    /// The coordinator's `--artifacts`.
    pub const URL: &str = "s3://farm";
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    fn mode_for(&self, request: &Request) -> Mode {
        let agent = request.headers().get("user-agent").and_then(|it| it.to_str().ok()).unwrap_or("");
        let is_meant = |who: &str| agent.ends_with(&format!("-{who})"));
        if self.only.is_none_or(is_meant) { self.mode } else { Mode::Well }
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let mode = shared.lock().expect("whole").mode_for(&request);
    if let Mode::Slow(wait) = mode {
        tokio::time::sleep(wait).await;
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
    let Ok(body) = axum::body::to_bytes(body, 1 << 30).await else { return status(StatusCode::BAD_REQUEST) };
    let checksum =
        parts.headers.get("x-amz-checksum-sha256").and_then(|it| it.to_str().ok()).map(str::to_owned);
    let mut inner = shared.lock().expect("whole");
    if mode == Mode::Refusing {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    match (parts.method, query.get("partNumber").and_then(|it| it.parse().ok())) {
        (Method::PUT, part) => {
            let body = if mode == Mode::DamagedOnTheWay { flipped(&body) } else { body };
            if checksum.is_some_and(|it| it != base64(Digest::of(&body).as_bytes())) {
                return status(StatusCode::BAD_REQUEST);
            }
            match part {
                Some(number) => drop(inner.parts.entry(path).or_default().insert(number, body)),
                None => drop(inner.objects.insert(path, body)),
            }
            status(StatusCode::OK)
        }
        (Method::POST, _) if query.contains_key("uploads") => {
            text("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        }
        (Method::POST, _) => {
            let whole =
                inner.parts.remove(&path).unwrap_or_default().into_values().collect::<Vec<_>>().concat();
            inner.objects.insert(path, whole.into());
            text("<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>")
        }
        (Method::DELETE, _) => status(StatusCode::NO_CONTENT),
        (Method::HEAD, _) => match inner.objects.get(&path) {
            Some(object) => read(object.clone(), object.len(), true),
            None => status(StatusCode::NOT_FOUND),
        },
        (Method::GET, _) if query.contains_key("list-type") => {
            text("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        }
        _ => match inner.objects.get(&path).cloned() {
            Some(object) => {
                let whole = object.len();
                let spoilt = match mode {
                    Mode::Flipping => flipped(&object),
                    Mode::Truncating => object.slice(..whole / 2),
                    Mode::Well | Mode::Slow(_) | Mode::Refusing | Mode::DamagedOnTheWay => object.clone(),
                };
                let length = spoilt.len();
                read(spoilt, length, false)
            }
            None => status(StatusCode::NOT_FOUND),
        },
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

fn read(bytes: Bytes, length: usize, is_head: bool) -> Response<Body> {
    let response = Response::builder()
        .header("content-length", length)
        .header("last-modified", "Sat, 21 Nov 2026 12:00:00 GMT")
        .header("etag", "\"1\"");
    response.body(if is_head { Body::empty() } else { bytes.into() }).expect("a response")
}

fn status(code: StatusCode) -> Response<Body> {
    Response::builder().status(code).header("etag", "\"1\"").body(Body::empty()).expect("a response")
}

fn text(text: &'static str) -> Response<Body> {
    Response::builder().body(Body::from(text)).expect("a response")
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = char::from(LETTERS[(word >> (18 - 6 * place) & 63) as usize]);
            out.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    out
}
