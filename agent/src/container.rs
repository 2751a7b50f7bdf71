//! Runs one command in a fresh, confined container: limits in, output streamed, exit out.
//!
//! Everything that goes wrong here is infra; what an exit code means, the caller decides.

mod log;
mod logs_say;
mod room;
mod run_logged;
mod spec;

pub use log::{Log, LogSink, NOTE_PREFIX};
pub use logs_say::{CCACHE_TROUBLE, infra_of_failure};
pub use run_logged::run_logged;
pub use spec::{Access, Bind, Limits, RunSpec, container_user};

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;
use kulprit_common::id::{AgentId, Session};
use kulprit_common::outcome::{Infra, InfraClass};
use room::Room;
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The label that says whose a container is.
const AGENT_LABEL: &str = "kulprit.agent";
/// The label that says in which life of its agent a container was made.
const SESSION_LABEL: &str = "kulprit.session";
/// The label that names the attempt it serves.
const ATTEMPT_LABEL: &str = "kulprit.attempt";
/// Removing a container must not hang an agent that shuts down.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

/// Asked unless DOCKER_HOST says otherwise.
const USUAL_SOCKET: &str = "unix:///var/run/docker.sock";

/// The exit code of a process that got SIGKILL.
const SIGKILLED: i64 = 128 + 9;

/// Why work in a container came to no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    #[error("{}: {}", .0.class.as_str(), .0.reason)]
    Infra(Infra),
    #[error("cancelled")]
    Cancelled,
}

impl Unfinished {
    pub fn infra(class: InfraClass, reason: impl Into<String>) -> Self {
        Unfinished::Infra(Infra { class, reason: reason.into() })
    }

    /// An error of our own files: a full disk, or else a bug or a broken machine.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Unfinished::Infra(io_infra(what, error))
    }
}

/// The infra failure an error of our own files is.
pub fn io_infra(what: &str, error: &std::io::Error) -> Infra {
    use std::io::ErrorKind;
    let class = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => InfraClass::Disk,
        _ if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => InfraClass::Disk,
        _ => InfraClass::Internal,
    };
    Infra { class, reason: format!("failed to {what}: {error}") }
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// The engine saw the kernel's out-of-memory killer at work in the container. The command
    /// may have ended well all the same.
    pub oom_killed: bool,
}

impl Exit {
    /// The infra failure, if the command failed because it was killed. `limits` are those it had.
    pub fn killed(&self, limits: &Limits) -> Option<Infra> {
        let infra = |class, reason: String| Some(Infra { class, reason });
        let memory =
            || format!("it needed more than the {} MiB of memory it may have", limits.memory_bytes >> 20);
        match (self.oom_killed, self.code) {
            (_, 0) => None,
            (true, _) => infra(InfraClass::Memory, memory()),
            // Nothing inside a container can kill its first process.
            (false, SIGKILLED) => infra(InfraClass::Engine, "its container was killed from outside".into()),
            (false, _) => None,
        }
    }
}

/// A container engine: Docker, or Podman behind Docker's protocol.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    agent: AgentId,
    session: Session,
    rootless_podman: bool,
}

impl Engine {
    /// Connects to `DOCKER_HOST`, else to the first of Docker's and Podman's usual sockets,
    /// and asks for a sign of life.
    pub async fn connect(agent: AgentId, session: Session) -> Result<Self, Unfinished> {
        let docker = match std::env::var_os("DOCKER_HOST") {
            Some(_) => Docker::connect_with_defaults(),
            None => Docker::connect_with_unix_defaults().or_else(|_| Docker::connect_with_podman_defaults()),
        };
        let docker = docker.map_err(|e| engine_infra("connect", &e))?;
        // The asked version is newer than what old engines speak.
        let docker = docker.negotiate_version().await.map_err(|e| engine_infra("connect", &e))?;
        let version = docker.version().await.map_err(|e| engine_infra("ask for its version", &e))?;
        let podman = version.components.unwrap_or_default().iter().any(|c| c.name.starts_with("Podman"));
        let rootless_podman = podman && !nix::unistd::geteuid().is_root();
        Ok(Engine { docker, agent, session, rootless_podman })
    }

