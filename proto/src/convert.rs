//! Between the wire and the core: `TryFrom` in, `From` out.

mod events;
mod job;
mod outcome;
mod source;
mod views;

pub use events::{decode_completion, decode_sync, encode_desired};
pub use source::{SourcePack, SourceWanted, decode_packs};

use kulprit_common::artifact::Artifact;
use kulprit_common::id::{Attempt, Digest, RevisionId, TreeId};

use crate::v1;

/// A message that does not say what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
}

impl InvalidMessage {
    pub(crate) fn new(field: &'static str, why: impl ToString) -> Self {
        InvalidMessage::Invalid { field, why: why.to_string() }
    }
}

impl From<InvalidMessage> for tonic::Status {
    fn from(error: InvalidMessage) -> Self {
        tonic::Status::invalid_argument(error.to_string())
    }
}

pub type Result<T> = std::result::Result<T, InvalidMessage>;

/// A field that must be there.
pub(crate) fn need<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or(InvalidMessage::Missing(field))
}

pub fn digest(bytes: &[u8], field: &'static str) -> Result<Digest> {
    sized(bytes, field).map(Digest::from_bytes)
}

pub(crate) fn revision(bytes: &[u8], field: &'static str) -> Result<RevisionId> {
    sized(bytes, field).map(RevisionId::from_bytes)
}

pub(crate) fn tree(bytes: &[u8], field: &'static str) -> Result<TreeId> {
    sized(bytes, field).map(TreeId::from_bytes)
}

fn sized<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| InvalidMessage::new(field, format!("has {} bytes, not {N}", bytes.len())))
}

pub(crate) fn attempt(raw: u64) -> Attempt {
    Attempt(raw)
}

impl From<Artifact> for v1::Artifact {
    fn from(artifact: Artifact) -> Self {
        v1::Artifact { digest: artifact.digest.as_bytes().to_vec(), size: artifact.size }
    }
}

pub fn artifact(message: Option<v1::Artifact>, field: &'static str) -> Result<Artifact> {
    let message = need(message, field)?;
    Ok(Artifact { digest: digest(&message.digest, field)?, size: message.size })
}

/// Of what linkers make, the longest has 64 bytes.
const BUILD_ID_CHARS_MAX: usize = 128;

pub(crate) fn build_id(text: String, field: &'static str) -> Result<String> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match is_hex && text.len() <= BUILD_ID_CHARS_MAX {
        true => Ok(text),
        false => Err(InvalidMessage::new(field, "is no build id in hexadecimal")),
    }
}

macro_rules! enum_map {
    ($wire:ty, $core:ty, $into:ident, $from:ident, $unset:pat, { $($w:ident => $c:path),+ $(,)? }) => {
        pub(crate) fn $into(value: $core) -> i32 {
            match value { $($c => <$wire>::$w as i32),+ }
        }
        pub(crate) fn $from(raw: i32, field: &'static str) -> $crate::convert::Result<$core> {
            match <$wire>::try_from(raw) {
                $(Ok(<$wire>::$w) => Ok($c),)+
                Ok($unset) | Err(_) => {
                    Err($crate::convert::InvalidMessage::new(field, format!("{raw} is not a value of it")))
                }
            }
        }
    };
}
pub(crate) use enum_map;
