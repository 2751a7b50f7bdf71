//! The ways of an artifact between an agent and a cloud's store: told here, gone by the agent, believed here.

use super::presign::{PART_BYTES, Presigned};
use super::uploads::Begun;
use super::{Condition, Store, StoreError};
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
        if self.stands(artifact).await? {
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
        let begun = Begun { upload: upload.to_owned(), artifact: *artifact };
        let under_way = match &presigner.parts {
            Some(parts) if !upload.is_empty() && self.uploads()?.is_under_way(&begun) => Some(parts),
            _ => None,
        };
        // Parts put together would take the place of what is there.
        if self.stands(artifact).await? {
            if under_way.is_some()
                && let Err(error) = self.take_back(&begun).await
            {
                tracing::warn!(digest = %artifact.digest, %error, "parts of what is stored are left for later");
            }
            return Ok(true);
        }
        let Some(parts) = under_way.filter(|_| etags.len() == part_count(artifact.size) as usize) else {
            return Ok(false);
        };
        let ids = etags.into_iter().map(|content_id| PartId { content_id }).collect();
        match parts.complete_multipart(&presigner.at(&artifact.digest), &begun.upload, ids).await {
            Ok(_) => self.uploads()?.forget(upload),
            // One that was put together before, and whose answer was lost, is there.
            Err(error) => {
                tracing::warn!(digest = %artifact.digest, %error, "an upload in parts was not put together")
            }
        }
        self.stands(artifact).await
    }

    /// Whether an artifact is stored; somebody relies on it from now on. Where something of another size stands
    /// under its digest, one of the two is wrong, and nobody's word says which: what is stored is read.
    async fn stands(&self, artifact: &Artifact) -> Result<bool, StoreError> {
        let digest = &artifact.digest;
        let stored = {
            let _pass = self.in_use.enter(digest).await;
            self.size(digest).await?
        };
        match stored {
            None => return Ok(false),
            Some(size) if size == artifact.size => return Ok(true),
            Some(_) => {}
        }
        match self.remove_corrupt(digest).await? {
            // Meanwhile somebody may have stored what it should be.
            Condition::Whole if self.size(digest).await? == Some(artifact.size) => Ok(true),
            Condition::Whole => Err(StoreError::OtherSize(*digest)),
            Condition::Corrupt | Condition::Missing => {
                self.suspect(digest);
                Ok(false)
            }
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
        if self.presigner.as_ref().is_none_or(|it| it.parts.is_none()) {
            return Ok(0);
        }
        let broken = self.uploads()?.broken_off(idle);
        for begun in &broken {
            self.take_back(begun).await?;
        }
        Ok(broken.len())
    }

    async fn take_back(&self, begun: &Begun) -> Result<(), StoreError> {
        let presigner = self.presigner.as_ref().ok_or(StoreError::Unsigned)?;
        let Some(parts) = &presigner.parts else { return Ok(()) };
        match parts.abort_multipart(&presigner.at(&begun.artifact.digest), &begun.upload).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                self.uploads()?.forget(&begun.upload);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn part_count(size: u64) -> u32 {
    u32::try_from(size.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
}
