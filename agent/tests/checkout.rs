//! Work trees are brought from revision to revision, touching what differs and nothing else.

use git2::{Oid, Repository, Signature};
use kulprit_agent::checkout::{CheckedOut, CheckoutError, Origin, Source, checkout};
use kulprit_common::id::RevisionId;
use kulprit_common::outcome::InfraClass;
use kulprit_common::patch::Patch;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FILE: i32 = 0o100644;
const EXECUTABLE: i32 = 0o100755;
const SYMLINK: i32 = 0o120000;

/// A repository, and a slot with one work tree of it.
struct Bench {
    dir: TempDir,
    git: Repository,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = Repository::init_bare(dir.path().join("repo.git")).unwrap();
        Bench { dir, git }
    }

    /// Commits exactly these files.
    fn commit(&self, files: &[(&str, i32, &str)]) -> RevisionId {
        self.commit_on(&[], files)
    }

    fn commit_on(&self, parents: &[RevisionId], files: &[(&str, i32, &str)]) -> RevisionId {
        let parent = |id: &RevisionId| self.git.find_commit(Oid::from_bytes(id.as_bytes()).unwrap()).unwrap();
        let parents: Vec<_> = parents.iter().map(parent).collect();
        let parents: Vec<_> = parents.iter().collect();
        let nested = files.iter().map(|(path, mode, content)| (*path, (*mode, *content))).collect();
        let tree = self.git.find_tree(self.tree(&nested)).unwrap();
        let who = Signature::now("a", "a@b").unwrap();
        let id = self.git.commit(None, &who, &who, "x", &tree, &parents).unwrap();
        self.git.reference("refs/heads/main", id, true, "").unwrap();
        id.to_string().parse().unwrap()
    }

    /// Commits directories in each other, each of which has the next one under so many names.
    fn commit_levels(&self, parents: &[RevisionId], levels: usize, names: usize) -> RevisionId {
        let parent = |id: &RevisionId| self.git.find_commit(Oid::from_bytes(id.as_bytes()).unwrap()).unwrap();
        let parents: Vec<_> = parents.iter().map(parent).collect();
        let parents: Vec<_> = parents.iter().collect();
        let mut tree = self.tree(&BTreeMap::from([("file", (FILE, "x"))]));
        for _ in 0..levels {
            let mut builder = self.git.treebuilder(None).unwrap();
            (0..names).for_each(|name| drop(builder.insert(name.to_string(), tree, 0o040000).unwrap()));
            tree = builder.write().unwrap();
        }
        let who = Signature::now("a", "a@b").unwrap();
        let tree = self.git.find_tree(tree).unwrap();
        let id = self.git.commit(None, &who, &who, "x", &tree, &parents).unwrap();
        id.to_string().parse().unwrap()
    }

    fn tree(&self, files: &BTreeMap<&str, (i32, &str)>) -> Oid {
        let mut builder = self.git.treebuilder(None).unwrap();
        let mut dirs: BTreeMap<&str, BTreeMap<&str, (i32, &str)>> = BTreeMap::new();
        for (path, (mode, content)) in files {
            match path.split_once('/') {
                Some((dir, rest)) => {
                    dirs.entry(dir).or_default().insert(rest, (*mode, content));
                }
                None => {
                    let blob = self.git.blob(content.as_bytes()).unwrap();
                    builder.insert(path, blob, *mode).unwrap();
                }
            }
        }
        for (dir, files) in dirs {
            builder.insert(dir, self.tree(&files), 0o040000).unwrap();
        }
        builder.write().unwrap()
    }

    fn checkout(&self, revision: RevisionId) -> CheckedOut {
        self.try_checkout(&self.repository(), revision).unwrap()
    }

    fn try_checkout(&self, repository: &str, revision: RevisionId) -> Result<CheckedOut, CheckoutError> {
        let source = Source { repository: repository.into(), revision, patches: vec![] };
        checkout(&self.path("cache"), &self.path("slot"), &source, &Origin::Repository, &mut |_| true)
    }

    fn repository(&self) -> String {
        self.path("repo.git").display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn marker(&self) -> PathBuf {
        let slot = fs::read_dir(self.path("slot")).unwrap().next().unwrap().unwrap();
        slot.path().join("checked-out")
    }
}

