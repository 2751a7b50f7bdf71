//! What operators call.

use super::Services;
use crate::door::Caller;
use crate::logs::LogError;
use futures::Stream;
use futures::StreamExt as _;
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_common::id::{AgentId, Attempt, Digest, JobId};
use kulprit_common::job::{Job, file};
use kulprit_proto::v1;
use kulprit_proto::v1::jobs_server::Jobs;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The least time between two updates of one watcher: faster is not seen.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// Of a word on why an agent is set aside.
const REASON_BYTES_MAX: usize = 500;

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Jobs for Services {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let request = request.into_inner();
        self.room.check()?;
        if request.request.is_empty() || request.request.len() > 128 {
            return Err(Status::invalid_argument("request: must be 1 to 128 bytes"));
        }
        let job: Job = v1_job(request.job)?;
        file::check(&job).map_err(|error| Status::invalid_argument(format!("job.{error}")))?;
        if Digest::of(&request.reproducer) != job.reproducer.digest {
            return Err(Status::invalid_argument("reproducer: its bytes do not match job.reproducer.digest"));
        }
        let reproducer =
            self.store.put(request.reproducer.into()).await.map_err(|error| {
                Status::resource_exhausted(format!("failed to keep the reproducer: {error}"))
            })?;
        let event = Event::Submitted { request: request.request, job: Box::new(job), reproducer, by };
        match self.driver.tell(event).await? {
            Some(Answer::Submitted { job, created }) => {
                Ok(Response::new(v1::SubmitResponse { job: job.to_string(), created }))
            }
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::JobView>, Status> {
        let id = job_id(&request.into_inner().job)?;
        self.view(id).await.map(Response::new)
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let jobs = self.driver.ask(|farm, _| farm.jobs()).await?;
        Ok(Response::new(v1::ListResponse { jobs: jobs.into_iter().map(Into::into).collect() }))
    }

    type WatchStream = Boxed<v1::WatchUpdate>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = job_id(&request.into_inner().job)?;
        // Fails here rather than in the stream where there is no such job.
        self.view(id.clone()).await?;
        let (sender, receiver) = mpsc::channel(4);
        let services = self.clone();
        tokio::spawn(async move {
            if let Err(status) = services.stream_job(id, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::JobView>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let id = job_id(&request.into_inner().job)?;
        match self.driver.tell(Event::CancelRequested { job: id.clone(), by }).await? {
            Some(Answer::Cancelled) => self.view(id).await.map(Response::new),
            Some(Answer::UnknownJob) => Err(unknown(&id)),
            Some(Answer::AlreadyEnded) => {
                Err(Status::failed_precondition(format!("job {id} has already ended")))
            }
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn overrule(
        &self,
        request: Request<v1::OverruleRequest>,
    ) -> Result<Response<v1::OverruleResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let request = request.into_inner();
        let id = job_id(&request.job)?;
        let word = match request.word.as_str() {
            "unsay" => None,
            word => Some(word.parse().map_err(|error: String| {
                Status::invalid_argument(format!("word: {error}, and not unsay"))
            })?),
        };
        let event = Event::OverruleRequested { job: id.clone(), revision: request.revision, word, by };
        match self.driver.tell(event).await? {
            Some(Answer::Overruled { revision }) => Ok(Response::new(v1::OverruleResponse {
                job: id.to_string(),
                revision: revision.to_string(),
            })),
            Some(Answer::UnknownJob) => Err(unknown(&id)),
            Some(Answer::Refused(why)) if why.starts_with("revision: ") => Err(Status::invalid_argument(why)),
            Some(Answer::Refused(why)) => Err(Status::failed_precondition(why)),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let v1::ReleaseRequest { job, what } = request.into_inner();
        let id = job_id(&job)?;
        match self.driver.tell(Event::ReleaseRequested { job: id.clone(), what, by }).await? {
            Some(Answer::Released { items }) => Ok(Response::new(v1::ReleaseResponse { job, items })),
            Some(Answer::UnknownJob) => Err(unknown(&id)),
            Some(Answer::Refused(why)) if why.starts_with("what: ") => Err(Status::invalid_argument(why)),
            Some(Answer::Refused(why)) => Err(Status::failed_precondition(why)),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn agent_quarantine(
        &self,
        request: Request<v1::AgentQuarantineRequest>,
    ) -> Result<Response<v1::AgentQuarantineResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let v1::AgentQuarantineRequest { agent, reason } = request.into_inner();
        let agent = agent_id(&agent)?;
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            let why = format!("reason: say in 1 to {REASON_BYTES_MAX} bytes why");
            return Err(Status::invalid_argument(why));
        }
        let event = Event::QuarantineRequested { agent: agent.clone(), reason, by };
        match self.driver.tell(event).await? {
            Some(Answer::AgentQuarantined) => Ok(Response::new(v1::AgentQuarantineResponse {})),
            Some(Answer::UnknownAgent) => Err(unknown_agent(&agent)),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn agent_release(
        &self,
        request: Request<v1::AgentReleaseRequest>,
    ) -> Result<Response<v1::AgentReleaseResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let agent = agent_id(&request.into_inner().agent)?;
        match self.driver.tell(Event::AgentReleaseRequested { agent: agent.clone(), by }).await? {
            Some(Answer::AgentReleased) => Ok(Response::new(v1::AgentReleaseResponse {})),
            Some(Answer::UnknownAgent) => Err(unknown_agent(&agent)),
            Some(Answer::Refused(why)) => Err(Status::failed_precondition(why)),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn agent_list(
        &self,
        _: Request<v1::AgentListRequest>,
    ) -> Result<Response<v1::AgentListResponse>, Status> {
        let agents = self.driver.ask(|farm, _| farm.agents()).await?;
        Ok(Response::new(v1::AgentListResponse { agents: agents.into_iter().map(Into::into).collect() }))
    }

    async fn farm_status(
        &self,
        request: Request<v1::FarmStatusRequest>,
    ) -> Result<Response<v1::FarmStatusResponse>, Status> {
        self.status(Caller::of(&request)?).await.map(Response::new)
    }

    type ReadLogStream = Boxed<v1::ReadLogChunk>;

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let request = request.into_inner();
        let attempt = Attempt(request.attempt);
        let stream = self.logs.stream(attempt, request.follow).map_err(|error| match error {
            LogError::NotFound(_) => {
                Status::not_found(format!("there is no log of attempt {attempt}, or it was pruned"))
            }
            other => Status::internal(format!("failed to {other}")),
        })?;
        let chunks = stream.map(|chunk| match chunk {
            Ok(data) => Ok(v1::ReadLogChunk { data: data.to_vec() }),
            Err(error) => Err(Status::internal(format!("failed to read the log: {error}"))),
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

impl Services {
    async fn view(&self, id: JobId) -> Result<v1::JobView, Status> {
        let asked = id.clone();
        let found = self.driver.ask(move |farm, _| farm.job(&asked).zip(farm.rendered(&asked))).await?;
        let (view, rendered) = found.ok_or_else(|| unknown(&id))?;
        Ok(v1::JobView::from(view).with_rendered(rendered))
    }

    /// Sends the job whenever it changes until it has ended or nobody listens.
    async fn stream_job(
        &self,
        id: JobId,
        sender: &mpsc::Sender<Result<v1::WatchUpdate, Status>>,
    ) -> Result<(), Status> {
        let mut changes = self.driver.changes();
        let mut sent = 0;
        loop {
            changes.borrow_and_update();
            let asked = id.clone();
            let found = self
                .driver
                .ask(move |farm, _| farm.job(&asked).zip(farm.log(&asked)).map(|it| (it, farm.agents())))
                .await?;
            let ((job, log), agents) = found.ok_or_else(|| unknown(&id))?;
            let ended = job.ended.is_some();
            // Who watches a job hears of agents that come and go, and not of each restart.
            let agents = agents.into_iter().filter(|agent| agent.last_sync.is_some());
            let update = v1::WatchUpdate {
                job: Some(job.into()),
                log: log.get(sent..).unwrap_or_default().to_owned(),
                agents: agents.map(Into::into).collect(),
            };
            sent = sent.max(log.len());
            if sender.send(Ok(update)).await.is_err() || ended {
                return Ok(());
            }
            tokio::time::sleep(WATCH_EVERY).await;
            if changes.changed().await.is_err() {
                return Err(Status::unavailable("the coordinator is shutting down"));
            }
        }
    }
}

fn v1_job(job: Option<v1::Job>) -> Result<Job, Status> {
    let job = job.ok_or_else(|| Status::invalid_argument("job is missing"))?;
    Ok(job.try_into()?)
}

fn job_id(text: &str) -> Result<JobId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("job: {error}")))
}

fn agent_id(text: &str) -> Result<AgentId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("agent: {error}")))
}

fn unknown_agent(agent: &AgentId) -> Status {
    Status::not_found(format!("there is no agent {agent}; `kulprit agent list` shows those there are"))
}

fn unknown(id: &JobId) -> Status {
    Status::not_found(format!("there is no job {id}; `kulprit bisect list` shows those there are"))
}
