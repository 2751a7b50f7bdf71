//! The two ports: gRPC for agents and operators, HTTP for artifacts. Both behind the same gate.

use crate::artifacts::{self, Store};
use crate::door::authority;
use crate::door::gate::Gate;
use crate::door::guard::{self, Guard};
use crate::door::keys::{Keys, Source};
use crate::door::listen::{self, Listening};
use crate::server::Services;
use crate::telemetry::Phase;
use crate::{driver, process};
use anyhow::{Context as _, bail};
use kulprit_proto::DESCRIPTORS;
use kulprit_proto::tls::LEAF_LIFE;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server as reflection;

/// A vmlinux with all debug information stays below it.
pub const ARTIFACT_BYTES_MAX: u64 = 4 << 30;
/// Calls under way at once over one connection: an agent of 256 slots sends a log and an ending
/// from each of them.
const STREAMS_MAX: u32 = 1024;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Streams that a peer opened and took back before they were looked at.
const RESETS_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What may be asked after by name; the empty name is all of them.
const SERVICES: [&str; 6] = [
    "",
    "kulprit.v1.Agents",
    "kulprit.v1.Jobs",
    "kulprit.v1.Access",
    "kulprit.v1.Enrol",
    "kulprit.v1.Artifacts",
];
/// Names are asked after, and no more.
const QUESTION_BYTES_MAX: usize = 4 << 10;

/// How TLS is set up.
#[derive(Debug, clap::Args)]
pub struct TlsArgs {
    /// Certificates (PEM) of your own CA, to accept members by; instead of `kulprit ca init`
    #[arg(long, env = "KULPRIT_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// The coordinator's certificate and those it was issued by (PEM), from your own CA
    #[arg(long, env = "KULPRIT_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, env = "KULPRIT_TLS_KEY", value_name = "FILE", requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// Names and addresses besides the host's name that the certificate is to hold, for tools
    /// other than kulprit; with commas
    #[arg(long, env = "KULPRIT_TLS_NAMES", value_name = "NAME", value_delimiter = ',')]
    tls_names: Vec<String>,
    /// Life of the certificates that are issued
    #[arg(long, env = "KULPRIT_LEAF_LIFE_S", hide = true, default_value_t = LEAF_LIFE.as_secs(), value_parser = clap::value_parser!(u64).range(2..=LEAF_LIFE.as_secs()))]
    leaf_life_s: u64,
}

impl TlsArgs {
    /// The keys to serve with; `None` where there are none, and only loopback is served.
    pub fn keys(&self, state: &Path) -> anyhow::Result<Option<Arc<Keys>>> {
        let source = match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(ca), Some(cert), Some(key)) => {
                Source::Files { ca: ca.clone(), cert: cert.clone(), key: key.clone() }
            }
            _ if !authority::directory(state).exists() => return Ok(None),
            _ => {
                let names = std::iter::once(process::hostname()).chain(self.tls_names.iter().cloned());
                let life = Duration::from_secs(self.leaf_life_s);
                Source::Authority { state: state.to_owned(), names: names.collect(), life }
            }
        };
        Keys::open(source).map(Some)
    }
}

/// Refuses to say in the clear what others could hear.
pub fn check_address(
    flag: &str,
    address: SocketAddr,
    keys: Option<&Arc<Keys>>,
    state: &Path,
) -> anyhow::Result<()> {
    if keys.is_none() && !address.ip().is_loopback() {
        bail!(
            "serve {flag} {address}: without TLS only loopback addresses are served; \
             `kulprit ca init --state {}` sets TLS up, or use 127.0.0.1",
            state.display()
        );
    }
    Ok(())
}

pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: is another coordinator running? choose another port with {flag}")
    })
}

/// Binds a port and starts to take connections; `flag` is what names it.
pub async fn listen(
    flag: &str,
    address: SocketAddr,
    keys: Option<&Arc<Keys>>,
    protocols: &[&str],
    gate: Gate,
) -> anyhow::Result<Listening> {
    let listener = bind(flag, address).await?;
    let secure = keys.map(|keys| keys.server_config(protocols)).transpose()?;
    listen::start(listener, secure, gate).with_context(|| format!("listen on {address}"))
}

pub async fn http(
    listening: Listening,
    store: Arc<Store>,
    gate: Gate,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let stopped = async move { driver::told(&mut stop).await };
    let guarded = axum::middleware::from_fn_with_state(gate, guard::artifacts);
    let router = artifacts::router(store, ARTIFACT_BYTES_MAX).layer(guarded);
    axum::serve(listening, router.into_make_service_with_connect_info::<crate::door::Caller>())
        .with_graceful_shutdown(stopped)
        .await
        .context("serve artifacts")
}

pub async fn grpc(
    listening: Listening,
    services: Services,
    gate: Gate,
    phase: watch::Receiver<Phase>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let stopped = async move { driver::told(&mut stop).await };
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(reporter, phase));
    let described = || {
        reflection::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    bounded_server()
        .layer(Guard::new(gate))
        .add_service(services.enrol())
        .add_service(services.agents())
        .add_service(services.jobs())
        .add_service(services.access())
        .add_service(services.artifacts())
        .add_service(health.max_decoding_message_size(QUESTION_BYTES_MAX))
        .add_service(
            described()
                .build_v1()
                .context("describe the services")?
                .max_decoding_message_size(QUESTION_BYTES_MAX),
        )
        .add_service(
            described()
                .build_v1alpha()
                .context("describe the services")?
                .max_decoding_message_size(QUESTION_BYTES_MAX),
        )
        .serve_with_incoming_shutdown(listening.into_stream(), stopped)
        .await
        .context("serve gRPC")
}

/// What no peer may go beyond, whether it is served or turned away.
fn bounded_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

/// Turns everybody away, whatever they call, with a word of why.
pub async fn refuse_all(
    listening: &mut Listening,
    why: watch::Receiver<String>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let refuse = tower::service_fn(move |_: http::Request<Body>| {
        let status = Status::unavailable(why.borrow().as_str());
        async move { Ok::<_, std::convert::Infallible>(status.into_http::<Body>()) }
    });
    bounded_server()
        .serve_with_incoming_shutdown(refuse, listening.stream(), driver::told(&mut stop))
        .await
        .context("turn callers away")
}

/// Says of all services together whether they are served.
async fn report_health(reporter: HealthReporter, mut phase: watch::Receiver<Phase>) {
    loop {
        let status = match *phase.borrow_and_update() {
            Phase::Serving => ServingStatus::Serving,
            Phase::Starting | Phase::StandingBy | Phase::Stopping => ServingStatus::NotServing,
        };
        for service in SERVICES {
            reporter.set_service_status(service, status).await;
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}
