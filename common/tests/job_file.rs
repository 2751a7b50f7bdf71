//! The job file: its errors as a table (testdata/job/errors.txt, `KULPRIT_BLESS=1` writes the
//! answers), its defaults, and that the manual tells them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use kulprit_common::id::Digest;
use kulprit_common::job::file::{self, Input, JobFile, JobFileError, KEYS, Place, Takes};
use kulprit_common::job::{
    Backport, ConfigBase, Job, Mode, Reproducer, ReproducerKind, SwitchedOff, Symptom, ToolchainChoice,
};

const PLACE: Place<'static> = Place { dir: "/home/me/jobs", stem: "demo-1" };
const MINIMAL: [&str; 4] = [
    "repository = \"linux\"",
    "bad = \"main\"",
    "config.make_target = \"tinyconfig\"",
    "reproducer.c_source = \"repro.c\"",
];

/// The files there are.
fn read(input: &Input) -> Result<Vec<u8>, String> {
    Ok(match input.path.as_str() {
        "repro.c" => b"int main(void) { return 0; }\n".to_vec(),
        "run.sh" => b"#!/bin/sh\n".to_vec(),
        "run.elf" => b"\x7fELF\x02\x01\x01".to_vec(),
        "my.config" => {
            b"# by hand\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x y\"\nCONFIG_D=0x10\n".to_vec()
        }
        "tiny.config" => b"CONFIG_PRINTK=y\n".to_vec(),
        "blank.c" => b" \n\t\n".to_vec(),
        "empty.config" => vec![],
        "remarks.config" => b"# only a remark\n".to_vec(),
        "yes.config" => b"CONFIG_A=y\n\nCONFIG_B=yes\n".to_vec(),
        "conflict.config" => b"CONFIG_A=y\n<<<<<<< HEAD\n".to_vec(),
        "latin.config" => b"CONFIG_A=\"\xe9\"\n".to_vec(),
        "huge.config" => vec![b'#'; (4 << 20) + 1],
        _ => return Err("no such file".into()),
    })
}

fn resolve(text: &str) -> Result<Job, JobFileError> {
    Ok(JobFile::parse(text)?.resolve(&PLACE, &mut read)?.0)
}

