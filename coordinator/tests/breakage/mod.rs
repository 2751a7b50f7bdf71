//! Commits that break the boot and the build: found as such, with real containers and QEMU.

use crate::farm::{self, kulprit, text};
use crate::kernel_commits::{clone_base, commit, git};
use std::path::{Path, PathBuf};

const FILE: &str = "lib/argv_split.c";
const BOOT_FILE: &str = "init/main.c";
const BOOT_BEGINS: &str = "static void __init do_basic_setup(void)\n{\n";

pub fn broken_boots_and_builds_have_their_commits(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (repository, commits) = repository();
    std::fs::copy(history.join("tiny.config"), dir.path().join("tiny.config")).expect("a file is copied");

    let search = |mode, ends, culprit| search(dir.path(), &repository, (mode, ends, culprit));
    let log = search("boot", [&commits[0], &commits[5]], &commits[3]);
    assert!(log.contains("crash: kernel panic: the larder is empty\n"), "{log}");
    let log = search("build", [&commits[4], &commits[8]], &commits[7]);
    assert!(log.contains("'larder' undeclared"), "{log}");
}

/// Finds the culprit between the ends; the log.
fn search(dir: &Path, repository: &Path, (mode, [good, bad], culprit): (&str, [&str; 2], &str)) -> String {
    let job = format!(
        r#"
repository = "{}"
good = "{good}"
bad = "{bad}"
mode = "{mode}"
toolchain = "kulprit/gcc-10"

[config]
make_target = "tinyconfig"
fragments = ["tiny.config"]

[machine]
memory_mib = 256
"#,
        repository.display()
    );
    let file = dir.join(format!("{mode}.toml"));
    std::fs::write(&file, job).expect("a file is written");
    let out = dir.join(mode).to_string_lossy().into_owned();
    let state = dir.join("state").to_string_lossy().into_owned();
    let cache = farm::cache().join("test").to_string_lossy().into_owned();
    let job = file.to_string_lossy().into_owned();
    let args = ["run", &job, "--agents", "2", "--state", &state, "--cache", &cache, "--out", &out];
    let output = kulprit(&args);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");

    let log = std::fs::read_to_string(Path::new(&out).join("log.txt")).expect("the log is written");
    assert!(log.contains(&format!("{culprit} is the first bad commit")), "{log}");
    let report = std::fs::read(Path::new(&out).join("report.json")).expect("the report is written");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("it is JSON");
    assert_eq!(report["job"]["mode"], mode, "{report}");
    assert_eq!(report["finding"]["commit"]["revision"], culprit, "{report}");
    log
}

/// Nine commits that each change a kernel; from the fourth on it does not boot, from the eighth
/// on it does not build.
fn repository() -> (PathBuf, Vec<String>) {
    let (repository, mut parent) = clone_base("breakage");
    let path = repository.as_path();
    let mut source = git(path, &["show", &format!("base:{FILE}")], "");
    let main = git(path, &["show", &format!("base:{BOOT_FILE}")], "");
    assert_eq!(main.matches(BOOT_BEGINS).count(), 1);
    let mut commits = Vec::new();
    for number in 0..9 {
        parent = if number == 3 {
            let broken = format!("{BOOT_BEGINS}\tpanic(\"the larder is empty\");\n");
            commit(
                path,
                &parent,
                BOOT_FILE,
                &main.replacen(BOOT_BEGINS, &broken, 1),
                "init: look into the larder",
            )
        } else {
            let value = if number == 7 { "larder".into() } else { format!("{number}") };
            source += &format!(
                "\nint argv_number_{number}(void);\nint argv_number_{number}(void)\n{{\n\treturn {value};\n}}\n"
            );
            commit(path, &parent, FILE, &source, &format!("argv_split: number {number}"))
        };
        commits.push(parent.clone());
    }
    git(path, &["update-ref", "refs/heads/main", &parent], "");
    (repository, commits)
}
