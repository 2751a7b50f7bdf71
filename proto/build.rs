//! Compiles the .proto files with a pure-Rust compiler, so that nobody needs `protoc`.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "agents", "jobs", "journal", "access", "artifacts"]
        .map(|name| format!("kulprit/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let (version, label) = (std::env::var("CARGO_PKG_VERSION")?, "KULPRIT_LABEL");
    println!("cargo::rerun-if-env-changed={label}");
    let label = std::env::var(label).ok().filter(|label| !label.is_empty());
    let label = label.map(|label| format!("+{label}")).unwrap_or_default();
    println!("cargo::rustc-env=KULPRIT_VERSION={version}{label}");
    let descriptors = protox::compile(&files, ["."])?;
    let described = std::path::Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(described, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
