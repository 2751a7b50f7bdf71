//! Facts of who was set aside and what was let go.

use super::access::principal;
use super::{agent_id, job_id};
use crate::convert::{InvalidMessage, Result};
use crate::v1;
use crate::v1::fact::Fact as Wire;
use kulprit_common::farm::fact::QuarantineFact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::time::Timestamp;

pub(super) fn kind(fact: &QuarantineFact) -> &'static str {
    match fact {
        QuarantineFact::AgentSetAside { .. } => "agent-set-aside",
        QuarantineFact::AgentReleased { .. } => "agent-released",
        QuarantineFact::ItemsReleased { .. } => "items-released",
    }
}

pub(super) fn encode(fact: QuarantineFact) -> Wire {
    match fact {
        QuarantineFact::AgentSetAside { agent, at, reason, by, disowns } => {
            Wire::AgentSetAside(v1::AgentSetAside {
                agent: agent.to_string(),
                at_ms: at.0,
                reason,
                by: by.to_string(),
                disowns,
            })
        }
        QuarantineFact::AgentReleased { agent, at, by } => Wire::AgentReleased(v1::AgentReleased {
            agent: agent.to_string(),
            at_ms: at.0,
            by: by.to_string(),
        }),
        QuarantineFact::ItemsReleased { id, at, items, by } => Wire::ItemsReleased(v1::ItemsReleased {
            job_id: id.to_string(),
            at_ms: at.0,
            items: items.into_iter().map(Into::into).collect(),
            by: by.to_string(),
        }),
    }
}

impl TryFrom<v1::AgentSetAside> for QuarantineFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::AgentSetAside) -> Result<Self> {
        let (agent, at) = (agent_id(&it.agent)?, Timestamp(it.at_ms));
        let (reason, by, disowns) = (it.reason, principal(&it.by)?, it.disowns);
        Ok(QuarantineFact::AgentSetAside { agent, at, reason, by, disowns })
    }
}

impl TryFrom<v1::AgentReleased> for QuarantineFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::AgentReleased) -> Result<Self> {
        let (agent, at) = (agent_id(&it.agent)?, Timestamp(it.at_ms));
        Ok(QuarantineFact::AgentReleased { agent, at, by: principal(&it.by)? })
    }
}

impl TryFrom<v1::ItemsReleased> for QuarantineFact {
    type Error = InvalidMessage;
    fn try_from(it: v1::ItemsReleased) -> Result<Self> {
        let items = it.items.into_iter().map(ItemKey::try_from).collect::<Result<_>>()?;
        let (id, at) = (job_id(&it.job_id)?, Timestamp(it.at_ms));
        Ok(QuarantineFact::ItemsReleased { id, at, items, by: principal(&it.by)? })
    }
}
