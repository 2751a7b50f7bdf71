//! Ways of artifacts to and from a cloud's store, for attempts that an agent holds.

use super::Services;
use crate::artifacts::{Presigned, StoreError, WayUp};
use crate::door::Caller;
use crate::serving::ARTIFACT_BYTES_MAX;
use kulprit_common::farm::Farm;
use kulprit_common::farm::artifacts::of_product;
use kulprit_common::farm::event::Event;
use kulprit_common::id::{AgentId, Attempt};
use kulprit_common::outcome::{AttemptEnd, Infra, InfraClass};
use kulprit_proto::convert::artifact;
use kulprit_proto::v1;
use kulprit_proto::v1::upload_response::How;
use tonic::Status;

impl Services {
    pub(super) async fn way_up(
        &self,
        caller: &Caller,
        request: v1::UploadRequest,
    ) -> Result<v1::UploadResponse, Status> {
        let attempt = self.held(caller, &request.agent, request.attempt).await?.1;
        let artifact = artifact(request.artifact, "artifact")?;
        if artifact.size > ARTIFACT_BYTES_MAX {
            let why = format!("artifact: has {} bytes, and {ARTIFACT_BYTES_MAX} are the most", artifact.size);
            return Err(Status::invalid_argument(why));
        }
        let way = self.store.way_up(&artifact, &request.upload, request.first).await.map_err(said)?;
        tracing::debug!(%attempt, digest = %artifact.digest, "signed for an upload");
        let how = match way {
            WayUp::Stored => How::Stored(v1::Stored {}),
            WayUp::Whole(request) => How::Whole(v1::Whole { request: Some(encode(request)) }),
            WayUp::Parts { upload, part_bytes, first, requests } => {
                let requests = requests.into_iter().map(encode).collect();
                How::Parts(v1::Parts { upload, part_bytes, requests, first })
            }
        };
        Ok(v1::UploadResponse { how: Some(how) })
    }

    pub(super) async fn arrived(
        &self,
        caller: &Caller,
        request: v1::UploadedRequest,
    ) -> Result<v1::UploadedResponse, Status> {
        self.held(caller, &request.agent, request.attempt).await?;
        let artifact = artifact(request.artifact, "artifact")?;
        let arrived = self.store.arrived(&artifact, &request.upload, request.etags).await;
        Ok(v1::UploadedResponse { stored: arrived.map_err(said)? })
    }

    /// Signs for what the attempt's own work consists of, and the source that it was told of.
    pub(super) async fn way_down(
        &self,
        caller: &Caller,
        request: v1::DownloadRequest,
    ) -> Result<v1::DownloadResponse, Status> {
        let (agent, attempt) = self.held(caller, &request.agent, request.attempt).await?;
        let artifact = artifact(request.artifact, "artifact")?;
        let is_source = self.sources.was_offered(attempt, &artifact.digest);
        let look = move |farm: &Farm, _| {
            (farm.artifacts_for(&agent, attempt), farm.source_of(&agent, attempt).is_some())
        };
        match self.driver.ask(look).await? {
            _ if is_source => {}
            (Some(own), _) if own.contains(&artifact) => {}
            // It may have been told of by a coordinator before this one.
            (Some(_), true) => {
                let why = format!(
                    "artifact: {} is not known to {attempt}; ask for the source again",
                    artifact.digest
                );
                return Err(Status::not_found(why));
            }
            (Some(_), false) => {
                let why = format!("artifact: {} is nothing that {attempt} needs", artifact.digest);
                return Err(Status::permission_denied(why));
            }
            // After a restart, before the job has asked for the item again.
            (None, _) => return Err(Status::unavailable(format!("what {attempt} needs is not known yet"))),
        }
        let way = self.store.way_down(&artifact).await;
        if request.damaged || matches!(way, Err(StoreError::NotFound(_))) {
            self.store.suspect(&artifact.digest);
        }
        Ok(v1::DownloadResponse { request: Some(encode(way.map_err(said)?)) })
    }

    /// An ending as it is believed: what it says was stored in a cloud is there.
    pub(super) async fn believed(&self, event: Event) -> Result<Event, Status> {
        let Event::Completed { agent, session, attempt, item, end } = event else { return Ok(event) };
        let end = match *end {
            AttemptEnd::Done(product) if self.store.presigns() => {
                let mut missing = None;
                for (content, artifact) in of_product(&product) {
                    if !self.store.has(&artifact).await.map_err(said)? {
                        missing.get_or_insert((content, artifact));
                    }
                }
                match missing {
                    None => AttemptEnd::Done(product),
                    Some((content, artifact)) => {
                        let reason =
                            format!("its {content} is not in the artifact store: {}", artifact.digest);
                        AttemptEnd::Infra(Infra { class: InfraClass::Artifact, reason })
                    }
                }
            }
            end => end,
        };
        Ok(Event::Completed { agent, session, attempt, item, end: Box::new(end) })
    }

    async fn held(&self, caller: &Caller, agent: &str, attempt: u64) -> Result<(AgentId, Attempt), Status> {
        let agent: AgentId =
            agent.parse().map_err(|error| Status::invalid_argument(format!("agent: {error}")))?;
        caller.speaks_for(&agent)?;
        let (asked, attempt) = (agent.clone(), Attempt(attempt));
        match self.driver.ask(move |farm, _| farm.is_held_by(&asked, attempt)).await? {
            true => Ok((agent, attempt)),
            false => Err(Status::permission_denied(format!("attempt: {agent} does not hold {attempt}"))),
        }
    }
}

fn encode(request: Presigned) -> v1::Presigned {
    let headers = request.headers.into_iter();
    let header = |(name, value): (&str, String)| v1::Header { name: name.into(), value };
    v1::Presigned { url: request.url, headers: headers.map(header).collect() }
}

/// For an agent: what may pass is worth another try.
fn said(error: StoreError) -> Status {
    match &error {
        StoreError::NotFound(_) => Status::not_found(format!("failed to {error}")),
        StoreError::OtherSize(_) => Status::invalid_argument(format!("artifact: failed to {error}")),
        StoreError::Unsigned => Status::failed_precondition(format!("failed to {error}")),
        _ => Status::unavailable(format!("failed to {error}")),
    }
}
