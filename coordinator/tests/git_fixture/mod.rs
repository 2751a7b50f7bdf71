//! Makes small repositories, with a clock of their own.

use git2::{Oid, Repository, Signature, Time};
use kulprit_common::id::RevisionId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Fixture {
    dir: tempfile::TempDir,
    repository: Repository,
    clock: i64,
}

pub struct BigHistory {
    pub first: Oid,
    pub last: Oid,
    /// Commits in all.
    pub count: usize,
}

pub fn id(oid: Oid) -> RevisionId {
    oid.to_string().parse().unwrap()
}

/// Runs the system's git, and gives what it prints.
pub fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output().expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(dir.path()).unwrap();
        Fixture { dir, repository, clock: 1_674_218_225 }
    }

    pub fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub fn now(&self) -> i64 {
        self.clock
    }

    /// A commit with one file of its own, an hour after the last.
    pub fn commit(&mut self, message: &str, parents: &[Oid]) -> Oid {
        self.files(message, parents, &[("file", message)])
    }

    pub fn commit_at(&mut self, message: &str, parents: &[Oid], time: i64) -> Oid {
        let tree = self.write_tree(&[("file", message)]);
        self.write_commit(message, parents, tree, time)
    }

    /// A commit whose tree is exactly these files.
    pub fn files(&mut self, message: &str, parents: &[Oid], files: &[(&str, &str)]) -> Oid {
        self.clock += 3600;
        let tree = self.write_tree(files);
        self.write_commit(message, parents, tree, self.clock)
    }

    /// A commit whose tree has ten levels, each of which has the next one ten times.
    pub fn bomb(&mut self, message: &str, parents: &[Oid], file: Option<&str>) -> Oid {
        self.clock += 3600;
        let files: Vec<_> = file.map(|text| ("file", text)).into_iter().collect();
        let mut tree = self.write_tree(&files);
        for _ in 0..10 {
            let mut builder = self.repository.treebuilder(None).unwrap();
            for name in '0'..='9' {
                builder.insert(name.to_string(), tree, 0o040_000).unwrap();
            }
            tree = builder.write().unwrap();
        }
        self.write_commit(message, parents, tree, self.clock)
    }

    fn write_tree(&self, files: &[(&str, &str)]) -> Oid {
        let (mut here, mut below) = (BTreeMap::new(), BTreeMap::<&str, Vec<(&str, &str)>>::new());
        for (path, text) in files {
            match path.split_once('/') {
                Some((dir, rest)) => below.entry(dir).or_default().push((rest, text)),
                None => drop(here.insert(*path, self.repository.blob(text.as_bytes()).unwrap())),
            }
        }
        let mut builder = self.repository.treebuilder(None).unwrap();
        for (name, blob) in here {
            builder.insert(name, blob, 0o100_644).unwrap();
        }
        for (dir, files) in below {
            builder.insert(dir, self.write_tree(&files), 0o040_000).unwrap();
        }
        builder.write().unwrap()
    }

    fn write_commit(&self, message: &str, parents: &[Oid], tree: Oid, time: i64) -> Oid {
        let who = Signature::new("Ann Author", "ann@example.org", &Time::new(time, -330)).unwrap();
        let tree = self.repository.find_tree(tree).unwrap();
        let parents: Vec<_> = parents.iter().map(|&oid| self.repository.find_commit(oid).unwrap()).collect();
        let parents: Vec<_> = parents.iter().collect();
        self.repository.commit(None, &who, &who, message, &tree, &parents).unwrap()
    }

    pub fn branch(&self, name: &str, at: Oid) {
        self.repository.reference(&format!("refs/heads/{name}"), at, true, "test").unwrap();
    }

    pub fn delete_branch(&self, name: &str) {
        self.repository.find_reference(&format!("refs/heads/{name}")).unwrap().delete().unwrap();
    }

    pub fn head(&self, branch: &str) {
        self.repository.set_head(&format!("refs/heads/{branch}")).unwrap();
    }

    pub fn tag(&self, name: &str, at: Oid) {
        let object = self.repository.find_object(at, None).unwrap();
        self.repository.tag_lightweight(name, &object, false).unwrap();
    }

    pub fn annotated_tag(&self, name: &str, at: Oid) {
        let who = Signature::new("Tag", "tag@example.org", &Time::new(self.clock, 0)).unwrap();
        let object = self.repository.find_object(at, None).unwrap();
        self.repository.tag(name, &object, &who, "a tag", false).unwrap();
    }

    pub fn tag_tree(&self, name: &str, at: Oid) {
        let tree = self.repository.find_commit(at).unwrap().tree().unwrap();
        self.repository.tag_lightweight(name, tree.as_object(), false).unwrap();
    }

    /// How many objects the repository has.
    pub fn objects(&self) -> usize {
        let mut count = 0;
        self.repository
            .odb()
            .unwrap()
            .foreach(|_| {
                count += 1;
                true
            })
            .unwrap();
        count
    }

    pub fn parents(&self, id: &RevisionId) -> Vec<Oid> {
        self.find(id).parent_ids().collect()
    }

    pub fn tree(&self, id: &RevisionId) -> String {
        self.find(id).tree_id().to_string()
    }

    fn find(&self, id: &RevisionId) -> git2::Commit<'_> {
        self.repository.find_commit(Oid::from_bytes(id.as_bytes()).unwrap()).unwrap()
    }

    /// Author and date as the system's git prints them.
    pub fn git_show(&self, at: Oid) -> String {
        let text = git(&["-C", self.path(), "show", "-s", "--format=%an <%ae>%n%ad", &at.to_string()]);
        text.trim_end().to_owned()
    }

    /// Every file below the repository with its bytes.
    pub fn listing(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn read(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    into.insert(path.clone(), vec![]);
                    read(&path, into);
                } else {
                    into.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        read(self.dir.path(), &mut files);
        files
    }

    /// A line of `length` commits, every tenth merging a side commit, a release every thousand;
    /// packed, as real clones are.
    pub fn big_history(&mut self, length: usize) -> BigHistory {
        use std::io::Write as _;
        let mut stream = String::from("blob\nmark :1\ndata 2\nx\n\n");
        let (mut mark, mut last, mut count) = (1, None, 0);
        let mut commit = |stream: &mut String, name: &str, parents: &[usize]| {
            mark += 1;
            count += 1;
            self.clock += 60;
            let time = self.clock;
            stream.push_str(&format!(
                "commit refs/heads/main\nmark :{mark}\ncommitter C <c@x.org> {time} +0000\ndata {}\n{name}\n",
                name.len()
            ));
            for (i, parent) in parents.iter().enumerate() {
                stream.push_str(&format!("{} :{parent}\n", if i == 0 { "from" } else { "merge" }));
            }
            stream.push_str("M 100644 :1 file\n\n");
            mark
        };
        let mut tags = String::new();
        while last.is_none() || last.is_some_and(|mark: usize| mark < length) {
            let line: Vec<usize> = last.into_iter().collect();
            let mut tip = commit(&mut stream, "a commit with a subject of usual length", &line);
            if tip % 10 == 0 {
                let side = commit(&mut stream, "a side commit", &line);
                tip = commit(&mut stream, "a merge", &[tip, side]);
            }
            if tip % 1000 < 3 && tip > 10 {
                tags.push_str(&format!(
                    "reset refs/tags/v{}.{}\nfrom :{tip}\n\n",
                    tip / 10_000 + 1,
                    tip / 1000 % 10
                ));
            }
            last = Some(tip);
        }
        stream.push_str(&tags);
        let mut import = Command::new("git")
            .args(["-C", self.path(), "fast-import", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("git is installed");
        import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(import.wait().unwrap().success());
        let text = git(&["-C", self.path(), "rev-list", "--max-parents=0", "main"]);
        let first = Oid::from_str(text.trim()).unwrap();
        let last = Oid::from_str(git(&["-C", self.path(), "rev-parse", "main"]).trim()).unwrap();
        BigHistory { first, last, count }
    }
}
