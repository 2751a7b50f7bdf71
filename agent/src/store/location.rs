//! From the coordinator's URL to a store.

use kulprit_proto::tls::{SteadyClock, Trust, Wallet, client_config};
use object_store::client::{HttpClient, HttpConnector};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// A whole request, with its upload: a kernel with debug data over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request is repeated; a coordinator that restarts is back by then, and a store that
/// is mended within minutes has cost no attempt.
const RETRY_TIMEOUT: Duration = Duration::from_secs(300);
/// The time bounds the retries. Waits are drawn between the two backoffs, so a count that were
/// to be reached sooner could be used up within seconds.
const RETRIES_MAX: usize = 1200;
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How the store takes large files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploads {
    /// In one request, which needs the file in memory.
    Whole,
    Parts,
}

/// Opens the store, or says why not as a fragment.
pub(super) fn open(
    text: &str,
    wallet: Option<&Arc<Wallet>>,
) -> Result<(Arc<dyn ObjectStore>, Uploads), String> {
    if !text.contains("://") {
        return Ok((local(Path::new(text))?, Uploads::Parts));
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let unknown = || format!("the scheme {:?} is not one of http, https, file", url.scheme());
    let (scheme, _) = ObjectStoreScheme::parse(&url).map_err(|_| unknown())?;
    match scheme {
        ObjectStoreScheme::Http => {
            let store = http(&url, wallet).map_err(|error| error.to_string())?;
            Ok((Arc::new(store), Uploads::Whole))
        }
        ObjectStoreScheme::Local => {
            let path = url.to_file_path().map_err(|()| "it is not a path of this machine".to_owned())?;
            Ok((local(&path)?, Uploads::Parts))
        }
        // Clouds' stores are reached by what the coordinator signs. Memory is nobody's but its own.
        _ => Err(unknown()),
    }
}

fn local(path: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(Arc::new(store.with_fsync(true)))
}

fn http(
    url: &Url,
    wallet: Option<&Arc<Wallet>>,
) -> Result<object_store::http::HttpStore, object_store::Error> {
    let mut options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    if let Some(host) = loopback(url) {
        // A proxy of the environment cannot reach this machine's loopback. An explicit proxy
        // shuts out those of the environment, and the exclusion shuts out the explicit one.
        options = options.with_proxy_url("http://127.0.0.1:9").with_proxy_excludes(host);
    }
    let base = url.as_str().trim_end_matches('/');
    let builder = HttpBuilder::new().with_url(base).with_client_options(options).with_retry(retry());
    match wallet.filter(|_| url.scheme() == "https") {
        Some(wallet) => builder.with_http_connector(Certified(wallet.clone())).build(),
        None => builder.build(),
    }
}

/// Shows the agent's certificate, which object_store's own options cannot say. Each new
/// connection shows the one that is in use by then.
#[derive(Debug)]
struct Certified(Arc<Wallet>);

impl HttpConnector for Certified {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient, object_store::Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "HTTP",
            source: error,
        };
        let config = client_config(Trust::Wallet(self.0.clone()), SteadyClock::shared())
            .map_err(|error| failed(error.into()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            // The coordinator is reached directly, as it is for gRPC.
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(HttpClient::new(client))
    }
}

fn loopback(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain(name) => (name == "localhost").then(|| name.to_owned()),
        Host::Ipv4(address) => address.is_loopback().then(|| address.to_string()),
        Host::Ipv6(address) => address.is_loopback().then(|| address.to_string()),
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF_MIN, max_backoff: BACKOFF_MAX, base: 2. },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_decides() {
        for (url, uploads) in [
            ("http://127.0.0.1:7000/", Uploads::Whole),
            ("https://farm.example.org/artifacts/", Uploads::Whole),
            ("file:///tmp", Uploads::Parts),
            ("/tmp", Uploads::Parts),
        ] {
            assert_eq!(open(url, None).unwrap_or_else(|why| panic!("{url}: {why}")).1, uploads, "{url}");
        }
        for url in [
            "ftp://host/x",
            "memory:///",
            "file://host/x",
            "/nonexistent/store",
            "http://",
            "s3://bucket/prefix",
        ] {
            assert!(open(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_kept_from_proxies() {
        let host = |url: &str| loopback(&Url::parse(url).unwrap());
        for (url, expected) in [
            ("http://127.0.0.1:1/", Some("127.0.0.1")),
            ("http://127.3.2.1/", Some("127.3.2.1")),
            ("http://[::1]:1/", Some("::1")),
            ("http://localhost/", Some("localhost")),
            ("http://10.0.0.1/", None),
            ("http://farm.example.org/", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }
}
