//! Who is in and who is out, as every call is held against it.

use super::{Member, Peer, allowed};
use crate::id::Digest;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Members with the key each joined with, and those shut out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    pub(super) keys: BTreeMap<Member, Digest>,
    pub(super) denied: BTreeSet<Member>,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("{0} is not a call of this coordinator")]
    UnknownCall(String),
    #[error("{0} needs a certificate: join the farm with `kulprit join`, or --join for an agent")]
    NoCertificate(String),
    #[error("the certificate of {0} has expired; is the clock of its machine right?")]
    Expired(Member),
    #[error("{0} has been revoked")]
    Revoked(Member),
    #[error("{0} has joined anew with another key; this certificate is no longer valid")]
    Replaced(Member),
    #[error("{method} is not for {member}")]
    WrongRole { method: String, member: Member },
}

impl Roll {
    /// Whether this peer may make this call now.
    pub fn admit(&self, peer: &Peer, method: &str, now: Timestamp) -> Result<(), NotAdmitted> {
        let allowed = allowed(method).ok_or_else(|| NotAdmitted::UnknownCall(method.into()))?;
        match peer {
            Peer::Local => Ok(()),
            Peer::Anonymous if allowed == super::Allowed::Anyone => Ok(()),
            Peer::Anonymous => Err(NotAdmitted::NoCertificate(method.into())),
            Peer::Certified { member, .. } => {
                self.is_in(peer, now)?;
                let method = method.to_owned();
                let wrong = || NotAdmitted::WrongRole { method, member: member.clone() };
                allowed.admits(member.role).then_some(()).ok_or_else(wrong)
            }
        }
    }

    /// Whether this peer may stay connected.
    pub fn is_in(&self, peer: &Peer, now: Timestamp) -> Result<(), NotAdmitted> {
        let Peer::Certified { member, key, expires } = peer else { return Ok(()) };
        if self.denied.contains(member) {
            return Err(NotAdmitted::Revoked(member.clone()));
        }
        if self.keys.get(member).is_some_and(|joined| joined != key) {
            return Err(NotAdmitted::Replaced(member.clone()));
        }
        if *expires <= now {
            return Err(NotAdmitted::Expired(member.clone()));
        }
        Ok(())
    }
}
