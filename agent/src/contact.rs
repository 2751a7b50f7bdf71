//! The agent's way to its coordinator: plaintext on this machine, else with a certificate of the
//! farm, which it gets by a token once and renews from then on.

use crate::config::Args;
use anyhow::{Context as _, bail};
use kulprit_common::access::{Role, TokenText};
use kulprit_common::id::AgentId;
use kulprit_proto::tls::{self, Link, TlsError, Trust, Wallet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to join a coordinator that does not answer.
const JOIN_AGAIN: Duration = Duration::from_secs(5);

/// Who the agent is, and how it speaks.
pub struct Contact {
    pub id: AgentId,
    pub link: Link,
    /// Absent where plaintext is spoken.
    pub wallet: Option<Arc<Wallet>>,
}

pub async fn make(args: &Args) -> anyhow::Result<Contact> {
    if !args.coordinator.starts_with("https://") {
        let link = Link::plain(&args.coordinator)?;
        return Ok(Contact { id: name(args)?, link, wallet: None });
    }
    let dir = directory(args);
    let token = token(args)?;
    let wallet = match (usable(&dir), token) {
        (Ok(wallet), _) => wallet,
        (Err(_), Some(token)) => join(args, &token, &dir).await?,
        (Err(why), None) => {
            return Err(why).context(
                "speak TLS: join the farm with --join TOKEN (`kulprit token create --role agent` prints one)",
            );
        }
    };
    let member = wallet.current().member.clone();
    if member.role != Role::Agent {
        bail!("use the certificate in {}: it is that of {member}, not of an agent", dir.display());
    }
    if let Some(asked) = args.name.as_ref().filter(|asked| **asked != member.name) {
        bail!(
            "be agent {asked}: the certificate in {} is that of {member}; remove it and join again",
            dir.display()
        );
    }
    let link = Link::secure(&args.coordinator, Trust::Wallet(wallet.clone()))?;
    Ok(Contact { id: member.name, link, wallet: Some(wallet) })
}

fn directory(args: &Args) -> PathBuf {
    args.credentials.clone().unwrap_or_else(|| args.state.join("credentials"))
}

/// The credentials that are there, unless they have expired.
fn usable(dir: &Path) -> Result<Arc<Wallet>, TlsError> {
    let wallet = Wallet::open(dir)?;
    if wallet.current().has_expired() {
        let why = "they have expired: the agent was away for too long, or this machine's clock is wrong";
        return Err(TlsError::bad(format!("the credentials in {}", dir.display()), why));
    }
    Ok(wallet)
}

/// A token on the command line stands in `ps`; one in a file or in the environment does not.
fn token(args: &Args) -> anyhow::Result<Option<TokenText>> {
    let text = match (&args.join, &args.join_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("read the token in {}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).context("read the token")
}

async fn join(args: &Args, token: &TokenText, dir: &Path) -> anyhow::Result<Arc<Wallet>> {
    let name = name(args)?;
    loop {
        match tls::join(&args.coordinator, token, &name, dir).await {
            Ok(joined) => {
                tracing::info!(member = %joined.member, credentials = %dir.display(), "joined the farm");
                return Ok(Wallet::open(dir)?);
            }
            // A machine may be up before its coordinator; a refusal is final.
            Err(error @ TlsError::OutOfReach(_)) => {
                tracing::warn!(%error, "no answer to the token yet");
                tokio::time::sleep(JOIN_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The name given, else the host's.
fn name(args: &Args) -> anyhow::Result<AgentId> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().context("ask for the host's name")?;
    let host = host.to_string_lossy();
    host.parse().with_context(|| format!("use the host's name {host:?} as the agent's; give --name"))
}
