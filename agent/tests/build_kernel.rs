//! Linux itself: builds are reproducible, incremental builds are right, and the fingerprint
//! sees code but not lines; a kernel tells its build id when it runs. Prints what each build took. Skipped, with a word, where there is
//! no engine, no toolchain image or no kernel source.

use git2::{Oid, Repository, Signature};
use kulprit_agent::boot::{BootError, BootRequest, QemuConfig, boot};
use kulprit_agent::build::seed::{Seeds, Turn};
use kulprit_agent::build::{BuildRequest, Built, build};
use kulprit_agent::checkout::{Origin, Source, checkout};
use kulprit_agent::container::{Engine, Limits, Unfinished};
use kulprit_common::id::{Digest, RevisionId, Session};
use kulprit_common::job::{ConfigBase, Fragment, KernelBuild, Machine, ReproducerKind, Timeouts};
use kulprit_common::outcome::{InfraClass, Outcome};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "kulprit/gcc-10";

/// Where the scripts keep what is made once.
fn cache() -> PathBuf {
    let named = std::env::var_os("KULPRIT_CACHE").map(PathBuf::from);
    named
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/kulprit"))
}

/// Where scripts/kernel-source puts Linux 6.1.
fn base_repository() -> Option<PathBuf> {
    Some(cache().join("demo/base.git")).filter(|path| path.is_dir())
}

/// A repository of revisions on top of the base, which lends its objects.
struct Bench {
    dir: TempDir,
    git: Repository,
    base: Oid,
    ccache: PathBuf,
    engine: Engine,
    image: String,
}

/// A kernel as far as the test compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    fingerprint: Digest,
    image: Digest,
    build_id: String,
}

