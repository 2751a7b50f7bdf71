//! Who may do what: roles, names, one-time tokens, and who has been shut out.
//!
//! Everything here is decided from values: certificates are read, keys hashed and secrets drawn
//! elsewhere. `methods` is the table of calls, `ledger` what the farm remembers.

mod ledger;
mod methods;
mod rate;
mod roll;
mod token;

pub use ledger::{AccessAnswer, AccessEvent, AccessFact, Ledger, Refused, TTL_DEFAULT, TTL_MAX, TokenView};
pub use methods::{Allowed, ENDPOINT_READ, ENDPOINT_WRITE, METHODS, allowed};
pub use rate::{Bucket, Rate};
pub use roll::{NotAdmitted, Roll};
pub use token::{InvalidToken, TokenText};

use crate::id::{AgentId, Digest, InvalidId};
use crate::time::Timestamp;
use std::fmt;
use std::str::FromStr;

/// What a certificate's URI name begins with; the coordinator's own is `kulprit://coordinator`.
pub const URI_SCHEME: &str = "kulprit://";

/// The name in every coordinator's certificate, whatever address it is reached at.
pub const COORDINATOR_NAME: &str = "coordinator.kulprit.internal";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Does work: syncs, completes, uploads.
    Agent,
    /// Submits and cancels jobs, lets others in, shuts others out.
    Operator,
    /// Only reads.
    Viewer,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Agent, Role::Operator, Role::Viewer];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Operator => "operator",
            Role::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| InvalidId { text: text.into(), expected: "a role (agent, operator or viewer)" })
    }
}

/// A member of the farm. Operators and viewers are named by the same rules as agents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub role: Role,
    pub name: AgentId,
}

impl Member {
    /// The URI name of its certificate, `kulprit://agent/NAME`.
    pub fn uri(&self) -> String {
        format!("{URI_SCHEME}{self}")
    }

    pub fn from_uri(uri: &str) -> Option<Member> {
        uri.strip_prefix(URI_SCHEME)?.parse().ok()
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

impl FromStr for Member {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let expected = "a member (ROLE/NAME)";
        let (role, name) = text.split_once('/').ok_or_else(|| InvalidId { text: text.into(), expected })?;
        Ok(Member { role: role.parse()?, name: name.parse()? })
    }
}

/// Who did something, as the journal keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// Somebody on the coordinator's own machine, over plaintext loopback.
    #[default]
    Local,
    Member(Member),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Local => f.write_str("local"),
            Principal::Member(member) => member.fmt(f),
        }
    }
}

impl FromStr for Principal {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            // What was recorded before there were members was done locally.
            "local" | "" => Ok(Principal::Local),
            _ => text.parse().map(Principal::Member),
        }
    }
}

/// What a connection has shown of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Plaintext loopback.
    Local,
    /// TLS without a certificate.
    Anonymous,
    /// A certificate of the farm's CA.
    Certified { member: Member, key: Digest, expires: Timestamp },
}

impl Peer {
    pub fn principal(&self) -> Option<Principal> {
        match self {
            Peer::Local => Some(Principal::Local),
            Peer::Anonymous => None,
            Peer::Certified { member, .. } => Some(Principal::Member(member.clone())),
        }
    }

    /// The one agent this peer may speak for; `None` where it may speak for any.
    pub fn confined_to(&self) -> Option<&AgentId> {
        match self {
            Peer::Certified { member, .. } => Some(&member.name),
            Peer::Local | Peer::Anonymous => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_as_they_are_read() {
        for text in ["agent/a-1", "operator/alice", "viewer/x.y"] {
            let member: Member = text.parse().unwrap();
            assert_eq!(member.to_string(), text);
            assert_eq!(Member::from_uri(&member.uri()), Some(member.clone()));
            assert_eq!(text.parse(), Ok(Principal::Member(member)));
        }
        for text in ["", "agent", "agent/", "agent/a/b", "admin/a", "Agent/a", "agent/../x"] {
            assert!(text.parse::<Member>().is_err(), "{text}");
        }
        for uri in ["https://agent/a", "kulprit://", "kulprit://coordinator", "spiffe://agent/a"] {
            assert_eq!(Member::from_uri(uri), None, "{uri}");
        }
        assert_eq!("local".parse(), Ok(Principal::Local));
    }
}
