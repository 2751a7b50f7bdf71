//! Repositories made here and now: revisions, ranges, tags, details, mirrors.

mod git_fixture;

use git_fixture::{Fixture, git, id};
use git2::Oid;
use kulprit_common::crash::Functions;
use kulprit_common::history::History;
use kulprit_common::patch::{KnownFix, Order, Patch, Patched};
use kulprit_coordinator::git::{Field, GitError, Mirror, Mirrors};
use std::time::Instant;

fn open(fixture: &Fixture) -> (tempfile::TempDir, Mirror) {
    let dir = tempfile::tempdir().unwrap();
    let mirror = Mirrors::new(dir.path()).open(fixture.path(), &mut |_| {}).expect("opens");
    (dir, mirror)
}

/// The history says of every commit what the repository says, and holds exactly `expected`.
fn check_history(fixture: &Fixture, history: &History, expected: &[git2::Oid]) {
    let mut seen: Vec<_> = history.commits().iter().map(|commit| commit.id).collect();
    let mut wanted: Vec<_> = expected.iter().map(|&oid| id(oid)).collect();
    for commit in history.commits() {
        let inside = commit.parents.iter().map(|&parent| history.commit(parent).id);
        let mut parents: Vec<_> = inside.chain(commit.outside.iter().copied()).collect();
        let mut truth: Vec<_> = fixture.parents(&commit.id).into_iter().map(id).collect();
        parents.sort();
        truth.sort();
        assert_eq!(parents, truth, "parents of {}", commit.subject);
        assert!(commit.outside.iter().all(|parent| history.find(parent).is_none()));
        assert_eq!(commit.tree.to_string(), fixture.tree(&commit.id));
    }
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted);
}

#[test]
fn a_stack_is_found_in_the_files_that_the_range_touches() {
    let mut f = Fixture::new();
    let both = |inner: &str| format!("static int helper(void);\n{inner}\n");
    let untouched = ("lib/other.c", "int inner(void)\n{\n}\n");
    let root = f.files("root", &[], &[untouched, ("fs/a.c", &both("")), ("fs/b.h", "")]);
    let inner = both("static int inner(int a)\n{\n}");
    let a = f.files("a", &[root], &[untouched, ("fs/a.c", &inner), ("fs/b.h", "")]);
    let outer = "static inline int outer(void)\n{\n\treturn inner(1);\n}\n";
    let b =
        f.files("b", &[a], &[untouched, ("fs/a.c", &inner), ("fs/b.h", outer), ("doc/x.rst", "inner() {")]);
    let side = f.files("side", &[a], &[untouched, ("fs/a.c", &inner), ("fs/b.h", ""), ("gone.c", "")]);
    let all = [untouched, ("fs/a.c", &inner[..]), ("fs/b.h", outer)];
    let merge = f.files("merge", &[b, side], &all);
    let (_dir, mirror) = open(&f);

    let touched = mirror.touched(&[a, b, side, merge].map(id)).expect("read");
    let again = mirror.touched(&[merge, side, b, a].map(id)).expect("remembered");
    assert!(again.iter().rev().eq(&touched), "{again:?}");
    let mut second = touched[1].clone();
    second.sort();
    assert_eq!(
        (&touched[0][..], &second[..]),
        (&["fs/a.c".into()][..], &["doc/x.rst".into(), "fs/b.h".into()][..])
    );
    assert_eq!((&touched[2][..], touched[3].len()), (&["gone.c".to_string()][..], 0));
    let functions = Functions::new(["inner", "outer", "helper"]);
    let paths = || touched.iter().flatten().map(String::as_str);
    let other_way_round = Functions::new(["outer", "inner"]);
    let defining = |at, functions| mirror.defining(&id(at), paths(), functions).expect("read");
    assert_eq!(defining(merge, &functions), ["fs/a.c", "fs/b.h"]);
    assert_eq!(defining(merge, &other_way_round), ["fs/b.h", "fs/a.c"]);
    assert_eq!(defining(root, &functions), [""; 0]);
}

