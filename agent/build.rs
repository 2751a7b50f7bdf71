//! Builds `guest-init` for the agent to embed: static, small, in a target directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guests run, whatever the agent itself was built for.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    for path in ["build.rs", "guest-init/src", "guest-init/Cargo.toml", "guest-init/Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("guest-init");
    let init = build(&out);
    println!("cargo::rustc-env=KULPRIT_GUEST_INIT={}", init.display());
}

fn build(out: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--target", GUEST_TARGET])
        .args(["--manifest-path", "guest-init/Cargo.toml", "--target-dir"])
        .arg(out)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static")
        // The outer build's flags and clippy's wrapper are not meant for the guest.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo, which runs this script, can be run");
    assert!(status.success(), "guest-init does not build; see above");
    out.join(GUEST_TARGET).join("release/kulprit-guest-init")
}
