//! Recipients against recorded bisections, whose logs name the commit and who was told.

// Tests are hands: they read files and say what they skipped.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use kulprit_common::recipients::{Recipients, quoted};

/// Author, message and the recorded list of a log, where the commit alone decides them.
#[test]
fn the_people_of_a_recorded_culprit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seeds/000_a56d280c9f3660c7.txt");
    let Ok(log) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no recorded bisections beside the repository");
        return;
    };
    let shown = log.split_once(" is the first bad commit\n").expect("a culprit").1;
    let author = shown.lines().find_map(|line| line.strip_prefix("Author: ")).expect("an author");
    let message: Vec<&str> = shown
        .lines()
        .skip_while(|line| !line.is_empty())
        .take_while(|line| !line.contains(" | "))
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let recipients = Recipients::of_commit(author, &message.join("\n"));
    let recorded = log.lines().find_map(|line| line.strip_prefix("recipients (to): ")).expect("recipients");
    assert_eq!(quoted(&recipients.to), recorded);
    assert!(!recipients.needs_maintainers());
}
