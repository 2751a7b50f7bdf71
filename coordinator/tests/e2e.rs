//! Whole bisections with real containers, real QEMU, real kernel source and real processes.

mod breakage;
mod farm;
mod kernel_commits;
mod report;

use farm::{Farm, TinyDisk, builds, history, kulprit, leftovers, processes, text, truth, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const WHOLE: Duration = Duration::from_secs(25 * 60);

/// One after the other: both want all cores.
#[test]
fn real_farm() {
    let Some(history) = history() else { return };
    one_command_finds_the_planted_commit(&history);
    report::a_report_names_lines_people_and_instructions(&history);
    breakage::broken_boots_and_builds_have_their_commits(&history);
    two_jobs_survive_kills_and_share_builds(&history);
    a_killed_run_leaves_nothing(&history);
    without_docker_or_disk_a_job_waits_and_says_for_what(&history);
}

fn one_command_finds_the_planted_commit(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let cache = farm::cache().join("test");
    let output = kulprit(&[
        "run",
        &history.join("job.toml").to_string_lossy(),
        "--agents",
        "2",
        "--state",
        &state.to_string_lossy(),
        "--cache",
        &cache.to_string_lossy(),
        "--out",
        &out.to_string_lossy(),
    ]);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let culprit = truth(history, "culprit");
    assert!(said.contains(&culprit[..12]), "{said}");

    let log = std::fs::read_to_string(out.join("log.txt")).expect("the log is written");
    assert!(log.contains(&format!("{culprit} is the first bad commit")), "{log}");
    assert!(log.contains("compiler: gcc (Debian 10.2.1-6) 10.2.1 20210110, GNU ld"), "{log}");
    assert!(log.contains(&format!("crash: {}", truth(history, "title"))), "{log}");
    assert_eq!(git_replays(history, &out.join("replay.txt"), dir.path()), culprit);

    let report = std::fs::read(out.join("report.json")).expect("the report is written");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("it is JSON");
    assert!(report.to_string().contains(&culprit), "{report}");
    assert_eq!(processes(&state.to_string_lossy()), Vec::<String>::new(), "left behind");
}

/// What git itself answers after replaying our text.
fn git_replays(history: &Path, replay: &Path, dir: &Path) -> String {
    let clone = dir.join("clone");
    let repository = format!("{}.git", history.display());
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&clone).args(args).output().expect("git runs");
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    let made = Command::new("git")
        .args(["clone", "-q", "--shared", "--no-checkout", &repository])
        .arg(&clone)
        .status();
    assert!(made.expect("git runs").success());
    let said =
        git(&["bisect", "start", "--no-checkout"]) + &git(&["bisect", "replay", &replay.to_string_lossy()]);
    let first_bad = said.lines().find_map(|line| line.strip_suffix(" is the first bad commit"));
    first_bad.unwrap_or_else(|| panic!("git does not end: {said}")).to_owned()
}

