//! The `kulprit` program from outside: help, mistakes, exit codes. Nothing is started here.

use assert_cmd::Command;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

const GOOD_JOB: &str = r#"
repository = "linux"
bad = "main"
[config]
make_target = "tinyconfig"
[reproducer]
script = "repro.sh"
"#;

struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new(job: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("job.toml"), job).expect("written");
        std::fs::write(dir.path().join("repro.sh"), "#!/bin/sh\ntrue\n").expect("written");
        Bed { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn kulprit(&self, words: &[&str]) -> Output {
        let mut command = Command::cargo_bin("kulprit").expect("built");
        command.current_dir(self.path()).args(words);
        command.env("HOME", self.path()).env("TMPDIR", self.path()).env("NO_COLOR", "1");
        for name in ["KULPRIT_COORDINATOR", "KULPRIT_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.timeout(std::time::Duration::from_secs(60)).output().expect("run")
    }

    /// What lies in the directory besides what the test put there.
    fn made(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("listed").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "job.toml" && name != "repro.sh").collect()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_is_complete_and_plain() {
    let bed = Bed::new(GOOD_JOB);
    for (words, expected) in [
        (
            &["--help"][..],
            &["run", "bisect", "agent", "doctor", "parse", "completions", "man", "Examples:"][..],
        ),
        (
            &["run", "--help"],
            &[
                "--state <DIR>",
                "--agents <N>",
                "[default: 2]",
                "--cache <DIR>",
                "--out <DIR>",
                "--slot-cores <N>",
                "--output <FORM>",
                "Exit codes:",
                "130  interrupted",
                "Ctrl-C",
            ],
        ),
        (&["bisect", "--help"], &["start", "watch", "list", "show", "log", "cancel"]),
        (
            &["bisect", "log", "--help"],
            &["--follow", "--replay", "--plot", "--attempt <ID>", "KULPRIT_COORDINATOR"],
        ),
        (&["agent", "list", "--help"], &["--coordinator <URL>", "http://127.0.0.1:7453"]),
        (&["doctor", "--help"], &["--state <DIR>", "Exit codes:"]),
        (&["parse", "--help"], &["<FILE>...", "standard input", "--output <FORM>", "Exit codes:"]),
    ] {
        let output = bed.kulprit(words);
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(!help.contains('\x1b'), "{words:?} is coloured");
        for part in expected {
            assert!(help.contains(part), "{words:?} does not say {part:?}:\n{help}");
        }
    }
}

#[test]
fn a_bad_job_file_is_refused_before_anything_is_started() {
    let with = |from: &str, to: &str| GOOD_JOB.replace(from, to);
    for (job, named) in [
        (with("bad = \"main\"", ""), "bad"),
        (with("repository = \"linux\"", ""), "repository"),
        (with("bad = \"main\"", "bad = \"-x\""), "bad"),
        (with("bad = \"main\"", "bad = 7"), "bad"),
        (with("bad = \"main\"", "bad = \"main\"\ncolour = \"red\""), "colour"),
        (with("[config]", "[config]\nfragmnts = []"), "fragmnts"),
        (with("make_target = \"tinyconfig\"", "file = \"absent.config\""), "config.file"),
        (with("repro.sh", "absent.sh"), "reproducer.script"),
        (with("repro.sh", "."), "reproducer.script"),
        (with("[config]", "[runs]\nmax = 0\n[config]"), "runs.max"),
        ("= what".to_owned(), "line 1"),
    ] {
        let bed = Bed::new(&job);
        for words in [
            &["run", "job.toml"][..],
            &["run", "job.toml", "--state", "state", "--out", "out", "--cache", "cache"],
            &["bisect", "start", "job.toml"],
        ] {
            let output = bed.kulprit(words);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
            assert!(said.starts_with("error: job.toml: ") && said.contains(named), "{named}: {said}");
            assert_eq!(stdout(&output), "");
            assert_eq!(bed.made(), Vec::<String>::new(), "{words:?}");
        }
    }
}

#[test]
fn a_job_file_that_is_none_is_refused() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::write(bed.path().join("repro.sh"), [0xff, 0xfe]).expect("written");
    for (file, said) in
        [("absent.toml", "absent.toml: cannot be read"), (".", "directory"), ("repro.sh", "UTF-8")]
    {
        let output = bed.kulprit(&["run", file]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert!(stderr(&output).contains(said), "{file}: {}", stderr(&output));
    }
}

#[test]
fn wrong_options_are_bad_input() {
    let bed = Bed::new(GOOD_JOB);
    for words in [
        &["run"][..],
        &["run", "job.toml", "--agents", "0"],
        &["run", "job.toml", "--agents", "many"],
        &["run", "job.toml", "--no-such-flag"],
        &["run", "job.toml", "-o", "xml"],
        &["bisect"],
        &["bisect", "log", "j", "--replay", "--follow"],
        &["bisect", "log", "j", "--plot", "--follow"],
        &["bisect", "log", "j", "--attempt", "not-hex"],
        &["nonsense"],
    ] {
        let output = bed.kulprit(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", stderr(&output));
    }
}

#[test]
fn nobody_at_the_address_is_said_with_what_to_do() {
    let bed = Bed::new(GOOD_JOB);
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    for words in [
        &["bisect", "list"][..],
        &["bisect", "start", "job.toml"],
        &["bisect", "watch", "j"],
        &["bisect", "show", "j"],
        &["bisect", "log", "j"],
        &["bisect", "log", "j", "--follow"],
        &["bisect", "log", "j", "--attempt", "1"],
        &["bisect", "cancel", "j"],
        &["bisect", "overrule", "j", "1234567", "skip"],
        &["bisect", "release", "j", "1234567"],
        &["agent", "quarantine", "a", "--reason", "r"],
        &["agent", "release", "a"],
        &["agent", "list", "-o", "json"],
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--coordinator", &url]).collect();
        let output = bed.kulprit(&words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        for part in [url.as_str(), "refused", "kulprit-coordinator --state"] {
            assert!(said.contains(part), "{words:?} does not say {part:?}: {said}");
        }
    }
}

#[test]
fn only_this_machine_is_dialled_without_credentials() {
    let bed = Bed::new(GOOD_JOB);
    for url in ["http://192.0.2.1:7453", "127.0.0.1:7453", "http://kulprit.example"] {
        let output = bed.kulprit(&["bisect", "list", "--coordinator", url]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains("--coordinator") && said.contains(url), "{said}");
    }
    let output = bed.kulprit(&["bisect", "list", "--coordinator", "https://127.0.0.1:7453"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--credentials") && said.contains("kulprit join"), "{said}");
}

#[test]
fn places_that_cannot_be_made_are_named() {
    let bed = Bed::new(GOOD_JOB);
    for flag in ["--state", "--out", "--cache"] {
        let output = bed.kulprit(&["run", "job.toml", flag, "job.toml/below"]);
        let said = stderr(&output);
        // Without the other two programs that is what is said first.
        if said.contains("find the program") {
            assert_eq!(output.status.code(), Some(1));
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{flag}: {said}");
        assert!(said.contains(flag), "{flag}: {said}");
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    let bed = Bed::new(GOOD_JOB);
    for shell in ["bash", "zsh", "fish"] {
        let output = bed.kulprit(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("slot-cores"), "{shell}");
    }
    assert_eq!(bed.kulprit(&["man", "pages"]).status.code(), Some(0));
    let page = std::fs::read_to_string(bed.path().join("pages/kulprit-bisect-watch.1")).expect("a page");
    assert!(page.contains("exit code"), "{page}");
    for (page, synopsis) in [
        (
            "kulprit-run.1",
            "\\fBkulprit run\\fR [\\fB\\-\\-state\\fR \\fIDIR\\fR] [\\fB\\-\\-agents\\fR \\fIN\\fR]",
        ),
        ("kulprit-run.1", "[\\fB\\-\\-keep\\fR]"),
        ("kulprit-run.1", " \\fIJOB.toml\\fR\n"),
        ("kulprit-bisect-exec.1", " \\fB\\-\\-good\\fR \\fIREV\\fR "),
        ("kulprit-bisect-exec.1", " \\-\\- \\fICMD\\fR...\n"),
        ("kulprit-bisect.1", " \\fICOMMAND\\fR\n"),
        ("kulprit-bisect.1", ".SH DESCRIPTION"),
    ] {
        let text = std::fs::read_to_string(bed.path().join("pages").join(page)).expect("a page");
        assert!(text.contains(synopsis), "{synopsis}: {text}");
    }
    assert!(!bed.path().join("pages/kulprit-bisect-run.1").exists());
}

#[test]
fn who_types_what_git_calls_it_is_told_the_word() {
    let bed = Bed::new(GOOD_JOB);
    for words in [
        &["bisect", "run", "make", "test"][..],
        &["bisect", "run", "--good", "v1", "--", "x"],
        &["bisect", "run"],
    ] {
        let output = bed.kulprit(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).contains("kulprit bisect exec --good REV -- CMD"), "{}", stderr(&output));
    }
    assert!(!stdout(&bed.kulprit(&["bisect", "--help"])).contains("Not a command"));
    let help = stdout(&bed.kulprit(&["audit", "--help"]));
    assert!(
        help.lines().any(|line| line
            == "Exit codes: 0 whatever it says of the log, 2 where no line is one of a bisection log."),
        "{help}"
    );
}

#[test]
fn the_doctor_says_what_is_wrong() {
    let bed = Bed::new(&GOOD_JOB.replace("bad =", "worse ="));
    let output = bed.kulprit(&["doctor", "job.toml", "--state", "absent", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let checks: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let checks = checks.as_array().expect("a list");
    let named = |name: &str| checks.iter().find(|check| check["check"] == name);
    let job = named("job file").expect("the job file is checked");
    assert_eq!(job["status"], "failed");
    assert!(job["detail"].to_string().contains("worse"), "{job}");
    assert!(named("state disk").is_some() && named("git").is_some() && named("kulprit-agent").is_some());
}

fn checked(bed: &Bed) -> Vec<serde_json::Value> {
    let output = bed.kulprit(&["doctor", "job.toml", "-o", "json"]);
    let checks: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    checks.as_array().expect("a list").clone()
}

#[test]
fn the_doctor_looks_for_what_the_job_names() {
    let repository = tempfile::tempdir().expect("a temporary directory");
    let git = |words: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(words);
        assert!(
            git.current_dir(repository.path()).output().expect("git starts").status.success(),
            "{words:?}"
        );
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&["tag", "v6.8"]);
    let path = repository.path().display().to_string();
    let with = |repository: &str, more: &str| {
        GOOD_JOB
            .replace("\"linux\"", &format!("{repository:?}"))
            .replace("[config]", &format!("{more}\n[config]"))
    };
    for (job, status, detail) in [
        (with("/nosuch", ""), "failed", "repository: /nosuch is not a git repository"),
        (with(&path, "good = \"v6.9\""), "failed", "good: unknown revision \"v6.9\""),
        (with(&path, "").replace("\"main\"", "\"trunk\""), "failed", "bad: unknown revision \"trunk\""),
        (with(&path, "good = \"v6.8\""), "ok", "good is "),
    ] {
        let checks = checked(&Bed::new(&job));
        let named =
            |name: &str| checks.iter().find(|check| check["check"] == name).expect("it is checked").clone();
        assert_eq!(named("job file")["status"], "ok");
        let repository = named("job's repository");
        assert_eq!(repository["status"], status, "{repository}");
        assert!(
            repository["detail"].as_str().is_some_and(|it| it.contains(detail)),
            "{detail}: {repository}"
        );
    }
    let checks = checked(&Bed::new(&with("https://example.org/linux.git", "")));
    assert!(!checks.iter().any(|check| check["check"] == "job's repository"), "a URL is not asked");
}

#[test]
fn the_doctor_says_what_to_do_about_a_job_file_that_cannot_be_read() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::remove_file(bed.path().join("job.toml")).expect("removed");
    let checks = checked(&bed);
    let job = checks.iter().find(|check| check["check"] == "job file").expect("it is checked");
    assert!(job["hint"].as_str().is_some_and(|hint| hint.contains("that this user may read")), "{job}");
}

const CONSOLE: &str = "\
[    1.000000] all is well
[    2.000000][  T42] WARNING: CPU: 1 PID: 42 at fs/gamma/dir.c:212 gamma_rmdir+0x272/0x520 fs/gamma/dir.c:212
[    2.000001][  T42] CPU: 1 PID: 42 Comm: syz.3.20 Not tainted 6.9.0 #1
[    2.000002][  T42] RIP: 0010:gamma_rmdir+0x272/0x520 fs/gamma/dir.c:212
[    2.000003][  T42] Code: 02 00 00 e8 de b6 c3 fe <0f> 0b 4c 89 e5
[    2.000004][  T42] Call Trace:
[    2.000005][  T42]  \x1b[31mvfs_rmdir+0x1/0x2\x1b[0m fs/namei.c:4000
[    2.000006][  T42]  do_syscall_64+0x1/0x2
";

#[test]
fn parse_tells_crashes_to_programs() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::write(bed.path().join("console.txt"), CONSOLE).expect("written");
    std::fs::write(bed.path().join("quiet.txt"), "hello\n").expect("written");
    let output = bed.kulprit(&["parse", "-o", "json", "console.txt", "quiet.txt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let found: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], serde_json::json!({"file": "quiet.txt", "crashes": [], "guilty_file": null}));
    assert_eq!(found[0]["guilty_file"], "fs/gamma/dir.c");
    let crash = &found[0]["crashes"][0];
    for (key, expected) in [
        ("title", serde_json::json!("WARNING in gamma_rmdir")),
        ("alt_titles", serde_json::json!([])),
        ("type", serde_json::json!("WARNING")),
        ("frame", serde_json::json!("gamma_rmdir")),
        ("corrupted", serde_json::json!(false)),
        ("suppressed", serde_json::json!(false)),
        ("panicked", serde_json::json!(false)),
        ("executor", serde_json::json!({"proc": 3, "id": 20})),
        ("first_line", serde_json::json!(2)),
        ("last_line", serde_json::json!(8)),
    ] {
        assert_eq!(crash[key], expected, "{key}");
    }
    assert!(
        crash["report"].as_str().is_some_and(|it| it.starts_with("WARNING: ") && it.contains("vfs_rmdir"))
    );
}

/// What a program that starts a machine prints has nothing to do with a crash.
#[test]
fn parse_blames_no_file_of_other_programs_and_reads_on_behind_what_it_cannot() {
    let bed = Bed::new(GOOD_JOB);
    let chatter = "[    1.000000] systemd[1]: src/core/mount.c:12: hello\n";
    std::fs::write(bed.path().join("quiet.txt"), chatter).expect("written");
    std::fs::write(bed.path().join("crash.txt"), format!("{chatter}{CONSOLE}")).expect("written");
    std::fs::write(bed.path().join("report.txt"), " alpha+0x1/0x2 drivers/alpha.c:3\n").expect("written");
    let args = ["parse", "-o", "json", "quiet.txt", "absent.txt", "crash.txt", "report.txt"];
    let output = bed.kulprit(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.txt: cannot be read"));
    let objects: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let guilty: Vec<&serde_json::Value> = objects.iter().map(|object| &object["guilty_file"]).collect();
    assert_eq!(guilty.len(), 3, "{objects:?}");
    assert!(guilty[0].is_null() && guilty[1] != "src/core/mount.c", "{objects:?}");
    assert_eq!(guilty[2], "drivers/alpha.c");
}

#[test]
fn parse_tells_crashes_to_people() {
    let bed = Bed::new(GOOD_JOB);
    let mut command = Command::cargo_bin("kulprit").expect("built");
    let output =
        command.current_dir(bed.path()).args(["parse", "-"]).write_stdin(CONSOLE).output().expect("run");
    let text = stdout(&output);
    for part in [
        "-: 1 crash",
        "WARNING in gamma_rmdir",
        "guilty file: fs/gamma/dir.c",
        "* ",
        "ud2",
        "<-- trapping instruction",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains('\x1b'), "an escape came through: {text:?}");
    for (file, said) in [("absent.txt", "absent.txt: cannot be read"), (".", "cannot be read")] {
        let output = bed.kulprit(&["parse", file]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert!(stderr(&output).contains(said), "{file}: {}", stderr(&output));
    }
    assert_eq!(bed.kulprit(&["parse"]).status.code(), Some(2));
}

const GRAPH: &str = "# a line\n0\taaaaaaaa00000000\t\t1\t1\ta.c\n1\taaaaaaaa00000001\t0\t2\t1\tb.c\n\
    2\taaaaaaaa00000002\t1\t3\t1\tc.c\n3\taaaaaaaa00000003\t2\t4\t1\td.c\n4\taaaaaaaa00000004\t3\t5\t1\te.c\n";

/// Answers for a world whose culprit is commit 2; commit 1 never boots.
const ORACLE: &str = r#"while read -r line; do
    index=${line#*:}; index=${index%%,*}
    case $line in
        *'"revert":2'*) echo '{"outcome":"ok"}' ;;
        *'"revert"'*) echo '{"outcome":"revert-conflict"}' ;;
        *) case $index in
            0) echo '{"outcome":"ok"}' ;;
            1) echo '{"outcome":"boot-failed","title":""}' ;;
            *) echo '{"outcome":"crashed","title":"WARNING in f","frames":["f"],"files":["c.c"]}' ;;
        esac ;;
    esac
done"#;

#[test]
fn a_simulation_asks_its_oracle_and_tells_each_trial() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::write(bed.path().join("graph.tsv"), GRAPH).expect("written");
    let world = serde_json::json!({
        "bad": 4, "good": null, "crash": {"title": "WARNING in f", "frames": ["f"], "files": ["c.c"]},
        "oracle": ["sh", "-c", ORACLE],
    });
    std::fs::write(bed.path().join("world.json"), world.to_string()).expect("written");
    let words =
        ["simulate", "--history", "graph.tsv", "--world", "world.json", "--trials", "3", "-o", "json"];
    let output = bed.kulprit(&words);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let trials: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(trials.len(), 3);
    for (n, trial) in trials.iter().enumerate() {
        assert_eq!(trial["trial"], n);
        // The parent does not boot: only the revert can have told.
        assert_eq!((&trial["ending"], &trial["culprit"]), (&"culprit".into(), &2.into()), "{trial}");
        assert!(trial["probability"].as_f64().expect("a number") > 0.98);
        assert!(trial["wall_s"].as_f64().expect("a number") >= 2.0 * 977.0);
    }
}

#[test]
fn a_simulation_names_what_is_wrong_with_its_input() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::write(bed.path().join("graph.tsv"), GRAPH).expect("written");
    let world = |text: &str| {
        std::fs::write(bed.path().join("world.json"), text).expect("written");
        let output = bed.kulprit(&["simulate", "--history", "graph.tsv", "--world", "world.json"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(world(r#"{"scenario":"S7"}"#).contains("scenario: \"S7\" is none of S0"));
    assert!(
        world(r#"{"bad":9,"crash":{"title":"x"},"oracle":["true"]}"#).contains("bad: there is no commit 9")
    );
    let ended = world(r#"{"crash":{"title":"x"},"oracle":["true"]}"#);
    assert!(ended.contains("oracle: true: asked"), "{ended}");
    let output = bed.kulprit(&["simulate", "--history", "world.json", "--world", "world.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--history: world.json: line 1: index"), "{}", stderr(&output));
}

/// A cause bisection of four commits, the answer right.
fn bisection_log() -> String {
    let id = |n: u8| format!("{n:040x}");
    let test = |n: u8, runs: &str| format!("testing commit {} gcc\nall runs: {runs}\n", id(n));
    let crashed = "crashed: WARNING in foo";
    let step = |n: u8, left: u8, word: &str, runs: &str| {
        format!(
            "Bisecting: {left} revisions left to test after this (roughly 1 step)\n[{}] change {n}\n\n{}\
             # git bisect {word} {}\n",
            id(n),
            test(n, runs),
            id(n)
        )
    };
    format!(
        "bisecting cause commit starting from {}\n{}testing release v6.0\n{}# git bisect start {} {}\n{}{}\
         {} is the first bad commit\nfirst bad commit: {} change 3\n",
        id(4),
        test(4, crashed),
        test(9, "OK"),
        id(4),
        id(9),
        step(2, 1, "good", "OK"),
        step(3, 0, "bad", crashed),
        id(3),
        id(3)
    )
}

#[test]
fn audit_says_what_to_think_of_a_log() {
    let bed = Bed::new(GOOD_JOB);
    std::fs::write(bed.path().join("log"), bisection_log()).expect("written");
    let text = bed.kulprit(&["audit", "log"]);
    assert!(text.status.success(), "{}", stderr(&text));
    assert!(stdout(&text).contains("is upheld"), "{}", stdout(&text));
    let json = bed.kulprit(&["audit", "log", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(value["belief"]["standing"], "upheld");
    assert_eq!(value["first_doubtful"], serde_json::Value::Null);
    assert_eq!(value["steps"][3]["decided_by"][0]["what"], "WARNING in foo");
    assert_eq!(value["close"], "culprit");
    for (log, says) in [("repro.sh", "not a bisection log"), ("absent", "No such file")] {
        let output = bed.kulprit(&["audit", log]);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}
