//! How a member gets its certificate, and a new one in time.

use super::credentials::{Credentials, KEY_FILE, read_private, write_private};
use super::{Link, SteadyClock, TlsError, Trust, Wallet, identity};
use crate::v1;
use crate::v1::enrol_client::EnrolClient;
use kulprit_common::access::TokenText;
use kulprit_common::id::AgentId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How often the files are looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub fn new_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate().map_err(|error| TlsError::bad("a new key", error))
}

/// The key in a directory; where there is none, a new one that is there from now on.
pub fn kept_key(dir: &Path) -> Result<KeyPair, TlsError> {
    let path = dir.join(KEY_FILE);
    match read_private(&path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| TlsError::bad(path.display().to_string(), error)),
        Err(TlsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let key = new_key()?;
            write_private(&path, &key.serialize_pem())?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// A certificate request (DER) that proves the key and asks for no names: those the CA gives.
pub fn request(key: &KeyPair) -> Result<Vec<u8>, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let made = params.serialize_request(key).map_err(|error| TlsError::bad("the key", error))?;
    Ok(made.der().to_vec())
}

/// Joins a farm: the coordinator has to show the CA that the token names before it is told the
/// secret. The key is in the directory before it is shown: where the answer is lost the token is
/// used up, and only the same key gets the answer again. What is signed is put there too.
pub async fn join(url: &str, token: &TokenText, name: &AgentId, dir: &Path) -> Result<Credentials, TlsError> {
    let key = kept_key(dir)?;
    let link = Link::secure(url, Trust::Pinned(token.ca))?;
    let message =
        v1::JoinRequest { secret: token.secret.to_vec(), csr: request(&key)?, name: name.to_string() };
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    let answer = EnrolClient::new(link).join(request).await;
    let answer = answer.map_err(|status| not_joined(&status))?.into_inner();
    let ca = identity::certificates(&answer.ca, "the CA")?;
    if !ca.iter().any(|it| identity::fingerprint(it) == token.ca) {
        return Err(TlsError::Refused("the coordinator names another CA than the token".into()));
    }
    let joined = Credentials::from_pem(answer.ca, answer.chain, key.serialize_pem())?;
    joined.save(dir)?;
    Ok(joined)
}

fn not_joined(status: &tonic::Status) -> TlsError {
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
            TlsError::Refused(status.message().to_owned())
        }
        // Another CA stays another CA, however often it is asked.
        _ if said(status).contains("invalid peer certificate") => TlsError::Refused(said(status)),
        _ => TlsError::OutOfReach(said(status)),
    }
}

/// The last cause says most; a status of the coordinator says it itself.
pub fn said(status: &tonic::Status) -> String {
    let mut cause = std::error::Error::source(status);
    while let Some(below) = cause.and_then(|error| error.source()) {
        cause = Some(below);
    }
    cause.map_or_else(|| status.message().to_owned(), |cause| super::explain(&cause.to_string()))
}

/// Asks for a new certificate for the key in use, and takes it into use.
pub async fn renew(link: &Link, wallet: &Wallet) -> Result<(), tonic::Status> {
    let current = wallet.current();
    let internal = |error: &dyn std::fmt::Display| tonic::Status::internal(error.to_string());
    let key = KeyPair::from_pem(&current.key_pem).map_err(|error| internal(&error))?;
    let csr = request(&key).map_err(|error| internal(&error))?;
    let mut request = tonic::Request::new(v1::RenewRequest { csr });
    request.set_timeout(CALL_LIMIT);
    let answer = EnrolClient::new(link.clone()).renew(request).await?.into_inner();
    let renewed = Credentials::from_pem(answer.ca, answer.chain, current.key_pem.clone())
        .map_err(|error| internal(&error))?;
    if renewed.member != current.member {
        return Err(internal(&format!("the new certificate is for {}", renewed.member)));
    }
    if let Err(error) = wallet.replace(renewed) {
        // It is in use all the same; only a restart would begin with the old one.
        tracing::warn!(%error, "the new certificate could not be kept");
    }
    link.redial();
    Ok(())
}

/// How long until a new certificate is to be asked for.
pub fn renewal_due(credentials: &Credentials) -> Duration {
    SteadyClock::shared().readings().renewal_due(credentials.validity)
}

/// Renews in time and takes in changed files, for as long as it is polled.
pub async fn keep_current(link: Link, wallet: Arc<Wallet>) {
    let mut renewable = true;
    let mut not_before = tokio::time::Instant::now();
    loop {
        let due = renewal_due(&wallet.current());
        let due = if renewable { due.max(not_before - tokio::time::Instant::now()) } else { LOOK_EVERY };
        tokio::time::sleep(due.min(LOOK_EVERY)).await;
        match wallet.reload() {
            Ok(true) => {
                tracing::info!("the credentials on disk have changed and are in use");
                renewable = true;
                link.redial();
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the credentials on disk are not usable"),
        }
        let is_due = renewal_due(&wallet.current()).is_zero();
        if !renewable || !is_due || tokio::time::Instant::now() < not_before {
            continue;
        }
        let renewed = renew(&link, &wallet).await;
        let validity = wallet.current().validity;
        let readings = SteadyClock::shared().readings();
        not_before = tokio::time::Instant::now() + readings.renewal_pause(renewed.is_ok(), validity);
        match renewed {
            Ok(()) => tracing::info!(member = %wallet.current().member, "certificate renewed"),
            Err(status) if status.code() == Code::FailedPrecondition => {
                tracing::info!(why = status.message(), "certificates are renewed elsewhere");
                renewable = false;
            }
            Err(status) => {
                let left = validity.until.saturating_sub(readings.steady);
                tracing::warn!(why = said(&status), left_s = left.as_secs(), "certificate not renewed yet");
            }
        }
    }
}
