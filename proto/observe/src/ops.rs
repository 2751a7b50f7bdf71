//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, on an address of their own.
//!
//! They hold counts and states, no secret and nothing of a job's; nothing can be changed through them.
//! A connection carries one request, and is cut when it takes long.

use crate::figures::CONTENT_TYPE;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Scrapers and probes at once; the next one waits for one to end.
const CONNECTIONS_MAX: usize = 32;
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// Between attempts to take a connection, where descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that can be looked at.
pub trait Observed: Send + Sync + 'static {
    /// Whether it does its work now; if not, why.
    fn readiness(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// All figures as text.
    fn figures(&self) -> impl Future<Output = String> + Send;
}

/// Takes the address that `flag` names.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for figures: choose another port with {flag}"))
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, observed: Arc<impl Observed>) {
    serve_within(CONNECTION_LIMIT, listener, observed).await;
}

async fn serve_within(limit: Duration, listener: TcpListener, observed: Arc<impl Observed>) {
    let router = router(observed);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = room.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // Whoever asks asks again.
                    let _ = tokio::time::timeout(limit, answer(stream, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for figures could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let mut connection = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    connection.http1().keep_alive(false).timer(TokioTimer::new()).header_read_timeout(CONNECTION_LIMIT);
    let service = TowerToHyperService::new(router);
    let _ = connection.http1_only().serve_connection(TokioIo::new(stream), service).await;
}

fn router<O: Observed>(observed: Arc<O>) -> Router {
    Router::new()
        // That it is answered at all is the answer.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<O>))
        .route("/metrics", get(metrics::<O>))
        .with_state(observed)
}

async fn readyz<O: Observed>(State(observed): State<Arc<O>>) -> Response {
    match observed.readiness().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn metrics<O: Observed>(State(observed): State<Arc<O>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], observed.figures().await).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[derive(Default)]
    struct Process(AtomicBool);

    impl Observed for Process {
        async fn readiness(&self) -> Result<(), String> {
            self.0.load(Ordering::Relaxed).then_some(()).ok_or("it starts".into())
        }

        async fn figures(&self) -> String {
            "kulprit_figure 1\n".into()
        }
    }

    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("said");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer, and then the end");
        answer
    }

    #[tokio::test]
    async fn probes_and_scrapers_are_answered() {
        let listener = bind("--listen-ops", ([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let process = Arc::new(Process::default());
        tokio::spawn(serve(listener, process.clone()));
        assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        let starting = ask(address, "GET /readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.ends_with("not ready: it starts\n"));
        process.0.store(true, Ordering::Relaxed);
        assert!(ask(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        let figures = ask(address, "GET /metrics").await;
        assert!(figures.contains("content-type: text/plain; version=0.0.4"), "{figures}");
        assert!(figures.ends_with("\r\n\r\nkulprit_figure 1\n"), "{figures}");
        assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
        assert!(ask(address, "GET /other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn those_that_say_nothing_do_not_keep_others_out() {
        let listener = bind("--listen-ops", ([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limit = Duration::from_millis(500);
        tokio::spawn(serve_within(limit, listener, Arc::new(Process::default())));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    }
}