fn read(tree: &CheckedOut, path: &str) -> String {
    fs::read_to_string(tree.dir.join(path)).unwrap()
}

fn time(tree: &CheckedOut, path: &str) -> (i64, i64) {
    let meta = fs::symlink_metadata(tree.dir.join(path)).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// Every path below `dir`.
fn listing(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().display().to_string());
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

#[test]
fn only_what_differs_is_touched() {
    let bench = Bench::new();
    let first = bench.commit(&[("Makefile", FILE, "all:"), ("fs/a.c", FILE, "1"), ("fs/b.c", FILE, "2")]);
    let second = bench.commit(&[("Makefile", FILE, "all:"), ("fs/a.c", FILE, "1"), ("fs/b.c", FILE, "3")]);

    let tree = bench.checkout(first);
    assert_eq!((tree.touched, read(&tree, "fs/b.c").as_str()), (3, "2"));
    assert_eq!(bench.checkout(first).touched, 0);

    let (same, changed) = (time(&tree, "fs/a.c"), time(&tree, "fs/b.c"));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let tree = bench.checkout(second);
    assert_eq!((tree.touched, read(&tree, "fs/b.c").as_str()), (1, "3"));
    assert_eq!(time(&tree, "fs/a.c"), same);
    assert!(time(&tree, "fs/b.c") > changed, "make must see the change");
    assert_eq!(
        listing(&tree.dir),
        ["Makefile", "fs", "fs/a.c", "fs/b.c"],
        "nothing but the revision's files"
    );
}

#[test]
fn kinds_of_files_may_change_into_each_other() {
    let bench = Bench::new();
    let states: [&[(&str, i32, &str)]; 6] = [
        &[("x", FILE, "plain"), ("gone/deep/er", FILE, "1")],
        &[("x", EXECUTABLE, "plain")],
        &[("x", SYMLINK, "target"), ("target", FILE, "t")],
        &[("x/y", FILE, "in a directory"), ("x/z/w", FILE, "deeper")],
        &[("x", SYMLINK, "/nowhere"), ("a", SYMLINK, "x")],
        &[("x/y/z", SYMLINK, "../.."), ("a/b", EXECUTABLE, "#!")],
    ];
    let revisions: Vec<RevisionId> = states.iter().map(|files| bench.commit(files)).collect();
    let order = [0, 1, 2, 3, 4, 5, 3, 2, 4, 0, 5, 1];
    for step in order {
        let tree = bench.checkout(revisions[step]);
        let files: Vec<String> = listing(&tree.dir)
            .into_iter()
            .filter(|path| !fs::symlink_metadata(tree.dir.join(path)).unwrap().is_dir())
            .collect();
        let mut wanted: Vec<&str> = states[step].iter().map(|(path, ..)| *path).collect();
        wanted.sort();
        assert_eq!(files, wanted, "state {step}");
        for (path, mode, content) in states[step] {
            let meta = fs::symlink_metadata(tree.dir.join(path)).unwrap();
            match *mode {
                SYMLINK => assert_eq!(fs::read_link(tree.dir.join(path)).unwrap(), Path::new(content)),
                mode => {
                    assert_eq!(meta.permissions().mode() & 0o777, mode as u32 & 0o777, "{path}");
                    assert_eq!(read(&tree, path), *content);
                }
            }
        }
    }
    assert!(!bench.path("nowhere").exists());
}

#[test]
fn an_interrupted_checkout_is_mended_and_right_files_keep_their_times() {
    let bench = Bench::new();
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "mine").unwrap();
    let files = [
        ("a", FILE, "1"),
        ("d/f", FILE, "2"),
        ("e/f", FILE, "3"),
        ("l", SYMLINK, "a"),
        ("s", EXECUTABLE, "4"),
    ];
    let first = bench.commit(&files);
    let tree = bench.checkout(first);
    let times = [time(&tree, "a"), time(&tree, "l"), time(&tree, "e/f")];

    fs::remove_file(bench.marker()).unwrap();
    fs::remove_dir_all(tree.dir.join("d")).unwrap();
    symlink(&outside, tree.dir.join("d")).unwrap();
    fs::write(tree.dir.join("s"), "5").unwrap();
    fs::create_dir_all(tree.dir.join("junk/deep")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));

    let tree = bench.checkout(first);
    assert_eq!(listing(&tree.dir), ["a", "d", "d/f", "e", "e/f", "l", "s"]);
    assert_eq!([read(&tree, "d/f"), read(&tree, "s")], ["2", "4"]);
    assert_eq!([time(&tree, "a"), time(&tree, "l"), time(&tree, "e/f")], times);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "mine", "no write leaves the tree");
}

