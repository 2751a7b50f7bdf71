//! One TLS backend: rustls panics at run time when ring is linked beside aws-lc-rs.

use std::process::Command;

#[test]
fn nothing_links_ring() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--edges", "all"])
        .args(["--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.lines().any(|line| line.starts_with("aws-lc-rs v")), "{tree}");
    let ring: Vec<&str> = tree.lines().filter(|line| line.starts_with("ring v")).collect();
    assert!(ring.is_empty(), "{ring:?}");
}
