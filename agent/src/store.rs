//! Artifacts on the agent's side: up by digest, down into a cache, verified both ways.
//!
//! Every failure here is one of the infrastructure, and never says anything about a kernel.

mod cache;
mod location;
mod signed;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Cached};

use crate::telemetry::FIGURES;
use bytes::Bytes;
use cache::disk;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kulprit_common::artifact::{self, Artifact};
use kulprit_common::id::{AgentId, Attempt, Digest};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_observe::figures::Count as _;
use kulprit_proto::tls::{Link, Wallet};
use kulprit_proto::v1::agents_client::AgentsClient;
use location::Uploads;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayloadMut, WriteMultipart};
use sha2::Digest as _;
use signed::Signed;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// Uploads under way at once: an HTTP one holds the whole file in memory.
const UPLOADS_MAX: usize = 2;

/// Parts of one upload that are under way at once; each holds 5 MiB of memory.
const PARTS_MAX: usize = 2;

/// Bytes of a local file read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How often a download is tried. Below it, object_store repeats single requests on its own.
const DOWNLOADS_MAX: u32 = 3;

/// Bytes that do not come for so long come no more.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The wait before the second download; it doubles.
const BACKOFF: Duration = Duration::from_millis(500);

/// Told how many bytes of a download have come.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// The farm's store.
#[derive(Clone, Debug)]
pub struct AgentStore {
    way: Way,
    permits: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
enum Way {
    /// As the URL that the coordinator gave names it.
    Direct { objects: Arc<dyn ObjectStore>, uploads: Uploads },
    /// A cloud's, request by request.
    Signed(Signed),
}

impl AgentStore {
    /// Opens `https://host:port/` or `http://` (the coordinator's endpoint), or `file://`.
    pub fn open(url: &str, wallet: Option<&Arc<Wallet>>) -> Result<AgentStore, Infra> {
        let (objects, uploads) = location::open(url, wallet)
            .map_err(|why| store(format_args!("cannot open the artifact store {url:?}: {why}")))?;
        Ok(AgentStore::over(Way::Direct { objects, uploads }))
    }

    /// A cloud's store, each request to which the coordinator signs.
    pub fn signed(client: AgentsClient<Link>, agent: AgentId) -> Result<AgentStore, Infra> {
        Ok(AgentStore::over(Way::Signed(Signed::new(client, agent)?)))
    }

    fn over(way: Way) -> AgentStore {
        AgentStore { way, permits: Arc::new(Semaphore::new(UPLOADS_MAX)) }
    }

    /// The same for an attempt: the coordinator signs for what it holds.
    pub fn for_attempt(mut self, attempt: Attempt) -> AgentStore {
        if let Way::Signed(signed) = &mut self.way {
            signed.attempt = attempt;
        }
        self
    }

    /// Stores a file under its digest; what is there already is not sent again.
    pub async fn upload(&self, path: &Path) -> Result<Artifact, Infra> {
        let artifact = hash_file(path).await?;
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let was_sent = match &self.way {
            Way::Direct { objects, .. } if has(objects.as_ref(), &artifact).await? => false,
            Way::Direct { objects, uploads: Uploads::Whole } => {
                send_whole(objects.as_ref(), path, &artifact).await.map(|()| true)?
            }
            Way::Direct { objects, uploads: Uploads::Parts } => {
                send_parts(objects.as_ref(), path, &artifact).await.map(|()| true)?
            }
            Way::Signed(signed) => signed.upload(path, &artifact).await?,
        };
        if was_sent {
            FIGURES.transfer_bytes.add(&["out"], artifact.size);
        }
        Ok(artifact)
    }

    /// Stores bytes under their digest.
    pub async fn upload_bytes(&self, bytes: Bytes) -> Result<Artifact, Infra> {
        let failed = |error| disk("write", &std::env::temp_dir(), error);
        let file = tempfile::NamedTempFile::new().map_err(failed)?;
        std::fs::write(file.path(), bytes).map_err(failed)?;
        self.upload(file.path()).await
    }

    /// Brings an artifact into the cache, unless it is there; concurrent callers wait for one download.
    pub async fn download(&self, artifact: &Artifact, cache: &Cache) -> Result<Cached, Infra> {
        self.download_watched(artifact, cache, &|_| ()).await
    }

