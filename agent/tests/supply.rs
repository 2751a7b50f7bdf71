//! Source that comes as packs: the same trees as from the repository itself, whatever the mirror has.

use kulprit_agent::checkout::{CheckoutError, Origin, Refusals, Source, SuppliedPack, Supplier, checkout};
use kulprit_common::id::RevisionId;
use kulprit_common::outcome::{Infra, InfraClass};
use kulprit_common::patch::Patch;
use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A repository that only the supplier knows by its path.
struct Bench {
    dir: TempDir,
}

/// Packs as the coordinator does.
struct Packer<'a> {
    bench: &'a Bench,
    wanted: Vec<RevisionId>,
    /// What it was told is held, call by call, and how large its packs were.
    asked: RefCell<Vec<(usize, u64)>>,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("repo")).unwrap();
        bench.git(&["init", "-q", "-b", "main"], b"");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn git(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path("repo")).args(["-c", "user.name=A", "-c", "user.email=a@example.org"]);
        git.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = git.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}");
        output.stdout
    }

    fn commit(&self, files: &[(&str, &str)]) -> RevisionId {
        for (name, text) in files {
            fs::write(self.path("repo").join(name), text).unwrap();
        }
        self.git(&["add", "."], b"");
        self.git(&["commit", "-q", "-m", "x"], b"");
        String::from_utf8(self.git(&["rev-parse", "HEAD"], b"")).unwrap().trim().parse().unwrap()
    }

    fn packer(&self, wanted: &[RevisionId]) -> Packer<'_> {
        Packer { bench: self, wanted: wanted.to_vec(), asked: RefCell::default() }
    }

    fn checkout(&self, source: &Source, origin: &Origin<'_>) -> Result<PathBuf, CheckoutError> {
        checkout(&self.path("cache"), &self.path("slot"), source, origin, &mut |_| true).map(|it| it.dir)
    }

    fn mirror(&self) -> PathBuf {
        let mirrors = fs::read_dir(self.path("cache/mirrors")).unwrap();
        mirrors.flatten().map(|entry| entry.path()).next().unwrap()
    }
}

impl Supplier for Packer<'_> {
    fn packs(&self, held: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError> {
        let lines = |prefix: &str, ids: &[RevisionId]| -> String {
            ids.iter().map(|id| format!("{prefix}{id}\n")).collect()
        };
        let asked = lines("--shallow ", &self.wanted)
            + &lines("--shallow ", held)
            + &lines("", &self.wanted)
            + &lines("^", held);
        let args = ["--shallow-file", "", "pack-objects", "-q", "--revs", "--shallow", "--thin", "--stdout"];
        let pack = self.bench.git(&args, asked.as_bytes());
        self.asked.borrow_mut().push((held.len(), pack.len() as u64));
        let path = self.bench.path(&format!("{}.pack", self.asked.borrow().len()));
        fs::write(&path, pack).unwrap();
        Ok(vec![SuppliedPack { path, commits: self.wanted.clone() }])
    }
}

/// Asked, it is a failure of the test.
struct Nobody;

impl Supplier for Nobody {
    fn packs(&self, _: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError> {
        let reason = "the coordinator was asked".into();
        Err(CheckoutError::Supply(Infra { class: InfraClass::Source, reason }))
    }
}

fn source(revision: RevisionId, patches: &[Patch]) -> Source {
    Source { repository: "/nowhere/linux".into(), revision, patches: patches.to_vec() }
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// Does not compress, and differs by a line only.
fn long(last: u32) -> String {
    let line =
        |number: u32| format!("{:08x}{:08x}\n", number.wrapping_mul(2_654_435_761), number ^ 0x5bd1_e995);
    (0..5000).map(line).chain([format!("last {last}\n")]).collect()
}

#[test]
fn packs_bring_trees_and_what_is_held_is_not_sent_again() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", &long(1)), ("b", "same\n")]);
    let second = bench.commit(&[("a", &long(2))]);
    let packer = bench.packer(&[first]);
    let tree = bench.checkout(&source(first, &[]), &Origin::Coordinator(&packer)).unwrap();
    assert_eq!([text(&tree, "a"), text(&tree, "b")], [long(1), "same\n".into()]);
    bench.checkout(&source(first, &[]), &Origin::Coordinator(&Nobody)).expect("it is here");

    let thin = bench.packer(&[second]);
    let tree = bench.checkout(&source(second, &[]), &Origin::Coordinator(&thin)).unwrap();
    assert_eq!(text(&tree, "a"), long(2));
    let (whole, differing) = (packer.asked.borrow()[0], thin.asked.borrow()[0]);
    assert_eq!((whole.0, differing.0), (0, 1));
    assert!(differing.1 * 20 < whole.1, "{differing:?} of {whole:?}");
}

#[test]
fn patches_have_the_commit_they_change() {
    let bench = Bench::new();
    let root = bench.commit(&[("a", "1\n2\n3\n4\n5\n6\n7\n8\n")]);
    let bug = bench.commit(&[("a", "1\nbug\n3\n4\n5\n6\n7\n8\n")]);
    let tip = bench.commit(&[("a", "1\nbug\n3\n4\n5\n6\n7\nlast\n")]);
    // The commit alone comes first, cut off from the one before it.
    let plain = bench.packer(&[bug]);
    bench.checkout(&source(bug, &[]), &Origin::Coordinator(&plain)).unwrap();
    let packer = bench.packer(&[tip, bug, root]);
    let reverted = source(tip, &[Patch::Revert(bug)]);
    let tree = bench.checkout(&reverted, &Origin::Coordinator(&packer)).unwrap();
    assert_eq!(text(&tree, "a"), "1\n2\n3\n4\n5\n6\n7\nlast\n");
}

#[test]
fn a_mirror_that_lost_its_objects_is_filled_anew() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", &long(1))]);
    let second = bench.commit(&[("a", &long(2))]);
    bench.checkout(&source(first, &[]), &Origin::Coordinator(&bench.packer(&[first]))).unwrap();
    // The commit is kept, loose; all that it names is gone.
    let mirror = bench.mirror();
    let commit = bench.git(&["cat-file", "commit", &first.to_string()], b"");
    let packs: Vec<_> = fs::read_dir(mirror.join("objects/pack")).unwrap().flatten().collect();
    packs.iter().for_each(|pack| fs::remove_file(pack.path()).unwrap());
    let mut hash = Command::new("git");
    hash.arg("--git-dir").arg(&mirror).args(["hash-object", "-w", "-t", "commit", "--stdin"]);
    let mut child = hash.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&commit).unwrap();
    assert!(child.wait().unwrap().success());

    let packer = bench.packer(&[second]);
    let tree = bench.checkout(&source(second, &[]), &Origin::Coordinator(&packer)).unwrap();
    assert_eq!(text(&tree, "a"), long(2));
    let held: Vec<usize> = packer.asked.borrow().iter().map(|(held, _)| *held).collect();
    assert_eq!(held, [1, 0], "it asks again, holding nothing");
}