#[test]
fn a_marker_of_an_earlier_life_of_the_host_is_not_believed() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", FILE, "1")]);
    let tree = bench.checkout(first);
    fs::write(tree.dir.join("a"), "").unwrap();
    let text = fs::read_to_string(bench.marker()).unwrap();
    let (id, _) = text.split_once(' ').unwrap();
    fs::write(bench.marker(), format!("{id} another-boot\n")).unwrap();
    assert_eq!(bench.checkout(first).touched, 1);
    assert_eq!(read(&tree, "a"), "1");
}

#[test]
fn a_cancelled_checkout_leaves_no_marker() {
    let bench = Bench::new();
    let (first, second) =
        (bench.commit(&[("a", FILE, "1")]), bench.commit(&[("a", FILE, "2"), ("b", FILE, "3")]));
    bench.checkout(first);
    let source = Source { repository: bench.repository(), revision: second, patches: vec![] };
    let mut calls = 0;
    let stopped =
        checkout(&bench.path("cache"), &bench.path("slot"), &source, &Origin::Repository, &mut |_| {
            calls += 1;
            // Both trees, and the first file.
            calls < 4
        });
    assert!(matches!(stopped, Err(CheckoutError::Cancelled)));
    assert!(!bench.marker().exists());
    let tree = bench.checkout(second);
    assert_eq!([read(&tree, "a"), read(&tree, "b")], ["2", "3"]);
}

/// Some kilobytes of a repository, which name 10^10 files or go on for ever.
#[test]
fn a_tree_that_no_disk_could_hold_is_refused() {
    let bench = Bench::new();
    let plain = bench.commit(&[("a", FILE, "1")]);
    let wide = bench.commit_levels(&[plain], 10, 10);
    let after = bench.commit_levels(&[wide], 10, 9);
    let deep = bench.commit_levels(&[plain], 5000, 1);
    let refused = |revision: RevisionId, patches: &[Patch], says: &str| {
        let source = Source { repository: bench.repository(), revision, patches: patches.to_vec() };
        let began = std::time::Instant::now();
        let (cache, slot) = (bench.path("cache"), bench.path("slot"));
        let error = checkout(&cache, &slot, &source, &Origin::Repository, &mut |_| true).unwrap_err();
        assert!(
            matches!(error, CheckoutError::TooLarge { .. }) && error.to_string().contains(says),
            "{error}"
        );
        assert_eq!(error.infra().unwrap().class, InfraClass::Source);
        println!("{says}: {:?}", began.elapsed());
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    };
    // From an empty work tree, and from another revision.
    for _ in 0..2 {
        refused(wide, &[], "1000000 files");
        refused(deep, &[], "256 directories");
        let tree = bench.checkout(plain);
        assert_eq!(listing(&tree.dir), ["a"]);
    }
    refused(plain, &[Patch::Pick(after)], "1000000 files");

    let source = Source { repository: bench.repository(), revision: wide, patches: vec![] };
    let mut calls = 0;
    let stopped =
        checkout(&bench.path("cache"), &bench.path("slot"), &source, &Origin::Repository, &mut |_| {
            calls += 1;
            calls < 100
        });
    assert!(matches!(stopped, Err(CheckoutError::Cancelled)), "it can be cancelled all along");
}

#[test]
fn a_url_is_fetched_and_a_work_repository_serves_as_a_local_path() {
    let bench = Bench::new();
    let first = bench.commit(&[("a", FILE, "1")]);
    let git = |args: &[&str], dir: &Path| {
        let done = std::process::Command::new("git").args(args).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["clone", "-q", "repo.git", "work", "-b", "main"], bench.dir.path());
    git(&["worktree", "add", "-q", "--detach", "../linked"], &bench.path("work"));
    for name in ["work", "linked"] {
        assert_eq!(
            bench.try_checkout(&bench.path(name).display().to_string(), first).unwrap().touched,
            1,
            "{name}"
        );
    }
    let daemon = Daemon::serve(bench.dir.path());
    let url = format!("git://127.0.0.1:{}/repo.git", daemon.port);
    assert_eq!(bench.try_checkout(&url, first).unwrap().touched, 1);
    let second = bench.commit(&[("a", FILE, "1"), ("b", FILE, "2")]);
    assert_eq!(bench.try_checkout(&url, second).unwrap().touched, 1, "what is new is fetched");
}

