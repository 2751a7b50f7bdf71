//! Facts as the journal keeps them: protobuf, so that they evolve.

mod access;
mod quarantine;
mod rounds;

use crate::convert::{InvalidMessage, Result, artifact, attempt, digest, need, revision, tree};
use crate::v1;
use crate::v1::fact::Fact as Wire;
use kulprit_common::bisect::{Counts, Judgement, Role};
use kulprit_common::config_work::Worked;
use kulprit_common::farm::fact::{Configured, EndSummary, Fact, Judged, Recipe, Rendered, Resolution};
use kulprit_common::farm::item::ItemKey;
use kulprit_common::history::{Revision, TaggedRelease};
use kulprit_common::id::{AgentId, JobId};
use kulprit_common::patch::{KnownFix, Patch};
use kulprit_common::time::Timestamp;
use kulprit_common::toolchain::Release;
use kulprit_common::verdict::Verdict;
use prost::Message;

/// The word a fact is filed under.
pub fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::EpochStarted { .. } => "epoch-started",
        Fact::JobSubmitted { .. } => "job-submitted",
        Fact::CancelRequested { .. } => "cancel-requested",
        Fact::Access(fact) => access::kind(fact),
        Fact::JobResolved { .. } => "job-resolved",
        Fact::ItemFinished { .. } => "item-finished",
        Fact::AttemptFailed { .. } => "attempt-failed",
        Fact::AgentCame { .. } => "agent-came",
        Fact::AgentWent { .. } => "agent-went",
        Fact::Quarantine(fact) => quarantine::kind(fact),
        Fact::Judged { .. } => "judged",
        Fact::Overruled { .. } => "overruled",
        Fact::Explained { .. } => "explained",
        Fact::Configured { .. } => "configured",
        Fact::ProductsForgotten { .. } => "products-forgotten",
        Fact::JobEnded { .. } => "job-ended",
    }
}

pub fn encode(fact: Fact) -> Vec<u8> {
    v1::Fact { fact: Some(fact.into()) }.encode_to_vec()
}

pub fn decode(bytes: &[u8]) -> Result<Fact> {
    let message = v1::Fact::decode(bytes).map_err(|error| InvalidMessage::new("fact", error))?;
    need(message.fact, "fact")?.try_into()
}

