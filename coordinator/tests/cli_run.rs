//! `kulprit` against a pretended coordinator: children, signals, endings, lost connections.

mod cli_fake;

use cli_fake::{Bed, Fake, Said, Script};
use kulprit_proto::v1;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use tonic::Status;

const CULPRIT: &str = "abababababababababababababababababababab";

fn view(stage: &str, end: Option<v1::JobEnd>) -> v1::JobView {
    let bad = v1::RevisionView {
        revision: CULPRIT.into(),
        subject: "mm: break it".into(),
        role: "search".into(),
        state: "bad".into(),
        runs_done: 3,
        runs_wanted: 10,
        runs_target: 3,
        reverts: None,
    };
    let revisions = if end.is_some() { vec![bad] } else { vec![] };
    v1::JobView {
        id: "j-1".into(),
        name: "job".into(),
        stage: stage.into(),
        end,
        revisions,
        ..Default::default()
    }
}

fn update(view: &v1::JobView, log: &str) -> Result<v1::WatchUpdate, Status> {
    Ok(v1::WatchUpdate { job: Some(view.clone()), log: log.into(), agents: vec![] })
}

fn end(kind: &str, field: &str, message: &str) -> Option<v1::JobEnd> {
    Some(v1::JobEnd { kind: kind.into(), field: field.into(), message: message.into(), ..Default::default() })
}

fn ended(kind: &str, field: &str, message: &str) -> Script {
    let view = v1::JobView {
        summary: "first bad commit: it\n".into(),
        log: "one\ntwo\n".into(),
        replay: "git bisect start\ngit bisect bad ab\n".into(),
        plot: "<svg/>\n".into(),
        json: r#"{"version":1,"finding":null}"#.into(),
        ..view("ended", end(kind, field, message))
    };
    let open = self::view("searching", None);
    Script { streams: vec![vec![update(&open, "one\n"), update(&view, "two\n")]], view, has_ended: false }
}

fn endless() -> Script {
    let open = view("searching", None);
    Script { streams: vec![vec![update(&open, "one\n")]], view: open, has_ended: false }
}

