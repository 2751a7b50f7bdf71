//! From the coordinator's URL to a store.

use kulprit_proto::tls::{SteadyClock, Trust, Wallet, client_config};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
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
    let unknown = || format!("the scheme {:?} is not one of http, https, file, s3, gs, az", url.scheme());
    let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| unknown())?;
    let bad = |error: object_store::Error| error.to_string();
    let cloud: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::Http => return Ok((Arc::new(http(&url, wallet).map_err(bad)?), Uploads::Whole)),
        ObjectStoreScheme::Local => {
            let path = url.to_file_path().map_err(|()| "it is not a path of this machine".to_owned())?;
            return Ok((local(&path)?, Uploads::Parts));
        }
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(text).with_retry(retry());
            // What is damaged on its way is refused there, rather than kept under its digest.
            Arc::new(builder.with_checksum_algorithm(Checksum::SHA256).build().map_err(bad)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(text);
            Arc::new(builder.with_retry(retry()).build().map_err(bad)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(text);
            Arc::new(builder.with_retry(retry()).build().map_err(bad)?)
        }
        // Memory is nobody's but the coordinator's.
        ObjectStoreScheme::Memory => return Err(unknown()),
        _ => return Err(unknown()),
    };
    Ok((Arc::new(PrefixStore::new(cloud, prefix)), Uploads::Parts))
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
            ("s3://bucket/prefix", Uploads::Parts),
            ("file:///tmp", Uploads::Parts),
            ("/tmp", Uploads::Parts),
        ] {
            assert_eq!(open(url, None).unwrap_or_else(|why| panic!("{url}: {why}")).1, uploads, "{url}");
        }
        for url in ["ftp://host/x", "memory:///", "file://host/x", "/nonexistent/store", "http://"] {
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
