//! Artifacts that attempts were told of lately: they are not removed from under them.

use kulprit_common::id::Digest;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug, Default)]
pub(super) struct InUse {
    told: Mutex<HashMap<Digest, Instant>>,
    /// Held for reading by whoever looks whether an artifact is there, for writing by whoever removes one.
    gate: RwLock<()>,
}

impl InUse {
    /// Notes that somebody is about to rely on an artifact. As long as the answer is held, nothing is removed.
    pub async fn enter(&self, digest: &Digest) -> RwLockReadGuard<'_, ()> {
        let pass = self.gate.read().await;
        self.lock().insert(*digest, Instant::now());
        pass
    }

    /// Leave to remove an artifact as long as the answer is held; `None` where it was in use within `young`.
    pub async fn leave_to_remove(
        &self,
        digest: &Digest,
        young: Duration,
    ) -> Option<RwLockWriteGuard<'_, ()>> {
        let pass = self.gate.write().await;
        let in_use = self.lock().get(digest).is_some_and(|at| at.elapsed() < young);
        (!in_use).then_some(pass)
    }

    /// Forgets what was in use longer ago.
    pub fn forget(&self, young: Duration) {
        self.lock().retain(|_, at| at.elapsed() < young);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_is_relied_on_is_not_removed_and_what_is_being_removed_is_waited_for() {
        let (in_use, digest) = (Arc::new(InUse::default()), Digest::of(b"kernel"));
        let young = Duration::from_secs(3600);
        drop(in_use.enter(&digest).await);
        assert!(in_use.leave_to_remove(&digest, young).await.is_none());
        in_use.forget(Duration::ZERO);
        let leave = in_use.leave_to_remove(&digest, young).await.expect("nobody has it");
        let asking = in_use.clone();
        let asks = tokio::spawn(async move { drop(asking.enter(&digest).await) });
        tokio::task::yield_now().await;
        assert!(!asks.is_finished(), "it may be gone in a moment");
        drop(leave);
        asks.await.expect("it is told once that is clear");
        assert!(in_use.leave_to_remove(&digest, young).await.is_none());
    }
}
