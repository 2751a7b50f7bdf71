//! Source that agents ask the coordinator for: of the repositories of attempts they hold, and of no others.

use super::Services;
use crate::door::Caller;
use crate::source::SourceError;
use kulprit_common::farm::item::WorkSource;
use kulprit_proto::convert::SourceWanted;
use kulprit_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(super) type SourceStream = ReceiverStream<Result<v1::SourceUpdate, Status>>;

/// Progress that is not taken yet; what does not fit is left out.
const UPDATES_MAX: usize = 8;

impl Services {
    pub(super) async fn answer_source(
        &self,
        request: Request<v1::SourceRequest>,
    ) -> Result<Response<SourceStream>, Status> {
        let caller = Caller::of(&request)?.clone();
        let wanted = SourceWanted::try_from(request.into_inner())?;
        caller.speaks_for(&wanted.agent)?;
        let source = self.source_of(&wanted).await?;
        let (updates, receiver) = mpsc::channel(UPDATES_MAX);
        let sources = self.sources.clone();
        tokio::spawn(async move {
            let say = |progress| {
                // Whoever is slow to listen hears the next word.
                let _ = updates.try_send(Ok(v1::SourceUpdate { progress, packs: Vec::new() }));
            };
            let packed = tokio::select! {
                packed = sources.packs(source, wanted.held, &wanted.damaged, &say) => packed,
                () = updates.closed() => return,
            };
            let update = match packed {
                Ok(packs) => {
                    sources.offer(wanted.attempt, &packs);
                    let packs = packs.into_iter().map(Into::into).collect();
                    Ok(v1::SourceUpdate { progress: String::new(), packs })
                }
                Err(error) => {
                    tracing::warn!(agent = %wanted.agent, attempt = %wanted.attempt, %error, "no source for an agent");
                    Err(refusal(&error))
                }
            };
            // The agent may have gone meanwhile.
            let _ = updates.send(update).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn source_of(&self, wanted: &SourceWanted) -> Result<WorkSource, Status> {
        let (agent, attempt) = (wanted.agent.clone(), wanted.attempt);
        let look = move |farm: &kulprit_common::farm::Farm, _| {
            let holds = farm.is_held_by(&agent, attempt);
            (holds, farm.is_claimed_by(&agent, attempt), farm.source_of(&agent, attempt))
        };
        match self.driver.ask(look).await? {
            (true, _, Some(source)) => Ok(source),
            (true, true, None) => Err(Status::unavailable(format!(
                "attempt: the job of {attempt} was not heard of since the coordinator started"
            ))),
            (true, false, None) => {
                Err(Status::permission_denied(format!("attempt: {attempt} needs no source")))
            }
            (false, ..) => {
                Err(Status::permission_denied(format!("attempt: {} does not hold {attempt}", wanted.agent)))
            }
        }
    }
}

fn refusal(error: &SourceError) -> Status {
    let said = format!("failed to {error}");
    match error {
        // A server, a disk or a store that is away may be there again before the agent loses patience.
        SourceError::Git(error) if error.may_pass() => Status::unavailable(said),
        SourceError::Io(_) | SourceError::Store(_) => Status::unavailable(said),
        SourceError::Git(_) => Status::not_found(said),
        SourceError::NoGit(_)
        | SourceError::Failed(_)
        | SourceError::TooLarge { .. }
        | SourceError::TooSlow(_) => Status::failed_precondition(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::StoreError;
    use crate::git::GitError;
    use std::io;
    use tonic::Code;

    #[test]
    fn what_may_be_mended_is_worth_asking_again() {
        let away = GitError::Unreachable { url: "https://host/linux".into(), why: "it is away".into() };
        let none = GitError::NotARepository { path: "/srv".into() };
        for (error, code) in [
            (SourceError::Io(io::ErrorKind::StorageFull.into()), Code::Unavailable),
            (SourceError::Store(StoreError::Full), Code::Unavailable),
            (SourceError::Git(away), Code::Unavailable),
            (SourceError::Git(none), Code::NotFound),
            (SourceError::Failed("fatal".into()), Code::FailedPrecondition),
            (SourceError::TooSlow(1), Code::FailedPrecondition),
        ] {
            assert_eq!(refusal(&error).code(), code, "{error}");
        }
    }
}
