//! Where the shared cache is, and what is shown to it.

use anyhow::{Context as _, bail};
use kulprit_proto::tls;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::{Host, Url};

const REDIS_PORT: u16 = 6379;

/// Of the agent's command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SharedCcacheArgs {
    /// A compiler's cache that agents share: https://HOST/PATH (GET and PUT), rediss://HOST/DB, or
    /// http:// and redis:// on loopback; better used with --shared-ccache-write by those you trust
    #[arg(long, env = "KULPRIT_SHARED_CCACHE", value_name = "URL")]
    pub shared_ccache: Option<Url>,
    /// Let this agent write to the shared cache, from which others take objects unseen
    #[arg(long, env = "KULPRIT_SHARED_CCACHE_WRITE", requires = "shared_ccache")]
    pub shared_ccache_write: bool,
    /// File with USER:PASSWORD, or for Redis :PASSWORD, for the shared cache
    #[arg(long, env = "KULPRIT_SHARED_CCACHE_CREDENTIALS", value_name = "FILE", requires = "shared_ccache")]
    pub shared_ccache_credentials: Option<PathBuf>,
    /// Certificates (PEM) of the CA that the shared cache's certificate is from
    #[arg(long, env = "KULPRIT_SHARED_CCACHE_CA", value_name = "FILE", requires = "shared_ccache")]
    pub shared_ccache_ca: Option<PathBuf>,
}

pub(super) struct Settings {
    pub url: Url,
    pub kind: Kind,
    pub login: Option<Login>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Redis { host: String, port: u16, database: u32 },
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a login")
    }
}

impl Settings {
    pub fn read(args: &SharedCcacheArgs) -> anyhow::Result<Option<Settings>> {
        let Some(url) = args.shared_ccache.clone() else { return Ok(None) };
        if !url.username().is_empty() || url.password().is_some() {
            bail!("--shared-ccache: has a user or password in the URL; use --shared-ccache-credentials");
        }
        let (kind, is_secure) = kind(&url).context("--shared-ccache")?;
        if !is_secure && !is_loopback(&url) {
            bail!(
                "--shared-ccache {url}: only this machine is spoken with in the clear; use https:// or rediss://"
            );
        }
        let login = args.shared_ccache_credentials.as_deref().map(login).transpose();
        let login = login.context("--shared-ccache-credentials")?;
        let tls = match (&args.shared_ccache_ca, is_secure) {
            (Some(path), true) => Some(trust(path).context("--shared-ccache-ca")?),
            (None, true) => {
                bail!("--shared-ccache {url}: name its CA's certificates with --shared-ccache-ca")
            }
            (Some(_), false) => bail!("--shared-ccache-ca: {url} is spoken with in the clear"),
            (None, false) => None,
        };
        Ok(Some(Settings { url, kind, login, tls }))
    }

    /// Where a key is over HTTP.
    pub fn address(&self, key: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{key}", url.path().trim_end_matches('/')));
        url
    }
}

fn kind(url: &Url) -> anyhow::Result<(Kind, bool)> {
    let is_secure = matches!(url.scheme(), "https" | "rediss");
    match url.scheme() {
        "http" | "https" => Ok((Kind::Http, is_secure)),
        "redis" | "rediss" => {
            let host = url.host_str().filter(|host| !host.is_empty()).context("the host is missing")?;
            let database = match url.path().trim_matches('/') {
                "" => 0,
                number => number.parse().context("what stands behind the host is no number of a database")?,
            };
            let host = host.trim_matches(['[', ']']).to_owned();
            Ok((Kind::Redis { host, port: url.port().unwrap_or(REDIS_PORT), database }, is_secure))
        }
        other => bail!("the scheme {other:?} is not one of https, rediss, http, redis"),
    }
}

/// Hosts of schemes that the URL standard does not know are plain text to the parser.
fn is_loopback(url: &Url) -> bool {
    let named = |name: &str| {
        let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        name == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match url.host() {
        Some(Host::Domain(name)) => named(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn login(path: &Path) -> anyhow::Result<Login> {
    let meta = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        bail!("others may read {0}: chmod 600 {0}", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (user, password) = text
        .trim_end_matches(['\r', '\n'])
        .split_once(':')
        .filter(|(_, password)| !password.is_empty() && !password.contains('\n'))
        .with_context(|| format!("{}: write one line USER:PASSWORD", path.display()))?;
    Ok(Login { user: user.to_owned(), password: password.to_owned() })
}

fn trust(path: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let pem = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates(&pem, "the CA of the shared cache")? {
        roots.add(certificate)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, change: impl FnOnce(&mut SharedCcacheArgs)) -> Result<Settings, String> {
        let mut args =
            SharedCcacheArgs { shared_ccache: Some(url.parse().expect("a URL")), ..Default::default() };
        change(&mut args);
        let read = Settings::read(&args).map(|it| it.expect("a URL was given"));
        read.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn urls_say_which_server_and_nothing_goes_out_in_the_clear() {
        let redis = |host: &str, port, database| Kind::Redis { host: host.into(), port, database };
        for (url, kind) in [
            ("redis://127.0.0.1", redis("127.0.0.1", 6379, 0)),
            ("redis://localhost:7000/3", redis("localhost", 7000, 3)),
            ("redis://[::1]:7000", redis("::1", 7000, 0)),
            ("http://127.0.0.1:8080/ccache/", Kind::Http),
        ] {
            assert_eq!(read(url, |_| {}).expect(url).kind, kind, "{url}");
        }
        for (url, problem) in [
            ("redis://10.0.0.1", "in the clear"),
            ("http://host.example.org/x", "in the clear"),
            ("https://host.example.org/x", "--shared-ccache-ca"),
            ("redis://localhost/x", "no number of a database"),
            ("http://me:secret@127.0.0.1/", "--shared-ccache-credentials"),
            ("ftp://127.0.0.1/", "is not one of"),
        ] {
            let why = read(url, |_| {}).err().unwrap_or_default();
            assert!(why.contains(problem) && !why.contains("secret"), "{url}: {why}");
        }
        let settings = read("http://127.0.0.1:8080/ccache/", |_| {}).expect("usable");
        assert_eq!(settings.address("a/b").as_str(), "http://127.0.0.1:8080/ccache/a/b");
    }

    #[test]
    fn logins_are_read_from_files_that_others_cannot_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, mode, expected) in [
            ("me:pass:word\n", 0o600, Ok(("me", "pass:word"))),
            (":word", 0o600, Ok(("", "word"))),
            ("me:secret", 0o640, Err("chmod 600")),
            ("secret", 0o600, Err("USER:PASSWORD")),
        ] {
            std::fs::write(file.path(), text).expect("written");
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("ours");
            let found = login(file.path()).map_err(|error| format!("{error:#}"));
            match expected {
                Ok((user, password)) => {
                    assert_eq!(found, Ok(Login { user: user.into(), password: password.into() }));
                }
                Err(problem) => {
                    let why = found.expect_err("refused");
                    assert!(why.contains(problem) && !why.contains("secret:"), "{why}");
                }
            }
        }
    }
}