impl From<Fact> for Wire {
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::EpochStarted { epoch } => Wire::EpochStarted(v1::EpochStarted { epoch }),
            Fact::JobSubmitted { id, request, at, job, reproducer, by } => {
                Wire::JobSubmitted(v1::JobSubmitted {
                    by: by.to_string(),
                    job_id: id.to_string(),
                    request,
                    at_ms: at.0,
                    job: Some((*job).into()),
                    reproducer: Some(reproducer.into()),
                })
            }
            Fact::CancelRequested { id, at, by } => Wire::CancelRequested(v1::CancelRequested {
                job_id: id.to_string(),
                at_ms: at.0,
                by: by.to_string(),
            }),
            Fact::Access(fact) => access::encode(fact),
            Fact::JobResolved { id, resolution } => Wire::JobResolved(v1::JobResolved {
                job_id: id.to_string(),
                bad: Some(resolution.bad.into()),
                good: resolution.good.map(Into::into),
                releases: resolution.releases.into_iter().map(Into::into).collect(),
                fixes: resolution.fixes.into_iter().map(Into::into).collect(),
            }),
            Fact::ItemFinished { item, attempt, agent, at, product } => {
                Wire::ItemFinished(v1::ItemFinished {
                    item: Some(item.into()),
                    attempt: attempt.0,
                    agent: agent.to_string(),
                    at_ms: at.0,
                    product: Some((*product).into()),
                })
            }
            Fact::AttemptFailed { item, attempt, agent, at, infra } => {
                Wire::AttemptFailed(v1::AttemptFailed {
                    item: Some(item.into()),
                    attempt: attempt.0,
                    agent: agent.to_string(),
                    at_ms: at.0,
                    infra: Some(infra.into()),
                })
            }
            Fact::AgentCame { agent, at } => {
                Wire::AgentCame(v1::AgentCame { agent: agent.to_string(), at_ms: at.0 })
            }
            Fact::AgentWent { agent, at } => {
                Wire::AgentWent(v1::AgentWent { agent: agent.to_string(), at_ms: at.0 })
            }
            Fact::Quarantine(fact) => quarantine::encode(fact),
            Fact::Judged { id, judged } => Wire::Judged(judged_out(&id, *judged)),
            Fact::Overruled { id, at, revision, word, by } => Wire::Overruled(v1::Overruled {
                by: by.to_string(),
                job_id: id.to_string(),
                at_ms: at.0,
                revision: revision.as_bytes().to_vec(),
                word: word.map(|word| word.to_string()).unwrap_or_default(),
            }),
            Fact::Explained { id, round } => Wire::Explained(rounds::out(&id, round)),
            Fact::Configured { id, configured } => Wire::Configured(v1::Configured {
                job_id: id.to_string(),
                title: configured.title,
                fragment: configured.worked.fragment.map(Into::into),
                tried: configured.worked.tried,
                items: configured.items.into_iter().map(Into::into).collect(),
            }),
            Fact::ProductsForgotten { at, items, by } => Wire::ProductsForgotten(v1::ProductsForgotten {
                at_ms: at.0,
                items: items.into_iter().map(Into::into).collect(),
                by: by.to_string(),
            }),
            Fact::JobEnded { id, at, end, rendered } => Wire::JobEnded(v1::JobEnded {
                job_id: id.to_string(),
                at_ms: at.0,
                kind: end.kind,
                culprit: end.culprit.map(|id| id.to_string()).unwrap_or_default(),
                message: end.message,
                field: end.field,
                log: rendered.log,
                replay: rendered.replay,
                json: rendered.json,
                summary: rendered.summary,
                plot: rendered.plot,
            }),
        }
    }
}

