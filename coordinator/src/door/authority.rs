//! The farm's private CA: two files in the state directory, and the certificates it signs.

use crate::failpoint;
use anyhow::{Context as _, bail};
use kulprit_common::access::{COORDINATOR_NAME, Member, URI_SCHEME};
use kulprit_common::id::Digest;
use kulprit_proto::tls::{self, SteadyClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin a little in the past, for clocks that lag; a tenth of a short life.
const BACKDATED: Duration = Duration::from_secs(300);
/// A request is a key and a signature; more is not one.
const CSR_BYTES_MAX: usize = 8 << 10;

/// Where the CA of a state directory is.
pub fn directory(state: &Path) -> PathBuf {
    state.join("ca")
}

fn cert_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's certificate first; any others are trusted as well.
    pub ca_pem: String,
    /// Of the issuer's certificate.
    pub fingerprint: Digest,
    life: Duration,
}

/// A certificate request that has proved its key.
pub struct Request {
    params: CertificateSigningRequestParams,
    pub key: Digest,
}

impl Request {
    /// Reads a request (DER). What names it asks for is not looked at.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        if der.len() > CSR_BYTES_MAX {
            return Err(format!("is longer than {CSR_BYTES_MAX} bytes"));
        }
        let params = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| error.to_string())?;
        let key = Digest::of(params.public_key.der_bytes());
        Ok(Request { params, key })
    }
}

impl Authority {
    /// Makes a CA. One that is there is never overwritten: all members would be shut out.
    pub fn init(dir: &Path) -> anyhow::Result<()> {
        if cert_path(dir).exists() {
            bail!("make a CA: there is one in {} already", dir.display());
        }
        // A key alone is what an earlier call left that did not come to its end.
        let left = key_path(dir).exists().then(|| tls::read_private(&key_path(dir))).transpose()?;
        let key = match &left {
            Some(pem) => KeyPair::from_pem(pem)
                .with_context(|| format!("use the key in {}", key_path(dir).display()))?,
            None => tls::new_key()?,
        };
        let mut params = blank();
        let id = Digest::of(key.public_key_raw()).short();
        params.distinguished_name.push(DnType::CommonName, format!("kulprit farm {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, CA_LIFE);
        let certificate = params.self_signed(&key).context("sign the CA's certificate")?;
        if left.is_none() {
            tls::write_private(&key_path(dir), &key.serialize_pem())?;
        }
        failpoint::pass("ca");
        tls::write_public(&cert_path(dir), &certificate.pem())?;
        Ok(())
    }

    /// Reads the CA; `None` where there is none.
    pub fn load(dir: &Path, life: Duration) -> anyhow::Result<Option<Self>> {
        let (cert, key) = (cert_path(dir), key_path(dir));
        if !cert.exists() && !key.exists() {
            return Ok(None);
        }
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("read the CA's {}", path.display()))
        };
        let (ca_pem, key_pem) = (read(&cert)?, tls::read_private(&key)?);
        let own = tls::certificates(&ca_pem, "the CA's certificate")?.remove(0);
        let key =
            KeyPair::from_pem(&key_pem).with_context(|| format!("read the key in {}", key.display()))?;
        // A key of another certificate would sign what nobody accepts.
        if tls::key_digest(&own)? != Digest::of(key.public_key_raw()) {
            bail!("use the CA in {}: its key does not belong to its first certificate", dir.display());
        }
        let fingerprint = tls::fingerprint(&own);
        let issuer = Issuer::from_ca_cert_der(&own, key).context("use the CA's certificate")?;
        Ok(Some(Authority { issuer, ca_pem, fingerprint, life }))
    }

    /// Signs a member's certificate; yields its chain.
    pub fn sign(&self, request: Request, member: &Member) -> anyhow::Result<String> {
        let Request { params: mut request, .. } = request;
        let mut params = blank();
        params.distinguished_name.push(DnType::CommonName, member.to_string());
        params.subject_alt_names = vec![SanType::URI(member.uri().try_into().context("name the member")?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf(&mut params, self.life);
        request.params = params;
        let signed = request.signed_by(&self.issuer).context("sign a certificate")?;
        Ok(format!("{}{}", signed.pem(), self.ca_pem))
    }

    /// A certificate for the coordinator itself, with its key.
    pub fn coordinator(&self, names: &[String]) -> anyhow::Result<(String, String)> {
        let key = tls::new_key()?;
        let mut params = blank();
        params.distinguished_name.push(DnType::CommonName, "kulprit coordinator");
        let uri = format!("{URI_SCHEME}coordinator");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().context("name the coordinator")?)];
        for name in names.iter().map(String::as_str).chain([COORDINATOR_NAME, "localhost"]) {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    SanType::DnsName(name.try_into().with_context(|| format!("use the name {name:?}"))?)
                }
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf(&mut params, self.life);
        let signed = params.signed_by(&key, &self.issuer).context("sign the coordinator's certificate")?;
        Ok((format!("{}{}", signed.pem(), self.ca_pem), key.serialize_pem()))
    }
}

fn blank() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let mut serial = [0; 16];
    fill_random(&mut serial);
    // A serial number is positive.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf(params: &mut CertificateParams, life: Duration) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    date(params, life);
}

fn date(params: &mut CertificateParams, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = SteadyClock::shared().now();
    params.not_before = epoch + now.saturating_sub(BACKDATED.min(life / 10));
    params.not_after = epoch + now + life;
}

/// Fills from the system's source of randomness, by way of the TLS provider.
pub fn fill_random(bytes: &mut [u8]) {
    tls::provider().secure_random.fill(bytes).expect("the system has randomness");
}
