//! Source that an agent asks the coordinator for.

use super::events::agent_id;
use super::{InvalidMessage, Result, artifact, attempt, digest, revision};
use crate::v1;
use kulprit_common::artifact::Artifact;
use kulprit_common::id::{AgentId, Attempt, Digest, RevisionId};

const HELD_MAX: usize = 64;
const DAMAGED_MAX: usize = 8;
/// A base, and what leads from it to one attempt's commits.
const PACKS_MAX: usize = 8;
const COMMITS_MAX: usize = 1024;

/// What an agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceWanted {
    pub agent: AgentId,
    pub attempt: Attempt,
    /// Commits whose trees it has whole, newest first.
    pub held: Vec<RevisionId>,
    /// Packs that it could not read as they were named.
    pub damaged: Vec<Digest>,
}

/// A git pack, and the commits whose trees it makes whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePack {
    pub pack: Artifact,
    pub commits: Vec<RevisionId>,
}

impl TryFrom<v1::SourceRequest> for SourceWanted {
    type Error = InvalidMessage;

    fn try_from(message: v1::SourceRequest) -> Result<Self> {
        if message.held.len() > HELD_MAX || message.damaged.len() > DAMAGED_MAX {
            return Err(InvalidMessage::new("held", "names too many commits, or damaged too many packs"));
        }
        Ok(SourceWanted {
            agent: agent_id(&message.agent)?,
            attempt: attempt(message.attempt),
            held: message.held.iter().map(|bytes| revision(bytes, "held")).collect::<Result<_>>()?,
            damaged: message.damaged.iter().map(|bytes| digest(bytes, "damaged")).collect::<Result<_>>()?,
        })
    }
}

impl From<SourceWanted> for v1::SourceRequest {
    fn from(wanted: SourceWanted) -> Self {
        v1::SourceRequest {
            agent: wanted.agent.to_string(),
            attempt: wanted.attempt.0,
            held: wanted.held.iter().take(HELD_MAX).map(|id| id.as_bytes().to_vec()).collect(),
            damaged: wanted.damaged.iter().take(DAMAGED_MAX).map(|id| id.as_bytes().to_vec()).collect(),
        }
    }
}

impl From<SourcePack> for v1::SourcePack {
    fn from(pack: SourcePack) -> Self {
        let commits = pack.commits.iter().map(|id| id.as_bytes().to_vec()).collect();
        v1::SourcePack { pack: Some(pack.pack.into()), commits }
    }
}

impl TryFrom<v1::SourcePack> for SourcePack {
    type Error = InvalidMessage;

    fn try_from(message: v1::SourcePack) -> Result<Self> {
        if message.commits.len() > COMMITS_MAX {
            return Err(InvalidMessage::new("commits", "names too many"));
        }
        Ok(SourcePack {
            pack: artifact(message.pack, "pack")?,
            commits: message.commits.iter().map(|bytes| revision(bytes, "commits")).collect::<Result<_>>()?,
        })
    }
}

/// The packs of an update that has some.
pub fn decode_packs(packs: Vec<v1::SourcePack>) -> Result<Vec<SourcePack>> {
    if packs.len() > PACKS_MAX {
        return Err(InvalidMessage::new("packs", "are too many"));
    }
    packs.into_iter().map(TryInto::try_into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_comes_through_and_too_much_does_not() {
        let wanted = SourceWanted {
            agent: "a".parse().expect("a name"),
            attempt: Attempt(7),
            held: vec![RevisionId::from_bytes([1; 20])],
            damaged: vec![Digest::of(b"pack")],
        };
        let message = v1::SourceRequest::from(wanted.clone());
        assert_eq!(SourceWanted::try_from(message.clone()), Ok(wanted));
        let many = v1::SourceRequest { held: vec![vec![1; 20]; HELD_MAX + 1], ..message.clone() };
        assert!(SourceWanted::try_from(many).is_err());
        let short = v1::SourceRequest { held: vec![vec![1; 19]], ..message };
        assert!(SourceWanted::try_from(short).is_err());
        assert!(SourcePack::try_from(v1::SourcePack::default()).is_err());
        assert!(decode_packs(vec![v1::SourcePack::default(); PACKS_MAX + 1]).is_err());
    }
}
