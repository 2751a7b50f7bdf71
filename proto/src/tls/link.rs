//! The way to a coordinator, or to whichever of several serves: channels that can be dialled anew
//! while calls go on over the old ones.

use super::routes::{Route, Routes};
use super::{SteadyClock, TlsError, Trust, client_config};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::ServiceExt as _;
use url::{Host, Url};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How soon a coordinator that vanished without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The same where another may be at work before long: no later than that.
const KEEP_ALIVE_AMONG: Duration = Duration::from_secs(3);
/// Of coordinators in one list.
const ADDRESSES_MAX: usize = 16;
pub(super) const ALPN_H2: &[u8] = b"h2";

/// Clones share the connection.
#[derive(Clone)]
pub struct Link {
    routes: Arc<Routes>,
}

/// The addresses in a list with commas.
pub fn addresses(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|address| !address.is_empty())
}

impl Link {
    /// Plaintext, to this machine only. Nothing is dialled before the first call. `list` has the
    /// address of the coordinator, or with commas those of several.
    pub fn plain(list: &str) -> Result<Self, TlsError> {
        Self::to_all(list, |url, keep_alive| {
            if !is_loopback(url) {
                return Err(TlsError::bad(
                    url,
                    "without TLS only loopback addresses are dialled; write https://",
                ));
            }
            let endpoint = endpoint(url, url, keep_alive)?;
            Ok(Route::new(move || endpoint.connect_lazy()))
        })
    }

    /// TLS. Each new connection shows whatever certificate is in use by then.
    pub fn secure(list: &str, trust: Trust) -> Result<Self, TlsError> {
        let mut config = client_config(trust, SteadyClock::shared())?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        Self::to_all(list, |url, keep_alive| secure_route(url, keep_alive, connector.clone()))
    }

    fn to_all(
        list: &str,
        route: impl Fn(&str, Duration) -> Result<Route, TlsError>,
    ) -> Result<Self, TlsError> {
        let urls: Vec<&str> = addresses(list).collect();
        if urls.is_empty() || urls.len() > ADDRESSES_MAX {
            let why = format!("write the address of the coordinator, or {ADDRESSES_MAX} at most with commas");
            return Err(TlsError::bad(format!("{list:?}"), why));
        }
        let keep_alive = if urls.len() > 1 { KEEP_ALIVE_AMONG } else { KEEP_ALIVE };
        let all = urls.into_iter().map(|url| route(url, keep_alive)).collect::<Result<_, _>>()?;
        Ok(Link { routes: Arc::new(Routes::new(all)) })
    }

    /// Whether there are several coordinators to turn to.
    pub fn has_choice(&self) -> bool {
        self.routes.count() > 1
    }

    /// Later calls take a new connection; those under way end on the one they began on.
    pub fn redial(&self) {
        self.routes.redial();
    }
}

fn secure_route(url: &str, keep_alive: Duration, connector: TlsConnector) -> Result<Route, TlsError> {
    let parsed = Url::parse(url).map_err(|error| TlsError::bad(url, error))?;
    if parsed.scheme() != "https" {
        return Err(TlsError::bad(url, "write https://, as for the other addresses"));
    }
    let port = parsed.port_or_known_default().unwrap_or(443);
    let host = parsed.host_str().unwrap_or_default();
    // tonic wants no TLS of its own here, and dials nothing itself.
    let endpoint = endpoint(&format!("http://{host}:{port}"), url, keep_alive)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare.clone()).map_err(|error| TlsError::bad(url, error))?;
    Ok(Route::new(move || {
        let (bare, name, connector) = (bare.clone(), name.clone(), connector.clone());
        let connect = tower::service_fn(move |_: http::Uri| {
            let (bare, name, connector) = (bare.clone(), name.clone(), connector.clone());
            async move { connect(&bare, port, name, connector).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector_lazy(connect)
    }))
}

impl tower::Service<http::Request<Body>> for Link {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let routes = self.routes.clone();
        Box::pin(async move {
            let (place, channel) = routes.choose().await;
            let answer = channel.oneshot(request).await;
            routes.judge(place, &answer);
            answer
        })
    }
}

fn endpoint(url: &str, shown: &str, keep_alive: Duration) -> Result<Endpoint, TlsError> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| TlsError::bad(shown, error))?;
    Ok(endpoint
        .connect_timeout(CONNECT_LIMIT + HANDSHAKE_LIMIT)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
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