    /// The id of the image with this name, `sha256:…`. One that is not there is pulled.
    pub async fn image_id(&self, name: &str) -> Result<String, Unfinished> {
        match self.docker.inspect_image(name).await {
            Ok(image) => return image.id.ok_or_else(|| no_image(name, "the engine gives it no id")),
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(engine_infra("look for an image", &error)),
        }
        self.pull(name).await?;
        let image = self.docker.inspect_image(name).await;
        image.ok().and_then(|image| image.id).ok_or_else(|| no_image(name, "it was pulled and is not there"))
    }

    /// The ids of all images that are there.
    pub async fn images(&self) -> Result<Vec<String>, Unfinished> {
        let options = ListImagesOptionsBuilder::new().all(false).build();
        let listed = self.docker.list_images(Some(options)).await;
        let listed = listed.map_err(|e| engine_infra("list images", &e))?;
        Ok(listed.into_iter().map(|image| image.id).collect())
    }

    async fn pull(&self, name: &str) -> Result<(), Unfinished> {
        if name.starts_with("sha256:") {
            return Err(no_image(name, "an image id cannot be pulled; name it name@sha256:… instead"));
        }
        // Without a tag the engine would fetch every tag there is.
        let last = name.rsplit('/').next().unwrap_or(name);
        let from = if last.contains([':', '@']) { name.to_string() } else { format!("{name}:latest") };
        let options = CreateImageOptionsBuilder::new().from_image(&from).build();
        let mut pulled = self.docker.create_image(Some(options), None, None);
        while let Some(step) = pulled.next().await {
            step.map_err(|error| no_image(name, &format!("pulling it failed: {}", engine_words(&error))))?;
        }
        Ok(())
    }

