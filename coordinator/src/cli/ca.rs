//! `kulprit ca …`: the farm's own CA, on the coordinator's machine.

use super::args::{CaInitArgs, CaIssueArgs};
use super::bisect::write_text;
use super::credentials::{directory, keep, user_name};
use super::failure::Failure;
use crate::door::authority::{self, Authority, Request};
use kulprit_common::access::{Member, Role};
use kulprit_proto::tls::{self, Credentials, LEAF_LIFE};
use std::path::Path;

pub fn init(args: &CaInitArgs) -> Result<u8, Failure> {
    check_url(&args.coordinator)?;
    let dir = authority::directory(&args.state);
    let operator = Member { role: Role::Operator, name: user_name(args.operator.as_ref())? };
    let credentials = directory(args.credentials.as_deref())?;
    if credentials.join(tls::CERT_FILE).exists() {
        return Err(Failure::Input(format!(
            "--credentials {}: there are some already; remove them, or name another directory",
            credentials.display()
        )));
    }
    Authority::init(&dir)?;
    let fingerprint = issue(&args.state, &operator, &credentials, &args.coordinator)?;
    write_text(&format!(
        "CA made in {}\n  fingerprint {fingerprint}\ncredentials of {operator} in {}, for {}\na running coordinator \
         speaks TLS after its next start; then `kulprit token create --role agent`\n",
        dir.display(),
        credentials.display(),
        args.coordinator
    ))?;
    Ok(0)
}

pub fn issue_one(args: &CaIssueArgs) -> Result<u8, Failure> {
    check_url(&args.coordinator)?;
    let member = Member { role: args.role, name: user_name(args.name.as_ref())? };
    let credentials = directory(args.credentials.as_deref())?;
    issue(&args.state, &member, &credentials, &args.coordinator)?;
    write_text(&format!("credentials of {member} in {}, for {}\n", credentials.display(), args.coordinator))?;
    Ok(0)
}

/// Signs by the key on this disk; yields the CA's fingerprint.
fn issue(state: &Path, member: &Member, dir: &Path, url: &str) -> Result<String, Failure> {
    let ca = authority::directory(state);
    let authority = Authority::load(&ca, LEAF_LIFE)?.ok_or_else(|| {
        Failure::Input(format!("--state {}: there is no CA; `kulprit ca init` makes one", state.display()))
    })?;
    let made = |error: tls::TlsError| Failure::internal("make a certificate", error);
    // An earlier key is kept: a member that has joined is known by it.
    let key = tls::kept_key(dir).map_err(made)?;
    let request = tls::request(&key).map_err(made)?;
    let request =
        Request::read(&request).map_err(|why| Failure::Internal(anyhow::anyhow!("read a request: {why}")))?;
    let chain = authority.sign(request, member)?;
    let credentials =
        Credentials::from_pem(authority.ca_pem.clone(), chain, key.serialize_pem()).map_err(made)?;
    keep(&credentials, dir, url)?;
    Ok(authority.fingerprint.to_string())
}

fn check_url(url: &str) -> Result<(), Failure> {
    let is_good =
        |url: &str| url.starts_with("https://") && url::Url::parse(url).is_ok_and(|url| url.has_host());
    if tls::addresses(url).count() > 0 && tls::addresses(url).all(is_good) {
        return Ok(());
    }
    Err(Failure::Input(format!("--coordinator {url}: write https://HOST:PORT")))
}
