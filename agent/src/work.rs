//! One attempt, from assignment to ending: fetch what it needs, do it, store what it yields.

use crate::artifacts::Artifacts;
use crate::boot::{self, Accelerator, BootError, BootRequest, QemuConfig};
use crate::build::seed::{Making, Seeds, Turn};
use crate::build::{self, BuildRequest, Built, Ccache, Serving, SharedCcache};
use crate::checkout::{self, CheckedOut, CheckoutError, Origin, Source};
use crate::config::Sizing;
use crate::container::{Engine, Limits, Unfinished, io_infra};
use crate::guests::Guests;
use crate::maintainers::{self, Question};
use crate::reproducer::{self, CompileRequest, Compiled};
use crate::slots::{Hold, Slots};
use crate::source::{Coordinator, SourceFrom, Supply};
use crate::store::Cached;
use crate::telemetry::{Course, FIGURES, Went, outcome_word};
use crate::untrusted;
use bytes::Bytes;
use kulprit_common::artifact::Artifact;
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::item::{BuildWork, MaintainersWork, RunWork, Work};
use kulprit_common::id::{Digest, TreeId};
use kulprit_common::job::Reproducer;
use kulprit_common::outcome::{
    AttemptEnd, Build, BuildOutcome, Infra, InfraClass, Kernel, Product, ReproducerOutcome, Run,
};
use kulprit_common::signature;
use kulprit_observe::figures::Measure as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What attempts share.
pub struct Bench {
    /// Absent while there is none; it may come and go.
    pub engine: RwLock<Option<Engine>>,
    /// Its accelerator is what a canary came up under, last it was asked.
    pub qemu: RwLock<QemuConfig>,
    pub artifacts: Artifacts,
    pub supply: Supply,
    /// Absent where this agent shares none.
    pub shared_ccache: Option<Arc<SharedCcache>>,
    pub slots: Slots,
    pub guests: Guests,
    pub sizing: Sizing,
    /// This agent's own: work trees and object trees by slot, scratch by attempt.
    pub state: PathBuf,
    /// Shared by the agents of the host.
    pub cache: PathBuf,
}

impl Bench {
    pub fn engine(&self) -> Option<Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_engine(&self, engine: Option<Engine>) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    pub fn qemu(&self) -> QemuConfig {
        self.qemu.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_accelerator(&self, accelerator: Accelerator) {
        self.qemu.write().unwrap_or_else(PoisonError::into_inner).accelerator = accelerator;
    }
}

/// What an attempt is doing, in a few words; read by the sync loop.
#[derive(Clone, Default)]
pub struct Activity(Arc<Mutex<String>>);

impl Activity {
    pub fn set(&self, text: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why an attempt has nothing to report of its item.
enum Stop {
    Infra(Infra),
    /// Revoked, or the agent is going down: nothing is reported.
    Cancelled,
}

impl From<&Stop> for Went {
    fn from(stop: &Stop) -> Self {
        match stop {
            Stop::Infra(infra) => Went::Infra(infra.class.as_str(), infra.reason.clone()),
            Stop::Cancelled => Went::Cancelled,
        }
    }
}

impl From<Unfinished> for Stop {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Infra(infra) => Stop::Infra(infra),
            Unfinished::Cancelled => Stop::Cancelled,
        }
    }
}

impl From<Infra> for Stop {
    fn from(infra: Infra) -> Self {
        Stop::Infra(infra)
    }
}

impl From<BootError> for Stop {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Infra(infra) => Stop::Infra(infra),
            BootError::Cancelled => Stop::Cancelled,
        }
    }
}

impl From<CheckoutError> for Stop {
    fn from(error: CheckoutError) -> Self {
        error.infra().map_or(Stop::Cancelled, Stop::Infra)
    }
}

/// Carries an assignment out; `None` when it was cancelled. Its scratch files are gone after.
pub async fn carry_out(
    bench: &Arc<Bench>,
    assignment: &Assignment,
    activity: &Activity,
    live: mpsc::Sender<Bytes>,
    cancel: CancellationToken,
) -> Option<AttemptEnd> {
    let scratch = bench.state.join("scratch").join(assignment.attempt.to_string());
    let course = Course::of(assignment);
    let attempt = Attempt { bench, assignment, activity, live, cancel, scratch, course };
    let ended = attempt.run().await;
    attempt.course.ends(&ended.as_ref().map_or_else(Went::from, |_| Went::Done));
    let scratch = attempt.scratch;
    // What cannot be removed now is removed at the next start.
    let _ = tokio::task::spawn_blocking(move || untrusted::remove(&scratch)).await;
    match ended {
        Ok(product) => Some(AttemptEnd::Done(product)),
        Err(Stop::Infra(infra)) => Some(AttemptEnd::Infra(infra)),
        Err(Stop::Cancelled) => None,
    }
}

