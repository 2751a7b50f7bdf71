//! Everything large, by digest: written once, verified by whoever reads it.
//!
//! Which store it is, a URL says (`location`); how agents reach a local one is `endpoint`, and a cloud's
//! `ways` with `presign`. `keeping` looks at what is stored, `trial` whether there is a store to be used.

mod endpoint;
mod in_use;
mod keeping;
mod location;
mod presign;
mod transfer;
mod trial;
mod uploads;
mod ways;

pub use endpoint::router;
pub use keeping::Condition;
pub use location::without_password;
pub use presign::{PART_BYTES, Presigned, SIGNATURE_LIFE};
pub use uploads::IDLE_MAX;
pub use ways::WayUp;

use crate::failpoint;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use in_use::InUse;
use kulprit_common::artifact::{self, Artifact};
use kulprit_common::id::Digest;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use presign::Presigner;
use sha2::Digest as _;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::sync::mpsc;
use uploads::Uploads;

/// Parts of one upload that are under way at once; each holds 5 MiB of memory.
const PARTS_MAX: usize = 2;

/// Bytes of a local file in memory at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Why an artifact cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `url` as it may be shown.
    #[error("open the artifact store {url}: {why}")]
    BadUrl { url: String, why: String },
    #[error("find artifact {0}")]
    NotFound(Digest),
    #[error("read artifact {0}: what is stored has another digest")]
    Corrupt(Digest),
    #[error("store artifact {expected}: what came has the digest {found}")]
    Mismatch { expected: Digest, found: Digest },
    #[error("take an artifact of more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("store an artifact: the disk is full")]
    Full,
    #[error("take an artifact: its sender broke off: {0}")]
    Sender(String),
    #[error("read {}: {source}", path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("take artifact {0}: its size is not that of the stored artifact")]
    OtherSize(Digest),
    #[error("sign requests for the artifact store: it is the coordinator's own")]
    Unsigned,
    #[error("keep the books of uploads: {source}")]
    Books { source: std::io::Error },
    /// It answers, and will not do before somebody has changed a setting.
    #[error("use the artifact store: {why}: {}", trial::brief(error))]
    Unusable { why: &'static str, error: object_store::Error },
    #[error("use the artifact store: {}", trial::brief(.0))]
    Store(object_store::Error),
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        if is_full(&error) { StoreError::Full } else { StoreError::Store(error) }
    }
}

/// Where artifacts are kept.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Of a cloud's store.
    presigner: Option<Presigner>,
    uploads: Option<Uploads>,
    in_use: Arc<InUse>,
    /// Held by whoever reads an artifact to remove it where it is corrupt.
    looking: Arc<tokio::sync::Mutex<()>>,
    /// Who is told of artifacts that should have been there, or whole.
    suspicions: Option<mpsc::Sender<Digest>>,
}

/// An artifact on its way out.
pub struct Reading {
    pub artifact: Artifact,
    pub modified_rfc2822: String,
    /// Fails at the end when the bytes are not those of the digest.
    pub bytes: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl Store {
    /// Opens the store that `url` names: a path, `file://`, `memory://`, `s3://`, `gs://` or `az://`.
    ///
    /// Credentials and regions come from the environment, as the clouds' own tools read them.
    pub fn open(url: &str) -> Result<Store, StoreError> {
        let opened = location::open(url).map_err(|why| {
            let shown = without_password(url);
            // What refuses a URL may repeat it.
            StoreError::BadUrl { why: why.replace(url, &shown), url: shown }
        });
        let location::Opened { objects, presigner } = opened?;
        let (in_use, looking) = (Arc::default(), Arc::default());
        Ok(Store { objects, presigner, uploads: None, in_use, looking, suspicions: None })
    }

    /// Keeps the books of uploads in parts in a directory of its own.
    pub fn with_uploads_in(mut self, dir: std::path::PathBuf) -> Result<Store, StoreError> {
        self.uploads = Some(Uploads::open(dir).map_err(|source| StoreError::Books { source })?);
        Ok(self)
    }

    /// Tells of artifacts that were missed or found damaged.
    pub fn with_suspicions_to(mut self, whom: mpsc::Sender<Digest>) -> Store {
        self.suspicions = Some(whom);
        self
    }

    /// Says that an artifact may be missing or damaged. Where too many are, some are left for the next time.
    pub fn suspect(&self, digest: &Digest) {
        if let Some(whom) = &self.suspicions {
            let _ = whom.try_send(*digest);
        }
    }

    fn uploads(&self) -> Result<&Uploads, StoreError> {
        let none = || StoreError::Books { source: std::io::Error::other("there is no directory for them") };
        self.uploads.as_ref().ok_or_else(none)
    }

    /// Stores bytes under their digest.
    pub async fn put(&self, bytes: Bytes) -> Result<Artifact, StoreError> {
        let artifact = Artifact { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let _pass = self.in_use.enter(&artifact.digest).await;
        if self.size(&artifact.digest).await? != Some(artifact.size) {
            failpoint::pass("before-artifact");
            self.objects.put(&location(&artifact.digest), bytes.into()).await?;
            failpoint::pass("after-artifact");
        }
        Ok(artifact)
    }

    /// Stores a file under its digest, reading it twice rather than holding it in memory.
    pub async fn put_file(&self, path: &std::path::Path) -> Result<Artifact, StoreError> {
        let mut hasher = sha2::Sha256::new();
        let mut bytes = file_stream(path).await?;
        while let Some(chunk) = bytes.try_next().await? {
            hasher.update(&chunk);
        }
        let digest = Digest::from_bytes(hasher.finalize().into());
        self.receive(digest, file_stream(path).await?, u64::MAX).await
    }

    /// Stores what a stream brings, if it has this digest; nothing is visible before its end.
    pub async fn receive(
        &self,
        digest: Digest,
        mut bytes: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
        size_max: u64,
    ) -> Result<Artifact, StoreError> {
        let at = location(&digest);
        let mut upload = WriteMultipart::new(self.objects.put_multipart(&at).await?);
        let mut hasher = sha2::Sha256::new();
        let mut size = 0;
        let ended = loop {
            match bytes.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(chunk)) => {
                    size += chunk.len() as u64;
                    if size > size_max {
                        break Err(StoreError::TooLarge { max: size_max });
                    }
                    hasher.update(&chunk);
                    if let Err(error) = upload.wait_for_capacity(PARTS_MAX).await {
                        break Err(error.into());
                    }
                    upload.put(chunk);
                }
            }
        };
        let found = Digest::from_bytes(hasher.finalize().into());
        let ended = ended.and_then(|()| {
            if found == digest { Ok(()) } else { Err(StoreError::Mismatch { expected: digest, found }) }
        });
        // What is there already is left alone, unless it is torn.
        let _pass = self.in_use.enter(&digest).await;
        let keep = ended.is_ok() && self.size(&digest).await? != Some(size);
        if keep {
            failpoint::pass("before-artifact");
            upload.finish().await?;
            failpoint::pass("after-artifact");
        } else if let Err(error) = upload.abort().await {
            tracing::warn!(%digest, %error, "an upload was not cleaned up");
        }
        ended.map(|()| Artifact { digest, size })
    }

