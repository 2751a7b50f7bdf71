//! The artifacts an agent works with: its cache, and the store the coordinator points at.

use crate::store::{AgentStore, Cache, Cached};
use kulprit_common::artifact::Artifact;
use kulprit_common::id::Digest;
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_proto::tls::Wallet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub struct Artifacts {
    cache: Cache,
    /// The URL as it was given, and the store it opened.
    store: Mutex<Option<(String, AgentStore)>>,
    /// What is shown to a store of the farm's own.
    wallet: Option<Arc<Wallet>>,
}

impl Artifacts {
    /// Opens the cache at `dir`, of `bytes_max` at most.
    pub fn open(dir: PathBuf, bytes_max: u64, wallet: Option<Arc<Wallet>>) -> Result<Self, Infra> {
        Ok(Artifacts { cache: Cache::open(dir, bytes_max)?, store: Mutex::new(None), wallet })
    }

    /// Uses the store at `url` from now on; a restarted coordinator may serve elsewhere.
    pub fn point_at(&self, url: &str) -> Result<(), Infra> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.as_ref().is_none_or(|(known, _)| known != url) {
            *store = Some((url.to_owned(), AgentStore::open(url, self.wallet.as_ref())?));
        }
        Ok(())
    }

    pub async fn download(&self, artifact: &Artifact) -> Result<Cached, Infra> {
        self.store()?.download(artifact, &self.cache).await
    }

    /// Downloads, and says now and then how many bytes have come.
    pub async fn download_watched(
        &self,
        artifact: &Artifact,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Cached, Infra> {
        self.store()?.download_watched(artifact, &self.cache, on_bytes).await
    }

    pub async fn upload(&self, path: &Path) -> Result<Artifact, Infra> {
        self.store()?.upload(path).await
    }

    /// What was downloaded.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What is in the cache, most recently used first.
    pub fn recent(&self, max: usize) -> Vec<Digest> {
        self.cache.recent(max)
    }

    fn store(&self) -> Result<AgentStore, Infra> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let none = || Infra {
            class: InfraClass::Artifact,
            reason: "the coordinator named no artifact store".into(),
        };
        store.as_ref().map(|(_, store)| store.clone()).ok_or_else(none)
    }
}
