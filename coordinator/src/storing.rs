//! How the artifact store is set up: where it is, and what is kept in it.

pub use crate::artifacts::without_password;

use crate::artifacts::{Store, StoreError};
use crate::keeper::SUSPICIONS_MAX;
use anyhow::{Context as _, bail};
use kulprit_common::id::Digest;
use kulprit_common::retention::{Retention, YOUNG};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a coordinator that starts waits for what its store says: one that is away is waited for by attempts.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Where artifacts are kept: a directory, or file://, s3://BUCKET/PREFIX, gs://, az://, whose keys and
    /// endpoint come from the environment and stay with the coordinator [default: STATE/artifacts]
    #[arg(long, env = "KULPRIT_ARTIFACTS", value_name = "URL")]
    artifacts: Option<String>,
    /// Days after which an artifact that no open job needs is removed [default: kept]
    #[arg(long, env = "KULPRIT_ARTIFACTS_KEEP_DAYS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    artifacts_keep_days: Option<u32>,
    /// GiB above which the oldest artifacts that no open job needs are removed [default: kept]
    #[arg(long, env = "KULPRIT_ARTIFACTS_MAX_GIB", value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    artifacts_max_gib: Option<u64>,
    /// Age below which none is removed, in seconds
    #[arg(long, env = "KULPRIT_ARTIFACTS_YOUNG_S", hide = true, default_value_t = YOUNG.as_secs())]
    artifacts_young_s: u64,
}

/// The store, and what it brings to the attention of its keeper.
pub struct Opened {
    pub store: Arc<Store>,
    pub url: String,
    pub suspects: mpsc::Receiver<Digest>,
}

impl StoreArgs {
    pub fn open(&self, state: &Path) -> anyhow::Result<Opened> {
        let local = || state.join("artifacts").to_string_lossy().into_owned();
        let url = self.artifacts.clone().unwrap_or_else(local);
        let (whom, suspects) = mpsc::channel(SUSPICIONS_MAX);
        let uploads = state.join("uploads");
        let at = uploads.display().to_string();
        let store = Store::open(&url)?.with_uploads_in(uploads).with_context(|| format!("open {at}"))?;
        Ok(Opened { store: Arc::new(store.with_suspicions_to(whom)), url, suspects })
    }

    pub fn retention(&self) -> Retention {
        Retention {
            age_max: self.artifacts_keep_days.map(|days| days * DAY),
            bytes_max: self.artifacts_max_gib.map(|gib| gib << 30),
        }
    }

    /// What is younger is never removed.
    pub fn young(&self) -> Duration {
        Duration::from_secs(self.artifacts_young_s)
    }
}

/// Refuses a store that needs another setting, or a bucket; one that is away may be back before it is needed.
pub async fn try_out(store: &Store, url: &str) -> anyhow::Result<()> {
    match tokio::time::timeout(TRIAL_LIMIT, store.try_out()).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ StoreError::Unusable { .. })) => bail!("start with --artifacts {url}: {error}"),
        Ok(Err(error)) => tracing::warn!(url, %error, "the artifact store is away; attempts wait for it"),
        Err(_) => tracing::warn!(url, "the artifact store does not answer; attempts wait for it"),
    }
    Ok(())
}