/// The minimal file with the case's lines in place of those with the same key; `-key` takes a
/// line out, and a case that starts with `!` is the whole file.
fn apply(case: &str) -> String {
    if let Some(whole) = case.strip_prefix("!\n") {
        return whole.into();
    }
    let key = |line: &str| line.split(" =").next().unwrap_or(line).to_string();
    let mut lines: Vec<String> = MINIMAL.iter().map(|line| line.to_string()).collect();
    for edit in case.lines() {
        let at = key(edit.trim_start_matches('-'));
        lines.retain(|line| key(line) != at);
        if !edit.starts_with('-') {
            lines.push(edit.into());
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_mistake_has_its_message() {
    let path = format!("{}/testdata/job/errors.txt", env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(&path).expect("the table");
    let mut actual = String::new();
    for case in table.split("===\n").skip(1) {
        let text = case.split("--- ").next().unwrap_or(case);
        let answer = resolve(&apply(text)).map_or_else(|error| error.to_string(), |_| "no error".into());
        actual.push_str(&format!("===\n{text}--- {answer}\n"));
    }
    if std::env::var_os("KULPRIT_BLESS").is_some() {
        std::fs::write(&path, &actual).expect("testdata can be written");
    }
    assert!(!actual.contains("no error"), "a case without a mistake:\n{actual}");
    assert!(table == actual, "errors.txt differs; now:\n{actual}");
}

#[test]
fn the_minimal_file_takes_the_defaults() {
    let job = resolve(&MINIMAL.join("\n")).expect("valid");
    assert_eq!((job.name.as_str(), job.repository.as_str()), ("demo-1", "/home/me/jobs/linux"));
    assert_eq!((job.bad.as_str(), job.good, job.mode), ("main", None, Mode::Cause));
    assert_eq!((job.kernel.arch.as_str(), job.toolchain), ("x86_64", ToolchainChoice::Auto));
    assert_eq!((job.runs, job.timeouts, job.machine), Default::default());
    assert_eq!(job.reproducer.digest, Digest::of(b"int main(void) { return 0; }\n"));
}

#[test]
fn a_build_or_boot_is_searched_without_a_reproducer() {
    let minimal = MINIMAL[..3].join("\n");
    for (mode, symptom) in [("build", Symptom::Build), ("boot", Symptom::Boot)] {
        let file = JobFile::parse(&format!("{minimal}\nmode = {mode:?}\n")).expect("valid");
        let (mut job, bytes) = file.resolve(&PLACE, &mut read).expect("valid");
        assert_eq!((job.mode, job.symptom, job.symptom.word(job.mode)), (Mode::Cause, symptom, mode));
        assert_eq!(
            (job.reproducer.clone(), Digest::of(&bytes)),
            (Reproducer::nothing(), job.reproducer.digest)
        );
        file::check(&job).expect("may be sent");
        job.reproducer.kind = ReproducerKind::Script;
        file::check(&job).expect_err("a reproducer that nobody asked for");
        job.reproducer.kind = ReproducerKind::Nothing;
        job.symptom = Symptom::Crash;
        file::check(&job).expect_err("no reproducer for a crash");
    }
}

#[test]
fn every_key_arrives() {
    let text = r#"
        name = "other"
        repository = "https://example.org/linux.git"
        bad = "v6.2"
        good = "v6.1"
        mode = "fix"
        toolchain = "kulprit/gcc-12@sha256:00"
        [config]
        file = "my.config"
        fragments = ["tiny.config"]
        arch = "x86_64"
        make_args = ["W=1"]
        [reproducer]
        binary = "run.elf"
        args = ["-n", "two words"]
        [target]
        title = "WARNING in foo"
        [runs]
        max = 3
        first_max = 5
        [timeouts]
        build_s = 100
        settle_ms = 0
        [machine]
        memory_mib = 256
        cpus = 2
        cmdline = "slub_debug=FZ"
        [[backports]]
        fix = "v6.2-rc1~3"
        breaks = "v6.0"
        [[backports]]
        fix = "1a2b3c"
        title = "objtool: mend it"
        [[configs]]
        disable = ["CONFIG_KCSAN", "CONFIG_A"]
        before = "v5.10"
    "#;
    let file = JobFile::parse(text).expect("valid");
    let fields: Vec<String> = file.inputs().into_iter().map(|input| input.field).collect();
    assert_eq!(fields, ["config.file", "config.fragments[0]", "reproducer.binary"]);
    let (job, reproducer) = file.resolve(&PLACE, &mut read).expect("valid");
    assert!(reproducer.starts_with(b"\x7fELF"));
    assert_eq!((job.name.as_str(), job.repository.as_str()), ("other", "https://example.org/linux.git"));
    assert_eq!((job.good.as_deref(), job.mode), (Some("v6.1"), Mode::Fix));
    assert_eq!(job.toolchain, ToolchainChoice::Image("kulprit/gcc-12@sha256:00".into()));
    assert!(matches!(&job.kernel.config, ConfigBase::File(text) if text.contains("CONFIG_C")));
    assert_eq!(job.kernel.fragments[0].name, "tiny.config");
    assert_eq!(job.kernel.make_args, ["W=1"]);
    assert_eq!((job.reproducer.kind, job.reproducer.args.len()), (ReproducerKind::Binary, 2));
    assert_eq!(job.target.as_deref(), Some("WARNING in foo"));
    assert_eq!((job.runs.max, job.runs.first_max), (3, 5));
    assert_eq!((job.timeouts.build_s, job.timeouts.settle_ms, job.timeouts.boot_s), (100, 0, 300));
    assert_eq!((job.machine.memory_mib, job.machine.cpus), (256, 2));
    assert_eq!(job.machine.cmdline, "slub_debug=FZ");
    let [first, second] = job.repairs.backports() else { panic!("{:?}", job.repairs) };
    assert_eq!((first.fix.as_str(), first.breaks.as_deref()), ("v6.2-rc1~3", Some("v6.0")));
    assert_eq!((second.fix.as_str(), second.title.as_deref()), ("1a2b3c", Some("objtool: mend it")));
    let rules = job.repairs.configs.expect("given");
    assert_eq!(rules[0].disable, ["CONFIG_KCSAN", "CONFIG_A"]);
    assert_eq!(rules[0].before.to_string(), "v5.10");
}

#[test]
fn a_jobs_own_list_stands_in_place_of_the_farms() {
    let text = "[[backports]]\nfix = \"abc\"\n[[configs]]\ndisable = [\"CONFIG_A\"]\nbefore = \"v5.10\"\n";
    let farm = file::farm_repairs(text).expect("valid");
    for (lists, backports, configs) in [("", 1, 1), ("backports = []", 0, 1), ("configs = []", 1, 0)] {
        let text = format!("{lists}\n{}", MINIMAL.join("\n"));
        let repairs = resolve(&text).expect("valid").repairs.or_farms(&farm);
        assert_eq!(repairs.backports().len(), backports, "{lists}");
        assert!(repairs.backports().iter().all(|backport| backport.is_farms));
        assert_eq!(repairs.configs.map(|rules| rules.len()), Some(configs), "{lists}");
    }
    for (text, problem) in [
        ("[[backports]]\nfixx = \"abc\"", "fixx"),
        ("[[backports]]\nfix = \"-x\"", "backports[0].fix"),
        ("toolchain = []", "toolchain"),
    ] {
        let error = file::farm_repairs(text).expect_err(text);
        assert!(error.contains(problem), "{error}");
    }
}

/// What a program may send that never read the job file's rules.
#[test]
fn a_job_from_the_wire_is_held_to_the_same_rules() {
    let sound = resolve(&apply("config.fragments = [\"tiny.config\"]")).expect("it is sound");
    file::check(&sound).expect("what a file says may be sent");
    type Change = fn(&mut Job);
    let backport = |fix: &str| Backport { fix: fix.into(), title: None, breaks: None, is_farms: false };
    let mut sound = sound;
    sound.repairs.backports = Some(vec![backport("v6.2")]);
    sound.repairs.configs =
        Some(vec![SwitchedOff { disable: vec!["CONFIG_A".into()], before: "v5.10".parse().expect("one") }]);
    file::check(&sound).expect("and its lists too");
    let cases: [(&str, Change); 17] = [
        ("name", |job| job.name = "n".repeat(101)),
        ("repository", |job| job.repository = "--upload-pack=x".into()),
        ("bad", |job| job.bad = String::new()),
        ("good", |job| job.good = Some("-x".into())),
        ("toolchain", |job| job.toolchain = ToolchainChoice::Image("../image".into())),
        ("target.title", |job| job.target = Some("a\nb".into())),
        ("config.arch", |job| job.kernel.arch = "arm64; true".into()),
        ("config.make_target", |job| job.kernel.config = ConfigBase::Target("menuconfig".into())),
        ("config.make_args[0]", |job| job.kernel.make_args = vec!["CC=evil".into()]),
        ("config.fragments[0]", |job| job.kernel.fragments[0].text = "rm -rf /\n".into()),
        ("reproducer.args", |job| job.reproducer.args = vec![String::new(); 65]),
        ("runs.max", |job| job.runs.max = u32::MAX),
        ("timeouts.first_byte_s", |job| job.timeouts.first_byte_s = job.timeouts.boot_s + 1),
        ("machine.cpus", |job| job.machine.cpus = 0),
        ("backports[0].fix", |job| job.repairs.backports.as_mut().expect("some")[0].fix = "-x".into()),
        ("backports[0].breaks", |job| {
            job.repairs.backports.as_mut().expect("some")[0].breaks = Some(String::new());
        }),
        ("configs[0].disable", |job| {
            job.repairs.configs.as_mut().expect("some")[0].disable = vec!["CONFIG_A=y\nCONFIG_B".into()];
        }),
    ];
    for (field, change) in cases {
        let mut job = sound.clone();
        change(&mut job);
        let error = file::check(&job).expect_err(field).to_string();
        assert!(error.starts_with(field), "{field}: {error}");
    }
}

#[test]
fn relative_paths_start_at_the_job_file() {
    for (given, path) in [
        ("linux", "/home/me/jobs/linux"),
        ("./linux", "/home/me/jobs/linux"),
        ("../linux", "/home/me/jobs/../linux"),
        (".", "/home/me/jobs"),
        ("/src/linux", "/src/linux"),
        ("file:///src/linux", "file:///src/linux"),
        ("git@example.org:linux.git", "git@example.org:linux.git"),
        ("odd/name:here", "/home/me/jobs/odd/name:here"),
    ] {
        let job = resolve(&apply(&format!("repository = {given:?}"))).expect("valid");
        assert_eq!(job.repository, path, "{given}");
    }
}

#[test]
fn the_manual_has_every_key_with_its_range_and_default() {
    let path = format!("{}/../docs/job-file.md", env!("CARGO_MANIFEST_DIR"));
    let Ok(manual) = std::fs::read_to_string(&path) else { panic!("no {path}") };
    let job = serde_json::to_value(resolve(&MINIMAL.join("\n")).expect("valid")).expect("a value");
    for key in KEYS {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
        match key.takes {
            Takes::Table => assert!(manual.contains(&format!("[{}]", key.name)), "{}", key.name),
            Takes::Tables => assert!(manual.contains(&format!("[[{}]]", key.name)), "{}", key.name),
            Takes::Text(_) | Takes::Texts | Takes::Flag => {
                assert!(row.is_some(), "the manual has no row for {}", key.name)
            }
            Takes::Number { min, max, .. } => {
                let row = row.unwrap_or_else(|| panic!("the manual has no row for {}", key.name));
                let default = &job.pointer(&format!("/{}", key.name.replace('.', "/"))).expect("a default");
                for expected in [format!("{min} to {max}"), format!("| `{default}` |")] {
                    assert!(row.contains(&expected), "{row} lacks {expected}");
                }
            }
        }
    }
    let example =
        manual.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let file = JobFile::parse(example).expect("the manual's example is valid");
    assert!(!file.inputs().is_empty());
}

#[test]
fn the_examples_are_jobs() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/jobs");
    let any = |input: &Input| match input.path.rsplit_once('.') {
        Some((_, "config")) => read(&Input { path: "my.config".into(), ..input.clone() }),
        _ => read(input),
    };
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a file");
        let job = JobFile::parse(&text).and_then(|file| file.resolve(&PLACE, &mut { any }));
        let (job, _) = job.unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
        modes.push(job.symptom.word(job.mode));
    }
    modes.sort_unstable();
    assert_eq!(modes, ["boot", "build", "cause", "fix"]);
}
