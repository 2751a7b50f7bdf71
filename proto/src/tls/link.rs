//! The way to a coordinator: a channel that can be dialled anew while calls go on over the old one.

use super::{SteadyClock, TlsError, Trust, client_config};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;
use url::{Host, Url};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How soon a coordinator that vanished without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub(super) const ALPN_H2: &[u8] = b"h2";

/// Clones share the connection.
#[derive(Clone)]
pub struct Link {
    current: Arc<RwLock<Channel>>,
    dial: Arc<dyn Fn() -> Channel + Send + Sync>,
}

impl Link {
    /// Plaintext, to this machine only. Nothing is dialled before the first call.
    pub fn plain(url: &str) -> Result<Self, TlsError> {
        if !is_loopback(url) {
            return Err(TlsError::bad(
                url,
                "without TLS only loopback addresses are dialled; write https://",
            ));
        }
        let endpoint = endpoint(url, url)?;
        Ok(Self::new(move || endpoint.connect_lazy()))
    }

    /// TLS. Each new connection shows whatever certificate is in use by then.
    pub fn secure(url: &str, trust: Trust) -> Result<Self, TlsError> {
        let parsed = Url::parse(url).map_err(|error| TlsError::bad(url, error))?;
        let port = parsed.port_or_known_default().unwrap_or(443);
        let host = parsed.host_str().unwrap_or_default();
        // tonic wants no TLS of its own here, and dials nothing itself.
        let endpoint = endpoint(&format!("http://{host}:{port}"), url)?;
        let mut config = client_config(trust, SteadyClock::shared())?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare.clone()).map_err(|error| TlsError::bad(url, error))?;
        let connector = TlsConnector::from(Arc::new(config));
        let dial = move || {
            let (bare, name, connector) = (bare.clone(), name.clone(), connector.clone());
            let connect = tower::service_fn(move |_: http::Uri| {
                let (bare, name, connector) = (bare.clone(), name.clone(), connector.clone());
                async move { connect(&bare, port, name, connector).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector_lazy(connect)
        };
        Ok(Self::new(dial))
    }

    fn new(dial: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        Link { current: Arc::new(RwLock::new(dial())), dial: Arc::new(dial) }
    }

    /// Later calls take a new connection; those under way end on the one they began on.
    pub fn redial(&self) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (self.dial)();
    }
}

impl tower::Service<http::Request<Body>> for Link {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let channel = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(channel.oneshot(request))
    }
}

fn endpoint(url: &str, shown: &str) -> Result<Endpoint, TlsError> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| TlsError::bad(shown, error))?;
    Ok(endpoint
        .connect_timeout(CONNECT_LIMIT + HANDSHAKE_LIMIT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

async fn connect(
    host: &str,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
) -> io::Result<Opened> {
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("no {what} in time"));
    let tcp = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host, port)))
        .await
        .map_err(|_| late("connection"))??;
    tcp.set_nodelay(true)?;
    let opening = async {
        let mut tls = connector.connect(name, tcp).await?;
        // A coordinator that refuses our certificate says so only after the handshake. Its first
        // byte tells that it has not, so that a refusal is an error of the connection.
        let first = tls.read_u8().await?;
        Ok::<_, io::Error>(Opened { first: Some(first), tls })
    };
    let opened = tokio::time::timeout(HANDSHAKE_LIMIT, opening).await.map_err(|_| late("TLS handshake"))?;
    opened.map_err(|error| io::Error::new(error.kind(), explain(&error.to_string())))
}

/// A connection whose first byte has been read already.
struct Opened {
    first: Option<u8>,
    tls: TlsStream<TcpStream>,
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() > 0
            && let Some(first) = self.first.take()
        {
            into.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tls).poll_read(cx, into)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// What rustls says, in words that say what to do.
pub fn explain(error: &str) -> String {
    let hint = [
        (
            "UnknownIssuer",
            "the coordinator's certificate is not of the CA known here: is it another farm's address, or has the CA been made anew? Then join again",
        ),
        (
            "UnknownCA",
            "the coordinator does not know the CA of this certificate: join again with a token of this farm",
        ),
        ("BadSignature", "the coordinator's certificate was not signed by the CA known here"),
        (
            "received fatal alert: DecryptError",
            "the coordinator does not know the CA of this certificate: join again with a token of this farm",
        ),
        ("NotValidYet", "the certificate is not valid yet: compare the clocks of the two machines"),
        (
            "CertificateExpired",
            "this certificate has expired: join again, after a look at the clock of this machine",
        ),
        (
            "certificate expired",
            "the coordinator's certificate has expired: compare the clocks of the two machines",
        ),
        ("received corrupt message", "the other end does not speak TLS; is it a coordinator with http://?"),
        ("CertificateRequired", "the coordinator asks for a certificate: join the farm first"),
        ("received fatal alert: AccessDenied", "this member has been revoked"),
    ];
    match hint.into_iter().find(|(found, _)| error.contains(found)) {
        Some((_, words)) => format!("{words} ({error})"),
        None => error.to_owned(),
    }
}

/// Whether a URL names this very machine.
pub fn is_loopback(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
