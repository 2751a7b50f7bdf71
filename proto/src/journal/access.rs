//! Facts of who was let in and who was shut out.

use crate::convert::{InvalidMessage, Result, digest};
use crate::v1;
use crate::v1::fact::Fact as Wire;
use kulprit_common::access::{AccessFact, Member, Principal};
use kulprit_common::time::Timestamp;

pub(super) fn kind(fact: &AccessFact) -> &'static str {
    match fact {
        AccessFact::TokenCreated { .. } => "token-created",
        AccessFact::TokenRevoked { .. } => "token-revoked",
        AccessFact::Joined { .. } => "member-joined",
        AccessFact::Revoked { .. } => "member-revoked",
    }
}

pub(super) fn encode(fact: AccessFact) -> Wire {
    match fact {
        AccessFact::TokenCreated { id, role, name, labels, at, expires, by } => {
            Wire::TokenCreated(v1::TokenCreated {
                id: id.as_bytes().to_vec(),
                role: role.to_string(),
                name: name.map(|name| name.to_string()),
                labels,
                at_ms: at.0,
                expires_ms: expires.0,
                by: by.to_string(),
            })
        }
        AccessFact::TokenRevoked { id, at, by } => Wire::TokenRevoked(v1::TokenRevoked {
            id: id.as_bytes().to_vec(),
            at_ms: at.0,
            by: by.to_string(),
        }),
        AccessFact::Joined { token, member, key, labels, at } => Wire::MemberJoined(v1::MemberJoined {
            token: token.as_bytes().to_vec(),
            member: member.to_string(),
            key: key.as_bytes().to_vec(),
            labels,
            at_ms: at.0,
        }),
        AccessFact::Revoked { member, at, by } => Wire::MemberRevoked(v1::MemberRevoked {
            member: member.to_string(),
            at_ms: at.0,
            by: by.to_string(),
        }),
    }
}

pub(super) fn principal(text: &str) -> Result<Principal> {
    text.parse().map_err(|error| InvalidMessage::new("by", error))
}

fn member(text: &str) -> Result<Member> {
    text.parse().map_err(|error| InvalidMessage::new("member", error))
}

impl TryFrom<v1::TokenCreated> for AccessFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::TokenCreated) -> Result<Self> {
        let name = it.name.map(|name| name.parse()).transpose();
        Ok(AccessFact::TokenCreated {
            id: digest(&it.id, "id")?,
            role: it.role.parse().map_err(|error| InvalidMessage::new("role", error))?,
            name: name.map_err(|error| InvalidMessage::new("name", error))?,
            labels: it.labels,
            at: Timestamp(it.at_ms),
            expires: Timestamp(it.expires_ms),
            by: principal(&it.by)?,
        })
    }
}

impl TryFrom<v1::TokenRevoked> for AccessFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::TokenRevoked) -> Result<Self> {
        let (id, at) = (digest(&it.id, "id")?, Timestamp(it.at_ms));
        Ok(AccessFact::TokenRevoked { id, at, by: principal(&it.by)? })
    }
}

impl TryFrom<v1::MemberJoined> for AccessFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::MemberJoined) -> Result<Self> {
        Ok(AccessFact::Joined {
            token: digest(&it.token, "token")?,
            member: member(&it.member)?,
            key: digest(&it.key, "key")?,
            labels: it.labels,
            at: Timestamp(it.at_ms),
        })
    }
}

impl TryFrom<v1::MemberRevoked> for AccessFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::MemberRevoked) -> Result<Self> {
        let (member, at) = (member(&it.member)?, Timestamp(it.at_ms));
        Ok(AccessFact::Revoked { member, at, by: principal(&it.by)? })
    }
}
