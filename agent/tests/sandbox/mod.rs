//! A whole agent without a coordinator: attempts carried out as production does, on toy kernels.

use git2::{Oid, Repository, Signature};
use kulprit_agent::artifacts::{Artifacts, Place};
use kulprit_agent::boot::QemuConfig;
use kulprit_agent::config::Sizing;
use kulprit_agent::container::Engine;
use kulprit_agent::guests::Guests;
use kulprit_agent::slots::Slots;
use kulprit_agent::source::{SourceFrom, Supply};
use kulprit_agent::work::{Activity, Bench, carry_out};
use kulprit_common::artifact;
use kulprit_common::farm::action::Assignment;
use kulprit_common::farm::event::Slot;
use kulprit_common::farm::item::{BuildWork, ItemKey, Work};
use kulprit_common::id::{AgentId, Attempt, Digest, RevisionId, Session, TreeId};
use kulprit_common::job::{ConfigBase, KernelBuild};
use kulprit_common::outcome::{AttemptEnd, Build, BuildOutcome, Infra, Product};
use kulprit_proto::tls::Link;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "kulprit/gcc-10";
/// What stands in the files that no build may read.
pub const SECRET: &str = "kulprit-test-secret-4711";
pub const MEMORY_MIB: u64 = 384;
pub const DISK_MIB: u64 = 200;
/// Longer than an attempt here may take by its own limits, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// Makes what Linux's Makefile makes, of one file.
const MAKEFILE: &str = "\
tinyconfig olddefconfig:\n\t@mkdir -p $(O)/include/config; touch $(O)/.config\n\
$(O)/a.o: /src/a.c\n\t$(CC) -c -o $@ $<\n\
vmlinux: $(O)/a.o\n\t@$(CC) -static -Wl,--build-id=none -o $(O)/vmlinux $<; sh /src/attack.sh\n\
bzImage: vmlinux\n\t@mkdir -p $(O)/arch/x86/boot; for f in boot boot/bzImage; do [ ! -L $(O)/arch/x86/$$f ] || exit 0; done; [ -e $(O)/arch/x86/boot/bzImage ] || cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage\n";

/// An agent on this machine, with secrets in its state directory.
pub struct Host {
    pub dir: TempDir,
    bench: Arc<Bench>,
    agent: AgentId,
    image_id: String,
    next: AtomicU64,
}

impl Host {
    /// `None`, after a word of why, where there is no engine or no toolchain.
    pub async fn new(test: &str) -> Option<Host> {
        let agent: AgentId = format!("sandbox-{test}-{}", std::process::id()).parse().unwrap();
        let found = async {
            let engine = Engine::connect(agent.clone(), Session(1)).await?;
            let image = engine.image_id(IMAGE).await?;
            Ok::<_, kulprit_agent::container::Unfinished>((engine, image))
        };
        let (engine, image_id) = match found.await {
            Ok(found) => found,
            Err(why) => {
                assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "{why}");
                eprintln!("skipped: {why}; `make test` provides it");
                return None;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        for path in ["identity/key.pem", "scratch/99/plan", "artifacts/file"] {
            let path = state.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Open to all, so that only the container's walls stand before it.
            fs::write(path, SECRET).unwrap();
        }
        let store = dir.path().join("store");
        fs::create_dir_all(&store).unwrap();
        let artifacts = Artifacts::open(state.join("cached"), 1 << 30, None).unwrap();
        artifacts.point_at(Place::Url(format!("file://{}", store.display()))).unwrap();
        let sizing = Sizing {
            slots: 2,
            slot: Slot { cores: 2, memory_mib: MEMORY_MIB },
            jobs: 2,
            cores_max: Some(2),
            build_bytes_max: DISK_MIB << 20,
            disk_free_bytes_min: 64 << 20,
        };
        let cache = dir.path().join("cache");
        fs::create_dir_all(&cache).unwrap();
        let engine = RwLock::new(Some(engine));
        let nobody = Link::plain("http://127.0.0.1:9").unwrap();
        let bench = Bench {
            engine,
            qemu: RwLock::new(QemuConfig::default()),
            artifacts,
            shared_ccache: None,
            supply: Supply::new(SourceFrom::Repository, agent.clone(), AgentsClient::new(nobody)),
            slots: Slots::default(),
            guests: Guests::default(),
            sizing,
            state,
            cache,
        };
        Some(Host { dir, bench: Arc::new(bench), agent, image_id, next: AtomicU64::new(100) })
    }

    pub fn state(&self) -> &Path {
        &self.bench.state
    }

    pub fn cache(&self) -> &Path {
        &self.bench.cache
    }

    /// A slot that was never used, so that nothing is warm in it.
    pub fn slot(&self) -> u32 {
        u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    /// Builds a revision; `seconds` is its time limit.
    pub async fn build(&self, slot: u32, source: &Source, revision: &Revision, seconds: u32) -> AttemptEnd {
        let kernel = KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![],
            make_args: vec![],
        };
        let work = BuildWork {
            repository: source.path.display().to_string(),
            revision: revision.commit,
            patches: vec![],
            tree: revision.tree,
            kernel,
            image_id: self.image_id.clone(),
            timeout_s: seconds,
        };
        let attempt = Attempt(self.next.fetch_add(1, Ordering::Relaxed));
        let item = ItemKey::Build(Digest::of(b"sandbox"));
        let (work, title) = (Work::Build(work), String::new());
        let assignment = Assignment { attempt, slot, item, work, title, purpose: None };
        let (live, _unheard) = mpsc::channel(1);
        let (activity, cancel) = (Activity::default(), CancellationToken::new());
        let ended = carry_out(&self.bench, &assignment, &activity, live, cancel);
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("every attempt comes to an end");
        let scratch = self.bench.state.join("scratch").join(attempt.to_string());
        assert!(!scratch.exists(), "the attempt's files stay behind");
        ended.expect("nobody cancelled")
    }

    /// Builds in a fresh slot what is only this attack.
    pub async fn attack(&self, source: &Source, script: &str, seconds: u32) -> AttemptEnd {
        let revision = source.commit(&[("attack.sh", script)]);
        self.build(self.slot(), source, &revision, seconds).await
    }

    /// Where the object trees of a slot are.
    pub fn objects(&self, slot: u32) -> PathBuf {
        self.bench.state.join("slots").join(slot.to_string()).join("objects")
    }

    /// The log of a build that was reported.
    pub fn log(&self, build: &Build) -> String {
        let path = self.dir.path().join("store").join(artifact::path(&build.log.digest));
        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
    }

    /// Every artifact that was ever sent.
    pub fn stored(&self) -> Vec<Vec<u8>> {
        let mut left = vec![self.dir.path().join("store")];
        let mut found = Vec::new();
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                } else {
                    found.push(fs::read(entry.path()).unwrap());
                }
            }
        }
        found
    }

    /// No container of this agent is left, running or not.
    pub async fn assert_nothing_left(&self) {
        let later = Engine::connect(self.agent.clone(), Session(2)).await.unwrap();
        assert_eq!(later.remove_all_leftovers().await.unwrap(), 0, "containers were left");
    }
}

