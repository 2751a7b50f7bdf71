//! A coordinator that says what a test wants, and programs that pretend to be ours.

use kulprit_proto::v1;
use kulprit_proto::v1::jobs_server::{Jobs, JobsServer};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

type Stream<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// What the coordinator is to say of every job.
#[derive(Clone, Default)]
pub struct Script {
    /// One list per connection; the last goes for all that follow.
    pub streams: Vec<Vec<Result<v1::WatchUpdate, Status>>>,
    /// What `Get` answers, but for the id.
    pub view: v1::JobView,
    /// Otherwise jobs end only once they are watched.
    pub has_ended: bool,
}

#[derive(Default)]
struct State {
    jobs: HashMap<String, String>,
    /// Connections, by job.
    watched: HashMap<String, usize>,
    script: Script,
}

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Endings are told while this is true.
    may_end: watch::Sender<bool>,
    pub url: String,
}

impl Fake {
    /// Serves until the test's process ends.
    pub fn serve(script: Script) -> Self {
        let state = Arc::new(Mutex::new(State { script, ..State::default() }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let fake = Fake { state, may_end: watch::Sender::new(true), url };
        let served = fake.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("set");
                let listener = tokio::net::TcpListener::from_std(listener).expect("taken");
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let server = tonic::transport::Server::builder().add_service(JobsServer::new(served));
                server.serve_with_incoming(incoming).await.expect("served");
            });
        });
        fake
    }

    pub fn submissions(&self) -> usize {
        self.state.lock().expect("whole").jobs.len()
    }

    /// Keeps jobs from ending, or lets them.
    pub fn let_end(&self, may: bool) {
        self.may_end.send_replace(may);
    }

    /// From now on every job is seen so.
    pub fn change(&self, script: Script) {
        self.state.lock().expect("whole").script = script;
    }
}

#[tonic::async_trait]
impl Jobs for Fake {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let mut state = self.state.lock().expect("whole");
        let next = format!("j-{}", state.jobs.len() + 1);
        let created = !state.jobs.contains_key(&request.get_ref().request);
        let job = state.jobs.entry(request.into_inner().request).or_insert(next).clone();
        Ok(Response::new(v1::SubmitResponse { job, created }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::JobView>, Status> {
        let id = request.into_inner().job;
        if !id.starts_with("j-") {
            return Err(Status::not_found(format!("there is no job {id}")));
        }
        let state = self.state.lock().expect("whole");
        let mut view = v1::JobView { id, ..state.script.view.clone() };
        if !state.script.has_ended && !state.watched.contains_key(&view.id) {
            view.end = None;
        }
        Ok(Response::new(view))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let state = self.state.lock().expect("whole");
        let view = |number: usize| {
            let id = format!("j-{number}");
            let is_over = state.script.has_ended || state.jobs.is_empty() || state.watched.contains_key(&id);
            let end = state.script.view.end.clone().filter(|_| is_over);
            v1::JobView { id, end, ..state.script.view.clone() }
        };
        Ok(Response::new(v1::ListResponse { jobs: (1..=state.jobs.len().max(1)).map(view).collect() }))
    }

    type WatchStream = Stream<v1::WatchUpdate>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut state = self.state.lock().expect("whole");
        let connections = state.watched.entry(request.into_inner().job).or_default();
        let at = *connections;
        *connections += 1;
        let at = at.min(state.script.streams.len().saturating_sub(1));
        let updates = state.script.streams.get(at).cloned().unwrap_or_default();
        let has_end = updates.iter().any(|update| update.as_ref().map_or(true, has_ended));
        let may_end = self.may_end.subscribe();
        let said = futures::StreamExt::then(futures::stream::iter(updates), move |update| {
            let mut may_end = may_end.clone();
            async move {
                if update.as_ref().is_ok_and(has_ended) {
                    let _ = may_end.wait_for(|may| *may).await;
                }
                update
            }
        });
        // A job that does not end leaves the stream open.
        let stream: Self::WatchStream = match has_end {
            true => Box::pin(said),
            false => Box::pin(futures::StreamExt::chain(said, futures::stream::pending())),
        };
        Ok(Response::new(stream))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::JobView>, Status> {
        Err(Status::failed_precondition(format!("job {} has already ended", request.into_inner().job)))
    }

    async fn overrule(
        &self,
        request: Request<v1::OverruleRequest>,
    ) -> Result<Response<v1::OverruleResponse>, Status> {
        let request = request.into_inner();
        match request.revision.len() {
            0..7 => Err(Status::invalid_argument("revision: give more digits")),
            _ => Ok(Response::new(v1::OverruleResponse { job: request.job, revision: request.revision })),
        }
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let v1::ReleaseRequest { job, what } = request.into_inner();
        match what.as_str() {
            "build:1" => Ok(Response::new(v1::ReleaseResponse { job, items: vec![what] })),
            _ => Err(Status::invalid_argument("what: it is not in quarantine")),
        }
    }

    async fn agent_quarantine(
        &self,
        _: Request<v1::AgentQuarantineRequest>,
    ) -> Result<Response<v1::AgentQuarantineResponse>, Status> {
        Ok(Response::new(v1::AgentQuarantineResponse {}))
    }

    async fn agent_release(
        &self,
        request: Request<v1::AgentReleaseRequest>,
    ) -> Result<Response<v1::AgentReleaseResponse>, Status> {
        match request.into_inner().agent.as_str() {
            "a-1" => Ok(Response::new(v1::AgentReleaseResponse {})),
            agent => Err(Status::failed_precondition(format!("agent {agent} is not in quarantine"))),
        }
    }

    async fn agent_list(
        &self,
        _: Request<v1::AgentListRequest>,
    ) -> Result<Response<v1::AgentListResponse>, Status> {
        let agent = v1::AgentView { id: "a-1".into(), state: "online".into(), ..Default::default() };
        Ok(Response::new(v1::AgentListResponse { agents: vec![agent] }))
    }

    async fn farm_status(
        &self,
        _: Request<v1::FarmStatusRequest>,
    ) -> Result<Response<v1::FarmStatusResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    type ReadLogStream = Stream<v1::ReadLogChunk>;

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let data = format!("log of {:x}\n", request.into_inner().attempt).into_bytes();
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(v1::ReadLogChunk { data })]))))
    }
}