    /// The same; `on_bytes` is told how many have come.
    pub async fn download_watched(
        &self,
        artifact: &Artifact,
        cache: &Cache,
        on_bytes: OnBytes<'_>,
    ) -> Result<Cached, Infra> {
        let flight = cache.flight(&artifact.digest);
        let _alone = flight.lock().await;
        if let Some(cached) = cache.get(artifact) {
            return Ok(cached);
        }
        cache.make_room(artifact.size);
        let (mut wait, mut is_damaged) = (BACKOFF, false);
        for _ in 1..DOWNLOADS_MAX {
            match self.fetch(artifact, cache, is_damaged, on_bytes).await {
                Err(infra) if infra.class == InfraClass::Artifact => {
                    is_damaged = infra == damaged(artifact);
                    tracing::warn!(digest = %artifact.digest, reason = infra.reason, "a download is repeated");
                }
                ended => return ended,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.fetch(artifact, cache, is_damaged, on_bytes).await
    }

    /// `is_damaged` says that what came before was not what it should be.
    async fn fetch(
        &self,
        artifact: &Artifact,
        cache: &Cache,
        is_damaged: bool,
        on_bytes: OnBytes<'_>,
    ) -> Result<Cached, Infra> {
        let staged = cache.stage()?;
        let failed = |error| disk("write", staged.path(), error);
        let mut file = tokio::fs::File::from_std(staged.reopen().map_err(failed)?);
        let mut chunks = self.read(artifact, is_damaged).await?;
        let mut hasher = sha2::Sha256::new();
        let mut size = 0;
        while let Some(chunk) = heard(chunks.try_next()).await? {
            size += chunk.len() as u64;
            if size > artifact.size {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
            on_bytes(size);
        }
        file.flush().await.map_err(failed)?;
        file.sync_data().await.map_err(failed)?;
        if size != artifact.size || Digest::from_bytes(hasher.finalize().into()) != artifact.digest {
            return Err(damaged(artifact));
        }
        FIGURES.transfer_bytes.add(&["in"], size);
        cache.keep(artifact, staged)
    }

    async fn read(
        &self,
        artifact: &Artifact,
        is_damaged: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, Infra>>, Infra> {
        match &self.way {
            Way::Direct { objects, .. } => {
                let got = objects.get(&location(artifact)).await.map_err(refused)?;
                Ok(got.into_stream().map_err(refused).boxed())
            }
            Way::Signed(signed) => signed.open(artifact, is_damaged).await,
        }
    }
}

async fn has(objects: &dyn ObjectStore, artifact: &Artifact) -> Result<bool, Infra> {
    match objects.head(&location(artifact)).await {
        Ok(meta) => Ok(meta.size == artifact.size),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

async fn send_whole(objects: &dyn ObjectStore, path: &Path, artifact: &Artifact) -> Result<(), Infra> {
    let mut payload = PutPayloadMut::new();
    let mut hasher = sha2::Sha256::new();
    let mut chunks = chunks(path).await?;
    while let Some(chunk) = chunks.try_next().await.map_err(|error| disk("read", path, error))? {
        hasher.update(&chunk);
        payload.push(chunk);
    }
    unchanged(path, hasher, artifact)?;
    objects.put(&location(artifact), payload.freeze()).await.map_err(refused)?;
    Ok(())
}

async fn send_parts(objects: &dyn ObjectStore, path: &Path, artifact: &Artifact) -> Result<(), Infra> {
    let mut chunks = chunks(path).await?;
    let mut hasher = sha2::Sha256::new();
    let upload = objects.put_multipart(&location(artifact)).await.map_err(refused)?;
    let mut upload = WriteMultipart::new(upload);
    let sent = async {
        while let Some(chunk) = chunks.try_next().await.map_err(|error| disk("read", path, error))? {
            hasher.update(&chunk);
            upload.wait_for_capacity(PARTS_MAX).await.map_err(refused)?;
            upload.put(chunk);
        }
        unchanged(path, hasher, artifact)
    };
    match sent.await {
        Ok(()) => upload.finish().await.map_err(refused).map(drop),
        Err(infra) => {
            if let Err(error) = upload.abort().await {
                tracing::warn!(digest = %artifact.digest, %error, "an upload was not cleaned up");
            }
            Err(infra)
        }
    }
}

fn location(artifact: &Artifact) -> Location {
    Location::from(artifact::path(&artifact.digest))
}

async fn hash_file(path: &Path) -> Result<Artifact, Infra> {
    let mut chunks = chunks(path).await?;
    let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
    while let Some(chunk) = chunks.try_next().await.map_err(|error| disk("read", path, error))? {
        hasher.update(&chunk);
        size += chunk.len() as u64;
    }
    Ok(Artifact { digest: Digest::from_bytes(hasher.finalize().into()), size })
}

async fn chunks(path: &Path) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Infra> {
    let file = tokio::fs::File::open(path).await.map_err(|error| disk("read", path, error))?;
    Ok(tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES).boxed())
}

fn unchanged(path: &Path, hasher: sha2::Sha256, artifact: &Artifact) -> Result<(), Infra> {
    if Digest::from_bytes(hasher.finalize().into()) == artifact.digest {
        return Ok(());
    }
    let reason = format!("{} changed while it was sent", path.display());
    Err(Infra { class: InfraClass::Internal, reason })
}

/// What comes, unless nothing does for too long.
async fn heard<T>(coming: impl Future<Output = Result<T, Infra>>) -> Result<T, Infra> {
    let silent = |_| store(format_args!("artifact store: nothing came for {} s", SILENCE_MAX.as_secs()));
    tokio::time::timeout(SILENCE_MAX, coming).await.map_err(silent)?
}

fn damaged(artifact: &Artifact) -> Infra {
    store(format_args!("artifact {} is damaged in the store", artifact.digest))
}

fn store(reason: std::fmt::Arguments<'_>) -> Infra {
    Infra { class: InfraClass::Artifact, reason: reason.to_string() }
}

/// What the store said; when it is a directory on a full disk here, the disk is to blame.
fn refused(error: object_store::Error) -> Infra {
    let first: &(dyn std::error::Error + 'static) = &error;
    let full = std::iter::successors(Some(first), |error| error.source()).any(|error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
    });
    let class = if full { InfraClass::Disk } else { InfraClass::Artifact };
    Infra { class, reason: format!("artifact store: {error}") }
}
