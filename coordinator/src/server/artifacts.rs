//! What operators and viewers call of the artifact store.

use super::Services;
use crate::artifacts::{Condition, StoreError};
use crate::door::Caller;
use crate::keeper::{Asked, GcError, Gone, Inventory};
use futures::{Stream, StreamExt as _};
use kulprit_common::farm::artifacts::Known;
use kulprit_common::id::Digest;
use kulprit_common::retention::{Retention, Stored};
use kulprit_proto::convert::digest;
use kulprit_proto::v1;
use kulprit_proto::v1::artifacts_server::Artifacts;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Of one message: gRPC's own limit of messages is 4 MiB.
const CHUNK_BYTES: usize = 1 << 20;
/// Digests that may be named at once.
const DIGESTS_MAX: usize = 10_000;
/// Answers that wait for whoever asked.
const ANSWERS_MAX: usize = 16;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answers<T> = mpsc::Sender<Result<T, Status>>;

#[tonic::async_trait]
impl Artifacts for Services {
    type ListStream = Boxed<v1::ArtifactView>;

    async fn list(&self, _: Request<v1::ArtifactListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let Inventory { stored, known, .. } = self.keeper.inventory().await.map_err(refused)?;
        let views = stored.into_iter().map(move |it| Ok(view(&it, known.get(&it.digest))));
        Ok(Response::new(Box::pin(futures::stream::iter(views))))
    }

    type GetStream = Boxed<v1::ArtifactChunk>;

    async fn get(
        &self,
        request: Request<v1::ArtifactGetRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let digest = digest(&request.into_inner().digest, "digest")?;
        let reading = self.store.read(&digest).await.map_err(failed)?;
        let first = v1::ArtifactChunk { size: reading.artifact.size, ..Default::default() };
        let store = self.store.clone();
        let chunks = reading.bytes.flat_map(move |read| {
            if matches!(read, Err(StoreError::Corrupt(_))) {
                store.suspect(&digest);
            }
            let pieces: Vec<Result<v1::ArtifactChunk, Status>> = match read {
                Ok(bytes) => bytes
                    .chunks(CHUNK_BYTES)
                    .map(|data| Ok(v1::ArtifactChunk { data: data.to_vec(), size: 0 }))
                    .collect(),
                Err(error) => vec![Err(failed(error))],
            };
            futures::stream::iter(pieces)
        });
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(first)]).chain(chunks))))
    }

    type VerifyStream = Boxed<v1::ArtifactVerdict>;

    async fn verify(
        &self,
        request: Request<v1::ArtifactVerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let digests = request.into_inner().digests;
        if digests.len() > DIGESTS_MAX {
            return Err(Status::invalid_argument(format!(
                "digests: name {DIGESTS_MAX} at most, or none for all"
            )));
        }
        let named: BTreeSet<Digest> =
            digests.iter().map(|bytes| digest(bytes, "digests")).collect::<Result<_, _>>()?;
        let inventory = self.keeper.inventory().await.map_err(refused)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let services = self.clone();
        tokio::spawn(async move { services.look_through(inventory, named, answers).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type GcStream = Boxed<v1::ArtifactGone>;

    async fn gc(&self, request: Request<v1::ArtifactGcRequest>) -> Result<Response<Self::GcStream>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let request = request.into_inner();
        let given = Retention {
            age_max: request.age_max_ms.map(Duration::from_millis),
            bytes_max: request.bytes_max,
        };
        let retention = if given.is_unlimited() { self.keeper.retention } else { given };
        let asked = Asked { retention, dry_run: request.dry_run, by };
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let keeper = self.keeper.clone();
        tokio::spawn(async move {
            let (tell, mut gone) = mpsc::channel::<Gone>(ANSWERS_MAX);
            let said = answers.clone();
            let passing = tokio::spawn(async move {
                while let Some(Gone { stored, known }) = gone.recv().await {
                    let gone = Some(view(&stored, known.as_ref()));
                    // Who asked may have gone; what was begun is finished.
                    let _ = said.send(Ok(v1::ArtifactGone { gone, ..Default::default() })).await;
                }
            });
            let ended = keeper.gc(asked, &tell).await;
            drop(tell);
            let _ = passing.await;
            let last = ended.map_err(refused).map(|sums| v1::ArtifactGone {
                gone: None,
                stored: sums.stored,
                stored_bytes: sums.stored_bytes,
                needed: sums.needed,
            });
            let _ = answers.send(last).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Services {
    /// Says of each artifact whether it is whole: of those named, else of all that is stored or needed.
    async fn look_through(
        &self,
        inventory: Inventory,
        named: BTreeSet<Digest>,
        answers: Answers<v1::ArtifactVerdict>,
    ) {
        let Inventory { stored, known, .. } = inventory;
        let sizes: BTreeMap<Digest, u64> = stored.iter().map(|it| (it.digest, it.size)).collect();
        let needed = known.iter().filter(|(_, it)| !it.needed_by.is_empty()).map(|(digest, _)| *digest);
        let all: BTreeSet<Digest> =
            if named.is_empty() { sizes.keys().copied().chain(needed).collect() } else { named };
        for digest in &all {
            let looked = self.store.look_at(digest).await.map_err(failed);
            let verdict = looked.map(|condition| {
                if condition != Condition::Whole {
                    self.store.suspect(digest);
                }
                let known = known.get(digest);
                let size = sizes.get(digest).copied().or(known.map(|it| it.artifact.size)).unwrap_or(0);
                v1::ArtifactVerdict {
                    artifact: Some(v1::Artifact { digest: digest.as_bytes().to_vec(), size }),
                    content: content(known),
                    state: state(condition) as i32,
                    all: all.len() as u64,
                    jobs: jobs(known),
                }
            });
            let over = verdict.is_err();
            if answers.send(verdict).await.is_err() || over {
                return;
            }
        }
    }
}

fn view(stored: &Stored, known: Option<&Known>) -> v1::ArtifactView {
    v1::ArtifactView {
        artifact: Some(v1::Artifact { digest: stored.digest.as_bytes().to_vec(), size: stored.size }),
        modified_ms: stored.modified.0,
        content: content(known),
        jobs: jobs(known),
    }
}

fn content(known: Option<&Known>) -> String {
    known.map(|it| it.content.to_string()).unwrap_or_default()
}

fn jobs(known: Option<&Known>) -> Vec<String> {
    known.map(|it| it.needed_by.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

fn state(condition: Condition) -> v1::ArtifactState {
    match condition {
        Condition::Whole => v1::ArtifactState::Whole,
        Condition::Corrupt => v1::ArtifactState::Corrupt,
        Condition::Missing => v1::ArtifactState::Missing,
    }
}

fn failed(error: StoreError) -> Status {
    let said = format!("failed to {error}");
    match error {
        StoreError::NotFound(_) => Status::not_found(said),
        StoreError::Corrupt(_) => Status::data_loss(said),
        // The coordinator is there; it is its store that is not.
        _ => Status::internal(said),
    }
}

fn refused(error: GcError) -> Status {
    match error {
        GcError::NoRetention | GcError::TooEarly(..) | GcError::Busy => {
            Status::failed_precondition(error.to_string())
        }
        GcError::Store(error) => failed(error),
        GcError::Stopped(stopped) => stopped.into(),
    }
}
