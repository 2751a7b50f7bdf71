//! A disk that runs low, a real one: what is old and unused goes, and nothing else.

use kulprit_agent::build::Ccache;
use kulprit_agent::build::seed::{Seeds, Turn};
use kulprit_agent::disk_guard::{Marks, Places, Removed, make_room};
use kulprit_agent::slots::Slots;
use kulprit_agent::store::Cache;
use kulprit_common::artifact::Artifact;
use kulprit_common::id::{Digest, RevisionId};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

/// A file system of its own, of so many MiB.
struct TinyDisk(PathBuf);

impl TinyDisk {
    fn mount(path: &Path, mib: u32) -> TinyDisk {
        fs::create_dir_all(path).expect("a directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount runs").success(), "mounting takes root");
        TinyDisk(path.to_owned())
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Used so many hours ago.
fn age(path: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    File::open(path).and_then(|it| it.set_modified(then)).expect("a time can be set");
}

/// A directory with a file of so many MiB, and with a way out.
fn tree(path: &Path, mib: usize, outside: &Path, hours: u64) -> PathBuf {
    fs::create_dir_all(path.join("tree")).unwrap();
    fs::write(path.join("tree/vmlinux"), vec![1; mib * MIB]).unwrap();
    symlink(outside, path.join("tree/way")).unwrap();
    age(path, hours);
    path.to_owned()
}

/// A tiny disk as `--state` and `--cache`, and things on it.
struct Bed {
    _disk: TinyDisk,
    dir: tempfile::TempDir,
    outside: PathBuf,
    slots: Slots,
    artifacts: Cache,
}

impl Bed {
    fn new(mib: u32) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let disk = TinyDisk::mount(&dir.path().join("disk"), mib);
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("revision"), "precious").unwrap();
        let artifacts = dir.path().join("disk/artifacts");
        fs::create_dir(&artifacts).unwrap();
        for (name, hours) in [("held", 90), ("old", 80), ("new", 0)] {
            let path = artifacts.join(Digest::of(name.as_bytes()).to_string());
            fs::write(&path, vec![1; MIB]).unwrap();
            age(&path, hours);
        }
        let artifacts = Cache::open(artifacts, 1 << 30).expect("a cache");
        Bed { _disk: disk, dir, outside, slots: Slots::default(), artifacts }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn tree(&self, name: &str, mib: usize, hours: u64) -> PathBuf {
        tree(&self.state().join(name), mib, &self.outside, hours)
    }

    fn make_room(&self, least_mib: u64) -> Vec<Removed> {
        let state = self.state();
        let places = Places {
            state: &state,
            cache: &state,
            artifacts: &self.artifacts,
            slots: &self.slots,
            slots_used: 2,
        };
        make_room(&places, Marks::above(least_mib))
    }
}

fn artifact(name: &str) -> Artifact {
    Artifact { digest: Digest::of(name.as_bytes()), size: MIB as u64 }
}