#[test]
fn a_range_with_merges_keeps_its_shape() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let good = f.commit("good", &[root]);
    let main = f.commit("main", &[good]);
    let side = f.commit("side from before good", &[root]);
    let merge = f.commit("merge", &[main, side]);
    let (a, b, c) = (f.commit("a", &[merge]), f.commit("b", &[merge]), f.commit("c", &[good]));
    let octopus = f.commit("octopus", &[merge, a, b, c]);
    let bad = f.commit("bad", &[octopus]);
    f.commit("after bad", &[bad]);
    let (_dir, mirror) = open(&f);

    let history = mirror.history(&id(good), &id(bad)).unwrap();
    check_history(&f, &history, &[main, side, merge, a, b, c, octopus, bad]);
    assert!(mirror.check_range(&id(good), &id(bad)).is_ok());
    assert_eq!(history.commit(history.tip()).id, id(bad));
    let at = |oid| history.commit(history.find(&id(oid)).unwrap());
    assert_eq!((at(octopus).parents.len(), at(octopus).outside.len()), (4, 0));
    assert_eq!(at(main).outside, [id(good)]);
    assert_eq!(at(side).outside, [id(root)]);
    assert_eq!(at(side).subject, "side from before good");
}

/// A commit with a clock a month behind must not hide that the good end reaches what it merged.
#[test]
fn skewed_clocks_do_not_let_good_commits_in() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let shared = f.commit("shared", &[root]);
    let late = f.commit_at("clock behind", &[shared], f.now() - 30 * 24 * 3600);
    let good = f.commit("good", &[late]);
    let bad = f.commit("bad", &[good, shared]);
    let (_dir, mirror) = open(&f);
    check_history(&f, &mirror.history(&id(good), &id(bad)).unwrap(), &[bad]);
}

#[test]
fn ends_that_span_no_range_are_refused_by_name() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let (left, right) = (f.commit("left", &[root]), f.commit("right", &[root]));
    let stranger = f.commit("unrelated root", &[]);
    let (_dir, mirror) = open(&f);
    let error = |good, bad| {
        let error = mirror.history(&id(good), &id(bad)).expect_err("is refused");
        assert_eq!(error.field(), Some(Field::Good));
        let checked = mirror.check_range(&id(good), &id(bad)).expect_err("is refused");
        assert_eq!(checked.to_string(), error.to_string());
        error
    };
    assert!(matches!(error(left, right), GitError::NotAncestor { .. }));
    assert!(matches!(error(stranger, right), GitError::NotAncestor { .. }));
    assert!(matches!(error(right, root), GitError::Reversed { .. }));
    assert!(matches!(error(left, left), GitError::EmptyRange(_)));
}

#[test]
fn revisions_have_many_names() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let tip = f.commit("the tip\n\nbody", &[root]);
    f.branch("main", tip);
    f.branch("topic/x", root);
    f.tag("light", root);
    f.annotated_tag("heavy", root);
    f.tag_tree("tree-tag", root);
    f.head("main");
    let (_dir, mirror) = open(&f);
    let full = root.to_string();
    let names =
        [full.as_str(), &full[..12], "topic/x", "light", "heavy", "refs/heads/topic/x", "main~1", "HEAD^"];
    for name in names {
        assert_eq!(mirror.resolve(name).expect(name).id, id(root), "{name}");
    }
    let head = mirror.head().unwrap();
    assert_eq!((head.id, head.subject.as_str(), head.release), (id(tip), "the tip", None));
    assert_eq!(head.tree.to_string(), f.tree(&id(tip)));

    let missing = "0123456789".repeat(4);
    for name in ["nope", "", "-x", "a b", "tree-tag", &missing, "v9.9", "HEAD^{blob}", "..", "main..light"] {
        let error = mirror.resolve(name).expect_err(name);
        assert!(matches!(error, GitError::UnknownRevision { .. }), "{name}: {error}");
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }

    // Names are looked up as they are now.
    f.branch("main", root);
    assert_eq!(mirror.head().unwrap().id, id(root));
}