fn two_jobs_survive_kills_and_share_builds(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.coordinator();
    let mut agents = [farm.agent("e2e-a"), farm.agent("e2e-b")];
    let job = history.join("job.toml").to_string_lossy().into_owned();
    for _ in 0..2 {
        let output = farm.kulprit(&["bisect", "start", &job]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    farm.wait_for_activity("e2e-a", "building", WHOLE);
    agents[0].kill9();
    agents[0] = farm.agent("e2e-a");
    farm.wait_for_activity("e2e-b", "booting", WHOLE);
    agents[1].kill9();
    agents[1] = farm.agent("e2e-b");
    wait_for("two builds", WHOLE, || {
        let said = farm.said("e2e-a") + &farm.said("e2e-b");
        said.matches("item=build:").count() >= 4
    });
    coordinator.kill9();
    coordinator = farm.coordinator();

    let culprit = truth(history, "culprit");
    for id in ["1", "2"] {
        wait_for("the end of a job", WHOLE, || !farm.json(&["bisect", "show", id])["ending"].is_null());
        assert_eq!(farm.json(&["bisect", "show", id])["ending"]["culprit"], culprit.as_str());
        let log = text(&farm.kulprit(&["bisect", "log", id]).stdout);
        assert!(log.contains(&format!("{culprit} is the first bad commit")), "{log}");
    }
    agents.iter_mut().for_each(farm::Process::stop);
    coordinator.stop();
    let facts = farm.facts();
    let builds = builds(&facts);
    assert!(builds.values().all(|times| *times == 1), "built twice: {builds:?}");
    assert_eq!(leftovers(&["e2e-a", "e2e-b"]), Vec::<String>::new());
    assert_eq!(processes(&dir.path().to_string_lossy()), Vec::<String>::new());
}

fn a_killed_run_leaves_nothing(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (state, cache) = (dir.path().join("state"), farm::cache().join("test"));
    let mut run = farm::spawn(&[
        "run",
        &history.join("job.toml").to_string_lossy(),
        "--agents",
        "1",
        "--state",
        &state.to_string_lossy(),
        "--cache",
        &cache.to_string_lossy(),
    ]);
    let mut agent = None;
    wait_for("a build", WHOLE, || {
        let log = std::fs::read_to_string(state.join("logs/agent-1.log")).unwrap_or_default();
        let named = |line: &str| Some(line.split("agent=").nth(1)?.split_whitespace().next()?.to_owned());
        agent = log.lines().find(|line| line.contains("at work")).and_then(named);
        agent.as_ref().is_some_and(|agent| log.contains("item=build:") && !leftovers(&[agent]).is_empty())
    });
    run.kill9();
    let patience = Duration::from_secs(15);
    wait_for("the processes to end", patience, || processes(&state.to_string_lossy()).is_empty());
    let agent = agent.expect("it was at work");
    assert_eq!(leftovers(&[&agent]), Vec::<String>::new());
}

fn without_docker_or_disk_a_job_waits_and_says_for_what(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let farm = Farm::new(dir.path());
    let mut coordinator = farm.coordinator();
    let mut lost = farm.agent_with("e2e-engineless", |command| {
        command.env("DOCKER_HOST", "unix:///nonexistent.sock");
    });
    let job = history.join("job.toml").to_string_lossy().into_owned();
    let output = farm.kulprit(&["bisect", "start", &job]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let waits_for = |what: &str| {
        wait_for(what, Duration::from_secs(180), || {
            let shown = farm.json(&["bisect", "show", "1"]);
            assert!(shown["ending"].is_null(), "{shown}");
            shown["progress"]["detail"].as_str().is_some_and(|detail| detail.contains(what))
        });
    };
    waits_for("e2e-engineless: no container engine");
    lost.stop();

    let small = TinyDisk::mount(&farm.state.join("e2e-small"), 300);
    let mut agent = farm.agent_with("e2e-small", |command| {
        command.args(["--disk-min-mib", "100"]);
    });
    waits_for("e2e-small: set aside: disk: ");
    let log = text(&farm.kulprit(&["bisect", "log", "1"]).stdout);
    assert!(!log.contains("failed building"), "a full disk is no verdict: {log}");
    agent.stop();
    drop(small);
    coordinator.stop();
    assert_eq!(leftovers(&["e2e-small"]), Vec::<String>::new());
}

/// The crash of a kernel with debug information; the rest of `real_farm` has none.
#[test]
#[ignore = "part of real_farm; alone it is quicker to try"]
fn report_alone() {
    let Some(history) = history() else { return };
    report::a_report_names_lines_people_and_instructions(&history);
}

#[test]
#[ignore = "part of real_farm; alone it is quicker to try"]
fn breakage_alone() {
    let Some(history) = history() else { return };
    breakage::broken_boots_and_builds_have_their_commits(&history);
}

#[test]
fn bad_input_names_the_field_and_ends_with_2() {
    let Some(history) = history() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let job = std::fs::read_to_string(history.join("job.toml")).expect("the job is there");
    for entry in std::fs::read_dir(&history).expect("a directory").flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a file is copied");
    }
    std::fs::write(dir.path().join("broken.c"), "int main(void) { return nothing; }\n").expect("written");
    std::fs::write(dir.path().join("broken.config"), "CONFIG_A=y\nwhat is this\n").expect("written");
    let reproducer = truth(&history, "reproducer");
    for (old, new, field) in [
        ("bad = \"main\"", "bad = \"no-such-branch\"", "bad"),
        ("good = \"v6.1\"", "good = \"v6.3\"\n# swapped", "good"),
        ("make_target = \"tinyconfig\"", "file = \"broken.config\"", "config.file"),
        ("make_target = \"tinyconfig\"", "make_target = \"no_such_defconfig\"", "config.make_target"),
        ("make_target = \"tinyconfig\"", "file = \"missing.config\"", "config.file"),
        (&reproducer, "broken.c", "reproducer.c_source"),
        ("[runs]", "[runs]\nmaximum = 3", "runs.maximum"),
        ("/demo/history-", "/nowhere/history-", "repository"),
    ] {
        assert!(job.contains(old), "{old} is not in the job");
        let mut changed = job.replace(old, new);
        if field == "good" {
            changed = changed.replace("bad = \"main\"", "bad = \"v6.2\"");
        }
        std::fs::write(dir.path().join("job.toml"), changed).expect("written");
        let job = dir.path().join("job.toml");
        let (cache, out) = (farm::cache().join("test"), dir.path().join("out"));
        let output = kulprit(&[
            "run",
            &job.to_string_lossy(),
            "--agents",
            "1",
            "--cache",
            &cache.to_string_lossy(),
            "--out",
            &out.to_string_lossy(),
        ]);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{field}: {said}");
        assert!(said.contains(field), "{field} is not named: {said}");
    }
}