#[test]
fn a_commit_is_taken_out_or_put_in_also_where_history_is_fetched_in_part() {
    let lines = |change: &dyn Fn(usize) -> Option<&'static str>| -> String {
        (0..12).map(|n| change(n).map_or_else(|| format!("line {n}\n"), str::to_owned)).collect()
    };
    let base = lines(&|_| None);
    let with_bug = lines(&|n| (n == 2).then_some("bug\n"));
    let later = lines(&|n| match n {
        2 => Some("bug\n"),
        9 => Some("later\n"),
        _ => None,
    });
    let fixed = lines(&|n| (n == 9).then_some("later\n"));
    let bench = Bench::new();
    let root = bench.commit_on(&[], &[("a", FILE, &base)]);
    let bug = bench.commit_on(&[root], &[("a", FILE, &with_bug)]);
    let tip = bench.commit_on(&[bug], &[("a", FILE, &later)]);
    let side = bench.commit_on(&[root], &[("a", FILE, &base), ("b", FILE, "side")]);
    let tip = bench.commit_on(&[tip, side], &[("a", FILE, &later), ("b", FILE, "side")]);
    let clash = lines(&|n| (n == 2).then_some("another\n"));
    let clash = bench.commit_on(&[tip], &[("a", FILE, &clash)]);
    let daemon = Daemon::serve(bench.dir.path());
    let url = format!("git://127.0.0.1:{}/repo.git", daemon.port);

    for repository in [bench.repository(), url] {
        let get = |revision: RevisionId, patches: &[Patch]| {
            let source = Source { repository: repository.clone(), revision, patches: patches.to_vec() };
            checkout(&bench.path("cache"), &bench.path("slot"), &source, &Origin::Repository, &mut |_| true)
        };
        get(bug, &[]).expect("the plain revision first, so that its parent is not there");
        let reverted = get(tip, &[Patch::Revert(bug)]).expect("it applies");
        assert_eq!([read(&reverted, "a"), read(&reverted, "b")], [fixed.as_str(), "side"]);
        let back = get(tip, &[Patch::Revert(bug), Patch::Pick(bug)]).expect("it applies");
        assert_eq!(read(&back, "a"), later);
        let picked = get(root, &[Patch::Pick(side)]).expect("it applies");
        assert_eq!([read(&picked, "a"), read(&picked, "b")], [base.as_str(), "side"]);
        for (revision, patch) in [(clash, Patch::Revert(bug)), (bug, Patch::Revert(tip))] {
            assert!(matches!(get(revision, &[patch]), Err(CheckoutError::Conflict { .. })), "{patch:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_an_infra_failure_of_the_source() {
    let bench = Bench::new();
    bench.commit(&[("a", FILE, "1")]);
    let nowhere: RevisionId = "ab".repeat(20).parse().unwrap();
    for (repository, says) in [
        (bench.repository(), "has no revision abab"),
        ("/nonexistent/repository".into(), "is not a git repository"),
        ("git://127.0.0.1:9/x".into(), "fetching git://127.0.0.1:9/x"),
    ] {
        let infra = bench.try_checkout(&repository, nowhere).unwrap_err().infra().unwrap();
        assert_eq!(infra.class, InfraClass::Source);
        assert!(infra.reason.contains(says), "{}", infra.reason);
    }
}

/// `git daemon` for a test; ends with it.
struct Daemon {
    process: std::process::Child,
    port: u16,
}

impl Daemon {
    fn serve(base: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = base.display();
        let exec_path = std::process::Command::new("git").arg("--exec-path").output().unwrap().stdout;
        // Not `git daemon`, which would leave its child behind when killed.
        let process = std::process::Command::new(
            Path::new(String::from_utf8(exec_path).unwrap().trim()).join("git-daemon"),
        )
        .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
        .args([format!("--port={port}"), format!("--base-path={base}"), format!("{base}/repo.git")])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Daemon { process, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