/// A repository of toy kernels.
pub struct Source {
    pub path: PathBuf,
    git: Repository,
}

pub struct Revision {
    commit: RevisionId,
    tree: TreeId,
}

impl Source {
    pub fn new(host: &Host, name: &str) -> Source {
        let path = host.dir.path().join(name);
        let git = Repository::init_bare(&path).unwrap();
        Source { path, git }
    }

    /// A revision of an honest kernel with these files instead of its own.
    pub fn commit(&self, files: &[(&str, &str)]) -> Revision {
        let honest = [("Makefile", MAKEFILE), ("a.c", "int main(void) { return 0; }\n"), ("attack.sh", "")];
        let mut builder = self.git.treebuilder(None).unwrap();
        for (name, text) in honest.iter().chain(files) {
            let blob = self.git.blob(text.as_bytes()).unwrap();
            builder.insert(name, blob, 0o100_644).unwrap();
        }
        self.commit_tree(builder.write().unwrap())
    }

    /// A revision whose tree has one entry of this name, a file or a directory with a file in it.
    pub fn commit_named(&self, name: &str, directory: bool) -> Revision {
        let blob = self.git.blob(b"evil").unwrap();
        let entry =
            |mode: &str, name: &str, id: Oid| [format!("{mode} {name}\0").as_bytes(), id.as_bytes()].concat();
        let write = |raw: &[u8]| self.git.odb().unwrap().write(git2::ObjectType::Tree, raw).unwrap();
        let below = write(&entry("100644", "evil", blob));
        let raw = if directory { entry("40000", name, below) } else { entry("100644", name, blob) };
        self.commit_tree(write(&raw))
    }

    fn commit_tree(&self, tree: Oid) -> Revision {
        let author = Signature::new("A", "a@b.c", &git2::Time::new(0, 0)).unwrap();
        let tree_of = self.git.find_tree(tree).unwrap();
        let commit = self.git.commit(None, &author, &author, "a revision", &tree_of, &[]).unwrap();
        let bytes = |id: Oid| <[u8; 20]>::try_from(id.as_bytes()).unwrap();
        Revision { commit: RevisionId::from_bytes(bytes(commit)), tree: TreeId::from_bytes(bytes(tree)) }
    }
}

/// The infra failure that an attempt ended with; anything else would be evidence.
pub fn infra(ended: AttemptEnd) -> Infra {
    match ended {
        AttemptEnd::Infra(infra) => infra,
        other => panic!("{other:?} would count against the kernel"),
    }
}

pub fn built(ended: &AttemptEnd) -> bool {
    matches!(ended, AttemptEnd::Done(Product::Build(Build { outcome: BuildOutcome::Built(_), .. })))
}

/// A build that ended with a compile error.
pub fn failed(ended: AttemptEnd) -> (String, Build) {
    match ended {
        AttemptEnd::Done(Product::Build(build)) => match &build.outcome {
            BuildOutcome::Failed { message } => (message.clone(), build),
            BuildOutcome::Built(_) => panic!("it built"),
        },
        other => panic!("{other:?}"),
    }
}