fn has_ended(update: &v1::WatchUpdate) -> bool {
    update.job.as_ref().is_some_and(|job| job.end.is_some())
}

/// A directory with the real `kulprit`, pretended others, and a job file.
pub struct Bed {
    pub dir: tempfile::TempDir,
}

/// Held while programs are written and while processes are started: a child that is just being
/// started holds what is open here, and a program that is open for writing cannot be run.
static STARTING: Mutex<()> = Mutex::new(());

/// Writes down who runs and with what, then waits to be ended.
const WAIT: &str = "exec sleep 1000";

impl Bed {
    /// `coordinator` and `agent` are shell text run in place of waiting, or nothing.
    pub fn new(fake: &Fake, coordinator: &str, agent: &str) -> Self {
        let _guard = STARTING.lock().expect("whole");
        let bed = Bed { dir: tempfile::tempdir().expect("a temporary directory") };
        std::fs::create_dir(bed.path().join("bin")).expect("made");
        std::fs::copy(assert_cmd::cargo::cargo_bin("kulprit"), bed.path().join("bin/kulprit"))
            .expect("copied");
        let ready = format!(
            "while [ $# -gt 0 ]; do [ \"$1\" = --ready-file ] && R=$2; shift; done\n\
             echo '{{\"grpc\":\"{0}\",\"artifacts\":\"{0}\",\"pid\":'$$'}}' > \"$R.new\" && mv \"$R.new\" \"$R\"\n",
            fake.url
        );
        bed.program("kulprit-coordinator", &format!("{coordinator}\n{ready}\n{WAIT}"));
        bed.program("kulprit-agent", &format!("{agent}\n{WAIT}"));
        let job = "repository = \"linux\"\nbad = \"main\"\n[config]\nmake_target = \"tinyconfig\"\n\
                   [reproducer]\nscript = \"repro.sh\"\n";
        std::fs::write(bed.path().join("job.toml"), job).expect("written");
        std::fs::write(bed.path().join("repro.sh"), "#!/bin/sh\n").expect("written");
        bed
    }

    pub fn program(&self, name: &str, text: &str) {
        let path = self.path().join("bin").join(name);
        let head =
            format!("#!/bin/sh\necho $$ >> {0}/pids; echo \"$@\" >> {0}/{name}.args", self.path().display());
        std::fs::write(&path, format!("{head}\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        self.spawn_with(words, |_| ())
    }

    pub fn spawn_with(&self, words: &[&str], change: impl FnOnce(&mut Command)) -> Child {
        let _guard = STARTING.lock().expect("whole");
        let mut command = Command::new(self.path().join("bin/kulprit"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env_remove("KULPRIT_COORDINATOR")
            .env("KULPRIT_DISK_MIN_MIB", "64")
            .env_remove("KULPRIT_CACHE");
        change(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("started")
    }

    pub fn run(&self, words: &[&str]) -> Said {
        Said::from(self.spawn(words).wait_with_output().expect("run"))
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap_or_default()
    }

    /// Temporary state directories that are there, but for those that are being removed.
    pub fn states(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path()).expect("listed").flatten().map(|entry| entry.path());
        let is_state = |path: &PathBuf| {
            path.join("run.lock").exists() && path.extension().is_none_or(|end| end != "removed")
        };
        entries.filter(is_state).collect()
    }

    /// Children that still run.
    pub fn alive(&self) -> Vec<String> {
        let pids = self.read("pids");
        let is_alive = |pid: &&str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        pids.lines().filter(is_alive).map(str::to_owned).collect()
    }

    /// Waits until a file has this many lines.
    pub fn wait_for_lines(&self, file: &str, lines: usize) {
        for _ in 0..600 {
            if self.read(file).lines().count() >= lines {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{file} never had {lines} lines: {}", self.read(file));
    }
}

#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<std::process::Output> for Said {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}
