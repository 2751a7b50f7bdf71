//! Why a search tried what it did, as the journal keeps it.

use super::{role_in, role_out};
use crate::convert::{InvalidMessage, Result, revision};
use crate::v1;
use kulprit_common::bisect::{Belief, Picked, Round, Suspect, Why};
use kulprit_common::id::JobId;

pub(super) fn out(id: &JobId, round: Round) -> v1::Explained {
    v1::Explained {
        job_id: id.to_string(),
        after: u32::try_from(round.after).unwrap_or(u32::MAX),
        picks: round.picks.into_iter().map(picked_out).collect(),
        belief: round.belief.map(belief_out),
    }
}

pub(super) fn back(it: v1::Explained) -> Result<Round> {
    Ok(Round {
        after: it.after as usize,
        picks: it.picks.into_iter().map(picked_in).collect::<Result<_>>()?,
        belief: it.belief.map(belief_in).transpose()?,
    })
}

fn picked_out(pick: Picked) -> v1::Picked {
    let (role, tag) = role_out(pick.role);
    v1::Picked {
        revision: pick.revision.as_bytes().to_vec(),
        role: role.into(),
        tag,
        runs: pick.runs,
        why: pick.why.as_str().into(),
        bits: pick.bits,
        shows: pick.shows,
    }
}

fn picked_in(it: v1::Picked) -> Result<Picked> {
    let why = Why::ALL.into_iter().find(|why| why.as_str() == it.why);
    Ok(Picked {
        revision: revision(&it.revision, "picked.revision")?,
        role: role_in(&it.role, it.tag, ["picked.role", "picked.tag"])?,
        runs: it.runs,
        why: why.ok_or_else(|| InvalidMessage::new("picked.why", format!("unknown reason {:?}", it.why)))?,
        bits: it.bits,
        shows: it.shows,
    })
}

fn belief_out(belief: Belief) -> v1::Belief {
    let suspect =
        |it: Suspect| v1::Suspect { revision: it.revision.as_bytes().to_vec(), probability: it.probability };
    v1::Belief {
        unknown_bits: belief.unknown_bits,
        suspects: belief.suspects as u64,
        likeliest: belief.likeliest.into_iter().map(suspect).collect(),
        nothing: belief.nothing,
        outline: belief.outline,
    }
}

fn belief_in(it: v1::Belief) -> Result<Belief> {
    let suspect = |it: v1::Suspect| -> Result<Suspect> {
        Ok(Suspect { revision: revision(&it.revision, "suspect.revision")?, probability: it.probability })
    };
    Ok(Belief {
        unknown_bits: it.unknown_bits,
        suspects: usize::try_from(it.suspects).unwrap_or(usize::MAX),
        likeliest: it.likeliest.into_iter().map(suspect).collect::<Result<_>>()?,
        nothing: it.nothing,
        outline: it.outline,
    })
}
