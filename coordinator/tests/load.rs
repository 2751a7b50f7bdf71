//! The load generator of `make bench-farm`, with a small farm: what it prints must come from a farm
//! that works.

use std::path::Path;
use std::process::Command;

#[test]
fn a_small_farm_under_load_answers_right_and_comes_back() {
    let programs = Path::new(env!("CARGO_BIN_EXE_kulprit")).parent().expect("a directory");
    let load = programs.join("examples/load");
    assert!(load.exists(), "{} is missing: cargo build --workspace --examples", load.display());
    let dir = tempfile::tempdir().expect("a directory");
    let sizes = ["--agents", "12", "--jobs", "3", "--seconds", "4", "--work-ms", "200", "--items", "600"];
    let output = Command::new(load)
        .args(sizes)
        .arg("--dir")
        .arg(dir.path().join("farm"))
        .arg("--programs")
        .arg(programs)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for path in [
        "/ceilings/fsyncs",
        "/ceilings/journal_facts",
        "/ceilings/bare_calls",
        "/flow/to_next_p99_ms",
        "/flow/grants_per_s",
        "/rush/completions_per_s",
        "/rush/coordinator_rss_mib",
        "/restart/served_s",
        "/restart/first_grant_s",
    ] {
        let figure = figures.pointer(path).and_then(serde_json::Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{path}: {figures}");
    }
    assert!(figures["restart"]["items"].as_u64().expect("a number") >= 600, "{figures}");
    assert!(figures["answers"]["right"].as_u64().expect("a number") > 0, "{figures}");
    assert_eq!(figures["answers"]["wrong"], 0, "{figures}");
}