#[test]
fn a_run_ends_with_the_result_and_leaves_nothing_but_it() {
    let fake = Fake::serve(ended("culprit", "", ""));
    fake.let_end(false);
    let bed = Bed::new(&fake, "", "");
    let child = bed.spawn(&["run", "job.toml", "--agents", "3", "--slot-cores", "2"]);
    bed.wait_for_lines("kulprit-agent.args", 3);
    fake.let_end(true);
    let said = Said::from(child.wait_with_output().expect("waited"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("first bad commit: it\n"), "{said:?}");
    for part in ["job j-1 submitted", "searching", "bad   abababababab  3 of 3 runs crashed", "mm: break it"]
    {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    for (file, text) in [
        ("summary.txt", "first bad"),
        ("log.txt", "two"),
        ("replay.txt", "git bisect"),
        ("report.json", "version"),
        ("posterior.svg", "<svg/>"),
    ] {
        let path = format!("kulprit-job-j-1/{file}");
        assert!(bed.read(&path).contains(text) && said.out.contains(&path), "{path}: {said:?}");
    }
    assert_eq!(bed.alive(), Vec::<String>::new());
    assert_eq!(bed.states(), Vec::<std::path::PathBuf>::new());

    let agents = bed.read("kulprit-agent.args");
    assert_eq!(agents.lines().count(), 3);
    for part in ["--name agent-1-", "--slots 1 --share-cores --tied-to-parent --drain-s 2", "--slot-cores 2"]
    {
        assert!(agents.contains(part), "{part}: {agents}");
    }
    let coordinator = bed.read("kulprit-coordinator.args");
    // All agents are on one machine: there is no elsewhere to make runs again.
    for part in
        ["--tied-to-parent", "--second-look-percent 0", "--listen 127.0.0.1:0 --listen-artifacts 127.0.0.1:0"]
    {
        assert!(coordinator.contains(part), "{part}: {coordinator}");
    }
}

#[test]
fn the_same_command_shows_the_finished_job_and_tries_anew_what_came_to_nothing() {
    let fake = Fake::serve(ended("blocked", "", "no image"));
    let bed = Bed::new(&fake, "", "");
    let again = || bed.run(&["run", "job.toml", "--state", "s", "-o", "json"]);
    assert_eq!(again().code, Some(6));
    assert_eq!(again().code, Some(6));
    assert_eq!(fake.submissions(), 2);

    fake.change(ended("culprit", "", ""));
    let agents_before = bed.read("kulprit-agent.args");
    let said = again();
    assert_eq!((said.code, fake.submissions()), (Some(0), 2), "{said:?}");
    assert!(said.err.contains("has ended before"), "{said:?}");
    assert_eq!(bed.read("kulprit-agent.args"), agents_before);
    let value: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(value["ending"]["kind"], "culprit");
    let file = value["files"][0].as_str().expect("a path");
    assert!(file.ends_with("s/results/j-1/summary.txt"), "{file}");
}

#[test]
fn a_run_that_nobody_listens_to_ends_all_the_same() {
    for (kind, code, kept) in [("culprit", 141, 0), ("not-reproduced", 141, 1)] {
        let fake = Fake::serve(ended(kind, "", ""));
        fake.let_end(false);
        let bed = Bed::new(&fake, "", "");
        let mut child = bed.spawn(&["run", "job.toml"]);
        drop(child.stderr.take());
        bed.wait_for_lines("kulprit-agent.args", 2);
        drop(child.stdout.take());
        fake.let_end(true);
        assert_eq!(child.wait().expect("waited").code(), Some(code), "{kind}");
        assert!(bed.read("kulprit-job-j-1/summary.txt").contains("first bad"), "{kind}");
        assert_eq!((bed.alive().len(), bed.states().len()), (0, kept), "{kind}");
    }
}

/// Seventy thousand files take minutes; here a slow program stands for them.
#[test]
fn the_prompt_is_back_before_all_files_are_gone() {
    let bed = Bed::new(&Fake::serve(ended("culprit", "", "")), "", "");
    bed.program("rm", "sleep 3; exec /bin/rm \"$@\"");
    let path = format!("{}:{}", bed.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let child = bed.spawn_with(&["run", "job.toml"], |command| {
        std::os::unix::process::CommandExt::process_group(command.env("PATH", path), 0);
    });
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let said = Said::from(child.wait_with_output().expect("waited"));
    assert_eq!(said.code, Some(0), "{said:?}");
    let aside = || {
        let words = bed.read("rm.args");
        words.split_whitespace().last().map(std::path::PathBuf::from).filter(|dir| dir.exists())
    };
    bed.wait_for_lines("rm.args", 1);
    assert!(aside().is_some_and(|dir| dir.to_string_lossy().ends_with(".removed")), "{said:?}");
    assert_eq!(bed.states(), Vec::<std::path::PathBuf>::new());
    assert!(nix::sys::signal::killpg(group, Signal::SIGHUP).is_err(), "nothing hears the terminal close");
    let begun = Instant::now();
    while aside().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?} is still there", aside());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_refused_job_names_the_field() {
    let bed = Bed::new(&Fake::serve(ended("invalid", "good", "is not an ancestor of bad")), "", "");
    let said = bed.run(&["run", "job.toml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("error: job.toml: good: is not an ancestor of bad"), "{said:?}");
    assert_eq!((bed.alive().len(), bed.states().len()), (0, 0));
}

/// Its agents would take no build, and the search would wait without end.
#[test]
fn a_search_without_room_for_builds_is_refused() {
    let bed = Bed::new(&Fake::serve(endless()), "", "");
    let tight = |command: &mut std::process::Command| {
        command.env("KULPRIT_DISK_MIN_MIB", "1000000000000");
    };
    let child = bed.spawn_with(&["run", "job.toml"], tight);
    let said = Said::from(child.wait_with_output().expect("waited"));
    assert_eq!(said.code, Some(2), "{said:?}");
    for part in ["--state: ", "1000000000000 MiB are needed (KULPRIT_DISK_MIN_MIB)", "make room"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    assert_eq!(bed.read("kulprit-coordinator.args"), "", "nothing was started");
    let left = std::fs::read_dir(bed.path()).expect("listed").flatten();
    assert!(!left.into_iter().any(|it| it.file_name().to_string_lossy().starts_with("kulprit-")));
}

/// Refused before it is followed: nothing has ended before, and only the error is said.
#[test]
fn a_job_that_is_refused_at_once_says_only_why() {
    let script = Script { has_ended: true, ..ended("invalid", "repository", "/tmp is not a git repository") };
    let bed = Bed::new(&Fake::serve(script), "", "");
    let said = bed.run(&["run", "job.toml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("error: job.toml: repository: /tmp is not"), "{said:?}");
    assert!(!said.err.contains("has ended before"), "{said:?}");
}

#[test]
fn a_changed_job_file_names_the_job_that_goes_on_beside_it() {
    let fake = Fake::serve(endless());
    let bed = Bed::new(&fake, "", "");
    let run = |agents: usize| {
        let child = bed.spawn(&["run", "job.toml", "--state", "s"]);
        bed.wait_for_lines("kulprit-agent.args", agents);
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("sent");
        Said::from(child.wait_with_output().expect("waited"))
    };
    let said = run(2);
    assert!(!said.err.contains("another job file"), "{said:?}");
    let job = bed.read("job.toml").replace("main", "HEAD");
    std::fs::write(bed.path().join("job.toml"), job).expect("written");
    let said = run(4);
    let line = format!(
        "job j-1, of another job file, is unfinished in this directory and goes on too; `kulprit bisect cancel j-1 \
         --coordinator {}` ends it",
        fake.url
    );
    assert!(said.err.contains("job j-2 submitted") && said.err.contains(&line), "{said:?}");
}

/// It would build for hours, and then wait without end.
#[test]
fn a_run_whose_agents_can_boot_no_guest_ends_at_once() {
    let problem = "QEMU runs no guest: start /nosuch: No such file or directory";
    let agent = |id: &str| v1::AgentView {
        id: id.into(),
        state: "online".into(),
        problems: vec![problem.into()],
        slots: vec![v1::SlotView::default()],
        cannot_boot: true,
        ..Default::default()
    };
    let open = view("searching", None);
    let agents = vec![agent("agent-1"), agent("agent-2")];
    let seen = v1::WatchUpdate { job: Some(open.clone()), log: String::new(), agents };
    let script = Script { streams: vec![vec![Ok(seen)]], view: open, has_ended: false };
    let bed = Bed::new(&Fake::serve(script), "", "");
    let said = bed.run(&["run", "job.toml"]);
    assert_eq!(said.code, Some(6), "{said:?}");
    for part in [
        format!("agent-1 joined: 1 slot, boots no guests: {problem}\n"),
        format!("error: no agent can boot guests: {problem}\n"),
        "`kulprit doctor`".into(),
    ] {
        assert!(said.err.contains(&part), "{part}: {said:?}");
    }
    assert_eq!((bed.alive().len(), bed.states().len()), (0, 0));
}

#[test]
fn an_interrupted_run_stops_and_says_how_to_resume() {
    // An agent that does not care for SIGTERM is killed.
    for (agent, signal, within) in [
        ("", Signal::SIGINT, Duration::from_secs(6)),
        ("trap '' TERM; while :; do sleep 1; done", Signal::SIGTERM, Duration::from_secs(10)),
    ] {
        let bed = Bed::new(&Fake::serve(endless()), "", agent);
        let child = bed.spawn(&["run", "job.toml", "--out", "my out"]);
        bed.wait_for_lines("kulprit-agent.args", 2);
        std::thread::sleep(Duration::from_millis(500));
        let at = Instant::now();
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("sent");
        let said = Said::from(child.wait_with_output().expect("waited"));
        assert!(at.elapsed() < within, "{:?}", at.elapsed());
        assert_eq!(said.code, Some(130), "{said:?}");
        assert_eq!(bed.alive(), Vec::<String>::new());
        let state = bed.states().pop().expect("kept").display().to_string();
        let line = format!("run job.toml --state {state} --agents 2 --out 'my out'");
        assert!(said.err.contains(&line), "{line}: {said:?}");

        let second = bed.spawn(&["run", "job.toml", "--state", &state]);
        bed.wait_for_lines("kulprit-agent.args", 4);
        let third = bed.run(&["run", "job.toml", "--state", &state]);
        assert_eq!(third.code, Some(2), "two runs in one directory: {third:?}");
        for _ in 0..2 {
            kill(Pid::from_raw(i32::try_from(second.id()).expect("a pid")), Signal::SIGINT).expect("sent");
            std::thread::sleep(Duration::from_millis(300));
        }
        let said = Said::from(second.wait_with_output().expect("waited"));
        assert!(said.err.contains("job j-1 taken up again"), "{said:?}");
        assert_eq!(bed.alive(), Vec::<String>::new());
    }
}

#[test]
fn a_child_that_dies_is_started_again_and_one_that_always_dies_is_not() {
    let once = "[ -e ../died ] || { touch ../died; exit 3; }";
    let fake = Fake::serve(endless());
    let bed = Bed::new(&fake, "", &once.replace("..", "$(dirname $0)/.."));
    let child = bed.spawn(&["run", "job.toml", "--agents", "1"]);
    bed.wait_for_lines("kulprit-agent.args", 2);
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("sent");
    let said = Said::from(child.wait_with_output().expect("waited"));
    assert!(said.err.contains("died (exit status: 3)") && said.err.contains("starting it again"), "{said:?}");

    let bed = Bed::new(&fake, "echo no disk left >&2; exit 1", "");
    let said = bed.run(&["run", "job.toml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("failed to keep the coordinator alive"), "{said:?}");
    assert!(said.err.contains("| no disk left"), "{said:?}");
    assert_eq!((bed.alive().len(), bed.states().len()), (0, 1));
}

#[test]
fn watching_survives_a_lost_coordinator() {
    let done = ended("not-reproduced", "", "");
    let open = view("searching", None);
    let whole = vec![update(&open, "one\n"), update(&done.view, "two\n")];
    let broken = vec![update(&open, "one\n"), Err(Status::unavailable("going down"))];
    let script = Script { streams: vec![broken, whole], view: done.view, has_ended: false };
    for (words, out) in [
        (&["bisect", "watch", "j-1"][..], "first bad commit: it\n"),
        (&["bisect", "start", "job.toml", "--watch"], "first bad commit: it\n"),
        (&["bisect", "log", "j-1", "--follow"], "one\ntwo\n"),
    ] {
        let fake = Fake::serve(script.clone());
        let bed = Bed::new(&fake, "", "");
        let words: Vec<&str> = words.iter().copied().chain(["--coordinator", &fake.url]).collect();
        let said = bed.run(&words);
        assert_eq!((said.code, said.out.as_str()), (Some(4), out), "{said:?}");
        assert!(said.err.contains("lost the coordinator") && said.err.contains("is back"), "{said:?}");
    }
}

#[test]
fn jobs_and_agents_are_read() {
    let fake = Fake::serve(Script { has_ended: true, ..ended("an-ending-of-the-future", "", "who knows") });
    let bed = Bed::new(&fake, "", "");
    for (words, code, out) in [
        (&["bisect", "list"][..], 0, "an-ending-of-the-future: who knows"),
        (&["bisect", "list", "-o", "json"], 0, "\"kind\": \"an-ending-of-the-future\""),
        (&["bisect", "show", "j-1"], 0, "3 of 3 runs crashed"),
        (&["bisect", "show", "j-1", "-o", "json"], 0, "\"version\": 1"),
        (&["bisect", "log", "j-1"], 0, "one\ntwo\n"),
        (&["bisect", "log", "j-1", "--replay"], 0, "git bisect start\n"),
        (&["bisect", "log", "j-1", "--plot"], 0, "<svg/>\n"),
        (&["bisect", "log", "j-1", "--attempt", "1f"], 0, "log of 1f\n"),
        (&["bisect", "log", "j-1", "-o", "json"], 0, "\"log\": \"one\\ntwo\\n\""),
        (&["bisect", "log", "j-1", "-f", "-o", "json"], 2, ""),
        (&["bisect", "watch", "j-1"], 1, "first bad commit: it"),
        (&["bisect", "show", "x"], 2, ""),
        (&["bisect", "cancel", "j-1"], 2, ""),
        (&["bisect", "overrule", "j-1", "1234567", "good"], 0, "1234567 is good from now on"),
        (&["bisect", "overrule", "j-1", "1234567", "unsay", "-o", "json"], 0, "\"word\": \"unsay\""),
        (&["bisect", "overrule", "j-1", "123", "bad"], 2, ""),
        (&["bisect", "overrule", "j-1", "1234567", "perhaps"], 2, ""),
        (&["bisect", "release", "j-1", "build:1"], 0, "build:1 may be tried again"),
        (&["bisect", "release", "j-1", "build:1", "-o", "json"], 0, "\"released\": ["),
        (&["bisect", "release", "j-1", "build:2"], 2, ""),
        (&["agent", "quarantine", "a-1", "--reason", "new disk"], 0, "kulprit agent release a-1"),
        (&["agent", "quarantine", "a-1"], 2, ""),
        (&["agent", "release", "a-1", "-o", "json"], 0, "\"released\": \"a-1\""),
        (&["agent", "release", "a-2"], 2, ""),
        (&["bisect", "start", "job.toml"], 0, "kulprit bisect watch j-1"),
        (&["agent", "list"], 0, "a-1"),
        (&["agent", "list", "-o", "json"], 0, "\"id\": \"a-1\""),
    ] {
        let all: Vec<&str> = words.iter().copied().chain(["--coordinator", &fake.url]).collect();
        let said = bed.run(&all);
        assert_eq!(said.code, Some(code), "{words:?}: {said:?}");
        assert!(said.out.contains(out), "{words:?}: {said:?}");
        assert!(!said.out.contains('\x1b') && !said.err.contains('\x1b'), "{words:?} is coloured: {said:?}");
    }
}
