//! Takes connections: plaintext on loopback, TLS everywhere else, so many and no more.

use super::Caller;
use super::gate::{Entered, Gate, site};
use kulprit_common::access::Peer;
use kulprit_common::time::Timestamp;
use kulprit_proto::tls::{self, SteadyClock};
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Members connected at once, to one port.
const MEMBERS_MAX: usize = 8192;
/// Connections that have not shown a certificate, or not yet: in all, and from one place.
const STRANGERS_MAX: usize = 1024;
const STRANGERS_PER_SITE_MAX: usize = 128;
/// Connections that wait to be served.
const WAITING_MAX: usize = 64;
/// Before the next try where no connection can be taken, for want of file descriptors perhaps.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// A port that is being served.
pub struct Listening {
    pub address: SocketAddr,
    connections: mpsc::Receiver<Connection>,
}

/// Starts to take connections; without `secure` they are plaintext.
pub fn start(listener: TcpListener, secure: Option<Arc<ServerConfig>>, gate: Gate) -> io::Result<Listening> {
    let address = listener.local_addr()?;
    let (ready, connections) = mpsc::channel(WAITING_MAX);
    let lobby = Lobby {
        gate,
        secure: secure.map(TlsAcceptor::from),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        members: Arc::new(Semaphore::new(MEMBERS_MAX)),
        sites: Arc::default(),
        ready,
    };
    tokio::spawn(lobby.run(listener));
    Ok(Listening { address, connections })
}

#[derive(Clone)]
struct Lobby {
    gate: Gate,
    secure: Option<TlsAcceptor>,
    strangers: Arc<Semaphore>,
    members: Arc<Semaphore>,
    sites: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ready: mpsc::Sender<Connection>,
}

impl Lobby {
    /// Ends when nobody serves any more.
    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.ready.closed() => return,
            };
            let (tcp, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            // Beyond the caps there is no answer: to refuse properly would cost as much.
            let Some(place) = self.place(from.ip()) else {
                tracing::debug!(%from, "too many connections; one was dropped");
                continue;
            };
            let lobby = self.clone();
            tokio::spawn(async move {
                if let Err(error) = lobby.receive(tcp, from, place).await {
                    tracing::info!(%from, why = tls::explain(&error.to_string()), "no connection");
                }
            });
        }
    }

    fn place(&self, ip: IpAddr) -> Option<Place> {
        let permit = self.strangers.clone().try_acquire_owned().ok()?;
        let site = site(ip);
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sites.entry(site).or_default();
        if *count >= STRANGERS_PER_SITE_MAX {
            return None;
        }
        *count += 1;
        Some(Place { _permit: permit, site, sites: self.sites.clone() })
    }

    async fn receive(self, tcp: TcpStream, from: SocketAddr, place: Place) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let (io, peer) = match &self.secure {
            None => (Io::Plain(tcp), Peer::Local),
            Some(acceptor) => {
                let accepting = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp));
                let tls = accepting.await.map_err(|_| io::Error::other("no TLS handshake in time"))??;
                let peer = peer(&tls).map_err(io::Error::other)?;
                (Io::Tls(Box::new(tls)), peer)
            }
        };
        // Whoever has shown a certificate makes room for strangers.
        let held = match &peer {
            Peer::Anonymous => Held::Stranger { _place: place },
            Peer::Local | Peer::Certified { .. } => {
                let full = |_| io::Error::other("too many connections");
                Held::Member { _permit: self.members.clone().try_acquire_owned().map_err(full)? }
            }
        };
        let caller = Caller { peer: Arc::new(peer), ip: from.ip(), called: None };
        let entered = self.gate.enter(caller.peer.clone());
        let ended = Box::pin(entered.end.clone().cancelled_owned());
        // Where nobody serves any more, it is dropped.
        let _ = self.ready.send(Connection { io, caller, ended, _entered: entered, _held: held }).await;
        Ok(())
    }
}

/// Who is at the other end. The certificate is the CA's, but need not be of ours.
fn peer(tls: &TlsStream<TcpStream>) -> Result<Peer, tls::TlsError> {
    let Some([leaf, ..]) = tls.get_ref().1.peer_certificates() else { return Ok(Peer::Anonymous) };
    let until = tls::validity(leaf)?.until;
    let clock = SteadyClock::shared();
    let left = clock.readings().map(|now| until.saturating_sub(now)).into_iter().max().unwrap_or_default();
    let expires = Timestamp(clock.now_ms()) + left;
    Ok(Peer::Certified { member: tls::member(leaf)?, key: tls::key_digest(leaf)?, expires })
}

/// A stranger's place in the lobby.
struct Place {
    _permit: OwnedSemaphorePermit,
    site: IpAddr,
    sites: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sites.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                sites.remove(&self.site);
            }
        }
    }
}

enum Held {
    Stranger { _place: Place },
    Member { _permit: OwnedSemaphorePermit },
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that ends when the gate says so.
pub struct Connection {
    io: Io,
    caller: Caller,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _entered: Entered,
    _held: Held,
}

impl Connection {
    /// Wakes the connection's task when it is to end, whatever that task waits for.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "no longer welcome")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_ended(cx)?;
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_ended(cx)?;
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ended(cx)?;
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Listening {
    /// The connections, as tonic takes them.
    pub fn into_stream(self) -> impl tokio_stream::Stream<Item = io::Result<Connection>> {
        tokio_stream::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(self.connections), Ok)
    }
}

impl axum::serve::Listener for Listening {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        match self.connections.recv().await {
            Some(connection) => {
                let caller = connection.caller.clone();
                (connection, caller)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller { peer: Arc::new(Peer::Local), ip: self.address.ip(), called: None })
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listening>> for Caller {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listening>) -> Self {
        stream.remote_addr().clone()
    }
}
