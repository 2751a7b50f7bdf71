//! The server that keeps what agents share: Redis, or HTTP with GET and PUT.
//!
//! A build waits for it within bounds: once it has failed a few times in a row, it is left alone for
//! a while, and everything counts as missing.

use super::resp::{self, Reply, VALUE_BYTES_MAX};
use super::settings::{Kind, Login, Settings};
use bytes::Bytes;
use futures::StreamExt as _;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tokio::net::TcpStream;

/// What one question may take, with connecting.
const QUESTION_MAX: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Failures in a row after which the server is left alone, and for how long.
const FAILURES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(30);
/// Connections that are kept for the next question.
const KEPT_MAX: usize = 16;

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

type Connection = BufStream<Box<dyn Wire>>;

pub(super) struct Remote {
    settings: Settings,
    http: Option<reqwest::Client>,
    kept: Mutex<Vec<Connection>>,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// How a question ended that has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Away {
    Failed,
    /// It was not asked.
    Resting,
}

impl Remote {
    pub fn new(settings: Settings) -> anyhow::Result<Remote> {
        let http = match settings.kind {
            Kind::Http => Some(client(&settings)?),
            Kind::Redis { .. } => None,
        };
        Ok(Remote { settings, http, kept: Mutex::default(), health: Mutex::default() })
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Away> {
        self.bounded(async {
            match &self.http {
                Some(http) => self.http_get(http, key).await,
                None => match self.command(&[b"GET", key.as_bytes()]).await? {
                    Reply::Value(value) => Ok(Some(value)),
                    Reply::Nothing => Ok(None),
                    other => Err(unexpected(&other)),
                },
            }
        })
        .await
    }

    pub async fn put(&self, key: &str, value: Bytes) -> Result<(), Away> {
        self.bounded(async {
            match &self.http {
                Some(http) => {
                    let request = self.signed(http.put(self.settings.address(key)));
                    let response = request.body(value).send().await.map_err(io::Error::other)?;
                    response.error_for_status().map(drop).map_err(io::Error::other)
                }
                None => match self.command(&[b"SET", key.as_bytes(), &value]).await? {
                    Reply::Status(_) => Ok(()),
                    other => Err(unexpected(&other)),
                },
            }
        })
        .await
    }

    async fn bounded<T>(&self, question: impl Future<Output = io::Result<T>>) -> Result<T, Away> {
        if !self.may_ask() {
            return Err(Away::Resting);
        }
        let answer = tokio::time::timeout(QUESTION_MAX, question).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) => {
                *health = Health::default();
                Ok(answer)
            }
            Err(error) => {
                health.failures += 1;
                if health.failures >= FAILURES_MAX {
                    health.rests_until = Some(Instant::now() + REST);
                    tracing::warn!(%error, "the shared compiler's cache does not answer; builds go on without it");
                }
                Err(Away::Failed)
            }
        }
    }

    fn may_ask(&self) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match health.rests_until {
            Some(until) if until > Instant::now() => false,
            Some(_) => {
                // One failure more, and it rests again.
                *health = Health { failures: FAILURES_MAX - 1, rests_until: None };
                true
            }
            None => true,
        }
    }

    async fn http_get(&self, http: &reqwest::Client, key: &str) -> io::Result<Option<Bytes>> {
        let request = self.signed(http.get(self.settings.address(key)));
        let response = request.send().await.map_err(io::Error::other)?;
        if matches!(response.status(), reqwest::StatusCode::NOT_FOUND | reqwest::StatusCode::GONE) {
            return Ok(None);
        }
        let response = response.error_for_status().map_err(io::Error::other)?;
        let (mut body, mut bytes) = (response.bytes_stream(), Vec::new());
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(io::Error::other)?);
            if bytes.len() > VALUE_BYTES_MAX {
                return Err(io::Error::other("a value that is too large"));
            }
        }
        Ok(Some(bytes.into()))
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.settings.login {
            Some(Login { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn command(&self, parts: &[&[u8]]) -> io::Result<Reply> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = kept
            && let Ok(reply) = self.ask(&mut connection, parts).await
        {
            self.keep(connection);
            return Ok(reply);
        }
        // One that was kept may have been closed meanwhile.
        let mut connection = tokio::time::timeout(CONNECT_MAX, self.connect()).await??;
        let reply = self.ask(&mut connection, parts).await?;
        self.keep(connection);
        Ok(reply)
    }

    async fn ask(&self, connection: &mut Connection, parts: &[&[u8]]) -> io::Result<Reply> {
        resp::write_command(connection, parts).await?;
        resp::read_reply(connection).await
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(connection);
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let Kind::Redis { host, port, database } = &self.settings.kind else {
            return Err(io::Error::other("it is not Redis"));
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let wire: Box<dyn Wire> = match &self.settings.tls {
            Some(config) => {
                let name = rustls::pki_types::ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await?)
            }
            None => Box::new(stream),
        };
        let mut connection = BufStream::new(wire);
        if let Some(Login { user, password }) = &self.settings.login {
            let all: [&[u8]; 3] = [b"AUTH", user.as_bytes(), password.as_bytes()];
            let without_user: [&[u8]; 2] = [b"AUTH", password.as_bytes()];
            let parts: &[&[u8]] = if user.is_empty() { &without_user } else { &all };
            expect_ok(self.ask(&mut connection, parts).await?)?;
        }
        if *database != 0 {
            let number = database.to_string();
            expect_ok(self.ask(&mut connection, &[b"SELECT", number.as_bytes()]).await?)?;
        }
        Ok(connection)
    }
}

fn client(settings: &Settings) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_MAX).timeout(QUESTION_MAX);
    let builder = builder.redirect(reqwest::redirect::Policy::none()).no_proxy();
    let builder = match &settings.tls {
        Some(config) => builder.tls_backend_preconfigured((**config).clone()).https_only(true),
        None => builder,
    };
    Ok(builder.build()?)
}

fn expect_ok(reply: Reply) -> io::Result<()> {
    match reply {
        Reply::Status(_) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Error(why) => io::Error::other(format!("it says: {why:.200}")),
        _ => io::Error::other("it answers something else than was asked"),
    }
}
