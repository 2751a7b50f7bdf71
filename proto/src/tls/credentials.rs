//! What a member keeps: `ca.pem`, `cert.pem` and `key.pem` in one directory.
//!
//! Whoever has a CA of their own writes the same three files; they are read again when they change.

use super::identity::{self, Validity};
use super::{SteadyClock, TlsError, provider};
use kulprit_common::access::Member;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

pub const CA_FILE: &str = "ca.pem";
pub const CERT_FILE: &str = "cert.pem";
pub const KEY_FILE: &str = "key.pem";

/// Three PEM texts that belong together, and what they say.
pub struct Credentials {
    pub ca_pem: String,
    pub chain_pem: String,
    pub key_pem: String,
    pub member: Member,
    pub validity: Validity,
    pub roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
}

/// Without the key: what is shown ends up in a log some day.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.member)
    }
}

impl Credentials {
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let key = read_private(&dir.join(KEY_FILE))?;
        Self::from_pem(read(&dir.join(CA_FILE))?, read(&dir.join(CERT_FILE))?, key)
            .map_err(|error| TlsError::bad(format!("the credentials in {}", dir.display()), error))
    }

    pub fn from_pem(ca_pem: String, chain_pem: String, key_pem: String) -> Result<Self, TlsError> {
        let roots = Arc::new(roots(&ca_pem, CA_FILE)?);
        let key = certified(&chain_pem, &key_pem)?;
        let leaf = key.end_entity_cert().map_err(|error| TlsError::bad(CERT_FILE, error))?;
        let (member, validity) = (identity::member(leaf)?, identity::validity(leaf)?);
        Ok(Credentials { ca_pem, chain_pem, key_pem, member, validity, roots, key: Arc::new(key) })
    }

    pub fn has_expired(&self) -> bool {
        SteadyClock::shared().readings().has_expired(self.validity)
    }

    /// Writes the files. The key goes first: without it the certificate is of no use.
    pub fn save(&self, dir: &Path) -> Result<(), TlsError> {
        write_private(&dir.join(KEY_FILE), &self.key_pem)?;
        write_public(&dir.join(CA_FILE), &self.ca_pem)?;
        write_public(&dir.join(CERT_FILE), &self.chain_pem)
    }
}

/// The certificates to trust.
pub fn roots(pem: &str, what: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in identity::certificates(pem, what)? {
        roots.add(certificate).map_err(|error| TlsError::bad(what, error))?;
    }
    Ok(roots)
}

/// A chain with its key; they must belong together.
pub fn certified(chain_pem: &str, key_pem: &str) -> Result<CertifiedKey, TlsError> {
    let chain = identity::certificates(chain_pem, CERT_FILE)?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| TlsError::bad(KEY_FILE, error))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| TlsError::bad(CERT_FILE, format!("{error}; does the key belong to it?")))
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::File { path: path.into(), source })
}

/// Reads a key, which nobody but its owner may read.
pub fn read_private(path: &Path) -> Result<String, TlsError> {
    let failed = |source| TlsError::File { path: path.into(), source };
    // Asked of the open file, so that it is of what is read.
    let mut file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("others may read it; chmod 600 {}", path.display());
        return Err(TlsError::bad(path.display().to_string(), why));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Writes a file that only its owner may read, in a directory that only its owner may enter.
pub fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        let made = fs::create_dir_all(dir)
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)));
        made.map_err(|source| TlsError::Write { path: dir.into(), source })?;
    }
    write(path, text, 0o600)
}

pub fn write_public(path: &Path, text: &str) -> Result<(), TlsError> {
    write(path, text, 0o644)
}

/// Whole or not at all, also for whoever reads meanwhile.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        // What a process that died has left would keep its own mode.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // A token that was used up for a key that is then lost lets nobody in again.
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|source| TlsError::Write { path: path.into(), source })
}

/// The credentials in use, which change while connections come and go.
#[derive(Debug)]
pub struct Wallet {
    pub dir: PathBuf,
    current: RwLock<Arc<Credentials>>,
}

impl Wallet {
    pub fn open(dir: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(Credentials::load(dir)?));
        Ok(Arc::new(Wallet { dir: dir.into(), current }))
    }

    pub fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes new credentials into use, and keeps them.
    pub fn replace(&self, credentials: Credentials) -> Result<(), TlsError> {
        let credentials = Arc::new(credentials);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = credentials.clone();
        credentials.save(&self.dir)
    }

    /// Reads the files again; whether they had changed. What is half written is an error.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let found = Credentials::load(&self.dir)?;
        let current = self.current();
        let same = found.chain_pem == current.chain_pem && found.ca_pem == current.ca_pem;
        if !same {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
        Ok(!same)
    }
}

impl ResolvesClientCert for Wallet {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let key = super::super::new_key().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let uri = "kulprit://agent/a".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let pem = params.self_signed(&key).unwrap().pem();
        Credentials::from_pem(pem.clone(), pem, key.serialize_pem()).unwrap()
    }

    #[test]
    fn keys_are_kept_from_others_and_out_of_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, at) = (credentials(), dir.path().join("it"));
        // What an earlier life left, for all to read.
        fs::create_dir(&at).unwrap();
        let left = at.join(KEY_FILE).with_extension(format!("new-{}", std::process::id()));
        fs::write(&left, "").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        credentials.save(&at).unwrap();
        let key = at.join(KEY_FILE);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&at).unwrap().count(), 3, "and nothing else is left");
        let wallet = Wallet::open(&at).unwrap();
        let secret = credentials.key_pem.lines().nth(1).unwrap();
        for shown in [format!("{credentials:?}"), format!("{wallet:?}"), format!("{wallet:#?}")] {
            assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Wallet::open(&at).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }
}
