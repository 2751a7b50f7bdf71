//! The coordinator as the one who supplies source: packs are asked for by attempt, downloaded like
//! every artifact, and removed once they are in the mirror.

use crate::checkout::{CheckoutError, Refusals, SuppliedPack, Supplier};
use crate::store::Cached;
use crate::work::{Activity, Bench};
use kulprit_common::artifact::Artifact;
use kulprit_common::id::{AgentId, Attempt, Digest, RevisionId};
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_proto::convert::{SourcePack, SourceWanted, decode_packs};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::cell::RefCell;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// How long a coordinator is asked that does not answer, does not know its jobs yet, or has not got what it
/// needs itself: one that is mended within minutes has cost no attempt. As of transfers.
const PATIENCE: Duration = Duration::from_secs(300);
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Who is asked for source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceFrom {
    /// The repository, and the coordinator where that cannot be asked.
    #[default]
    Auto,
    /// The repository alone.
    Repository,
    /// The coordinator alone.
    Coordinator,
}

/// What all attempts need to be supplied.
pub struct Supply {
    pub from: SourceFrom,
    pub refusals: Refusals,
    pub agent: AgentId,
    pub client: AgentsClient<Link>,
}

impl Supply {
    pub fn new(from: SourceFrom, agent: AgentId, client: AgentsClient<Link>) -> Supply {
        Supply { from, refusals: Refusals::default(), agent, client }
    }
}

/// The coordinator, asked on behalf of an attempt. It blocks; the attempt's runtime does the work.
pub struct Coordinator<'a> {
    pub bench: &'a Bench,
    pub attempt: Attempt,
    pub activity: &'a Activity,
    pub cancel: &'a CancellationToken,
    pub runtime: &'a tokio::runtime::Handle,
    downloaded: RefCell<Vec<(Digest, Cached)>>,
}

impl<'a> Coordinator<'a> {
    pub fn new(
        bench: &'a Bench,
        attempt: Attempt,
        activity: &'a Activity,
        cancel: &'a CancellationToken,
        runtime: &'a tokio::runtime::Handle,
    ) -> Self {
        Coordinator { bench, attempt, activity, cancel, runtime, downloaded: RefCell::default() }
    }

