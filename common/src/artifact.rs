//! What is stored by digest.

use crate::id::Digest;
use serde::{Deserialize, Serialize};

/// A stored value: its name is the SHA-256 of its bytes, and its reader verifies that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Artifact {
    pub digest: Digest,
    pub size: u64,
}

/// The path of an artifact below the store's root: two levels, so that no directory grows without bound.
pub fn path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("sha256/{}/{hex}", &hex[..2])
}
