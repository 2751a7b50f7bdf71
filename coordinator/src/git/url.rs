//! Telling paths from URLs, and what of a URL may be shown.

use super::GitError;
use kulprit_common::id::Digest;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Used in place.
    Path(PathBuf),
    /// Fetched.
    Url(String),
}

impl Location {
    /// Reads the repository field of a job.
    pub(super) fn parse(repository: &str) -> Result<Location, GitError> {
        let refuse = |why: &str| GitError::Unreachable { url: redact(repository), why: why.into() };
        if let Some((scheme, _)) = repository.split_once("://") {
            return match scheme {
                "https" | "http" | "git" | "file" => Ok(Location::Url(repository.into())),
                "ssh" | "git+ssh" => {
                    Err(refuse("ssh is not supported; use https, git, or the path of a clone"))
                }
                _ => Err(refuse("the scheme is not one of https, http, git, file")),
            };
        }
        // As git has it: a colon before the first slash makes it a host, unless it exists here.
        let host = repository.split('/').next().is_some_and(|first| first.contains(':'));
        if host && !std::path::Path::new(repository).exists() {
            return Err(refuse("ssh is not supported; use https, git, or the path of a clone"));
        }
        Ok(Location::Path(repository.into()))
    }
}

/// The directory name of the mirror of `repository`: readable, and unique by the digest.
pub(super) fn mirror_name(repository: &str) -> String {
    let last = repository.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let plain: String = last
        .trim_end_matches(".git")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    let digest = Digest::of(repository.as_bytes()).to_string();
    format!("{}-{}.git", &plain[..plain.len().min(40)], &digest[..16])
}

/// The URL without the user and the password that may stand in it.
pub(super) fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.into(),
    }
}

/// Whether a user or a password stands in the URL.
pub(super) fn has_login(url: &str) -> bool {
    redact(url) != url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        for path in ["/srv/linux", "linux", "../linux", "./a:b", "/srv/a:b"] {
            assert_eq!(Location::parse(path).unwrap(), Location::Path(path.into()), "{path}");
        }
        for url in ["https://host/linux.git", "git://host/x", "file:///srv/linux"] {
            assert_eq!(Location::parse(url).unwrap(), Location::Url(url.into()), "{url}");
        }
        for refused in ["ssh://git@host/x", "git@host:linux.git", "ftp://host/x"] {
            assert!(matches!(Location::parse(refused), Err(GitError::Unreachable { .. })), "{refused}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redact("https://me:secret@host/x@y.git"), "https://host/x@y.git");
        assert_eq!(redact("https://host/x@y.git"), "https://host/x@y.git");
        assert_eq!(redact("https://me:p@ss@host"), "https://host");
    }

    #[test]
    fn mirrors_have_names_of_their_own() {
        assert!(mirror_name("https://host/linux.git/").starts_with("linux-"));
        assert_ne!(mirror_name("https://a/linux"), mirror_name("https://b/linux"));
        assert!(!mirror_name("/srv/..").contains(".."));
    }
}
