//! The figures of docs/metrics.md are those that are exported, and the dashboard and the alerts in
//! ansible/files go by these alone.

use kulprit_coordinator::telemetry::FIGURES;
use kulprit_observe::figures::Entry;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn documented(section: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the document is there");
    let after = text.split_once(&format!("\n## {section}\n")).expect("the section is there").1;
    let table = after.split("\n## ").next().expect("something follows");
    table.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

/// As a row of the table.
fn row(entry: &Entry) -> String {
    let units =
        [("_bytes_total", "bytes"), ("_bytes", "bytes"), ("_seconds", "seconds"), ("_facts", "facts")];
    let unit = units.iter().find(|(end, _)| entry.name.ends_with(end)).map_or("", |(_, unit)| unit);
    let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
    let (name, kind, help) = (entry.name, entry.kind.as_str(), entry.help);
    format!("| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(", "))
}

#[test]
fn the_coordinators_figures_are_documented() {
    let exported: BTreeSet<String> = FIGURES.book.entries().iter().map(row).collect();
    assert_eq!(documented("Coordinator"), exported);
}

#[test]
fn names_are_of_prometheus_form() {
    for entry in FIGURES.book.entries() {
        let is_counter = entry.kind.as_str() == "counter";
        assert_eq!(entry.name.ends_with("_total"), is_counter, "{}", entry.name);
        assert!(!entry.name.contains("_ms") && !entry.name.contains("_mib"), "{}: base units", entry.name);
    }
}

#[test]
fn dashboard_and_alerts_go_by_what_there_is() {
    let names: BTreeSet<String> = ["Coordinator", "Agent"]
        .iter()
        .flat_map(|section| documented(section))
        .filter_map(|row| Some(row.split('`').nth(1)?.to_owned()))
        .collect();
    for (file, least) in [("kulprit-dashboard.json", 20), ("kulprit-alerts.yml", 10)] {
        let path = root().join("ansible/files").join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let used = words(&text);
        assert!(used.len() >= least, "{file} uses {used:?}");
        for name in used {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_known = names.contains(&name) || base.is_some_and(|base| names.contains(base));
            assert!(is_known, "{file}: {name} is not exported");
        }
    }
    let dashboard = std::fs::read_to_string(root().join("ansible/files/kulprit-dashboard.json"));
    serde_json::from_str::<serde_json::Value>(&dashboard.expect("read")).expect("the dashboard is JSON");
}

/// Every word that begins as our figures do.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("kulprit_"));
    words.map(str::to_owned).collect()
}
