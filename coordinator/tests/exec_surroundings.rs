//! `kulprit bisect exec` where its surroundings are not as they should be: readers that go away,
//! processes left behind, scripts that cannot be run, a repository of somebody else.

mod exec_bed;

use exec_bed::{Bed, first_bad, lines, stderr, wait_for};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// It says much, and fails where nobody listens.
const TALKATIVE: &str = "for word in 1 2 3; do echo $word >&2 || exit 1; done; test ! -e bug";

#[test]
fn progress_that_nobody_reads_changes_nothing() {
    let bed = Bed::new(60, 44, false);
    for jobs in ["1", "2"] {
        let full = File::options().write(true).open("/dev/full").expect("opened");
        let quiet = bed.script("test ! -e bug");
        let output = bed.command(&["--jobs", jobs], &[&quiet]).stderr(full).output().expect("starts");
        assert_eq!(first_bad(&output), Some(bed.id(44)), "a full disk, {jobs} jobs");

        let script = bed.script(TALKATIVE);
        let mut command = bed.command(&["--jobs", jobs], &[&script]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("read");
        let output = child.wait_with_output().expect("waited");
        assert_eq!(output.status.code(), Some(0), "{jobs} jobs");
        assert_eq!(first_bad(&output), Some(bed.id(44)), "after {line:?}, {jobs} jobs");
        bed.assert_clean("a reader has gone");
    }
}

#[test]
fn without_a_reader_of_results_it_ends_as_unix_tools_do() {
    let bed = Bed::new(60, 44, false);
    let script = bed.script(TALKATIVE);
    for jobs in ["1", "2"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = bed.command(&["--jobs", jobs], &[&script]);
        command.stderr(writer.try_clone().expect("another")).stdout(writer);
        let mut child = command.spawn().expect("starts");
        drop(command);
        let mut lines = BufReader::new(reader).lines();
        assert!(lines.by_ref().take(3).all(|line| line.is_ok_and(|line| !line.contains("panicked"))));
        drop(lines);
        assert_eq!(child.wait().expect("waited").code(), Some(141), "{jobs} jobs");
        bed.assert_clean("nobody listens");
    }
}

#[test]
fn a_full_disk_for_results_is_an_error() {
    let bed = Bed::new(3, 1, false);
    let full = File::options().write(true).open("/dev/full").expect("opened");
    let mut command = bed.command(&["--jobs", "1"], &["sh", "-c", "test ! -e bug"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output().expect("starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("failed to write the output"), "{}", stderr(&output));
    bed.assert_clean("nothing could be written");
}

#[test]
fn what_a_run_leaves_behind_ends_with_it() {
    let bed = Bed::new(20, 9, false);
    let pids = bed.path("pids");
    for jobs in ["1", "2"] {
        let script = bed.script(&format!("sleep 4711 & echo $! >> {pids}; test ! -e bug"));
        let output = bed.exec(&["--jobs", jobs], &[&script]);
        assert_eq!(first_bad(&output), Some(bed.id(9)), "{}", stderr(&output));
        assert!(lines(&pids) >= 4);
        let text = std::fs::read_to_string(&pids).expect("read");
        wait_for("what was left to be gone", || text.lines().all(is_gone));
    }
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

impl Bed {
    /// A file of the checkout, committed at every end of a new range if `commit` says so.
    fn file(&self, name: &str, text: &str, mode: u32, commit: bool) {
        let path = self.repo().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        if commit {
            self.git(&["add", name]);
            self.git(&["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", name]);
        }
    }
}

#[test]
fn what_cannot_be_run_is_explained() {
    let bed = Bed::new(4, 2, false);
    bed.file("plain.sh", "true\n", 0o644, true);
    bed.file("strange.sh", "#!/no/such/interpreter\n", 0o755, true);
    bed.git(&["tag", "-f", "c0"]);
    for end in ["one", "two"] {
        bed.file(end, end, 0o644, true);
    }
    bed.file("own.sh", "#!/no/such/interpreter\n", 0o755, false);
    bed.file("check.sh", "exit 1\n", 0o644, false);
    std::fs::write(bed.repo().join("one"), "edited").expect("written");
    let good = bed.git(&["rev-parse", "--short=12", "c0"]);
    let not_executable = format!("./plain.sh: is not executable in {}; use `sh ./plain.sh`", good.trim());
    let absolute = bed.repo().canonicalize().expect("found").join("check.sh").display().to_string();
    let untracked =
        format!("note: ./check.sh is not committed, so it is not in the worktrees; name it {absolute}");
    for (command, code, says) in [
        (&["./plain.sh"][..], 2, not_executable.as_str()),
        (&["./strange.sh"], 2, "the interpreter /no/such/interpreter, which is not there"),
        (&["./own.sh"], 2, "the interpreter /no/such/interpreter, which is not there"),
        (&["sh", "./check.sh"], 5, &untracked),
        (&["grep", "-q", "edited", "one"], 5, "note: one has changes that are not committed"),
        (&["./absent.sh"], 2, "name them by absolute paths"),
    ] {
        let output = bed.exec(&["--jobs", "2"], command);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{command:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("/./"), "{command:?}: {}", stderr(&output));
    }
    let quiet = stderr(&bed.exec(&["--jobs", "2"], &["grep", "-q", "x", "two"]));
    assert!(!quiet.contains("note: "), "{quiet}");
}

#[test]
fn a_temporary_directory_that_is_not_there_is_bad_input() {
    let bed = Bed::new(3, 1, false);
    let output = bed.command(&[], &["true"]).env("TMPDIR", "/nosuch").output().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("error: TMPDIR: ") && stderr(&output).contains("/nosuch"));
}

#[test]
fn a_repository_of_somebody_else_is_named_with_what_to_do() {
    let bed = Bed::new(3, 1, false);
    let given = Command::new("chown").args(["-R", "65534"]).arg(bed.repo()).status().expect("starts");
    if !given.success() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    let output = bed.command(&[], &["true"]).env("HOME", bed.path("tmp")).output().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let says = format!(
        "git config --global --add safe.directory {}",
        bed.repo().canonicalize().expect("found").display()
    );
    assert!(stderr(&output).contains(&says), "{}", stderr(&output));
}
