//! What agents say and are told.

use super::job::{kind_in, kind_out};
use super::{InvalidMessage, Result, artifact, attempt, build_id, digest, need, revision, tree};
use crate::v1;
use kulprit_common::farm::action::{Assignment, CompleteAnswer, Desired};
use kulprit_common::farm::census::Purpose;
use kulprit_common::farm::event::{AgentInfo, Event, Holding, Slot, Sync};
use kulprit_common::farm::item::{BuildWork, ItemKey, MaintainersWork, RunWork, Work};
use kulprit_common::id::{AgentId, Attempt, Session};
use kulprit_common::patch::Patch;

/// Slots, images or holdings beyond these are not an agent of ours.
const SLOTS_MAX: usize = 1024;
const IMAGES_MAX: usize = 4096;

pub(super) fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|error| InvalidMessage::new("agent", error))
}

pub fn decode_sync(message: v1::SyncRequest) -> Result<Sync> {
    let info = need(message.info, "info")?;
    if info.slots.len() > SLOTS_MAX || message.holding.len() > SLOTS_MAX || info.images.len() > IMAGES_MAX {
        return Err(InvalidMessage::new("info", "has too many slots, holdings or images"));
    }
    Ok(Sync {
        agent: agent_id(&message.agent)?,
        session: Session(message.session),
        sequence: message.sequence,
        info: info.into(),
        holding: message.holding.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        have: message.have.iter().take(64).map(|bytes| digest(bytes, "have")).collect::<Result<_>>()?,
        draining: message.draining,
    })
}

pub fn decode_completion(message: v1::CompleteRequest) -> Result<Event> {
    Ok(Event::Completed {
        agent: agent_id(&message.agent)?,
        session: Session(message.session),
        attempt: attempt(message.attempt),
        item: need(message.item, "item")?.try_into()?,
        end: Box::new(need(message.end, "end")?.try_into()?),
    })
}

/// The assignments for the wire; work that is held already is not said again.
pub fn encode_desired(desired: Desired, held: &[Attempt]) -> Vec<v1::Assignment> {
    let encode = |assignment: Assignment| {
        let (job, revision) = purpose_out(assignment.purpose);
        v1::Assignment {
            attempt: assignment.attempt.0,
            slot: assignment.slot,
            item: Some(assignment.item.into()),
            work: (!held.contains(&assignment.attempt)).then(|| assignment.work.into()),
            title: assignment.title,
            job,
            revision,
        }
    };
    desired.assignments.into_iter().map(encode).collect()
}

fn purpose_out(purpose: Option<Purpose>) -> (String, Vec<u8>) {
    let Some(Purpose { job, revision }) = purpose else { return Default::default() };
    (job.to_string(), revision.map(|it| it.as_bytes().to_vec()).unwrap_or_default())
}

fn purpose_in(job: &str, bytes: &[u8]) -> Result<Option<Purpose>> {
    if job.is_empty() {
        return Ok(None);
    }
    let job = job.parse().map_err(|error| InvalidMessage::new("assignment.job", error))?;
    let revision = (!bytes.is_empty()).then(|| revision(bytes, "assignment.revision")).transpose()?;
    Ok(Some(Purpose { job, revision }))
}

impl From<v1::AgentInfo> for AgentInfo {
    fn from(it: v1::AgentInfo) -> Self {
        let slot = |slot: v1::Slot| Slot { cores: slot.cores, memory_mib: slot.memory_mib };
        AgentInfo {
            host: it.host,
            version: it.version,
            slots: it.slots.into_iter().map(slot).collect(),
            accelerator: it.accelerator,
            images: it.images,
            can_build: it.can_build,
            can_boot: it.can_boot,
            problems: it.problems,
        }
    }
}

impl From<AgentInfo> for v1::AgentInfo {
    fn from(it: AgentInfo) -> Self {
        let slot = |slot: Slot| v1::Slot { cores: slot.cores, memory_mib: slot.memory_mib };
        v1::AgentInfo {
            host: it.host,
            version: it.version,
            slots: it.slots.into_iter().map(slot).collect(),
            accelerator: it.accelerator,
            images: it.images,
            can_build: it.can_build,
            can_boot: it.can_boot,
            problems: it.problems,
        }
    }
}

impl From<Patch> for v1::Patch {
    fn from(patch: Patch) -> Self {
        use v1::patch::Patch as Wire;
        v1::Patch {
            patch: Some(match patch {
                Patch::Revert(commit) => Wire::Revert(commit.as_bytes().to_vec()),
                Patch::Pick(commit) => Wire::Pick(commit.as_bytes().to_vec()),
            }),
        }
    }
}

impl TryFrom<v1::Patch> for Patch {
    type Error = InvalidMessage;
    fn try_from(patch: v1::Patch) -> Result<Self> {
        use v1::patch::Patch as Wire;
        Ok(match need(patch.patch, "work.patches")? {
            Wire::Revert(commit) => Patch::Revert(revision(&commit, "work.patches.revert")?),
            Wire::Pick(commit) => Patch::Pick(revision(&commit, "work.patches.pick")?),
        })
    }
}

impl From<Holding> for v1::Holding {
    fn from(holding: Holding) -> Self {
        v1::Holding {
            attempt: holding.attempt.0,
            item: Some(holding.item.into()),
            slot: holding.slot,
            activity: holding.activity,
        }
    }
}

impl TryFrom<v1::Holding> for Holding {
    type Error = InvalidMessage;
    fn try_from(holding: v1::Holding) -> Result<Self> {
        Ok(Holding {
            attempt: attempt(holding.attempt),
            item: need(holding.item, "holding.item")?.try_into()?,
            slot: holding.slot,
            activity: holding.activity.chars().take(200).collect(),
        })
    }
}

