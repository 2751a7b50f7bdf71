//! Agents that speak real gRPC and only pretend to build and boot, so that a whole job takes
//! seconds and a coordinator can be restarted hundreds of times.

use super::planted::Planted;
use super::secure;
use kulprit_common::artifact::{self, Artifact};
use kulprit_common::crash::Crash;
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::item::{BuildWork, ItemKey, RunWork, Work};
use kulprit_common::id::{Attempt, Digest};
use kulprit_common::outcome::{
    AttemptEnd, Build, BuildOutcome, Infra, InfraClass, Kernel, Maintainers, Outcome, Phase, Product,
    ReproducerOutcome, Run, SeenCrash, ToolchainFacts,
};
use kulprit_common::patch::Patch;
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::{BackoffConfig, ClientOptions, ObjectStoreExt as _, RetryConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::Status;

pub const IMAGE: &str = "sha256:1";
/// Between two tries while the coordinator is away.
const AGAIN: Duration = Duration::from_millis(100);

pub type Poison = fn(&World, &Work) -> bool;

/// What the pretended kernels do, and what has been seen of the farm.
pub struct World {
    planted: Planted,
    /// Tells the items that fail wherever they go.
    pub poisoned: Mutex<Option<Poison>>,
    pub seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
pub struct Seen {
    /// How often work on an item was begun.
    pub begun: BTreeMap<ItemKey, usize>,
    /// By whom and when an item was begun, in order.
    pub order: Vec<(String, ItemKey)>,
    pub answered: Vec<(Attempt, ItemKey, v1::CompleteAnswer)>,
    /// When the coordinator last gave, renewed or took something.
    pub signs: Vec<Instant>,
    pub dropped: Vec<ItemKey>,
}

impl World {
    pub fn new(planted: Planted) -> Arc<World> {
        Arc::new(World { planted, poisoned: Mutex::default(), seen: Mutex::default() })
    }

    pub fn planted(&self) -> &Planted {
        &self.planted
    }

    pub fn with_seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().expect("whole"))
    }

    /// Whether the kernel shows the crash.
    fn is_bad(&self, work: &BuildWork) -> bool {
        let index = self.planted.index(&work.revision).expect("a commit of the history");
        let reverted = work.patches.contains(&Patch::Revert(self.planted.culprit));
        index >= self.planted.index(&self.planted.culprit).expect("it is one of them") && !reverted
    }

    fn end(&self, work: &Work, log: Artifact) -> AttemptEnd {
        let poisoned = self.poisoned.lock().expect("whole").is_some_and(|is| is(self, work));
        if poisoned {
            let reason = "the compiler's machine went up in smoke".into();
            return AttemptEnd::Infra(Infra { class: InfraClass::Engine, reason });
        }
        AttemptEnd::Done(match work {
            Work::Toolchain { .. } => Product::Toolchain(ToolchainFacts {
                image_id: IMAGE.into(),
                gcc: "gcc 10.2.1".into(),
                ld: "GNU ld 2.35.2".into(),
            }),
            Work::Reproducer { .. } => Product::Reproducer(ReproducerOutcome::Ready(log)),
            Work::Maintainers(_) => {
                Product::Maintainers(Maintainers { output: String::new(), problem: Some("no script".into()) })
            }
            Work::Build(work) => Product::Build(Build { outcome: self.kernel(work), log, duration_ms: 10 }),
            Work::Run(work) => Product::Run(Run { outcome: outcome(work), console: log, duration_ms: 10 }),
        })
    }

    fn kernel(&self, work: &BuildWork) -> BuildOutcome {
        let bad = if self.is_bad(work) { BAD } else { 0 };
        let name = format!("{} {:?} {:?}", work.revision, work.patches, work.kernel.make_args);
        let of =
            |what: &str| Artifact { digest: Digest::of(format!("{what} {name}").as_bytes()), size: 1 + bad };
        BuildOutcome::Built(Kernel {
            image: of("image"),
            vmlinux: of("vmlinux"),
            config: of("config"),
            fingerprint: Digest::of(name.as_bytes()),
            build_id: String::new(),
        })
    }
}

/// A pretended kernel tells by its size whether it crashes.
const BAD: u64 = 1 << 20;

