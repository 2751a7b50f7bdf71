//! Logins for private repositories: the coordinator's own, and never anybody else's.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use url::{Host, Url};

/// A file of logins, read again for each fetch, so that they can be changed at any time.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
}

/// What is shown to a server.
pub(super) struct Login {
    pub user: String,
    pub password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Logins {
    repository: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Of a repository, or of a place that has several below it.
    #[serde(deserialize_with = "url")]
    url: Url,
    user: String,
    password: String,
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    Url::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a login")
    }
}

impl Credentials {
    /// Takes a file, if it can be used.
    pub fn open(path: PathBuf) -> anyhow::Result<Credentials> {
        read(&path).with_context(|| format!("read the logins of --git-credentials in {}", path.display()))?;
        Ok(Credentials { path })
    }

    /// The login for a repository. Where the file has become unusable, there is none.
    pub(super) fn login(&self, repository: &str) -> Option<Login> {
        let repository = Url::parse(repository).ok()?;
        let entries = read(&self.path)
            .inspect_err(|error| {
                tracing::error!(error = %format_args!("{error:#}"), file = %self.path.display(), "logins cannot be read");
            })
            .ok()?;
        // The one that says most of the path is meant.
        let fitting = entries.into_iter().filter(|entry| is_below(&repository, &entry.url));
        let best = fitting.max_by_key(|entry| entry.url.path().len())?;
        Some(Login { user: best.user, password: best.password })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others may read it: chmod 600 {}", path.display());
    }
    let text = std::fs::read_to_string(path)?;
    // The parser's own message would quote the line, password included.
    let logins: Logins = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        anyhow::anyhow!("line {line}: write [[repository]] tables of url, user and password")
    })?;
    for (place, entry) in logins.repository.iter().enumerate() {
        let field = |name: &str| format!("repository[{place}].{name}");
        if entry.url.scheme() != "https" && !(entry.url.scheme() == "http" && is_loopback(&entry.url)) {
            bail!("{} is not https://, and no password is sent in the clear", field("url"));
        }
        if !entry.url.username().is_empty() || entry.url.password().is_some() {
            bail!("{} has a user or password in it; give them as user and password", field("url"));
        }
        if entry.user.is_empty() || entry.password.is_empty() {
            bail!("{} or password is empty", field("user"));
        }
    }
    Ok(logins.repository)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether a repository is at a place, or in a directory below it, of the same server.
fn is_below(repository: &Url, place: &Url) -> bool {
    let server =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    let (repository_path, place_path) = (repository.path(), place.path().trim_end_matches('/'));
    let rest = repository_path.strip_prefix(place_path);
    server(repository) == server(place) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("ours");
        file
    }

    fn entry(url: &str, password: &str) -> String {
        format!("[[repository]]\nurl = \"{url}\"\nuser = \"me\"\npassword = \"{password}\"\n")
    }

    #[test]
    fn a_login_is_for_its_server_and_what_is_below_its_path() {
        let text = entry("https://host/kernel/", "a") + &entry("https://host/kernel/private.git", "b");
        let file = file(&text, 0o600);
        let credentials = Credentials::open(file.path().to_owned()).expect("usable");
        let password = |url: &str| credentials.login(url).map(|login| login.password);
        for (url, expected) in [
            ("https://host/kernel/linux.git", Some("a")),
            ("https://host:443/kernel", Some("a")),
            ("https://host/kernel/private.git", Some("b")),
            ("https://host/kernels/linux.git", None),
            ("http://host/kernel/linux.git", None),
            ("https://host:8443/kernel/linux.git", None),
            ("https://host.example.org/kernel/linux.git", None),
            ("/srv/linux", None),
        ] {
            assert_eq!(password(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn unusable_files_are_refused_without_a_word_of_a_password() {
        for (text, mode, problem) in [
            (entry("https://host/", "s3cret"), 0o644, "chmod 600"),
            (entry("ssh://host/", "s3cret"), 0o600, "repository[0].url is not https"),
            (entry("http://host/", "s3cret"), 0o600, "no password is sent in the clear"),
            (entry("https://me:s3cret@host/", "s3cret"), 0o600, "repository[0].url has a user"),
            (entry("https://host/", ""), 0o600, "password is empty"),
            (entry("https://host/", "s3cret") + "pasword = \"s3cret\"", 0o600, "line 5"),
            ("[[repository]]\npassword = s3cret".into(), 0o600, "line 2"),
        ] {
            let file = file(&text, mode);
            let error = Credentials::open(file.path().to_owned()).expect_err("refused");
            let said = format!("{error:#}");
            assert!(said.contains(problem) && !said.contains("s3cret"), "{text}: {said}");
        }
    }
}