    async fn bring(&self, held: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError> {
        let packs = self.ask(held, Vec::new()).await?;
        match self.download(packs).await {
            Err((infra, damaged)) if infra.class == InfraClass::Artifact => {
                tracing::warn!(%damaged, reason = infra.reason, "the coordinator is asked to pack anew");
                let packs = self.ask(held, vec![damaged]).await?;
                self.download(packs).await.map_err(|(infra, _)| CheckoutError::Supply(infra))
            }
            done => done.map_err(|(infra, _)| CheckoutError::Supply(infra)),
        }
    }

    /// Asks until there is an answer that is about the source.
    async fn ask(&self, held: &[RevisionId], damaged: Vec<Digest>) -> Result<Vec<SourcePack>, CheckoutError> {
        let supply = &self.bench.supply;
        let agent = supply.agent.clone();
        let wanted = SourceWanted { agent, attempt: self.attempt, held: held.to_vec(), damaged };
        for wait in waits() {
            match self.ask_once(&wanted).await {
                Err(status) if is_passing(&status) => {
                    tracing::info!(code = ?status.code(), message = status.message(), "asks for source again");
                }
                answer => return answer.map_err(|status| refused(&status)),
            }
            tokio::time::sleep(wait).await;
        }
        self.ask_once(&wanted).await.map_err(|status| refused(&status))
    }

    async fn ask_once(&self, wanted: &SourceWanted) -> Result<Vec<SourcePack>, Status> {
        self.activity.set("asking the coordinator for the source");
        let request = v1::SourceRequest::from(wanted.clone());
        let mut updates = self.bench.supply.client.clone().source(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            if !update.packs.is_empty() {
                return Ok(decode_packs(update.packs)?);
            }
            if !update.progress.is_empty() {
                self.activity.set(update.progress);
            }
        }
        Err(Status::internal("the coordinator named no packs"))
    }

    /// Downloads the packs; says which one could not be.
    async fn download(&self, packs: Vec<SourcePack>) -> Result<Vec<SuppliedPack>, (Infra, Digest)> {
        let total: u64 = packs.iter().map(|it| it.pack.size).sum();
        let mut before = 0;
        let mut supplied = Vec::new();
        for SourcePack { pack, commits } in packs {
            let say = |bytes: u64| self.activity.set(fetching(before + bytes, total));
            let artifacts = &self.bench.artifacts;
            let download = artifacts.download_watched(self.attempt, &pack, &say);
            let cached = download.await.map_err(|infra| (infra, pack.digest))?;
            before += pack.size;
            supplied.push(SuppliedPack { path: cached.path().to_owned(), commits });
            self.keep(pack, cached);
        }
        tracing::info!(bytes = total, packs = supplied.len(), "the source came from the coordinator");
        Ok(supplied)
    }

    fn keep(&self, pack: Artifact, cached: Cached) {
        self.downloaded.borrow_mut().push((pack.digest, cached));
    }
}

impl Supplier for Coordinator<'_> {
    fn packs(&self, held: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError> {
        self.runtime.block_on(async {
            tokio::select! {
                packs = self.bring(held) => packs,
                () = self.cancel.cancelled() => Err(CheckoutError::Cancelled),
            }
        })
    }
}

impl Drop for Coordinator<'_> {
    fn drop(&mut self) {
        for (digest, cached) in self.downloaded.take() {
            drop(cached);
            // In the mirror it is worth more, and what stays is removed for room.
            let _ = self.bench.artifacts.cache().remove_unused(&digest);
        }
    }
}

fn fetching(bytes: u64, total: u64) -> String {
    format!("fetching source {} %", bytes.saturating_mul(100) / total.max(1))
}

/// The pauses between questions, longer each time, until it has been long enough.
fn waits() -> impl Iterator<Item = Duration> {
    let mut waited = Duration::ZERO;
    std::iter::successors(Some(WAIT_FIRST), |wait| Some((*wait * 2).min(WAIT_MAX))).take_while(move |wait| {
        let is_over = waited >= PATIENCE;
        waited += *wait;
        !is_over
    })
}

/// Whether the same question may have an answer later.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

fn refused(status: &Status) -> CheckoutError {
    let reason = match status.code() {
        Code::Unimplemented => "it is too old to hand out source".to_owned(),
        _ => status.message().to_owned(),
    };
    CheckoutError::Supply(Infra { class: InfraClass::Source, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_share_of_the_whole() {
        for (bytes, total, said) in [
            (0, 250, "fetching source 0 %"),
            (100, 250, "fetching source 40 %"),
            (250, 250, "fetching source 100 %"),
            (0, 0, "fetching source 0 %"),
        ] {
            assert_eq!(fetching(bytes, total), said);
        }
    }

    #[test]
    fn a_coordinator_that_is_mended_within_minutes_is_asked_again() {
        let waits: Vec<Duration> = waits().collect();
        let total: Duration = waits.iter().sum();
        assert!((PATIENCE..PATIENCE + WAIT_MAX).contains(&total), "{waits:?}");
        assert_eq!((waits[0], waits[waits.len() - 1]), (WAIT_FIRST, WAIT_MAX));
        for (code, passes) in [
            (Code::Unavailable, true),
            // As the door says to those who call too often.
            (Code::ResourceExhausted, true),
            (Code::NotFound, false),
            (Code::FailedPrecondition, false),
            (Code::PermissionDenied, false),
            (Code::Unimplemented, false),
        ] {
            assert_eq!(is_passing(&Status::new(code, "")), passes, "{code:?}");
        }
    }
}