fn outcome(work: &RunWork) -> Outcome {
    match work.kernel.size > BAD {
        true => {
            let crash = Crash::titled("WARNING in planted_bug");
            Outcome::Crashed(vec![SeenCrash { phase: Phase::Reproducer, crash }])
        }
        false => Outcome::Ok,
    }
}

/// What an agent announces; one that is being reported is over, and dropped by no one.
struct Held {
    item: ItemKey,
    reporting: bool,
}

/// One agent with one slot, at work for as long as its future is polled.
pub struct Hand {
    name: String,
    world: Arc<World>,
    client: AgentsClient<Link>,
    held: Arc<Mutex<BTreeMap<Attempt, Held>>>,
    /// The farm's store, as the coordinator last named it.
    artifacts: Arc<Mutex<String>>,
    /// What an item takes.
    pace: Duration,
}

impl Hand {
    pub fn new(name: &str, link: Link, world: &Arc<World>, pace: Duration) -> Hand {
        Hand {
            name: name.into(),
            world: world.clone(),
            client: AgentsClient::new(link),
            held: Arc::default(),
            artifacts: Arc::default(),
            pace,
        }
    }

    fn request(&self, sequence: u64) -> v1::SyncRequest {
        let held = self.held.lock().expect("whole");
        let holding = held.iter().map(|(attempt, held)| v1::Holding {
            attempt: attempt.0,
            item: Some(held.item.clone().into()),
            slot: 0,
            activity: "at it".into(),
        });
        v1::SyncRequest {
            sequence,
            info: Some(v1::AgentInfo {
                version: kulprit_proto::VERSION.into(),
                slots: vec![v1::Slot { cores: 1, memory_mib: 4096 }],
                images: vec![IMAGE.into()],
                accelerator: "tcg".into(),
                can_build: true,
                can_boot: true,
                ..Default::default()
            }),
            holding: holding.collect(),
            draining: false,
            ..secure::sync(&self.name)
        }
    }