#[test]
fn the_repository_is_asked_first_and_then_left_alone() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", "1\n")]);
    let second = bench.commit(&[("a", "2\n")]);
    let refusals = Refusals::default();
    let here = Source { repository: bench.path("repo").display().to_string(), ..source(first, &[]) };
    bench.checkout(&here, &Origin::Either(&Nobody, &refusals)).expect("the path is here");

    // The coordinator fails as well: both reasons are said.
    let error = bench.checkout(&source(first, &[]), &Origin::Either(&Nobody, &refusals)).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("not a git repository") && said.contains("the coordinator was asked"), "{said}");
    assert_eq!(error.infra().map(|infra| infra.class), Some(InfraClass::Source));
    let packer = bench.packer(&[second]);
    bench.checkout(&source(second, &[]), &Origin::Either(&packer, &refusals)).expect("it is packed");
    let only = bench.checkout(&source(first, &[]), &Origin::Repository).unwrap_err();
    assert!(only.to_string().contains("not a git repository"), "{only}");
}

#[test]
fn a_pack_that_is_none_is_an_error_and_leaves_nothing() {
    struct Noise(PathBuf, RevisionId);
    impl Supplier for Noise {
        fn packs(&self, _: &[RevisionId]) -> Result<Vec<SuppliedPack>, CheckoutError> {
            fs::write(&self.0, "PACK of something else").unwrap();
            Ok(vec![SuppliedPack { path: self.0.clone(), commits: vec![self.1] }])
        }
    }
    let bench = Bench::new();
    let first = bench.commit(&[("a", "1\n")]);
    let noise = Noise(bench.path("noise"), first);
    let error = bench.checkout(&source(first, &[]), &Origin::Coordinator(&noise)).unwrap_err();
    assert_eq!(error.infra().map(|infra| infra.class), Some(InfraClass::Source), "{error}");
    bench.checkout(&source(first, &[]), &Origin::Coordinator(&bench.packer(&[first]))).expect("it is packed");
    let left = fs::read_dir(bench.mirror().join("objects/pack")).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("pack_git2_")));
}

/// A mirror that has no room has lost nothing.
#[test]
fn a_full_disk_costs_no_base() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", &long(1))]);
    let second = bench.commit(&[("a", &noise(4 << 20))]);
    let cache = bench.path("cache");
    fs::create_dir(&cache).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&cache).status();
    assert!(mount.unwrap().success(), "mounting takes root");
    let packer = bench.packer(&[second]);
    let before = bench.checkout(&source(first, &[]), &Origin::Coordinator(&bench.packer(&[first])));
    let error = bench.checkout(&source(second, &[]), &Origin::Coordinator(&packer)).map(drop);
    let again = bench.checkout(&source(first, &[]), &Origin::Coordinator(&Nobody)).map(drop);
    let held = git2::Repository::open_bare(bench.mirror())
        .and_then(|mirror| Ok(mirror.references_glob("refs/kulprit/*")?.count()));
    assert!(Command::new("umount").arg(&cache).status().unwrap().success());
    before.expect("there is room for the first");
    let error = error.unwrap_err();
    assert_eq!(error.infra().map(|infra| infra.class), Some(InfraClass::Disk), "{error}");
    assert_eq!(packer.asked.borrow().len(), 1, "it is not asked for everything");
    again.expect("the first is still here");
    assert_eq!(held.unwrap(), 1);
}

/// Letters that do not compress to less than three quarters.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state % 64) as usize])
    };
    (0..bytes).map(|_| letter()).collect()
}