    /// Runs `spec` in a fresh container and removes it, however it ends.
    ///
    /// A container that exceeds its time or its room on disk is an infra failure; any exit is an
    /// `Exit`.
    pub async fn run(
        &self,
        spec: &RunSpec<'_>,
        log: &mut LogSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, Unfinished> {
        if cancel.is_cancelled() {
            return Err(Unfinished::Cancelled);
        }
        let session = self.session.0.to_string();
        let labels =
            [(AGENT_LABEL, self.agent.as_str()), (SESSION_LABEL, &session), (ATTEMPT_LABEL, spec.attempt)];
        let body = spec.body(&labels, self.rootless_podman);
        let created = self.docker.create_container(None, body).await.map_err(|e| match &e {
            EngineError::DockerResponseServerError { status_code: 404, .. } => {
                no_image(spec.image_id, "it is gone")
            }
            _ => engine_infra("create a container", &e),
        })?;
        let container = Container { docker: self.docker.clone(), id: Some(created.id) };
        let mut room = Room::new(spec);
        let ended = tokio::select! {
            () = cancel.cancelled() => Err(Unfinished::Cancelled),
            () = tokio::time::sleep(spec.limits.time) => {
                let reason = format!("stopped after {} s", spec.limits.time.as_secs());
                Err(Unfinished::infra(InfraClass::Timeout, reason))
            }
            infra = room.overflow() => Err(Unfinished::Infra(infra)),
            ended = container.follow(log) => ended,
        };
        container.remove().await;
        match ended {
            Ok(exit) => room.at_end().await.map_or(Ok(exit), |infra| Err(Unfinished::Infra(infra))),
            unfinished => unfinished,
        }
    }

    /// Removes the containers that earlier lives of this agent made; returns how many there were.
    ///
    /// Once at the start is not enough: the engine may still be making a container that a life
    /// asked for just before it was killed.
    pub async fn remove_leftovers(&self) -> Result<usize, Unfinished> {
        self.remove_made_by(|session| session < self.session).await
    }

    /// The same before any work, when whatever another life made is a leftover, even if the clock
    /// says that it comes later.
    pub async fn remove_all_leftovers(&self) -> Result<usize, Unfinished> {
        self.remove_made_by(|session| session != self.session).await
    }

    async fn remove_made_by(&self, leftover: impl Fn(Session) -> bool) -> Result<usize, Unfinished> {
        let label = format!("{AGENT_LABEL}={}", self.agent);
        let filters = HashMap::from([("label".to_string(), vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|e| engine_infra("list containers", &e))?;
        let ids: Vec<String> = listed
            .into_iter()
            .filter(|container| session(container.labels.as_ref()).is_none_or(&leftover))
            .filter_map(|container| container.id)
            .collect();
        for id in &ids {
            remove(&self.docker, id).await.map_err(|e| engine_infra("remove a container", &e))?;
        }
        Ok(ids.len())
    }
}

/// In which life a container was made; versions before this one did not say.
fn session(labels: Option<&HashMap<String, String>>) -> Option<Session> {
    labels.and_then(|labels| labels.get(SESSION_LABEL)?.parse().ok()).map(Session)
}

/// A created container; dropping it before it was removed has it removed behind our back.
struct Container {
    docker: Docker,
    id: Option<String>,
}

impl Container {
    fn id(&self) -> &str {
        self.id.as_deref().expect("only remove and drop take the id")
    }

    /// Starts the container, copies its output to `log` and waits for its end.
    async fn follow(&self, log: &mut LogSink) -> Result<Exit, Unfinished> {
        let attach = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        // Attached before the start, so that no output is missed and the engine need keep none.
        let attached = self.docker.attach_container(self.id(), Some(attach)).await;
        let mut output = attached.map_err(|e| engine_infra("attach to a container", &e))?.output;
        self.docker
            .start_container(self.id(), None)
            .await
            .map_err(|e| engine_infra("start a container", &e))?;
        while let Some(piece) = output.next().await {
            let piece = piece.map_err(|e| engine_infra("read a container's output", &e))?;
            log.write(piece.into_bytes()).map_err(|e| Unfinished::io("write the log", &e))?;
        }
        self.exit().await
    }

    async fn exit(&self) -> Result<Exit, Unfinished> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut waiting = self.docker.wait_container(self.id(), Some(options));
        let code = match waiting.next().await {
            Some(Ok(response)) => response.status_code,
            Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(engine_infra("wait for a container", &error)),
            None => return Err(Unfinished::infra(InfraClass::Engine, "the engine lost a container")),
        };
        let inspected = self.docker.inspect_container(self.id(), None::<InspectContainerOptions>).await;
        let state = inspected.map_err(|e| engine_infra("inspect a container", &e))?.state.unwrap_or_default();
        Ok(Exit { code, oom_killed: state.oom_killed.unwrap_or(false) })
    }

    async fn remove(mut self) {
        if let Err(error) = remove(&self.docker, self.id()).await {
            tracing::warn!(container = self.id(), %error, "a container stays behind until the next start");
        }
        self.id = None;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let docker = self.docker.clone();
        runtime.spawn(async move {
            if let Err(error) = remove(&docker, &id).await {
                tracing::warn!(container = id, %error, "a container stays behind until the next start");
            }
        });
    }
}

/// Kills and removes; a container that is gone or just going counts as removed.
async fn remove(docker: &Docker, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match tokio::time::timeout(REMOVE_LIMIT, docker.remove_container(id, Some(options))).await {
        Ok(Err(EngineError::DockerResponseServerError { status_code: 404 | 409, .. })) | Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(EngineError::RequestTimeoutError),
    }
}

fn no_image(name: &str, why: &str) -> Unfinished {
    Unfinished::infra(InfraClass::Toolchain, format!("the container engine has no image {name:?}: {why}"))
}

fn engine_infra(what: &str, error: &EngineError) -> Unfinished {
    let message = engine_words(error);
    let class =
        if message.contains("no space left on device") { InfraClass::Disk } else { InfraClass::Engine };
    Unfinished::infra(class, format!("the container engine failed to {what}: {message}"))
}

/// What an error of the engine means to people.
pub fn engine_words(error: &EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => message.trim().to_string(),
        EngineError::SocketNotFoundError(path) => format!("there is no socket at {path}; is Docker running?"),
        EngineError::HyperLegacyError { .. } => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(below) = cause.source() {
                cause = below;
            }
            let at = std::env::var("DOCKER_HOST").unwrap_or_else(|_| USUAL_SOCKET.into());
            format!("{at} cannot be reached: {cause}")
        }
        other => other.to_string(),
    }
}