#[test]
fn releases_are_reachable_tags_by_version() {
    let mut f = Fixture::new();
    let old = f.commit("5.19", &[]);
    let six = f.commit("6.0", &[old]);
    let stable = f.commit("6.0.1", &[six]);
    let rc = f.commit("6.1-rc1", &[six]);
    let topic = f.commit("topic", &[old]);
    let one = f.commit("6.1", &[rc, topic]);
    let tip = f.commit("tip", &[one, stable]);
    for (tag, at) in [("v5.19", old), ("v6.0", six), ("v6.0.1", stable), ("v6.1-rc1", rc), ("v6.10", one)] {
        f.annotated_tag(tag, at);
    }
    let elsewhere = f.commit("elsewhere", &[stable]);
    f.tag("v6.2.1", elsewhere);
    let (_dir, mirror) = open(&f);

    for (at, release) in
        [(old, "v5.19"), (topic, "v5.19"), (rc, "v6.0"), (stable, "v6.0.1"), (one, "v6.10"), (tip, "v6.10")]
    {
        let seen = mirror.resolve(&at.to_string()).unwrap().release;
        assert_eq!(seen.map(|release| release.to_string()).as_deref(), Some(release));
    }
    let releases = mirror.releases(&id(tip)).unwrap();
    let tags: Vec<_> = releases.iter().map(|release| release.tag.as_str()).collect();
    assert_eq!(tags, ["v6.10", "v6.0.1", "v6.0", "v5.19"]);
    assert_eq!((releases[2].revision.id, releases[2].revision.release), (id(six), Some(releases[2].release)));
    assert_eq!(mirror.releases(&id(topic)).unwrap().len(), 1);
}

#[test]
fn details_are_what_git_show_prints() {
    let mut f = Fixture::new();
    let root =
        f.files("root", &[], &[("a", "1\n2\n3\n"), ("dir/b", "x\n"), ("moved", "1\n2\n3\n4\n5\n6\n7\n8\n")]);
    let change = f.files(
        "change\n\nSigned-off-by: S <s@x.org>",
        &[root],
        &[("a", "1\n3\n4\n5\n"), ("dir/b", "x\n"), ("new/place", "1\n2\n3\n4\n5\n6\n7\n8\n")],
    );
    let merge = f.files("merge", &[root, change], &[("a", "1\n3\n4\n5\n"), ("dir/b", "x\n")]);
    let (_dir, mirror) = open(&f);
    for (at, stat) in [
        (root, vec![("a", 3, 0), ("dir/b", 1, 0), ("moved", 8, 0)]),
        (change, vec![("a", 2, 1), ("new/place", 0, 0)]),
        (merge, vec![("a", 2, 1), ("moved", 0, 8)]),
    ] {
        let details = mirror.details(&id(at)).unwrap();
        let seen: Vec<_> =
            details.files.iter().map(|file| (file.path.as_str(), file.insertions, file.deletions)).collect();
        assert_eq!(seen, stat, "{}", details.subject);
        assert_eq!(format!("{}\n{}", details.author, details.date), f.git_show(at));
    }
    let details = mirror.details(&id(change)).unwrap();
    assert_eq!((details.subject.as_str(), details.parents), ("change", vec![id(root)]));
    assert!(details.message.ends_with("Signed-off-by: S <s@x.org>"));
}

