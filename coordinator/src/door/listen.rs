//! Takes connections: plaintext on loopback, TLS everywhere else, so many and no more.

use super::Caller;
use super::gate::{Entered, Gate, site};
use kulprit_common::access::{Member, Peer};
use kulprit_common::time::Timestamp;
use kulprit_proto::tls;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::hash::Hash;
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
/// Members' connections at once, to one port: in all, and of one member. An agent needs one for
/// gRPC, two while its certificate changes, and one for each artifact under way.
const MEMBERS_MAX: usize = 8192;
const PER_MEMBER_MAX: usize = 64;
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
        members_open: Arc::default(),
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
    sites: Counts<IpAddr>,
    members_open: Counts<Member>,
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
        let one = Counted::enter(&self.sites, site(ip), STRANGERS_PER_SITE_MAX)?;
        Some(Place { _permit: permit, _one: one })
    }

    /// Room for whoever has shown a certificate, or is on this machine.
    fn seat(&self, peer: &Peer) -> io::Result<Seat> {
        let full = || io::Error::other("too many connections");
        let one = match peer {
            Peer::Certified { member, .. } => {
                let one = Counted::enter(&self.members_open, member.clone(), PER_MEMBER_MAX);
                Some(one.ok_or_else(|| io::Error::other(format!("too many connections of {member}")))?)
            }
            Peer::Local | Peer::Anonymous => None,
        };
        let permit = self.members.clone().try_acquire_owned().map_err(|_| full())?;
        Ok(Seat { _permit: permit, _one: one })
    }

    async fn receive(self, tcp: TcpStream, from: SocketAddr, place: Place) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let (io, peer, chain) = match &self.secure {
            None => (Io::Plain(tcp), Peer::Local, Vec::new()),
            Some(acceptor) => {
                let accepting = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp));
                let tls = accepting.await.map_err(|_| io::Error::other("no TLS handshake in time"))??;
                let chain = tls.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
                let peer = peer(&chain).map_err(io::Error::other)?;
                (Io::Tls(Box::new(tls)), peer, chain)
            }
        };
        // Whoever has shown a certificate makes room for strangers.
        let held = match &peer {
            Peer::Anonymous => Held::Stranger { _place: place },
            Peer::Local | Peer::Certified { .. } => Held::Member { _seat: self.seat(&peer)? },
        };
        let caller = Caller { peer: Arc::new(peer), ip: from.ip(), called: None };
        let entered = self.gate.enter(caller.peer.clone(), chain);
        let ended = Box::pin(entered.end.clone().cancelled_owned());
        // Where nobody serves any more, it is dropped.
        let _ = self.ready.send(Connection { io, caller, ended, _entered: entered, _held: held }).await;
        Ok(())
    }
}

/// Who is at the other end. The certificate is the CA's, but need not be of ours.
fn peer(chain: &[CertificateDer<'_>]) -> Result<Peer, tls::TlsError> {
    let [leaf, ..] = chain else { return Ok(Peer::Anonymous) };
    let until = tls::validity(leaf)?.until;
    let expires = Timestamp(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    Ok(Peer::Certified { member: tls::member(leaf)?, key: tls::key_digest(leaf)?, expires })
}

/// How many there are of each.
type Counts<K> = Arc<Mutex<HashMap<K, usize>>>;

/// One of so many; counts until it is dropped.
struct Counted<K: Eq + Hash> {
    counts: Counts<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Counted<K> {
    /// `None` where there are `max` already.
    fn enter(counts: &Counts<K>, key: K, max: usize) -> Option<Self> {
        let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(key.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted { counts: counts.clone(), key })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// A stranger's place in the lobby.
struct Place {
    _permit: OwnedSemaphorePermit,
    _one: Counted<IpAddr>,
}

struct Seat {
    _permit: OwnedSemaphorePermit,
    _one: Option<Counted<Member>>,
}

enum Held {
    Stranger { _place: Place },
    Member { _seat: Seat },
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
    /// The connections for as long as they are wanted.
    pub fn stream(&mut self) -> impl tokio_stream::Stream<Item = io::Result<Connection>> {
        futures::stream::poll_fn(|cx| self.connections.poll_recv(cx).map(|it| it.map(Ok)))
    }

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