impl TryFrom<Wire> for Fact {
    type Error = InvalidMessage;
    fn try_from(wire: Wire) -> Result<Self> {
        Ok(match wire {
            Wire::EpochStarted(it) => Fact::EpochStarted { epoch: it.epoch },
            Wire::JobSubmitted(it) => Fact::JobSubmitted {
                id: job_id(&it.job_id)?,
                request: it.request,
                at: Timestamp(it.at_ms),
                job: Box::new(need(it.job, "job")?.try_into()?),
                reproducer: artifact(it.reproducer, "reproducer")?,
                by: access::principal(&it.by)?,
            },
            Wire::CancelRequested(it) => Fact::CancelRequested {
                id: job_id(&it.job_id)?,
                at: Timestamp(it.at_ms),
                by: access::principal(&it.by)?,
            },
            Wire::TokenCreated(it) => Fact::Access(it.try_into()?),
            Wire::TokenRevoked(it) => Fact::Access(it.try_into()?),
            Wire::MemberJoined(it) => Fact::Access(it.try_into()?),
            Wire::MemberRevoked(it) => Fact::Access(it.try_into()?),
            Wire::JobResolved(it) => Fact::JobResolved {
                id: job_id(&it.job_id)?,
                resolution: Box::new(Resolution {
                    bad: need(it.bad, "bad")?.try_into()?,
                    good: it.good.map(TryInto::try_into).transpose()?,
                    releases: it.releases.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
                    fixes: it.fixes.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
                }),
            },
            Wire::ItemFinished(it) => Fact::ItemFinished {
                item: need(it.item, "item")?.try_into()?,
                attempt: attempt(it.attempt),
                agent: agent_id(&it.agent)?,
                at: Timestamp(it.at_ms),
                product: Box::new(need(it.product, "product")?.try_into()?),
            },
            Wire::AttemptFailed(it) => Fact::AttemptFailed {
                item: need(it.item, "item")?.try_into()?,
                attempt: attempt(it.attempt),
                agent: agent_id(&it.agent)?,
                at: Timestamp(it.at_ms),
                infra: need(it.infra, "infra")?.try_into()?,
            },
            Wire::AgentCame(it) => Fact::AgentCame { agent: agent_id(&it.agent)?, at: Timestamp(it.at_ms) },
            Wire::AgentWent(it) => Fact::AgentWent { agent: agent_id(&it.agent)?, at: Timestamp(it.at_ms) },
            Wire::AgentSetAside(it) => Fact::Quarantine(it.try_into()?),
            Wire::AgentReleased(it) => Fact::Quarantine(it.try_into()?),
            Wire::ItemsReleased(it) => Fact::Quarantine(it.try_into()?),
            Wire::Judged(it) => Fact::Judged { id: job_id(&it.job_id)?, judged: Box::new(judged_in(it)?) },
            Wire::Overruled(it) => Fact::Overruled {
                id: job_id(&it.job_id)?,
                at: Timestamp(it.at_ms),
                revision: revision(&it.revision, "overruled.revision")?,
                by: access::principal(&it.by)?,
                word: match it.word.as_str() {
                    "" => None,
                    word => Some(verdict(word, "overruled.word")?),
                },
            },
            Wire::Explained(it) => Fact::Explained { id: job_id(&it.job_id)?, round: rounds::back(it)? },
            Wire::Configured(it) => Fact::Configured {
                id: job_id(&it.job_id)?,
                configured: Configured {
                    title: it.title,
                    worked: Worked { fragment: it.fragment.map(Into::into), tried: it.tried },
                    items: it.items.into_iter().map(ItemKey::try_from).collect::<Result<_>>()?,
                },
            },
            Wire::ProductsForgotten(it) => Fact::ProductsForgotten {
                at: Timestamp(it.at_ms),
                items: it.items.into_iter().map(ItemKey::try_from).collect::<Result<_>>()?,
                by: access::principal(&it.by)?,
            },
            Wire::JobEnded(it) => Fact::JobEnded {
                id: job_id(&it.job_id)?,
                at: Timestamp(it.at_ms),
                end: EndSummary {
                    kind: it.kind,
                    culprit: match it.culprit.is_empty() {
                        true => None,
                        false => {
                            Some(it.culprit.parse().map_err(|error| InvalidMessage::new("culprit", error))?)
                        }
                    },
                    message: it.message,
                    field: it.field,
                },
                rendered: Box::new(Rendered {
                    log: it.log,
                    replay: it.replay,
                    json: it.json,
                    summary: it.summary,
                    plot: it.plot,
                }),
            },
        })
    }
}

fn job_id(text: &str) -> Result<JobId> {
    text.parse().map_err(|error| InvalidMessage::new("job_id", error))
}

fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|error| InvalidMessage::new("agent", error))
}

fn verdict(text: &str, field: &'static str) -> Result<Verdict> {
    text.parse().map_err(|error: String| InvalidMessage::new(field, error))
}

fn release(text: &str) -> Result<Release> {
    text.parse().map_err(|error: String| InvalidMessage::new("release", error))
}

impl From<Revision> for v1::Revision {
    fn from(revision: Revision) -> Self {
        v1::Revision {
            id: revision.id.as_bytes().to_vec(),
            tree: revision.tree.as_bytes().to_vec(),
            subject: revision.subject,
            release: revision.release.map(|release| release.to_string()),
        }
    }
}

impl TryFrom<v1::Revision> for Revision {
    type Error = InvalidMessage;
    fn try_from(it: v1::Revision) -> Result<Self> {
        Ok(Revision {
            id: revision(&it.id, "revision.id")?,
            tree: tree(&it.tree, "revision.tree")?,
            subject: it.subject,
            release: it.release.as_deref().map(release).transpose()?,
        })
    }
}

impl From<TaggedRelease> for v1::TaggedRelease {
    fn from(tagged: TaggedRelease) -> Self {
        v1::TaggedRelease {
            tag: tagged.tag,
            release: tagged.release.to_string(),
            revision: Some(tagged.revision.into()),
        }
    }
}

impl TryFrom<v1::TaggedRelease> for TaggedRelease {
    type Error = InvalidMessage;
    fn try_from(it: v1::TaggedRelease) -> Result<Self> {
        Ok(TaggedRelease {
            tag: it.tag,
            release: release(&it.release)?,
            revision: need(it.revision, "revision")?.try_into()?,
        })
    }
}

