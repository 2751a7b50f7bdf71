//! The artifacts an agent works with: its cache, and the store the coordinator points at.

use crate::store::{AgentStore, Cache, Cached};
use kulprit_common::artifact::Artifact;
use kulprit_common::id::{AgentId, Attempt, Digest};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_proto::tls::{Link, Wallet};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Where the coordinator says that artifacts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Url(String),
    /// In a cloud's store; the coordinator signs each request.
    Signed,
}

impl Place {
    pub fn of(response: &v1::SyncResponse) -> Place {
        if response.artifacts_presigned { Place::Signed } else { Place::Url(response.artifacts_url.clone()) }
    }
}

pub struct Artifacts {
    cache: Cache,
    /// The place as it was given, and the store it opened.
    store: watch::Sender<Option<(Place, AgentStore)>>,
    /// What is shown to a store of the farm's own.
    wallet: Option<Arc<Wallet>>,
    /// Who is asked to sign, and for whom.
    signing: Option<(AgentsClient<Link>, AgentId)>,
}

impl Artifacts {
    /// Opens the cache at `dir`, of `bytes_max` at most.
    pub fn open(dir: PathBuf, bytes_max: u64, wallet: Option<Arc<Wallet>>) -> Result<Self, Infra> {
        let store = watch::channel(None).0;
        Ok(Artifacts { cache: Cache::open(dir, bytes_max)?, store, wallet, signing: None })
    }

    /// Asks there for what is to be signed.
    pub fn signed_by(mut self, client: AgentsClient<Link>, agent: AgentId) -> Self {
        self.signing = Some((client, agent));
        self
    }

    /// Uses the store at this place from now on; a restarted coordinator may serve elsewhere.
    pub fn point_at(&self, place: Place) -> Result<(), Infra> {
        if self.store.borrow().as_ref().is_none_or(|(known, _)| *known != place) {
            let opened = match (&place, &self.signing) {
                (Place::Url(url), _) => AgentStore::open(url, self.wallet.as_ref())?,
                (Place::Signed, Some((client, agent))) => AgentStore::signed(client.clone(), agent.clone())?,
                (Place::Signed, None) => return Err(unnamed()),
            };
            self.store.send_replace(Some((place, opened)));
        }
        Ok(())
    }

    pub async fn download(&self, attempt: Attempt, artifact: &Artifact) -> Result<Cached, Infra> {
        self.download_watched(attempt, artifact, &|_| ()).await
    }

    /// Downloads, and says now and then how many bytes have come.
    pub async fn download_watched(
        &self,
        attempt: Attempt,
        artifact: &Artifact,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Cached, Infra> {
        self.wherever_it_is(|store| async move {
            store.for_attempt(attempt).download_watched(artifact, &self.cache, on_bytes).await
        })
        .await
    }

    pub async fn upload(&self, attempt: Attempt, path: &Path) -> Result<Artifact, Infra> {
        self.wherever_it_is(|store| async move { store.for_attempt(attempt).upload(path).await }).await
    }

    /// Begins anew where the store moves meanwhile: the one before may never answer again.
    async fn wherever_it_is<T, F: Future<Output = Result<T, Infra>>>(
        &self,
        transfer: impl Fn(AgentStore) -> F,
    ) -> Result<T, Infra> {
        let mut moves = self.store.subscribe();
        loop {
            let store = moves.borrow_and_update().as_ref().map(|(_, store)| store.clone());
            let store = store.ok_or_else(unnamed)?;
            tokio::select! {
                done = transfer(store) => return done,
                // The sender is ours.
                Ok(()) = moves.changed() => {}
            }
        }
    }

    /// What was downloaded.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What is in the cache, most recently used first.
    pub fn recent(&self, max: usize) -> Vec<Digest> {
        self.cache.recent(max)
    }
}

fn unnamed() -> Infra {
    Infra { class: InfraClass::Artifact, reason: "the coordinator named no artifact store".into() }
}
