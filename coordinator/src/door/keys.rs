//! The coordinator's certificate and the CAs it accepts, kept current while it serves.

use super::authority::{self, Authority};
use super::gate::Gate;
use anyhow::Context as _;
use kulprit_proto::tls::{self, SteadyClock, provider, signatures};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How often files are looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where certificates come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The farm's own CA; it signs the coordinator's certificate and those of members.
    Authority { state: PathBuf, names: Vec<String>, life: Duration },
    /// Files of a CA that is elsewhere, which signs whatever is needed.
    Files { ca: PathBuf, cert: PathBuf, key: PathBuf },
}

/// What is in use.
struct Current {
    certified: Arc<CertifiedKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    authority: Option<Arc<Authority>>,
    /// The texts it was made of, to see that they have changed.
    made_of: String,
    renew_at: Duration,
}

pub struct Keys {
    source: Source,
    current: RwLock<Arc<Current>>,
}

impl Keys {
    pub fn open(source: Source) -> anyhow::Result<Arc<Self>> {
        let current = RwLock::new(Arc::new(Current::make(&source)?));
        Ok(Arc::new(Keys { source, current }))
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a member who shows these certificates would be let in now.
    fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let [leaf, rest @ ..] = chain else { return false };
        let now = UnixTime::since_unix_epoch(SteadyClock::shared().now());
        self.current().verifier.verify_client_cert(leaf, rest, now).is_ok()
    }

    /// Of the certificate that is shown now.
    pub fn validity(&self) -> Option<tls::Validity> {
        tls::validity(self.current().certified.end_entity_cert().ok()?).ok()
    }

    /// The CA, where this coordinator has one.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.current().authority.clone()
    }

    /// Renews and takes in changed files, for as long as it is polled.
    pub async fn keep_current(self: Arc<Self>, gate: Gate) {
        loop {
            let due = self.current().renew_at.saturating_sub(SteadyClock::shared().now());
            tokio::time::sleep(due.clamp(Duration::from_millis(200), LOOK_EVERY)).await;
            let is_due = self.current().renew_at <= SteadyClock::shared().now();
            match self.source.texts() {
                Ok(texts) if texts == self.current().made_of && !is_due => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the TLS files cannot be read; those in use stay"
                    );
                    continue;
                }
            }
            match Current::make(&self.source) {
                Ok(made) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                    tracing::info!("the coordinator has a new certificate");
                    gate.keep_those(|chain| self.trusts(chain));
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "no new certificate yet; the one in use stays"
                    );
                }
            }
        }
    }

    /// TLS 1.3 for these protocols. A certificate is asked for, and its lack is judged call by call.
    pub fn server_config(self: &Arc<Self>, protocols: &[&str]) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(SteadyClock::shared()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("speak TLS 1.3")?
            .with_client_cert_verifier(Arc::new(Clients(self.clone())))
            .with_cert_resolver(Arc::new(Server(self.clone())));
        // A resumed session would go on with the certificate it began with, expired or not.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl Source {
    /// Everything that the files say.
    fn texts(&self) -> anyhow::Result<String> {
        let paths = match self {
            Source::Authority { state, .. } => {
                let dir = authority::directory(state);
                vec![dir.join("ca.pem"), dir.join("ca.key")]
            }
            Source::Files { ca, cert, key } => vec![ca.clone(), cert.clone(), key.clone()],
        };
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        paths.iter().map(read).collect()
    }
}

impl Current {
    fn make(source: &Source) -> anyhow::Result<Self> {
        let made_of = source.texts()?;
        let (chain, key, ca, authority) = match source {
            Source::Authority { state, names, life } => {
                let dir = authority::directory(state);
                let authority = Authority::load(&dir, *life)?.context("find the CA")?;
                let (chain, key) = authority.coordinator(names)?;
                (chain, key, authority.ca_pem.clone(), Some(Arc::new(authority)))
            }
            Source::Files { ca, cert, key } => {
                let read = |path: &PathBuf| {
                    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
                };
                (read(cert)?, tls::read_private(key)?, read(ca)?, None)
            }
        };
        let certified = Arc::new(tls::certified(&chain, &key)?);
        let validity = tls::validity(certified.end_entity_cert().context("read the certificate")?)?;
        let life = validity.until.saturating_sub(validity.from);
        let renew_at = match authority {
            Some(_) => validity.from + life * 2 / 3,
            // Somebody else puts a new file there.
            None => Duration::MAX,
        };
        let roots = Arc::new(tls::roots(&ca, "the CA's certificate")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .context("use the CA's certificate")?;
        Ok(Current { certified, verifier, authority, made_of, renew_at })
    }
}

/// Resolves to whatever certificate is in use.
struct Server(Arc<Keys>);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl ResolvesServerCert for Server {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified.clone())
    }
}

/// Verifies by whatever CA is in use.
struct Clients(Arc<Keys>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.current().verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signatures::tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures::schemes()
    }
}