#[test]
fn patches_are_what_git_prints_until_they_are_too_long() {
    let mut f = Fixture::new();
    let root = f.files("root", &[], &[("a", "1\n2\n3\n"), ("gone", "x\n")]);
    let change = f.files("change", &[root], &[("a", "1\nnew\n3\nlast"), ("dir/b", "y\n")]);
    let long = "line\n".repeat(100_000);
    let huge = f.files("huge", &[change], &[("a", &long), ("dir/b", "z\n")]);
    let merge = f.files("merge", &[root, change], &[("a", "1\n")]);
    let (_dir, mirror) = open(&f);
    let patch = mirror.patch(&id(change)).unwrap().expect("it has one");
    let by_git =
        git(&["-C", f.path(), "diff-tree", "-p", "--no-renames", &root.to_string(), &change.to_string()]);
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("index ")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&patch), lines(&by_git));
    let names = mirror.patch(&id(huge)).unwrap().expect("it has one");
    assert!(names.contains("+++ b/a\n") && names.contains("+++ b/dir/b\n") && names.len() < 1000, "{names}");
    assert_eq!(mirror.patch(&id(merge)).unwrap(), None);
}

#[test]
fn a_local_repository_is_never_written_to() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let tip = f.commit("tip", &[root]);
    f.branch("main", tip);
    f.tag("v6.1", root);
    let before = f.listing();
    let (_dir, mirror) = open(&f);
    mirror.resolve("main").unwrap();
    mirror.history(&id(root), &id(tip)).unwrap();
    mirror.details(&id(tip)).unwrap();
    mirror.releases(&id(tip)).unwrap();
    let own = git2::Repository::open(mirror.path()).unwrap();
    assert!(own.find_commit(tip).is_ok(), "the mirror sees the user's objects");
    let blob = own.blob(b"ours").unwrap();
    assert!(own.find_blob(blob).is_ok());
    assert_eq!(f.listing(), before);
}

#[test]
fn a_url_is_fetched_and_fetched_again() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    f.branch("trunk", root);
    f.branch("gone", root);
    f.head("trunk");
    f.annotated_tag("v6.1", root);
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::new(dir.path());
    let url = format!("file://{}", f.path());
    let reopen = |commits: &[Oid]| {
        let commits: Vec<_> = commits.iter().map(|&oid| id(oid)).collect();
        mirrors.reopen(&url, &commits, &mut |_| {})
    };
    assert!(mirrors.at_hand(&url, &[]).unwrap().is_none());
    let mut said = Vec::new();
    let mirror = mirrors.open(&url, &mut |line| said.push(line)).unwrap();
    assert_eq!(mirror.head().unwrap().id, id(root));
    assert_eq!(mirror.resolve("v6.1").unwrap().release.unwrap().to_string(), "v6.1");
    assert!(said[0].starts_with("fetching file://"), "{said:?}");

    let tip = f.commit("tip", &[root]);
    f.branch("trunk", tip);
    f.delete_branch("gone");
    assert_eq!(reopen(&[root]).unwrap().head().unwrap().id, id(root), "no network, no news");
    let mirror = mirrors.open(&url, &mut |_| {}).unwrap();
    assert_eq!(mirror.resolve("trunk").unwrap().id, id(tip));
    assert!(mirror.resolve("gone").is_err());
    check_history(&f, &mirror.history(&id(root), &id(tip)).unwrap(), &[tip]);
}

/// Another coordinator fetched it, or an older one before the job was submitted.
#[test]
fn a_mirror_that_is_not_there_is_fetched_again() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    f.branch("trunk", root);
    f.head("trunk");
    let (dir, url) = (tempfile::tempdir().unwrap(), format!("file://{}", f.path()));
    let mirrors = Mirrors::new(dir.path());
    let reopen = |commits: &[Oid]| {
        let commits: Vec<_> = commits.iter().map(|&oid| id(oid)).collect();
        mirrors.reopen(&url, &commits, &mut |_| {})
    };
    assert_eq!(reopen(&[root]).expect("it is fetched").head().unwrap().id, id(root));
    let tip = f.commit("tip", &[root]);
    f.branch("trunk", tip);
    check_history(&f, &reopen(&[root, tip]).unwrap().history(&id(root), &id(tip)).unwrap(), &[tip]);

    // With its server away the same takes a while, and is nobody's mistake; what is here is enough.
    let away = f.path().to_owned() + ".away";
    std::fs::rename(f.path(), &away).unwrap();
    assert!(reopen(&[tip]).is_ok());
    std::fs::remove_dir_all(mirrors.path_of(&url)).unwrap();
    for _ in 0..2 {
        let error = reopen(&[tip]).err().expect("there is no server");
        assert!(error.may_pass(), "{error}");
    }
    std::fs::rename(&away, f.path()).unwrap();
    assert_eq!(reopen(&[tip]).expect("it is fetched").head().unwrap().id, id(tip));
}