#[tokio::test]
async fn the_oldest_unused_things_go_first_and_what_is_in_use_stays() {
    let bed = Bed::new(64);
    let busy = bed.tree("slots/0/objects/aa", 2, 100);
    let idle = bed.tree("slots/1/objects/bb", 2, 70);
    let fresh = bed.tree("slots/1/objects/cc", 2, 1);
    let unused_slot = bed.tree("slots/9", 2, 60);
    let half = bed.tree("seeds/0123.gone", 2, 50);
    // In use by another process, for all that the guard knows.
    let seeds = Seeds::new(bed.state().join("seeds"));
    let (copied, cancel) = (Digest::of(b"copied"), CancellationToken::new());
    let turn = async |key: &Digest| seeds.turn(key, || {}, &cancel).await;
    let Ok(Turn::First(making)) = turn(&copied).await else { panic!("nobody was before") };
    making.keep(&busy, &RevisionId::from_bytes([1; 20])).unwrap();
    let Ok(Turn::Planted(planted)) = turn(&copied).await else { panic!("there is a seed") };
    let kept = bed.state().join("seeds").join(copied.short());
    age(&kept, 200);
    symlink(&bed.outside, bed.state().join("seeds/link")).unwrap();
    let ccache = async |repository: &str| {
        Ccache::open(bed.state().join("ccache"), "sha256:1", repository).await.expect("a ccache")
    };
    let used = ccache("/used.git").await;
    let unused = ccache("/unused.git").await.dir().to_owned();
    let last = ccache("/last.git").await.dir().to_owned();
    for (cache, hours) in [(used.dir(), 300), (&unused, 40), (&last, 30)] {
        fs::write(cache.join("object"), vec![1; MIB]).unwrap();
        age(&cache.with_extension("lock"), hours);
    }
    let hold = bed.slots.try_hold(0).expect("nobody has it");
    let held = bed.artifacts.get(&artifact("held")).expect("it is there");

    assert_eq!(bed.make_room(20), [], "there is room");
    // Less is free than is low: all goes that may, by age.
    let removed = bed.make_room(60);
    let gone: Vec<PathBuf> = removed.iter().map(|it| it.path.clone()).collect();
    let old = bed.state().join("artifacts").join(artifact("old").digest.to_string());
    let new = bed.state().join("artifacts").join(artifact("new").digest.to_string());
    assert_eq!(gone, [&old, &idle, &unused_slot, &half, &unused, &fresh, &new].map(Clone::clone));
    assert!(removed.iter().all(|it| it.bytes >= MIB as u64), "{removed:?}");
    for path in &gone {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in [&busy, &kept, used.dir(), &last, held.path(), &bed.state().join("seeds/link")] {
        assert!(path.exists(), "{} was in use", path.display());
    }
    assert_eq!(fs::read_to_string(bed.outside.join("revision")).unwrap(), "precious");
    assert!(bed.artifacts.get(&artifact("old")).is_none(), "the cache knows that it is gone");

    assert_eq!(bed.make_room(60), [], "nothing is left that may go");
    drop((hold, planted));
    let gone: Vec<PathBuf> = bed.make_room(60).into_iter().map(|it| it.path).collect();
    assert_eq!(gone, [kept, busy], "they are used no longer");
}

#[tokio::test]
async fn no_more_goes_than_has_to() {
    let bed = Bed::new(64);
    let trees = [4, 3, 2, 1].map(|hours| bed.tree(&format!("slots/1/objects/{hours}"), 12, hours));
    // 13 MiB free; low below 20, and enough at 24.
    let removed = bed.make_room(16);
    let paths: Vec<&Path> = removed.iter().map(|it| it.path.as_path()).collect();
    assert!(paths.ends_with(&[&trees[0]]) && !paths.contains(&trees[1].as_path()), "{removed:?}");
    assert!(trees[1..].iter().all(|tree| tree.exists()));
    assert_eq!(bed.make_room(16), [], "there is room again");
}

/// The process itself, which finds no coordinator: it keeps room all the same.
#[test]
fn an_agent_makes_room_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = TinyDisk::mount(&dir.path().join("state"), 300);
    let state = dir.path().join("state");
    let old = tree(&state.join("slots/0/objects/old"), 100, dir.path(), 9);
    let new = tree(&state.join("slots/0/objects/new"), 80, dir.path(), 2);
    let log = dir.path().join("log");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_kulprit-agent"))
        .args(["--coordinator", "http://127.0.0.1:9", "--name", "disk-guard", "--slots", "1"])
        .args(["--accelerator", "tcg", "--disk-min-mib", "128"])
        .arg("--state")
        .arg(&state)
        .env("DOCKER_HOST", "unix:///nonexistent.sock")
        .env("NO_COLOR", "1")
        .env_remove("KULPRIT_CACHE")
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .expect("the agent starts");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let start = Instant::now();
    while !said().contains("the disk ran low") && start.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(said().contains("removed to make room"), "{}", said());
    assert!(said().contains("mib=100"), "it says how much: {}", said());
    assert!(!old.exists() && new.exists(), "only the older one had to go");
}