    /// Syncs and works for ever; what it is refused ends it.
    pub async fn work(mut self) -> Status {
        let mut ended = BTreeSet::new();
        for sequence in 1.. {
            let response = match self.client.sync(self.request(sequence)).await {
                Ok(response) => response.into_inner(),
                Err(status) if status.code() == tonic::Code::PermissionDenied => return status,
                Err(_) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            *self.artifacts.lock().expect("whole") = response.artifacts_url;
            for attempt in response.revoke.into_iter().map(Attempt) {
                let mut held = self.held.lock().expect("whole");
                if let Some(dropped) = held.get(&attempt).filter(|it| !it.reporting) {
                    self.world.with_seen(|seen| seen.dropped.push(dropped.item.clone()));
                    held.remove(&attempt);
                }
            }
            if !response.assignments.is_empty() {
                self.world.with_seen(|seen| seen.signs.push(Instant::now()));
            }
            for message in response.assignments {
                let attempt = Attempt(message.attempt);
                let known = self.held.lock().expect("whole").contains_key(&attempt);
                if !known && message.work.is_some() && ended.insert(attempt) {
                    let assignment = Assignment::try_from(message).expect("it can be read");
                    self.begin(assignment);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("the numbers do not end")
    }

    fn begin(&self, assignment: Assignment) {
        let (attempt, item) = (assignment.attempt, assignment.item.clone());
        let taken = Held { item: item.clone(), reporting: false };
        self.held.lock().expect("whole").insert(attempt, taken);
        self.world.with_seen(|seen| {
            *seen.begun.entry(item.clone()).or_default() += 1;
            seen.order.push((self.name.clone(), item.clone()));
        });
        let (mut client, world, held) = (self.client.clone(), self.world.clone(), self.held.clone());
        let (name, pace, artifacts) = (self.name.clone(), self.pace, self.artifacts.clone());
        tokio::spawn(async move {
            let text = format!("{item} by {name}, attempt {attempt}\n");
            let data = text.clone().into_bytes();
            let chunk = v1::LogChunk { agent: name.clone(), attempt: attempt.0, offset: 0, data };
            // A live log is a convenience.
            let _ = client.append_log(tokio_stream::iter([chunk])).await;
            tokio::time::sleep(pace).await;
            let log = upload(&artifacts, text).await;
            let end = world.end(&assignment.work, log);
            let request = v1::CompleteRequest {
                agent: name,
                session: 1,
                attempt: attempt.0,
                item: Some(item.clone().into()),
                end: Some(end.into()),
            };
            // One that was told to drop it reports nothing of it.
            match held.lock().expect("whole").get_mut(&attempt) {
                Some(held) => held.reporting = true,
                None => return,
            }
            loop {
                match client.complete(request.clone()).await {
                    Ok(response) => {
                        let answer = response.into_inner().answer();
                        held.lock().expect("whole").remove(&attempt);
                        world.with_seen(|seen| {
                            seen.answered.push((attempt, item.clone(), answer));
                            seen.signs.push(Instant::now());
                        });
                        return;
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        });
    }
}

/// Puts a text into the farm's store, however often it takes, and wherever the store goes meanwhile:
/// the one before may never answer.
async fn upload(url: &Mutex<String>, text: String) -> Artifact {
    let artifact = Artifact { digest: Digest::of(text.as_bytes()), size: text.len() as u64 };
    let at = object_store::path::Path::from(artifact::path(&artifact.digest));
    loop {
        let base = url.lock().expect("whole").clone();
        let moved = async {
            while *url.lock().expect("whole") == base {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let store = store(&base);
        tokio::select! {
            done = store.put(&at, text.clone().into()) => match done {
                Ok(_) => return artifact,
                Err(_) => tokio::time::sleep(AGAIN).await,
            },
            () = moved => {}
        }
    }
}

fn store(url: &str) -> HttpStore {
    // Equal bounds would be an empty range, in which object_store finds no number.
    let backoff = BackoffConfig { init_backoff: AGAIN, max_backoff: 2 * AGAIN, base: 2. };
    let retry = RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(5) };
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_proxy_url("http://127.0.0.1:9")
        .with_proxy_excludes("127.0.0.1");
    let base = url.trim_end_matches('/');
    let store = HttpBuilder::new().with_url(base).with_client_options(options).with_retry(retry).build();
    store.expect("the coordinator's endpoint")
}

/// Runs hands on threads of their own for as long as the guard lives.
pub struct AtWork {
    runtime: Option<tokio::runtime::Runtime>,
}

impl AtWork {
    pub fn start(hands: impl FnOnce() -> Vec<Hand>) -> AtWork {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let hands = {
            let _guard = runtime.enter();
            hands()
        };
        hands.into_iter().for_each(|hand| drop(runtime.spawn(hand.work())));
        AtWork { runtime: Some(runtime) }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An agent of this name at the coordinator of a plaintext farm.
pub fn plain(farm: &super::Farm, name: &str, world: &Arc<World>, pace_ms: u64) -> Hand {
    Hand::new(name, Link::plain(&farm.url()).expect("an address"), world, Duration::from_millis(pace_ms))
}

/// One that says nothing of itself unless the test wants.
pub struct Sleeper {
    name: &'static str,
    client: AgentsClient<Link>,
}

impl Sleeper {
    pub fn new(name: &'static str, link: Link) -> Sleeper {
        Sleeper { name, client: AgentsClient::new(link) }
    }

    /// Syncs once, and gets what there is to do within the coordinator's patience.
    pub async fn take_work(&mut self) -> v1::Assignment {
        let message = v1::SyncRequest {
            info: Some(v1::AgentInfo {
                slots: vec![v1::Slot { cores: 1, memory_mib: 4096 }],
                can_build: true,
                ..Default::default()
            }),
            draining: false,
            ..secure::sync(self.name)
        };
        let answer = self.client.sync(message).await.expect("an answer").into_inner();
        answer.assignments.into_iter().next().expect("some work")
    }

    /// Completes with a product of a toolchain, which is what a job begins with.
    pub async fn complete(&mut self, work: &v1::Assignment) -> v1::CompleteAnswer {
        let facts = ToolchainFacts { image_id: IMAGE.into(), gcc: "late".into(), ld: "late".into() };
        let request = v1::CompleteRequest {
            agent: self.name.into(),
            session: 1,
            attempt: work.attempt,
            item: work.item.clone(),
            end: Some(AttemptEnd::Done(Product::Toolchain(facts)).into()),
        };
        self.client.complete(request).await.expect("an answer").into_inner().answer()
    }
}