impl From<KnownFix> for v1::KnownFix {
    fn from(known: KnownFix) -> Self {
        v1::KnownFix {
            fix: known.fix.as_bytes().to_vec(),
            breaks: known.breaks.map(|commit| commit.as_bytes().to_vec()),
            title: known.title,
        }
    }
}

impl TryFrom<v1::KnownFix> for KnownFix {
    type Error = InvalidMessage;
    fn try_from(it: v1::KnownFix) -> Result<Self> {
        Ok(KnownFix {
            fix: revision(&it.fix, "fixes.fix")?,
            breaks: it.breaks.map(|commit| revision(&commit, "fixes.breaks")).transpose()?,
            title: it.title,
        })
    }
}

/// A role's word, and the tag of a release or the commit reverted.
fn role_out(role: Role) -> (&'static str, String) {
    match role {
        Role::Start => ("start", String::new()),
        Role::GoodEnd => ("good-end", String::new()),
        Role::Release(tag) => ("release", tag),
        Role::Search => ("search", String::new()),
        Role::Certify => ("certify", String::new()),
        Role::Revert(commit) => ("revert", commit.to_string()),
        Role::Overruled => ("overruled", String::new()),
    }
}

fn role_in(word: &str, tag: String, fields: [&'static str; 2]) -> Result<Role> {
    Ok(match word {
        "start" => Role::Start,
        "good-end" => Role::GoodEnd,
        "release" => Role::Release(tag),
        "search" => Role::Search,
        "certify" => Role::Certify,
        "revert" => Role::Revert(tag.parse().map_err(|_| InvalidMessage::new(fields[1], "names no commit"))?),
        "overruled" => Role::Overruled,
        other => return Err(InvalidMessage::new(fields[0], format!("unknown role {other:?}"))),
    })
}

fn judged_out(id: &JobId, judged: Judged) -> v1::Judged {
    let Judgement { revision, role, verdict, counts, narrowed } = judged.judgement;
    let (role, tag) = role_out(role);
    v1::Judged {
        job_id: id.to_string(),
        revision: revision.as_bytes().to_vec(),
        subject: judged.subject,
        role: role.into(),
        tag,
        verdict: verdict.to_string(),
        target: counts.target,
        ok: counts.ok,
        other: counts.other,
        failed: counts.failed,
        narrowed,
        build: judged.build.map(Into::into),
        runs: judged.runs.into_iter().map(Into::into).collect(),
        unavailable: judged.unavailable.unwrap_or_default(),
        patches: judged.recipe.patches.into_iter().map(Into::into).collect(),
        compiler: judged.recipe.compiler,
        remarks: judged.recipe.remarks,
        shared: judged.recipe.shared.map(|key| key.as_bytes().to_vec()),
        given_up: judged.given_up.into_iter().map(Into::into).collect(),
    }
}

fn judged_in(it: v1::Judged) -> Result<Judged> {
    let role = role_in(&it.role, it.tag, ["judged.role", "judged.tag"])?;
    let verdict = verdict(&it.verdict, "judged.verdict")?;
    let counts = Counts { target: it.target, ok: it.ok, other: it.other, failed: it.failed };
    Ok(Judged {
        judgement: Judgement {
            revision: revision(&it.revision, "judged.revision")?,
            role,
            verdict,
            counts,
            narrowed: it.narrowed,
        },
        subject: it.subject,
        build: it.build.map(ItemKey::try_from).transpose()?,
        runs: it.runs.into_iter().map(ItemKey::try_from).collect::<Result<_>>()?,
        unavailable: Some(it.unavailable).filter(|reason| !reason.is_empty()),
        given_up: it.given_up.into_iter().map(ItemKey::try_from).collect::<Result<_>>()?,
        recipe: Recipe {
            patches: it.patches.into_iter().map(Patch::try_from).collect::<Result<_>>()?,
            compiler: it.compiler,
            remarks: it.remarks,
            shared: it.shared.map(|key| digest(&key, "judged.shared")).transpose()?,
        },
    })
}
