//! The ways of an artifact between an agent and a cloud's store: told here, gone by the agent, believed here.

use super::presign::{PART_BYTES, Presigned};
use super::uploads::Begun;
use super::{Store, StoreError};
use kulprit_common::artifact::Artifact;
use object_store::multipart::PartId;
use std::time::Duration;

/// Parts that are signed at once: as many as a slow line takes within a signature's life.
const SIGNED_AT_ONCE: u32 = 32;

/// How an artifact gets into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayUp {
    /// It is there.
    Stored,
    Whole(Presigned),
    Parts {
        upload: String,
        part_bytes: u64,
        first: u32,
        requests: Vec<Presigned>,
    },
}

impl Store {
    /// Whether agents are given signed requests, and do without the coordinator's endpoint.
    pub fn presigns(&self) -> bool {
        self.presigner.is_some()
    }

    /// How to store an artifact. `upload` goes on with one in parts, from the part `first` on.
    pub async fn way_up(&self, artifact: &Artifact, upload: &str, first: u32) -> Result<WayUp, StoreError> {
        let presigner = self.presigner.as_ref().ok_or(StoreError::Unsigned)?;
        let _pass = self.in_use.enter(&artifact.digest).await;
        if self.size(&artifact.digest).await? == Some(artifact.size) {
            return Ok(WayUp::Stored);
        }
        let Some(parts) = presigner.parts.as_ref().filter(|_| artifact.size > PART_BYTES) else {
            return Ok(WayUp::Whole(presigner.whole(artifact).await?));
        };
        let known = Begun { upload: upload.to_owned(), artifact: *artifact };
        let (upload, first) = if !upload.is_empty() && self.uploads()?.is_under_way(&known) {
            (known.upload, first)
        } else {
            let upload = parts.create_multipart(&presigner.at(&artifact.digest)).await?;
            let begun = Begun { upload: upload.clone(), artifact: *artifact };
            self.uploads()?.note(&begun).map_err(|source| StoreError::Books { source })?;
            (upload, 0)
        };
        let mut requests = Vec::new();
        for part in first..part_count(artifact.size).min(first.saturating_add(SIGNED_AT_ONCE)) {
            requests.push(presigner.part(&artifact.digest, &upload, part).await?);
        }
        Ok(WayUp::Parts { upload, part_bytes: PART_BYTES, first, requests })
    }

    /// Whether an artifact that was sent is there, with its size; parts are put together first.
    pub async fn arrived(
        &self,
        artifact: &Artifact,
        upload: &str,
        etags: Vec<String>,
    ) -> Result<bool, StoreError> {
        let presigner = self.presigner.as_ref().ok_or(StoreError::Unsigned)?;
        let _pass = self.in_use.enter(&artifact.digest).await;
        if let (false, Some(parts)) = (upload.is_empty(), &presigner.parts) {
            let begun = Begun { upload: upload.to_owned(), artifact: *artifact };
            let is_whole = etags.len() == part_count(artifact.size) as usize;
            if is_whole && self.uploads()?.is_under_way(&begun) {
                let ids = etags.into_iter().map(|content_id| PartId { content_id }).collect();
                let at = presigner.at(&artifact.digest);
                match parts.complete_multipart(&at, &begun.upload, ids).await {
                    Ok(_) => self.uploads()?.forget(upload),
                    // One that was put together before, and whose answer was lost, is there.
                    Err(error) => {
                        tracing::warn!(digest = %artifact.digest, %error, "an upload in parts was not put together")
                    }
                }
            }
        }
        match self.size(&artifact.digest).await? {
            Some(size) if size == artifact.size => Ok(true),
            Some(_) => {
                // Under its digest stands something else: whoever looks only at whether it is there would believe it.
                self.delete(&artifact.digest).await?;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Whether an artifact is stored, whole; somebody relies on it from now on.
    pub async fn has(&self, artifact: &Artifact) -> Result<bool, StoreError> {
        let _pass = self.in_use.enter(&artifact.digest).await;
        Ok(self.size(&artifact.digest).await? == Some(artifact.size))
    }

    /// How to fetch an artifact.
    pub async fn way_down(&self, artifact: &Artifact) -> Result<Presigned, StoreError> {
        let presigner = self.presigner.as_ref().ok_or(StoreError::Unsigned)?;
        let _pass = self.in_use.enter(&artifact.digest).await;
        match self.size(&artifact.digest).await? {
            Some(size) if size == artifact.size => Ok(presigner.get(&artifact.digest).await?),
            Some(_) | None => Err(StoreError::NotFound(artifact.digest)),
        }
    }

    /// Takes back uploads whose senders were not heard of for longer than `idle`; says how many.
    pub async fn abort_broken_off(&self, idle: Duration) -> Result<usize, StoreError> {
        let Some(presigner) = &self.presigner else { return Ok(0) };
        let Some(parts) = &presigner.parts else { return Ok(0) };
        let broken = self.uploads()?.broken_off(idle);
        for begun in &broken {
            match parts.abort_multipart(&presigner.at(&begun.artifact.digest), &begun.upload).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => self.uploads()?.forget(&begun.upload),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(broken.len())
    }
}

fn part_count(size: u64) -> u32 {
    u32::try_from(size.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
}
