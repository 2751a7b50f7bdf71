//! Ways to a farm that a call to its coordinator does not try: each address where there are several,
//! and the endpoint where agents fetch and store artifacts.

use super::{Check, Status};
use crate::cli::args::To;
use crate::cli::client::{Coordinator, Presence};
use crate::cli::credentials;
use crate::cli::failure::Failure;
use anyhow::{Context as _, bail};
use kulprit_common::artifact;
use kulprit_common::id::Digest;
use kulprit_proto::tls::{self, SteadyClock, Trust};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// A connection, a handshake and an answer; firewalls that drop packets say nothing at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Of an answer's first line.
const LINE_BYTES_MAX: usize = 1 << 10;

/// Each address of several; nothing where there is one.
pub async fn addresses(to: &To) -> Vec<Check> {
    // What is wrong with the list is said where it is dialled.
    let list = credentials::coordinator(to).unwrap_or_default();
    let all: Vec<&str> = tls::addresses(&list).collect();
    if all.len() < 2 {
        return Vec::new();
    }
    let asked = all.iter().map(|url| async move { address(url, presence(to, url).await) });
    futures::future::join_all(asked).await
}

async fn presence(to: &To, url: &str) -> Presence {
    let one = To { coordinator: Some(url.to_owned()), credentials: to.credentials.clone() };
    let asked = async { Ok::<_, Failure>(Coordinator::dial(&one).await?.presence().await) };
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(presence)) => presence,
        Ok(Err(failure)) => Presence::Silent(failure.why()),
        Err(_) => Presence::Silent(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
    }
}

fn address(url: &str, presence: Presence) -> Check {
    let name = format!("coordinator {url}");
    match presence {
        Presence::Leads => Check::new(&name, Status::Ok, "leads", ""),
        Presence::StandsBy(why) if why.ends_with(crate::standby::LEADS) => {
            Check::new(&name, Status::Ok, why, "")
        }
        Presence::StandsBy(why) => Check::new(
            &name,
            Status::Warning,
            why,
            "as long as it says so it takes over from nobody: look into its log, and whether it reaches the database",
        ),
        Presence::Silent(why) => Check::new(
            &name,
            Status::Warning,
            format!("does not answer: {why}"),
            "start kulprit-coordinator there, or let its port through: until then it takes over from nobody",
        ),
    }
}

/// The coordinator's own artifact endpoint, where agents are pointed to; `None` where they are pointed
/// to a cloud's store.
pub async fn artifacts(to: &To, url: &str) -> Option<Check> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let answered = tokio::time::timeout(ANSWER_LIMIT, ask(to, &url)).await;
    let late = || anyhow::anyhow!("no answer within {} s", ANSWER_LIMIT.as_secs());
    Some(endpoint(&url, answered.unwrap_or_else(|_| Err(late()))))
}

fn endpoint(url: &Url, answered: anyhow::Result<u16>) -> Check {
    let name = "artifact endpoint";
    match answered {
        // What is asked for need not be there.
        Ok(200 | 404) => Check::new(name, Status::Ok, url.as_str(), ""),
        Ok(code) => Check::new(
            name,
            Status::Failed,
            format!("{url} answers with {code}"),
            "look into the coordinator's log, and at what is said of the artifact store",
        ),
        Err(error) => Check::new(
            name,
            Status::Failed,
            format!("{url} cannot be reached from here: {error:#}"),
            format!(
                "an agent that cannot reach it fails every attempt: let port {} through to the coordinator, beside the \
                 one of its calls, and see that --listen-artifacts is an address that others reach; where agents \
                 are in another network than you, look from there",
                url.port_or_known_default().unwrap_or_default()
            ),
        ),
    }
}

/// Asks after an artifact as agents do, and says with which code it was answered.
async fn ask(to: &To, url: &Url) -> anyhow::Result<u16> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((bare.as_str(), port)).await?;
    if url.scheme() == "http" {
        return head(tcp, host).await;
    }
    let wallet = credentials::open(to).map_err(|failure| anyhow::anyhow!(failure.why()))?;
    let mut config = tls::client_config(Trust::Wallet(wallet), SteadyClock::shared())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(bare).context("use its name")?;
    let explained = |error: &dyn std::fmt::Display| anyhow::anyhow!(tls::explain(&error.to_string()));
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    // A certificate that is refused shows when the answer is read.
    head(tls.map_err(|error| explained(&error))?, host).await.map_err(|error| explained(&error))
}

async fn head(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> anyhow::Result<u16> {
    let path = artifact::path(&Digest::of(b"kulprit doctor"));
    let request = format!("HEAD /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < LINE_BYTES_MAX {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status_code(&answer)
}

/// Of `HTTP/1.1 404 Not Found`.
fn status_code(answer: &[u8]) -> anyhow::Result<u16> {
    let line = String::from_utf8_lossy(answer);
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    match code {
        Some(code) => Ok(code),
        None if answer.is_empty() => bail!("the connection was closed without an answer"),
        None => bail!("what answers speaks no HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_is_judged() {
        let standing = format!("standing by: b {}", crate::standby::LEADS);
        for (presence, status, words) in [
            (Presence::Leads, Status::Ok, "leads"),
            (Presence::StandsBy(standing), Status::Ok, "standing by: b"),
            (Presence::StandsBy("the database does not answer".into()), Status::Warning, "database"),
            (Presence::Silent("refused".into()), Status::Warning, "does not answer: refused"),
        ] {
            let check = address("https://a:1", presence);
            assert!(check.status == status && check.detail.contains(words), "{check:?}");
            assert_eq!(check.hint.is_empty(), status == Status::Ok, "{check:?}");
        }
    }

    #[test]
    fn any_answer_but_a_refusal_shows_that_the_port_is_open() {
        let url = Url::parse("https://a:7454/").unwrap();
        for (code, status) in
            [(200, Status::Ok), (404, Status::Ok), (403, Status::Failed), (500, Status::Failed)]
        {
            assert_eq!(endpoint(&url, Ok(code)).status, status, "{code}");
        }
        let check = endpoint(&url, Err(anyhow::anyhow!("connection refused")));
        assert!(check.status == Status::Failed && check.hint.contains("7454"), "{check:?}");
    }

    #[test]
    fn the_code_is_read_off_an_answer() {
        assert_eq!(status_code(b"HTTP/1.1 404 Not Found\r\n").unwrap(), 404);
        for odd in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 x\r\n"] {
            assert!(status_code(odd).is_err(), "{odd:?}");
        }
    }
}
