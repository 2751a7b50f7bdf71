//! Where a person's credentials are, and which coordinator they are for.

use super::args::To;
use super::client::DEFAULT_URL;
use super::failure::Failure;
use kulprit_common::id::AgentId;
use kulprit_proto::tls::{self, Credentials, Wallet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COORDINATOR_FILE: &str = "coordinator";

/// The directory given, else `kulprit` where programs of this user keep their settings.
pub fn directory(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .map(Path::to_owned)
        .or_else(|| Some(from("XDG_CONFIG_HOME")?.join("kulprit")))
        .or_else(|| Some(from("HOME")?.join(".config/kulprit")))
        .ok_or_else(|| Failure::Input("--credentials: HOME is not set; name a directory".into()))
}

/// The coordinator named, else the one joined, else the one on this machine.
pub fn coordinator(to: &To) -> Result<String, Failure> {
    if let Some(url) = &to.coordinator {
        return Ok(url.clone());
    }
    // Without a home there is nothing to be found in it.
    let Ok(dir) = directory(to.credentials.as_deref()) else { return Ok(DEFAULT_URL.into()) };
    match std::fs::read_to_string(dir.join(COORDINATOR_FILE)) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(_) => Ok(DEFAULT_URL.into()),
    }
}

pub fn open(to: &To) -> Result<Arc<Wallet>, Failure> {
    let dir = directory(to.credentials.as_deref())?;
    let wallet = Wallet::open(&dir).map_err(|error| {
        Failure::Input(format!(
            "--credentials {}: {error}\n  `kulprit join --coordinator URL TOKEN` gets you some; an operator \
             makes the token",
            dir.display()
        ))
    })?;
    if wallet.current().has_expired() {
        return Err(Failure::Input(format!(
            "--credentials {}: they have expired (certificates live {} hours and are renewed whenever they \
             are used)\n  look at this machine's clock, or join again with a new token; on the coordinator's \
             machine `kulprit ca issue` helps",
            dir.display(),
            tls::LEAF_LIFE.as_secs() / 3600,
        )));
    }
    Ok(wallet)
}

pub fn keep(credentials: &Credentials, dir: &Path, coordinator: &str) -> Result<(), Failure> {
    let kept = credentials
        .save(dir)
        .and_then(|()| tls::write_public(&dir.join(COORDINATOR_FILE), &format!("{coordinator}\n")));
    kept.map_err(|error| Failure::internal("keep the credentials", error))
}

/// The name given, else the user's.
pub fn user_name(given: Option<&AgentId>) -> Result<AgentId, Failure> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let name = user.and_then(|user| user.name.parse().ok());
    name.ok_or_else(|| Failure::Input("--name: your user name cannot be used; give another".into()))
}
