//! The replay text and git's arithmetic, held against git itself. Skipped where git is absent.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod report_support;

use kulprit_common::bisect::Finding;
use kulprit_common::id::RevisionId;
use kulprit_common::job::Mode;
use kulprit_common::report::git_state::{GitState, Word};
use kulprit_common::report::{CommitDetails, FileStat, replay, text};
use report_support::{Dag, Rng, random, search};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A repository in a directory of its own, removed at the end.
struct Repo(PathBuf);

impl Drop for Repo {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Repo {
    fn new(name: &str) -> Option<Repo> {
        if Command::new("git").arg("--version").output().is_err() {
            eprintln!("skipped: there is no git here");
            return None;
        }
        let path = std::env::temp_dir().join(format!("kulprit-report-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        let repo = Repo(path);
        repo.git(&["init", "-q", "-b", "main"]);
        Some(repo)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(args).current_dir(&self.0);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "A U Thor")
                .env(format!("GIT_{who}_EMAIL"), "a@example.org");
            command.env(format!("GIT_{who}_DATE"), "1700000000 +0100");
        }
        command
    }

    fn git(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("git runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "git {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Makes the commits of the graph; their ids in its order.
    fn import(&self, dag: &Dag) -> Vec<RevisionId> {
        let mut stream = String::new();
        for (i, parents) in dag.0.iter().enumerate() {
            let body = format!("demo: change {i}\n");
            stream.push_str(&format!("commit refs/heads/main\nmark :{}\n", i + 1));
            stream.push_str(&format!("committer A <a@example.org> {} +0000\n", 1_700_000_000 + i));
            stream.push_str(&format!("data {}\n{body}", body.len()));
            for (n, parent) in parents.iter().enumerate() {
                stream.push_str(&format!("{} :{}\n", if n == 0 { "from" } else { "merge" }, parent + 1));
            }
            let content = i.to_string();
            stream.push_str(&format!("M 100644 inline f{i}\ndata {}\n{content}\n", content.len()));
        }
        let marks = self.0.join(".git/marks");
        let mut child = self
            .command(&["fast-import", "--quiet", "--force", "--export-marks=.git/marks"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("git runs");
        child.stdin.take().expect("piped").write_all(stream.as_bytes()).expect("git reads");
        assert!(child.wait().expect("git ends").success());
        self.git(&["reset", "-q", "--hard", "main"]);
        read_marks(&marks, dag.0.len())
    }
}

fn read_marks(path: &Path, n: usize) -> Vec<RevisionId> {
    let mut ids = vec![None; n];
    for line in std::fs::read_to_string(path).expect("marks").lines() {
        let (mark, id) = line.split_once(' ').expect("mark and id");
        let at: usize = mark[1..].parse().expect("a number");
        ids[at - 1] = Some(id.parse().expect("a commit id"));
    }
    ids.into_iter().map(|id| id.expect("every commit has its mark")).collect()
}

#[test]
fn git_names_the_same_commit_when_it_replays() {
    for seed in 0..24 {
        let Some(repo) = Repo::new(&format!("replay-{seed}")) else { return };
        let mut rng = Rng(seed);
        let dag = Dag::random(&mut rng, 4 + seed as usize);
        let ids = repo.import(&dag);
        let mode = if seed % 3 == 0 { Mode::Fix } else { Mode::Cause };
        let scene = search(&dag, &ids, mode, &mut rng);
        let Some(Finding::Culprit { revision, .. }) = scene.ending.as_ref().map(|ending| &ending.finding)
        else {
            panic!("a search ends with a culprit");
        };
        let replay = replay::render(&scene.record());
        std::fs::write(repo.0.join(".git/replay"), &replay).expect("a file");
        let answer = repo.git(&["bisect", "replay", ".git/replay"]);
        let expected = format!("{revision} is the first bad commit");
        assert!(answer.contains(&expected), "seed {seed}: not {expected}\n{answer}\n{replay}");
        let git_says = repo.git(&["bisect", "log"]);
        let commands = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("git bisect")).map(String::from).collect()
        };
        assert_eq!(commands(&git_says), commands(&replay), "seed {seed}: git logs what it was told");
    }
}

#[test]
fn the_replay_leaves_one_suspect() {
    for seed in 0..5000 {
        let scene = random(seed);
        let Some(Finding::Culprit { revision, .. }) = scene.ending.as_ref().map(|ending| &ending.finding)
        else {
            panic!("a search ends with a culprit");
        };
        assert_eq!(replay::answer(&scene.record()), Some(*revision), "seed {seed}");
    }
}

#[test]
fn the_numbers_are_those_git_prints() {
    for (seed, size) in [(1, 2), (2, 3), (3, 5), (4, 8), (5, 17), (6, 40), (7, 90), (8, 33), (9, 64)] {
        let Some(repo) = Repo::new(&format!("numbers-{seed}")) else { return };
        let mut rng = Rng(seed);
        let dag = Dag::random(&mut rng, size);
        let ids = repo.import(&dag);
        let history = dag.history(&ids);
        let culprit = 1 + rng.below(dag.0.len() - 1);
        let mut git = GitState::new(&history);
        let tip = ids[dag.0.len() - 1].to_string();
        let mut output = repo.git(&["bisect", "start", &tip, &ids[0].to_string()]);
        while let Some(at) = output.find("Bisecting:") {
            let said = &output[at..];
            let (first, rest) = said.split_once('\n').expect("a line");
            let next: RevisionId = rest[1..41].parse().expect("the next commit");
            let (left, steps) = git.arithmetic(&next).expect("in the range");
            assert_eq!(format!("{first}\n"), text::bisecting(left, steps), "seed {seed}");
            let at = ids.iter().position(|id| *id == next).expect("one of ours");
            let word = if dag.reached(at)[culprit] { Word::Bad } else { Word::Good };
            assert!(git.take(&next, word), "git learns from its own pick");
            output = repo.git(&["bisect", word.as_str()]);
        }
        assert!(
            output.contains(&format!("{} is the first bad commit", ids[culprit])),
            "seed {seed}: {output}"
        );
        assert_eq!(git.suspects().collect::<Vec<_>>(), [ids[culprit]]);
    }
}

#[test]
fn the_culprit_is_shown_as_git_shows_it() {
    let Some(repo) = Repo::new("show") else { return };
    let files: [(&str, usize, usize); 6] = [
        ("drivers/media/common/videobuf2/frame_vector.c", 12, 56),
        (
            "include/a_header_with_a_name_that_is_much_too_long_for_a_diffstat/of_eighty_columns_wide.h",
            300,
            1,
        ),
        (
            "a_file_with_a_very_long_name_but_without_any_directory_in_which_it_would_lie_in_the_tree.c",
            1,
            700,
        ),
        ("kernel/fork.c", 1, 1),
        ("mm/memory.c", 0, 3),
        ("Kconfig", 4, 0),
    ];
    let write = |which: usize| {
        for (path, insertions, deletions) in files {
            let path = repo.0.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            let (n, word) = if which == 0 { (deletions, "old") } else { (insertions, "new") };
            let text: String = (0..n).map(|i| format!("{word} {i}\n")).collect();
            std::fs::write(path, text + "same\n").expect("a file");
        }
        repo.git(&["add", "-A"]);
    };
    let message = "mm: change it\n\nFirst line of the body.\n\nSigned-off-by: A U Thor <a@example.org>\n";
    write(0);
    repo.git(&["commit", "-q", "-m", "root"]);
    write(1);
    repo.git(&["commit", "-q", "-m", message]);
    let shown = repo.git(&["show", "--stat"]);

    let mut scene = random(1);
    let mut stats: Vec<FileStat> = files
        .iter()
        .map(|&(path, insertions, deletions)| FileStat { path: path.into(), insertions, deletions })
        .collect();
    stats.sort_by(|a, b| a.path.cmp(&b.path));
    scene.ending.as_mut().expect("ended").culprit = Some(CommitDetails {
        revision: repo.git(&["rev-parse", "HEAD"]).trim().parse().expect("a commit id"),
        parents: vec![],
        author: "A U Thor <a@example.org>".into(),
        date: repo.git(&["show", "-s", "--format=%ad"]).trim().into(),
        subject: "mm: change it".into(),
        message: message.into(),
        files: stats,
    });
    let log = text::render(&scene.record());
    assert!(log.contains(&shown), "git shows:\n{shown}\nthe log has:\n{log}");
}
