//! What a certificate says: whose it is, which key it has, how long it is valid.

use super::TlsError;
use kulprit_common::access::{Member, URI_SCHEME};
use kulprit_common::id::Digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::time::Duration;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// From when to when, since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Duration,
    pub until: Duration,
}

impl Validity {
    pub fn life(self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// The member a certificate names. It must name one and only one: a certificate with two roles
/// would have whichever is asked for.
pub fn member(certificate: &CertificateDer<'_>) -> Result<Member, TlsError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|error| bad(&error))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(URI_SCHEME) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => Member::from_uri(uri).ok_or_else(|| bad(&format!("{uri} names no role and member"))),
        [] => Err(bad(&format!("it has no name of the form {URI_SCHEME}ROLE/NAME"))),
        _ => Err(bad(&"it names more than one member")),
    }
}

/// SHA-256 of the public key.
pub fn key_digest(certificate: &CertificateDer<'_>) -> Result<Digest, TlsError> {
    Ok(Digest::of(&parse(certificate)?.public_key().subject_public_key.data))
}

pub fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, TlsError> {
    let parsed = parse(certificate)?;
    let since_epoch = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Validity { from: since_epoch(from), until: since_epoch(until) })
}

/// SHA-256 of the whole certificate, as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Digest {
    Digest::of(certificate)
}

/// The certificates of a PEM text; at least one.
pub fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| TlsError::bad(what, error))?;
    if read.is_empty() {
        return Err(TlsError::bad(what, "it holds no certificate in PEM"));
    }
    Ok(read)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| bad(&error))?;
    Ok(parsed)
}

fn bad(why: &dyn std::fmt::Display) -> TlsError {
    TlsError::bad("the certificate", why)
}