impl From<ItemKey> for v1::ItemKey {
    fn from(key: ItemKey) -> Self {
        use v1::item_key::Key;
        v1::ItemKey {
            key: Some(match key {
                ItemKey::Toolchain(image) => Key::Toolchain(image),
                ItemKey::Reproducer(key) => Key::Reproducer(key.as_bytes().to_vec()),
                ItemKey::Maintainers(key) => Key::Maintainers(key.as_bytes().to_vec()),
                ItemKey::Build(key) => Key::Build(key.as_bytes().to_vec()),
                ItemKey::Run(runs, index) => Key::Run(v1::RunKey { runs: runs.as_bytes().to_vec(), index }),
            }),
        }
    }
}

impl TryFrom<v1::ItemKey> for ItemKey {
    type Error = InvalidMessage;
    fn try_from(key: v1::ItemKey) -> Result<Self> {
        use v1::item_key::Key;
        Ok(match need(key.key, "item.key")? {
            Key::Toolchain(image) => ItemKey::Toolchain(image),
            Key::Reproducer(key) => ItemKey::Reproducer(digest(&key, "item.reproducer")?),
            Key::Maintainers(key) => ItemKey::Maintainers(digest(&key, "item.maintainers")?),
            Key::Build(key) => ItemKey::Build(digest(&key, "item.build")?),
            Key::Run(run) => ItemKey::Run(digest(&run.runs, "item.run")?, run.index),
        })
    }
}

impl From<Work> for v1::Work {
    fn from(work: Work) -> Self {
        use v1::work::Work as Wire;
        v1::Work {
            work: Some(match work {
                Work::Toolchain { image } => Wire::Toolchain(v1::ToolchainWork { image }),
                Work::Reproducer { reproducer, source, image_id } => Wire::Reproducer(v1::ReproducerWork {
                    reproducer: Some(reproducer.into()),
                    source: Some(source.into()),
                    image_id,
                }),
                Work::Maintainers(work) => Wire::Maintainers(v1::MaintainersWork {
                    repository: work.repository,
                    revision: work.revision.as_bytes().to_vec(),
                    tree: work.tree.as_bytes().to_vec(),
                    patch: work.patch,
                    file: work.file,
                    image_id: work.image_id,
                }),
                Work::Build(work) => Wire::Build(v1::BuildWork {
                    repository: work.repository,
                    revision: work.revision.as_bytes().to_vec(),
                    patches: work.patches.into_iter().map(Into::into).collect(),
                    tree: work.tree.as_bytes().to_vec(),
                    kernel: Some(work.kernel.into()),
                    image_id: work.image_id,
                    timeout_s: work.timeout_s,
                }),
                Work::Run(work) => Wire::Run(v1::RunWork {
                    kernel: Some(work.kernel.into()),
                    build_id: work.build_id,
                    executable: Some(work.executable.into()),
                    kind: kind_out(work.kind),
                    args: work.args,
                    machine: Some(work.machine.into()),
                    timeouts: Some(work.timeouts.into()),
                }),
            }),
        }
    }
}

impl TryFrom<v1::Work> for Work {
    type Error = InvalidMessage;
    fn try_from(work: v1::Work) -> Result<Self> {
        use v1::work::Work as Wire;
        Ok(match need(work.work, "work")? {
            Wire::Toolchain(work) => Work::Toolchain { image: work.image },
            Wire::Reproducer(work) => Work::Reproducer {
                reproducer: need(work.reproducer, "work.reproducer")?.try_into()?,
                source: artifact(work.source, "work.source")?,
                image_id: work.image_id,
            },
            Wire::Maintainers(work) => Work::Maintainers(MaintainersWork {
                repository: work.repository,
                revision: revision(&work.revision, "work.revision")?,
                tree: tree(&work.tree, "work.tree")?,
                patch: work.patch,
                file: work.file,
                image_id: work.image_id,
            }),
            Wire::Build(work) => Work::Build(BuildWork {
                repository: work.repository,
                revision: revision(&work.revision, "work.revision")?,
                patches: work.patches.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
                tree: tree(&work.tree, "work.tree")?,
                kernel: need(work.kernel, "work.kernel")?.try_into()?,
                image_id: work.image_id,
                timeout_s: work.timeout_s,
            }),
            Wire::Run(work) => Work::Run(RunWork {
                kernel: artifact(work.kernel, "work.kernel")?,
                build_id: build_id(work.build_id, "work.build_id")?,
                executable: artifact(work.executable, "work.executable")?,
                kind: kind_in(work.kind, "work.kind")?,
                args: work.args,
                machine: need(work.machine, "work.machine")?.into(),
                timeouts: need(work.timeouts, "work.timeouts")?.into(),
            }),
        })
    }
}

impl TryFrom<v1::Assignment> for Assignment {
    type Error = InvalidMessage;
    fn try_from(message: v1::Assignment) -> Result<Self> {
        Ok(Assignment {
            attempt: attempt(message.attempt),
            slot: message.slot,
            item: need(message.item, "assignment.item")?.try_into()?,
            work: need(message.work, "assignment.work")?.try_into()?,
            title: message.title,
            purpose: purpose_in(&message.job, &message.revision)?,
        })
    }
}

impl From<CompleteAnswer> for v1::CompleteAnswer {
    fn from(answer: CompleteAnswer) -> Self {
        match answer {
            CompleteAnswer::Recorded => v1::CompleteAnswer::Recorded,
            CompleteAnswer::Duplicate => v1::CompleteAnswer::Duplicate,
            CompleteAnswer::Stale => v1::CompleteAnswer::Stale,
        }
    }
}
