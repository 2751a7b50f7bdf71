//! The agent's figures are those of docs/metrics.md.

use kulprit_agent::telemetry::FIGURES;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn the_agents_figures_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let after = text.split_once("\n## Agent\n").expect("the section is there").1;
    let table = after.split("\n## ").next().expect("something follows");
    let documented: BTreeSet<(String, String, String, String)> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let cell = |number: usize| cells[number].replace('`', "");
            (cell(0), cell(1), cell(3), cell(4))
        })
        .collect();
    let entries = FIGURES.book.entries();
    let exported: BTreeSet<_> = entries
        .iter()
        .map(|it| (it.name.into(), it.kind.as_str().into(), it.labels.join(", "), it.help.into()))
        .collect();
    assert_eq!(documented, exported);
}
