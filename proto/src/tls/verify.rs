//! Whom a member trusts to be its coordinator.

use super::{SteadyClock, TlsError, Wallet, identity, provider};
use kulprit_common::access::COORDINATOR_NAME;
use kulprit_common::id::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those of the CA in the wallet, whose certificate is shown in turn.
    Wallet(Arc<Wallet>),
    /// Those of the CA with this fingerprint, which the other end has to show. Nothing is shown.
    Pinned(Digest),
}

/// TLS towards a coordinator. Sessions are not resumed: a resumed one would carry on with the
/// certificate it began with.
pub fn client_config(trust: Trust, clock: SteadyClock) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Verifier { trust: trust.clone(), clock });
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::bad("TLS 1.3", error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match trust {
        Trust::Wallet(wallet) => builder.with_client_cert_resolver(wallet),
        Trust::Pinned(_) => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// webpki's verifier, with two additions: the roots may change, and the coordinator may be
/// reached at an address that nobody knew when its certificate was made.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    clock: SteadyClock,
}

impl Verifier {
    fn roots(&self, intermediates: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        let pinned = match &self.trust {
            Trust::Wallet(wallet) => return Ok(wallet.current().roots.clone()),
            Trust::Pinned(pinned) => pinned,
        };
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|it| identity::fingerprint(it) == *pinned).ok_or(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots(intermediates)?, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let coordinator = ServerName::try_from(COORDINATOR_NAME).expect("a valid name");
        let mut first = None;
        let readings = self.clock.readings();
        for now in [readings.steady, readings.wall].map(UnixTime::since_unix_epoch) {
            for name in [server_name, &coordinator] {
                match verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                    Ok(verified) => return Ok(verified),
                    Err(error) => first = first.or(Some(error)),
                }
            }
        }
        Err(first.unwrap_or(Error::InvalidCertificate(CertificateError::BadEncoding)))
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

/// What both ends' verifiers answer about signatures.
pub mod signatures {
    use super::*;

    pub fn tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    pub fn tls13(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    pub fn schemes() -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