    /// The size of an artifact, if it is there.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&location(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what is stored is what its digest says; reads all of it.
    pub async fn is_whole(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut reading = match self.get(digest).await {
            Ok(reading) => reading,
            Err(StoreError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        loop {
            match reading.bytes.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(StoreError::Corrupt(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes an artifact; one that is not there is no error.
    pub async fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.objects.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Opens an artifact for reading; whoever reads to the end knows that it is the right one.
    pub async fn get(&self, digest: &Digest) -> Result<Reading, StoreError> {
        drop(self.in_use.enter(digest).await);
        self.read(digest).await
    }

    /// The same, where it does not count as a use of it.
    pub async fn read(&self, digest: &Digest) -> Result<Reading, StoreError> {
        let digest = *digest;
        let got = self.objects.get(&location(&digest)).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => StoreError::NotFound(digest),
            error => error.into(),
        })?;
        let artifact = Artifact { digest, size: got.meta.size };
        let modified_rfc2822 = got.meta.last_modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let bytes = verified(got.into_stream().map_err(StoreError::from).boxed(), digest);
        Ok(Reading { artifact, modified_rfc2822, bytes })
    }

    /// Reads an artifact of at most `max` bytes into memory.
    pub async fn get_bytes(&self, digest: &Digest, max: u64) -> Result<Bytes, StoreError> {
        let mut reading = self.get(digest).await?;
        if reading.artifact.size > max {
            return Err(StoreError::TooLarge { max });
        }
        let mut all = Vec::new();
        while let Some(chunk) = reading.bytes.try_next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }
}

fn location(digest: &Digest) -> Location {
    Location::from(artifact::path(digest))
}

/// Passes bytes on, and fails behind the last one when they are not those of the digest.
fn verified(
    bytes: BoxStream<'static, Result<Bytes, StoreError>>,
    digest: Digest,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let state = Some((bytes, sha2::Sha256::new()));
    futures::stream::try_unfold(state, move |state| async move {
        let Some((mut bytes, mut hasher)) = state else { return Ok(None) };
        match bytes.try_next().await? {
            Some(chunk) => {
                hasher.update(&chunk);
                Ok(Some((chunk, Some((bytes, hasher)))))
            }
            None if Digest::from_bytes(hasher.finalize().into()) == digest => Ok(None),
            None => Err(StoreError::Corrupt(digest)),
        }
    })
    .boxed()
}

async fn file_stream(
    path: &std::path::Path,
) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
    let path = path.to_owned();
    let failed = |path| move |source| StoreError::File { path, source };
    let file = tokio::fs::File::open(&path).await.map_err(failed(path.clone()))?;
    let bytes = tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES);
    Ok(bytes.map_err(move |source| StoreError::File { path: path.clone(), source }).boxed())
}

/// Whether somewhere below an error stands a disk that is full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_seen_through_the_layers() {
        let generic = |kind: ErrorKind| object_store::Error::Generic {
            store: "test",
            source: Box::new(std::io::Error::from(kind)),
        };
        assert!(matches!(StoreError::from(generic(ErrorKind::StorageFull)), StoreError::Full));
        assert!(matches!(StoreError::from(generic(ErrorKind::QuotaExceeded)), StoreError::Full));
        assert!(matches!(StoreError::from(generic(ErrorKind::NotFound)), StoreError::Store(_)));
    }
}
