//! What is in the store, looked at and removed.

use super::{Store, StoreError, location, verified};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kulprit_common::id::Digest;
use kulprit_common::retention::Stored;
use kulprit_common::time::Timestamp;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use std::time::Duration;

/// What reading an artifact to its end came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Whole,
    Corrupt,
    Missing,
}

impl Store {
    /// Everything that is stored under a digest.
    pub fn list(&self) -> BoxStream<'static, Result<Stored, StoreError>> {
        let listed = self.objects.list(Some(&"sha256".into())).map_err(StoreError::from);
        listed.try_filter_map(|meta| async move { Ok(stored(&meta)) }).boxed()
    }

    /// Reads an artifact to its end. That does not count as a use of it.
    pub async fn look_at(&self, digest: &Digest) -> Result<Condition, StoreError> {
        let got = match self.objects.get(&location(digest)).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(Condition::Missing),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = verified(got.into_stream().map_err(StoreError::from).boxed(), *digest);
        loop {
            match bytes.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Condition::Whole),
                Err(StoreError::Corrupt(_)) => return Ok(Condition::Corrupt),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes an artifact, unless it was in use within `young`; says whether it did.
    pub async fn remove_unused(&self, digest: &Digest, young: Duration) -> Result<bool, StoreError> {
        match self.in_use.leave_to_remove(digest, young).await {
            Some(_leave) => self.delete(digest).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Forgets who used what longer ago.
    pub fn forget_uses(&self, young: Duration) {
        self.in_use.forget(young);
    }

    pub(super) async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.objects.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is not what it says. What is whole by now is left.
    ///
    /// One at a time: what was stored in place of something removed is not taken for it, and whoever has many
    /// read costs no more than one.
    pub async fn remove_corrupt(&self, digest: &Digest) -> Result<Condition, StoreError> {
        let _alone = self.looking.lock().await;
        let condition = self.look_at(digest).await?;
        if condition == Condition::Corrupt {
            self.delete(digest).await?;
        }
        Ok(condition)
    }
}

/// The artifact that an object is; none where its name is of another shape, such as of an upload under way.
fn stored(meta: &ObjectMeta) -> Option<Stored> {
    let digest: Digest = meta.location.filename()?.parse().ok()?;
    if location(&digest) != meta.location {
        return None;
    }
    let modified = Timestamp(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0));
    Some(Stored { digest, size: meta.size, modified })
}