struct Attempt<'a> {
    bench: &'a Arc<Bench>,
    assignment: &'a Assignment,
    activity: &'a Activity,
    live: mpsc::Sender<Bytes>,
    cancel: CancellationToken,
    scratch: PathBuf,
    course: Course,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Product, Stop> {
        std::fs::create_dir_all(&self.scratch)
            .map_err(|error| io_infra("create the scratch directory", &error))?;
        match &self.assignment.work {
            Work::Toolchain { image } => self.toolchain(image).await,
            Work::Reproducer { reproducer, source, image_id } => {
                self.reproducer(reproducer, source, image_id).await
            }
            Work::Maintainers(work) => self.maintainers(work).await,
            Work::Build(work) => self.build(work).await,
            Work::Run(work) => self.boot(work).await,
        }
    }

    fn engine(&self) -> Result<Engine, Stop> {
        let missing =
            || Infra { class: InfraClass::Engine, reason: "no container engine is connected".into() };
        self.bench.engine().ok_or_else(missing).map_err(Stop::Infra)
    }

    /// The attempt's name in labels and file names.
    fn name(&self) -> String {
        self.assignment.attempt.to_string()
    }

    fn limits(&self, time: Duration) -> Limits {
        let sizing = &self.bench.sizing;
        Limits {
            memory_bytes: sizing.slot.memory_mib << 20,
            nano_cpus: sizing.cores_max.map(|cores| u64::from(cores) * 1_000_000_000),
            time,
            disk_free_bytes_min: sizing.disk_free_bytes_min,
            ..Limits::default()
        }
    }

    async fn toolchain(&self, image: &str) -> Result<Product, Stop> {
        self.activity.set(format!("looking into image {image}"));
        let engine = self.engine()?;
        let image_id = engine.image_id(image).await?;
        let cancel = self.cancel.clone();
        let name = self.name();
        let asked = reproducer::toolchain_facts(&engine, &image_id, &self.scratch, &name, cancel);
        Ok(Product::Toolchain(self.stage("inspect", asked).await?))
    }

    async fn reproducer(&self, it: &Reproducer, source: &Artifact, image_id: &str) -> Result<Product, Stop> {
        self.activity.set(format!("compiling {}", it.name));
        let source = self.fetch(source).await?;
        let source = std::fs::read(source.path()).map_err(|error| io_infra("read the reproducer", &error))?;
        let request = CompileRequest {
            source: &source,
            cflags: &it.cflags,
            image_id,
            work_dir: &self.scratch,
            limits: self.limits(Duration::from_secs(300)),
            log: &self.scratch.join("compile.log"),
            attempt_label: &self.name(),
        };
        let engine = self.engine()?;
        let compiled = reproducer::compile(&engine, request, self.live.clone(), self.cancel.clone());
        let compiled = self.stage("compile", compiled).await?;
        Ok(Product::Reproducer(match compiled {
            Compiled::Ready(path) => ReproducerOutcome::Ready(self.upload(&path).await?),
            Compiled::Failed { message } => ReproducerOutcome::Failed { message },
        }))
    }

    async fn maintainers(&self, work: &MaintainersWork) -> Result<Product, Stop> {
        let _hold = self.hold_slot().await?;
        let source =
            Source { repository: work.repository.clone(), revision: work.revision, patches: Vec::new() };
        let source_dir = self.checkout(source, &work.tree).await?;
        self.activity.set(format!("asking {} for maintainers", work.revision.short()));
        let question = Question {
            source_dir: &source_dir,
            patch: work.patch.as_deref(),
            file: work.file.as_deref(),
            image_id: &work.image_id,
            work_dir: &self.scratch,
            attempt_label: &self.name(),
        };
        let engine = self.engine()?;
        let asked = maintainers::ask(&engine, question, self.cancel.clone());
        Ok(Product::Maintainers(self.stage("maintainers", asked).await?))
    }

    async fn build(&self, work: &BuildWork) -> Result<Product, Stop> {
        let _hold = self.hold_slot().await?;
        let source_dir = self.checkout(source_of(work), &work.tree).await?;
        let objects_dir = self.objects_dir(work);
        let making = self.start_from_seed(work, &source_dir, &objects_dir).await?;
        self.activity.set(format!("building {}", work.revision.short()));
        let log = self.scratch.join("build.log");
        let ccaches = self.bench.cache.join("ccache");
        let ccache = Ccache::open(ccaches, &work.image_id, &work.repository).await?;
        let shared = self.serve_shared_ccache(&ccache)?;
        let request = BuildRequest {
            kernel: &work.kernel,
            image_id: &work.image_id,
            source_dir: &source_dir,
            objects_dir: &objects_dir,
            ccache_dir: ccache.dir(),
            shared_ccache: shared.as_ref(),
            is_first: making.is_some(),
            jobs: self.bench.sizing.jobs,
            limits: self.limits(Duration::from_secs(u64::from(work.timeout_s))),
            objects_bytes_max: self.bench.sizing.build_bytes_max,
            log: &log,
            attempt_label: &self.name(),
        };
        let engine = self.engine()?;
        let building = build::build(&engine, request, self.live.clone(), self.cancel.clone());
        let (built, took) = self.stage("build", building).await?;
        if let Some(shared) = shared {
            let asked = shared.finish().await;
            tracing::info!(
                hits = asked.hits,
                misses = asked.misses,
                failures = asked.failures,
                written = asked.written,
                unwritten = asked.unwritten,
                "asked the compiler's shared cache"
            );
        }
        let outcome = if matches!(built, Built::Kernel { .. }) { "built" } else { "failed" };
        FIGURES.build_time.took(&[outcome], took);
        let duration_ms = millis(took);
        if let (Some(making), Built::Kernel { .. }, []) = (making, &built, &work.patches[..]) {
            let (objects_dir, revision) = (objects_dir.clone(), work.revision);
            let kept = tokio::task::spawn_blocking(move || making.keep(&objects_dir, &revision)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "the first build could not be kept for other slots");
            }
        }
        self.activity.set(format!("uploading {}", work.revision.short()));
        let outcome = match built {
            Built::Kernel { image, vmlinux, config, fingerprint, build_id } => {
                let packed = compress(vmlinux, self.scratch.join("vmlinux.zst")).await?;
                BuildOutcome::Built(Kernel {
                    image: self.upload(&image).await?,
                    vmlinux: self.upload(&packed).await?,
                    config: self.upload(&config).await?,
                    fingerprint,
                    build_id,
                })
            }
            Built::Failed { message } => BuildOutcome::Failed { message },
        };
        Ok(Product::Build(Build { outcome, log: self.upload(&log).await?, duration_ms }))
    }

    /// The socket by which a build asks for what others have compiled, where there is a place for that.
    fn serve_shared_ccache(&self, ccache: &Ccache) -> Result<Option<Serving>, Stop> {
        let Some(shared) = &self.bench.shared_ccache else { return Ok(None) };
        let served = shared.serve(self.scratch.join("ccache-shared"), &ccache.name());
        served.map(Some).map_err(|error| io_infra("open the shared cache's socket", &error).into())
    }

    /// Gives a cold object tree what another slot of the host has built, or says that this one is
    /// the first. The work tree is at the item's revision before and after.
    async fn start_from_seed(
        &self,
        work: &BuildWork,
        source_dir: &Path,
        objects_dir: &Path,
    ) -> Result<Option<Making>, Stop> {
        if !build::is_cold(objects_dir, source_dir).await? {
            return Ok(None);
        }
        let seeds = Seeds::new(self.bench.cache.join("seeds"));
        let waits = || self.activity.set("waiting for another agent to build the first kernel");
        let key = Self::objects_key(work);
        let seed = match self.stage("seed", seeds.turn(&key, waits, &self.cancel)).await? {
            Turn::First(making) => return Ok(Some(making)),
            Turn::Planted(seed) => seed,
        };
        let at_seed = Source { revision: seed.revision, patches: Vec::new(), ..source_of(work) };
        match self.checkout_any(at_seed).await {
            Ok(_) => {}
            Err(Stop::Cancelled) => return Err(Stop::Cancelled),
            // Another history under the same address: everything is compiled.
            Err(Stop::Infra(why)) => {
                tracing::info!(why.reason, "the seed's revision is not to be had");
                return Ok(None);
            }
        }
        let (objects, source) = (objects_dir.to_owned(), source_dir.to_owned());
        let planted = tokio::task::spawn_blocking(move || seed.plant(&objects, &source)).await;
        if let Ok(Err(error)) = planted {
            tracing::warn!(%error, "the seed could not be copied");
        }
        self.checkout(source_of(work), &work.tree).await?;
        Ok(None)
    }

    /// Objects of one toolchain break under another, so each has its own tree.
    fn objects_dir(&self, work: &BuildWork) -> PathBuf {
        self.slot_dir().join("objects").join(Self::objects_key(work).short())
    }

    fn objects_key(work: &BuildWork) -> Digest {
        let mut key = signature::Hasher::new("kulprit objects 1");
        key.field(work.image_id.as_bytes());
        key.field(signature::config_key(&work.kernel).as_bytes());
        key.field(work.repository.as_bytes());
        key.finish()
    }

    /// Keeps the slot's directories from being removed for room.
    async fn hold_slot(&self) -> Result<Hold, Stop> {
        tokio::select! {
            hold = self.bench.slots.hold(self.assignment.slot) => Ok(hold),
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
        }
    }

    fn slot_dir(&self) -> PathBuf {
        self.bench.state.join("slots").join(self.assignment.slot.to_string())
    }

    async fn checkout(&self, source: Source, tree: &TreeId) -> Result<PathBuf, Stop> {
        let revision = source.revision;
        let checked_out = self.checkout_any(source).await?;
        if checked_out.tree != *tree {
            return Err(internal(format!("{revision} has the tree {}", checked_out.tree)));
        }
        Ok(checked_out.dir)
    }

    async fn checkout_any(&self, source: Source) -> Result<CheckedOut, Stop> {
        self.activity.set(format!("checking out {}", source.revision.short()));
        let (cache, slot) = (self.bench.cache.join("git"), self.slot_dir());
        let (cancel, activity) = (self.cancel.clone(), self.activity.clone());
        let (bench, attempt) = (self.bench.clone(), self.assignment.attempt);
        let runtime = tokio::runtime::Handle::current();
        let checking_out = tokio::task::spawn_blocking(move || {
            let coordinator = Coordinator::new(&bench, attempt, &activity, &cancel, &runtime);
            let origin = match bench.supply.from {
                SourceFrom::Repository => Origin::Repository,
                SourceFrom::Coordinator => Origin::Coordinator(&coordinator),
                SourceFrom::Auto => Origin::Either(&coordinator, &bench.supply.refusals),
            };
            checkout::checkout(&cache, &slot, &source, &origin, &mut |progress| {
                if let Some(progress) = progress {
                    activity.set(progress.to_string());
                }
                !cancel.is_cancelled()
            })
        });
        let checking_out = async {
            let lost = |error| internal(format!("the checkout did not come to an end: {error}"));
            Ok::<_, Stop>(checking_out.await.map_err(lost)??)
        };
        self.stage("checkout", checking_out).await
    }

    async fn boot(&self, work: &RunWork) -> Result<Product, Stop> {
        self.activity.set("fetching the kernel");
        let kernel = self.fetch(&work.kernel).await?;
        let executable = self.fetch(&work.executable).await?;
        let reproducer =
            std::fs::read(executable.path()).map_err(|error| io_infra("read the reproducer", &error))?;
        self.activity.set("booting");
        let request = BootRequest {
            kernel: kernel.path(),
            build_id: &work.build_id,
            reproducer: &reproducer,
            kind: work.kind,
            args: &work.args,
            machine: &work.machine,
            timeouts: &work.timeouts,
            work_dir: &self.scratch,
            name: &self.name(),
        };
        let booting = async {
            let qemu = self.bench.qemu();
            let booted = boot::boot(&qemu, request, self.live.clone(), self.cancel.clone()).await;
            self.bench.guests.ended(&booted);
            booted
        };
        let report = self.stage("boot", booting).await?;
        FIGURES.boot_time.took(&[outcome_word(&report.outcome)], report.duration);
        let console = self.upload(&report.console).await?;
        Ok(Product::Run(Run { outcome: report.outcome, console, duration_ms: millis(report.duration) }))
    }

    async fn fetch(&self, artifact: &Artifact) -> Result<Cached, Stop> {
        let fetching = async {
            tokio::select! {
                cached = self.bench.artifacts.download(self.assignment.attempt, artifact) => Ok(cached?),
                () = self.cancel.cancelled() => Err(Stop::Cancelled),
            }
        };
        self.stage("fetch", fetching).await
    }

    async fn upload(&self, path: &Path) -> Result<Artifact, Stop> {
        let uploading = async {
            tokio::select! {
                artifact = self.bench.artifacts.upload(self.assignment.attempt, path) => Ok(artifact?),
                () = self.cancel.cancelled() => Err(Stop::Cancelled),
            }
        };
        self.stage("upload", uploading).await
    }

    /// Follows a stage for figures and traces.
    async fn stage<T, E: Into<Stop>>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop> {
        self.course.stage(name, async { work.await.map_err(Into::into) }).await
    }
}

fn source_of(work: &BuildWork) -> Source {
    Source { repository: work.repository.clone(), revision: work.revision, patches: work.patches.clone() }
}

fn internal(reason: String) -> Stop {
    Stop::Infra(Infra { class: InfraClass::Internal, reason })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn compress(from: PathBuf, to: PathBuf) -> Result<PathBuf, Stop> {
    let work = move || -> std::io::Result<PathBuf> {
        let mut input = std::fs::File::open(&from)?;
        let mut encoder = zstd::Encoder::new(std::fs::File::create(&to)?, 1)?;
        std::io::copy(&mut input, &mut encoder)?;
        encoder.finish()?.sync_data()?;
        Ok(to)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| internal(format!("compressing did not come to an end: {error}")))?;
    done.map_err(|error| Stop::Infra(io_infra("compress vmlinux", &error)))
}