/// Some kilobytes that name 10^10 files, or as many directories without a file.
#[test]
fn a_tree_that_holds_itself_over_and_over_is_looked_at_within_bounds() {
    let mut f = Fixture::new();
    let root = f.files("root", &[], &[("a", "1\n")]);
    let bomb = f.bomb("bomb", &[root], Some("x"));
    let empty = f.bomb("empty", &[root], None);
    let other = f.bomb("other", &[bomb], Some("y"));
    let after = f.files("after", &[root], &[("a", "2\n")]);
    for (name, oid) in [("a", other), ("b", empty), ("c", after)] {
        f.branch(name, oid);
    }
    f.head("c");
    let (_dir, mirror) = open(&f);
    let start = Instant::now();
    let touched = mirror.touched(&[bomb, empty, other, after].map(id)).expect("read");
    let counts: Vec<usize> = touched.iter().map(Vec::len).collect();
    assert_eq!(counts, [40, 0, 40, 1], "{touched:?}");
    let held = [bomb, other, empty, root].map(id);
    let needed = mirror.needed(&id(after), &[], &held).expect("weighed");
    assert_eq!((needed.held[0], needed.held.len()), (id(root), 4), "the nearest is first");
    for (at, files) in [(bomb, 0), (other, 0), (after, 1)] {
        assert_eq!(mirror.details(&id(at)).expect("read").files.len(), files);
        assert_eq!(mirror.patch(&id(at)).expect("read").is_some(), files > 0);
    }
    let order = |revision, revert| Order { revision: id(revision), fixes: vec![], revert: Some(id(revert)) };
    let refused = mirror.patched(&order(other, bomb)).expect("read").expect_err("too large");
    assert!(refused.contains("more than"), "{refused}");
    assert!(mirror.patched(&order(after, after)).expect("read").is_ok());
    println!("all of it took {:?}", start.elapsed());
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn patches_apply_as_git_applies_them_and_leave_the_repository_alone() {
    let text = |third: &str, last: &str| format!("1\n2\n{third}\n4\n5\n6\n7\n8\n9\n{last}\n");
    let mut f = Fixture::new();
    let root = f.files("root", &[], &[("file", &text("3", "10"))]);
    let bug = f.files("bug", &[root], &[("file", &text("bug", "10"))]);
    let side = f.files("side", &[root], &[("file", &text("3", "10")), ("other", "x")]);
    let later = f.files("later", &[bug], &[("file", &text("bug", "later"))]);
    let merge = f.files("merge", &[later, side], &[("file", &text("bug", "later")), ("other", "x")]);
    let clash = f.files("clash", &[merge], &[("file", &text("clash", "later")), ("other", "x")]);
    f.branch("main", clash);
    f.head("main");
    let (_dir, mirror) = open(&f);

    for (what, revision, commit, refused) in [
        ("a revert", merge, bug, None),
        ("one of a later commit", merge, later, None),
        ("a revert that conflicts", clash, bug, Some("it conflicts in file")),
        ("the revert of a merge", clash, merge, Some("it is a merge")),
        ("the revert of a root", clash, root, Some("it has no parent")),
        ("the revert of what is not there", later, side, Some("it changes nothing")),
    ] {
        let order = Order { revision: id(revision), fixes: vec![], revert: Some(id(commit)) };
        let ours = mirror.patched(&order).expect(what);
        assert_eq!(ours.as_ref().err().map(String::as_str), refused, "{what}");
        let Ok(Patched { tree: ours, patches, .. }) = ours else { continue };
        let objects = f.objects();
        let clone = tempfile::tempdir().unwrap();
        let path = clone.path().to_str().unwrap();
        git(&["clone", "-q", "--shared", f.path(), path]);
        let run = |arguments: &[&str]| {
            git(&[&["-C", path, "-c", "user.name=a", "-c", "user.email=a@b"], arguments].concat())
        };
        run(&["checkout", "-q", &revision.to_string()]);
        for patch in &patches {
            let verb = if matches!(patch, Patch::Revert(_)) { "revert" } else { "cherry-pick" };
            let more: &[&str] = if verb == "revert" { &["--no-edit"] } else { &[] };
            run(&[&[verb], more, &[&patch.commit().to_string()]].concat());
        }
        assert_eq!(run(&["rev-parse", "HEAD^{tree}"]).trim(), ours.to_string(), "{what}");
        assert_eq!(f.objects(), objects, "the user's repository is left alone");
    }
}

/// The breakage comes with `broken`; the fix stands on a branch that forked off before it was
/// merged, so that dates and order tell nothing, only ancestry does.
#[test]
fn known_fixes_are_put_in_by_ancestry() {
    let mut f = Fixture::new();
    let mut commit =
        |message: &str, parents: &[Oid], a: &str, b: &str| f.files(message, parents, &[("a", a), ("b", b)]);
    let root = commit("root", &[], "1\n", "1\n");
    let broken = commit("broken", &[root], "broken\n", "1\n");
    let fix = commit("mend it", &[broken], "mended\n", "1\n");
    let old = commit("old", &[root], "1\n", "2\n");
    let main = commit("main", &[broken], "broken\n", "2\n");
    let clash = commit("clash", &[main], "another\n", "2\n");
    let merged = commit("merged", &[main, fix], "mended\n", "2\n");
    let backport = commit("stable", &[main], "mended\n", "2\n");
    let merge = commit("of old", &[main, old], "broken\n", "3\n");
    for (name, oid) in [("a", clash), ("b", merged), ("c", backport), ("d", merge)] {
        f.branch(name, oid);
    }
    f.head("b");
    let (_dir, mirror) = open(&f);
    let known = |fix: Oid, breaks: Option<Oid>| KnownFix {
        fix: id(fix),
        breaks: breaks.map(id),
        title: "mend it".into(),
    };
    let carried_out = |revision: Oid, fixes: Vec<KnownFix>, revert: Option<Oid>| {
        let order = Order { revision: id(revision), fixes, revert: revert.map(id) };
        mirror.patched(&order).expect("git answers")
    };
    let name = format!("{} (mend it)", id(fix));
    let (put, conflict) = (format!("put in: {name}"), format!("not put in: {name}: it conflicts in a"));
    for (what, revision, breaks, picked, remark) in [
        ("before the breakage", old, Some(broken), false, None),
        ("the breakage itself", broken, Some(broken), true, Some(&put)),
        ("behind it", main, Some(broken), true, Some(&put)),
        ("the fix itself", fix, Some(broken), false, None),
        ("behind a merge of the fix", merged, Some(broken), false, None),
        ("a merge without it", merge, Some(broken), true, Some(&put)),
        ("where it is under another id", backport, Some(broken), false, None),
        ("where it does not apply", clash, Some(broken), false, Some(&conflict)),
        ("always missing", merge, None, true, Some(&put)),
    ] {
        let made = carried_out(revision, vec![known(fix, breaks)], None).expect(what);
        assert_eq!(made.patches == [Patch::Pick(id(fix))], picked, "{what}");
        assert_eq!(made.remarks.first(), remark, "{what}");
        assert!(picked || made.patches.is_empty(), "{what}");
        let plain = mirror.resolve(&revision.to_string()).expect(what).tree;
        assert_eq!(made.tree != plain, picked, "{what}: {made:?}");
    }
    let made = carried_out(main, vec![known(fix, None)], Some(main)).expect("both apply");
    assert_eq!(made.patches, [Patch::Pick(id(fix)), Patch::Revert(id(main))]);
    assert_eq!(made.tree, mirror.resolve(&fix.to_string()).unwrap().tree);
    let twice = carried_out(main, vec![known(fix, None), known(merged, None)], None).expect("a tree");
    assert_eq!(twice.remarks.len(), 2, "{:?}", twice.remarks);
    assert!(twice.remarks[1].ends_with("it is a merge"), "{:?}", twice.remarks);
}

#[test]
fn what_is_no_repository_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::new(dir.path().join("mirrors"));
    let plain = dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    for path in [plain.to_str().unwrap(), "/nonexistent/linux"] {
        let error = mirrors.open(path, &mut |_| {}).err().expect(path);
        assert!(matches!(error, GitError::NotARepository { .. }), "{error}");
        assert_eq!(error.field(), Some(Field::Repository));
    }
    for url in
        ["http://127.0.0.1:1/linux.git", "git://me:secret@127.0.0.1:1/linux", "ssh://git@host/x", "ftp://x/y"]
    {
        let error = mirrors.open(url, &mut |_| {}).err().expect(url);
        assert!(matches!(error, GitError::Unreachable { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_shallow_clone_says_where_it_ends() {
    let mut f = Fixture::new();
    let root = f.commit("root", &[]);
    let edge = f.commit("edge", &[root]);
    let mid = f.commit("mid", &[edge]);
    let tip = f.commit("tip", &[mid]);
    f.branch("main", tip);
    f.head("main");
    let dir = tempfile::tempdir().unwrap();
    let clone = dir.path().join("clone");
    let url = format!("file://{}", f.path());
    git_fixture::git(&["clone", "-q", "--depth=3", &url, clone.to_str().unwrap()]);
    let mirror = Mirrors::new(dir.path().join("mirrors")).open(clone.to_str().unwrap(), &mut |_| {}).unwrap();
    assert_eq!(mirror.history(&id(edge), &id(tip)).unwrap().len(), 2);
    assert!(matches!(mirror.resolve(&root.to_string()), Err(GitError::UnknownRevision { .. })));
    let error = mirror.history(&id(tip), &id(edge)).unwrap_err();
    assert!(matches!(error, GitError::Reversed { .. }), "{error}");
    let own = git2::Repository::open(mirror.path()).unwrap();
    assert!(own.is_shallow());
}

/// A printed figure, not an assertion: 30,000 commits, every tenth a merge.
#[test]
fn a_long_range_loads() {
    let mut f = Fixture::new();
    let tree = f.big_history(30_000);
    let (_dir, mirror) = open(&f);
    let (good, bad) = (id(tree.first), id(tree.last));
    let start = Instant::now();
    let history = mirror.history(&good, &bad).unwrap();
    println!("{} commits loaded in {:?}", history.len(), start.elapsed());
    assert_eq!(history.len(), tree.count - 1);
    let start = Instant::now();
    let revision = mirror.resolve(&tree.last.to_string()).unwrap();
    println!("resolved in {:?}: newest release {:?}", start.elapsed(), revision.release);
    let known = KnownFix { fix: good, breaks: Some(good), title: String::new() };
    let start = Instant::now();
    let order = Order { revision: bad, fixes: vec![known], revert: None };
    assert_eq!(mirror.patched(&order).unwrap().unwrap().patches, []);
    println!("a fix of the range's far end looked for in {:?}", start.elapsed());
    let start = Instant::now();
    println!("{} releases listed in {:?}", mirror.releases(&bad).unwrap().len(), start.elapsed());
}
