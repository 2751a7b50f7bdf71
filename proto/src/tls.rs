//! TLS as both ends speak it: version 1.3, aws-lc-rs, certificates of the farm's own CA.
//!
//! `credentials` is what a member keeps on disk, `identity` what a certificate says, `verify` whom
//! to trust, `link` the way to a coordinator, `routes` the choice where there are several, `enrol` how
//! certificates are got and renewed.

mod clock;
mod credentials;
mod enrol;
mod identity;
mod link;
mod routes;
mod verify;

pub use clock::{Readings, SteadyClock};
pub use credentials::{
    CA_FILE, CERT_FILE, Credentials, KEY_FILE, Wallet, certified, read_private, roots, write_private,
    write_public,
};
pub use enrol::{join, keep_current, kept_key, new_key, renew, renewal_due, request, said};
pub use identity::{Validity, certificates, fingerprint, key_digest, member, validity};
pub use link::{Link, addresses, explain, is_loopback};
pub use verify::{Trust, client_config, signatures};

use rustls::crypto::CryptoProvider;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// Life of a member's certificate.
pub const LEAF_LIFE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Why TLS cannot be spoken. Fragments that fit behind "failed to".
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("use {what}: {why}")]
    Bad { what: String, why: String },
    /// The coordinator, or the token, said no.
    #[error("join: {0}")]
    Refused(String),
    #[error("reach the coordinator: {0}")]
    OutOfReach(String),
}

impl TlsError {
    pub fn bad(what: impl Into<String>, why: impl ToString) -> Self {
        TlsError::Bad { what: what.into(), why: why.to_string() }
    }
}

/// The one provider of cryptography, named rather than left to what else is linked.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