impl Bench {
    async fn new() -> Option<Self> {
        let found = async {
            let engine = Engine::connect("test-kernel".parse().unwrap(), Session(1)).await?;
            let image = engine.image_id(IMAGE).await?;
            Ok::<_, Unfinished>((engine, image))
        };
        let (engine, image) =
            found.await.map_err(|why| eprintln!("skipped: {why}; `make test` provides it")).ok()?;
        let Some(base) = base_repository() else {
            eprintln!("skipped: there is no kernel source; scripts/kernel-source provides it");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        // The host's ccache saves the test minutes; to measure a cold build, set the variable.
        let cold = std::env::var_os("KULPRIT_TEST_COLD").is_some();
        let ccache = if cold { dir.path().join("ccache") } else { cache().join("ccache") };
        let path = dir.path().join("repo.git");
        Repository::init_bare(&path).unwrap();
        fs::write(path.join("objects/info/alternates"), format!("{}\n", base.join("objects").display()))
            .unwrap();
        let git = Repository::open_bare(&path).unwrap();
        let head = fs::read_to_string(base.join("refs/heads/base")).or_else(|_| packed_base(&base)).unwrap();
        let base = Oid::from_str(head.trim()).unwrap();
        Some(Bench { dir, git, base, ccache, engine, image })
    }

    /// The base with `from` replaced by `to` in one file.
    fn revision(&self, file: &str, from: &str, to: &str) -> RevisionId {
        let base = self.git.find_commit(self.base).unwrap();
        let tree = base.tree().unwrap();
        let entry = tree.get_path(Path::new(file)).unwrap();
        let text = String::from_utf8(self.git.find_blob(entry.id()).unwrap().content().to_vec()).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        let blob = self.git.blob(text.replacen(from, to, 1).as_bytes()).unwrap();
        let mut update = git2::build::TreeUpdateBuilder::new();
        let tree = update.upsert(file, blob, git2::FileMode::Blob).create_updated(&self.git, &tree).unwrap();
        let who = Signature::now("a", "a@b").unwrap();
        let tree = self.git.find_tree(tree).unwrap();
        revision(self.git.commit(None, &who, &who, "x", &tree, &[&base]).unwrap())
    }

    /// Checks out in the one work tree and builds in the named object tree.
    async fn build(&self, what: &str, revision: RevisionId, objects: &str) -> Result<Seen, String> {
        let at = |name: &str| self.dir.path().join(name);
        let source = Source { repository: at("repo.git").display().to_string(), revision, patches: vec![] };
        let started = Instant::now();
        let tree = checkout(
            &at("cache"),
            &at(&format!("slot-{objects}")),
            &source,
            &Origin::Repository,
            &mut |_| true,
        )
        .unwrap();
        let checked_out = started.elapsed();
        let started = Instant::now();
        let request = BuildRequest {
            kernel: &kernel(),
            image_id: &self.image,
            source_dir: &tree.dir,
            objects_dir: &at(objects),
            ccache_dir: &self.ccache,
            shared_ccache: None,
            is_first: false,
            jobs: 2,
            limits: Limits { time: Duration::from_secs(3600), ..Limits::default() },
            objects_bytes_max: 8 << 30,
            log: &at("log"),
            attempt_label: "test",
        };
        let built = build(&self.engine, request, mpsc::channel(1).0, CancellationToken::new()).await;
        let (files, took) = (tree.touched, started.elapsed());
        println!("{what}: checkout {checked_out:.1?} ({files} files), build {took:.1?}");
        let log = fs::read_to_string(at("log")).unwrap();
        log.lines().filter(|line| line.starts_with("kulprit: ")).for_each(|line| println!("    {line}"));
        match built.unwrap_or_else(|e| panic!("{e}\n{log}")) {
            (Built::Kernel { image, fingerprint, build_id, .. }, _) => {
                fs::copy(&image, at("image")).unwrap();
                Ok(Seen { fingerprint, image: Digest::of(&fs::read(image).unwrap()), build_id })
            }
            (Built::Failed { message }, _) => Err(message),
        }
    }

    /// Boots what was built last, and wants it to tell this build id.
    async fn boots(&self, build_id: &str) -> Result<Outcome, BootError> {
        let request = BootRequest {
            kernel: &self.dir.path().join("image"),
            build_id,
            reproducer: b"",
            kind: ReproducerKind::Nothing,
            args: &[],
            machine: &Machine::default(),
            timeouts: &Timeouts::default(),
            work_dir: self.dir.path(),
            name: "test-kernel",
        };
        let (config, cancel) = (QemuConfig::default(), CancellationToken::new());
        Ok(boot(&config, request, mpsc::channel(1).0, cancel).await?.outcome)
    }
}

impl Bench {
    /// Keeps one object tree as a seed, and plants another from it in the same work tree.
    async fn planted_from(&self, objects: &str, revision: RevisionId, other: &str) -> String {
        let at = |name: &str| self.dir.path().join(name);
        let (seeds, key) = (Seeds::new(at("seeds")), Digest::of(b"key"));
        let cancel = CancellationToken::new();
        let Ok(Turn::First(making)) = seeds.turn(&key, || {}, &cancel).await else { panic!("no seed yet") };
        let started = Instant::now();
        making.keep(&at(objects), &revision).unwrap();
        let kept = started.elapsed();
        let Ok(Turn::Planted(seed)) = seeds.turn(&key, || {}, &cancel).await else { panic!("a seed") };
        let source = Source {
            repository: at("repo.git").display().to_string(),
            revision: seed.revision,
            patches: vec![],
        };
        let slot = at("slot-one");
        let tree = checkout(&at("cache"), &slot, &source, &Origin::Repository, &mut |_| true).unwrap();
        // The tree is to be the one that "three" builds from as well.
        std::os::unix::fs::symlink(&slot, at(&format!("slot-{other}"))).unwrap();
        let started = Instant::now();
        seed.plant(&at(other), &tree.dir).unwrap();
        format!("kept in {kept:.1?}, planted in {:.1?}", started.elapsed())
    }
}

fn packed_base(base: &Path) -> std::io::Result<String> {
    let refs = fs::read_to_string(base.join("packed-refs"))?;
    let line = refs.lines().find(|line| line.ends_with(" refs/heads/base"));
    Ok(line.expect("the base has its branch")[..40].to_string())
}

fn revision(commit: Oid) -> RevisionId {
    commit.to_string().parse().unwrap()
}

fn kernel() -> KernelBuild {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo/tiny.config");
    let text = fs::read_to_string(tiny).unwrap();
    KernelBuild {
        arch: "x86_64".into(),
        config: ConfigBase::Target("tinyconfig".into()),
        fragments: vec![Fragment { name: "tiny.config".into(), text }],
        make_args: vec![],
    }
}

#[tokio::test]
async fn linux_is_built_reproducibly_and_lines_do_not_matter() {
    let Some(bench) = Bench::new().await else { return };
    let base = revision(bench.base);
    let lines = bench.revision("fs/utimes.c", "#include", "/*\n * Three lines\n */\n#include");
    let shifted_warnings = bench.revision("kernel/fork.c", "#include", "/* A line. */\n#include");
    let code = bench.revision("fs/utimes.c", "return -EINVAL", "return -EPERM");
    let broken = bench.revision("fs/utimes.c", "return -EINVAL", "return -EINVAL +");
    let config = bench.revision(
        "init/Kconfig",
        "config BROKEN\n",
        "config KULPRIT_NEW\n\tdef_bool y\n\nconfig BROKEN\n",
    );

    let cold = bench.build("cold", base, "one").await.unwrap();
    let again = bench.build("nothing changed", base, "one").await.unwrap();
    assert_eq!(cold, again);
    let seen = bench.build("comment", lines, "one").await.unwrap();
    assert_eq!(seen.fingerprint, cold.fingerprint, "a comment shifts lines and nothing else");
    let seen = bench.build("comment above warnings", shifted_warnings, "one").await.unwrap();
    assert_eq!(seen.fingerprint, cold.fingerprint, "lines of warnings are ignored");
    assert_ne!(seen.image, cold.image, "they do stand in the kernel");
    let changed = bench.build("code", code, "one").await.unwrap();
    assert_ne!(changed.fingerprint, cold.fingerprint);
    assert_eq!(changed.build_id.len(), 40, "{changed:?}");
    assert_eq!(bench.boots(&changed.build_id).await.unwrap(), Outcome::Ok);
    match bench.boots(&cold.build_id).await {
        Err(BootError::Infra(infra)) => {
            assert_eq!(infra.class, InfraClass::Artifact);
            assert!(infra.reason.contains(&changed.build_id), "{}", infra.reason);
        }
        other => panic!("another kernel passed for the one that was built: {other:?}"),
    }
    let message = bench.build("broken", broken, "one").await.unwrap_err();
    assert!(message.starts_with("fs/utimes.c:") && message.contains(": error: expected"), "{message}");
    bench.build("new symbol", config, "one").await.unwrap();
    assert_eq!(bench.build("back at the base", base, "one").await.unwrap(), cold);
    assert_eq!(bench.build("another object tree, warm ccache", base, "two").await.unwrap(), cold);
    assert_eq!(bench.build("code, another object tree", code, "two").await.unwrap(), changed);

    bench.build("the base, for a seed", base, "one").await.unwrap();
    let planted = bench.planted_from("one", base, "three").await;
    assert_eq!(bench.build("code, from a seed of the base", code, "three").await.unwrap(), changed);
    println!("{}", planted);
    let other = bench.build("the first tree does not believe the work tree's times", code, "one");
    assert_eq!(other.await.unwrap(), changed);
}
