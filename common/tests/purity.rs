//! `common` stays pure: what it depends on and what its sources name.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this test reads the sources")]

use std::path::{Path, PathBuf};

/// Each is a decision: none of them has a clock, IO, threads or randomness of its own.
/// `memchr` and `regex` search bytes, `regex-syntax` reads patterns, `iced-x86` decodes instructions and `rustc-demangle` names, all in memory.
const ALLOWED: [&str; 11] = [
    "hex",
    "iced-x86",
    "memchr",
    "regex",
    "regex-syntax",
    "rustc-demangle",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "toml",
];

const BANNED: [&str; 13] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::sync::mpsc",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "println!",
    "unsafe ",
    "static mut",
];

#[test]
fn depends_only_on_pure_libraries() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let table: toml::Table = manifest.parse().expect("the manifest is TOML");
    let dependencies = table["dependencies"].as_table().expect("a table");
    for name in dependencies.keys() {
        assert!(ALLOWED.contains(&name.as_str()), "common must not depend on {name}");
    }
}

#[test]
fn sources_name_no_clock_io_thread_or_randomness() {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if BANNED.iter().any(|banned| code.contains(banned)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            all.push(path);
        }
    }
    all
}
