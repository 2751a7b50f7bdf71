//! `kulprit bisect exec` where its surroundings are not as they should be: readers that go away,
//! processes left behind.

mod exec_bed;

use exec_bed::{Bed, first_bad, lines, stderr, wait_for};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

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
