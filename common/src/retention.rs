//! Which artifacts may go, by age and by the room they take. What is needed, whoever asks knows.

use crate::id::Digest;
use crate::time::Timestamp;
use std::time::Duration;

/// How long an artifact is left alone in any case, unless a coordinator is told otherwise: an attempt that stored
/// it, or found it there, may still be on its way to say so.
pub const YOUNG: Duration = Duration::from_secs(60 * 60);

/// How long, and how much, is kept beyond what is needed; without either, everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub age_max: Option<Duration>,
    /// Of the whole store, what is needed included.
    pub bytes_max: Option<u64>,
}

impl Retention {
    pub fn is_unlimited(&self) -> bool {
        self.age_max.is_none() && self.bytes_max.is_none()
    }
}

/// An object of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub size: u64,
    pub modified: Timestamp,
}

/// What goes, oldest first: all that is too old, and as much more as makes the store small enough.
///
/// Neither what is needed goes nor what is young, even where the store stays too large.
pub fn expendable(
    now: Timestamp,
    stored: &[Stored],
    retention: &Retention,
    young: Duration,
    is_needed: impl Fn(&Digest) -> bool,
) -> Vec<Stored> {
    let age = |it: &Stored| now.since(it.modified);
    let free = stored.iter().filter(|it| age(it) >= young && !is_needed(&it.digest));
    let mut free: Vec<Stored> = free.copied().collect();
    free.sort_by_key(|it| (it.modified, it.digest));
    let total: u128 = stored.iter().map(|it| u128::from(it.size)).sum();
    let mut over = match retention.bytes_max {
        Some(max) => total.saturating_sub(max.into()),
        None => 0,
    };
    free.retain(|it| {
        let goes = over > 0 || retention.age_max.is_some_and(|max| age(it) > max);
        if goes {
            over = over.saturating_sub(it.size.into());
        }
        goes
    });
    free
}
