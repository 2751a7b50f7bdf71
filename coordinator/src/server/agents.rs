//! What agents call.

use super::Services;
use super::source::SourceStream;
use crate::door::Caller;
use crate::driver::{News, Stopped};
use crate::telemetry::{FIGURES, attempts};
use kulprit_common::farm::action::{Answer, CompleteAnswer};
use kulprit_common::farm::event::Event;
use kulprit_common::id::{AgentId, Attempt};
use kulprit_observe::figures::Count as _;
use kulprit_proto::convert::{decode_completion, decode_sync, encode_desired};
use kulprit_proto::v1;
use kulprit_proto::v1::agents_server::Agents;
use std::sync::PoisonError;
use std::time::Duration;
use tonic::{Code, Request, Response, Status, Streaming};

/// How long an answer is held back while there is nothing new. An agent counts its lease of 30 s, less
/// 5 s of margin, from when it sent what was answered: an item given at the end of an idle wait must still
/// be renewed by the end of the busy wait that follows, with some seconds left for a coordinator restarted
/// between the two.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);
const BUSY_PATIENCE: Duration = Duration::from_secs(8);
/// What an agent waits between an answer and its next sync; the answer itself paces it.
const NEXT_SYNC: Duration = Duration::from_millis(100);

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Status::unavailable(stopped.to_string())
    }
}

#[tonic::async_trait]
impl Agents for Services {
    async fn sync(&self, request: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        let answer = self.answer_sync(request).await;
        FIGURES.syncs.one(&[match &answer {
            Ok(_) => "answered",
            Err(status) => match status.code() {
                Code::FailedPrecondition => "superseded",
                Code::PermissionDenied => "refused",
                _ => "failed",
            },
        }]);
        answer
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let attempt = Attempt(request.attempt);
        let agent =
            request.agent.parse().map_err(|error| Status::invalid_argument(format!("agent: {error}")))?;
        caller.speaks_for(&agent)?;
        let event = self.believed(decode_completion(request)?).await?;
        let Event::Completed { item, end, .. } = &event else {
            return Err(Status::internal("a completion is read as something else"));
        };
        let (item, ending) = (item.clone(), attempts::ending(end));
        let answer = match self.driver.tell(event).await? {
            Some(Answer::Complete(answer)) => answer,
            _ => return Err(Status::internal("the farm gave no answer")),
        };
        attempts::completed(attempt, &item, ending, answer);
        // An attempt that is not the agent's may be live elsewhere, and so is its log.
        match answer {
            CompleteAnswer::Recorded => self.logs.finish(attempt),
            CompleteAnswer::Stale | CompleteAnswer::Duplicate => self.logs.finish_own(attempt, &agent),
        }
        Ok(Response::new(v1::CompleteResponse { answer: v1::CompleteAnswer::from(answer) as i32 }))
    }

    async fn append_log(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::AppendLogResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let mut chunks = request.into_inner();
        let mut checked = None;
        while let Some(chunk) = chunks.message().await? {
            if checked != Some(chunk.attempt) {
                self.may_log(&caller, &chunk).await?;
                checked = Some(chunk.attempt);
            }
            let logs = self.logs.clone();
            let write = move || logs.append(Attempt(chunk.attempt), chunk.offset, &chunk.data);
            // Live logs are a convenience: what cannot be kept is not worth failing an agent for.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
                tracing::warn!(%error, "a live log could not be kept");
            }
        }
        Ok(Response::new(v1::AppendLogResponse {}))
    }

    type SourceStream = SourceStream;

    async fn source(
        &self,
        request: Request<v1::SourceRequest>,
    ) -> Result<Response<Self::SourceStream>, Status> {
        self.answer_source(request).await
    }

    async fn upload(
        &self,
        request: Request<v1::UploadRequest>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.way_up(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn uploaded(
        &self,
        request: Request<v1::UploadedRequest>,
    ) -> Result<Response<v1::UploadedResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.arrived(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn download(
        &self,
        request: Request<v1::DownloadRequest>,
    ) -> Result<Response<v1::DownloadResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.way_down(&caller, request.into_inner()).await.map(Response::new)
    }
}

impl Services {
    async fn answer_sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<v1::SyncResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let sync = decode_sync(request.into_inner())?;
        let agent = sync.agent.clone();
        caller.speaks_for(&agent)?;
        let held: Vec<Attempt> = sync.holding.iter().map(|holding| holding.attempt).collect();
        let patience = match (held.is_empty(), sync.draining) {
            (_, true) => Duration::ZERO,
            // It has something to bring, and does not know where this coordinator's store is.
            (false, false) if self.meets(&agent) => Duration::ZERO,
            (true, false) => IDLE_PATIENCE,
            (false, false) => BUSY_PATIENCE,
        };
        match self.driver.tell(Event::Synced(sync)).await? {
            Some(Answer::Superseded) => {
                let why = "a later life of this agent has spoken; this one is to end";
                return Err(Status::failed_precondition(why));
            }
            Some(Answer::Refused(why)) => return Err(Status::permission_denied(why)),
            Some(_) | None => {}
        }
        let News { desired, revoked, granted } = self.driver.poll(agent, held.clone(), patience).await?;
        attempts::granted(granted);
        Ok(Response::new(v1::SyncResponse {
            assignments: encode_desired(desired, &held),
            revoke: revoked.into_iter().map(|attempt| attempt.0).collect(),
            lease_ms: self.lease_ms,
            next_sync_ms: u64::try_from(NEXT_SYNC.as_millis()).unwrap_or(u64::MAX),
            artifacts_url: self.artifacts.url(&caller),
            artifacts_presigned: self.store.presigns(),
        }))
    }

    /// Whether an agent with something in hand comes for the first time in this process's life.
    fn meets(&self, agent: &AgentId) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(agent.clone())
    }

    /// A log may be written by the agent that holds the attempt, and by no other.
    async fn may_log(&self, caller: &Caller, chunk: &v1::LogChunk) -> Result<(), Status> {
        let agent: AgentId =
            chunk.agent.parse().map_err(|error| Status::invalid_argument(format!("agent: {error}")))?;
        caller.speaks_for(&agent)?;
        let attempt = Attempt(chunk.attempt);
        let asked = agent.clone();
        match self.driver.ask(move |farm, _| farm.is_held_by(&asked, attempt)).await? {
            true => {
                self.logs.let_write(attempt, agent);
                Ok(())
            }
            false => Err(Status::permission_denied(format!("attempt: {agent} does not hold {attempt}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kulprit_common::farm::Config;

    /// What an agent keeps of its lease for stopping its work in time.
    const MARGIN: Duration = Duration::from_secs(5);
    /// A coordinator is up again in less.
    const RESTART: Duration = Duration::from_secs(5);

    #[test]
    fn work_given_at_the_end_of_an_idle_wait_is_renewed_in_time() {
        let longest = IDLE_PATIENCE + NEXT_SYNC + BUSY_PATIENCE + RESTART;
        let lease = Config::default().lease_ttl - MARGIN;
        assert!(longest <= lease, "{longest:?} between two answers, a lease of {lease:?}");
    }
}
