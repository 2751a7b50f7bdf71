//! The name that the linker gave a kernel, and that the kernel tells when it runs.

use super::FingerprintError;
use object::{Object as _, ReadCache};
use std::fs::File;
use std::path::Path;

/// Longer ones are no linker's.
const BYTES_MAX: usize = 64;

/// The GNU build id of a vmlinux in hexadecimal; empty where it has none.
pub fn of_file(path: &Path) -> Result<String, FingerprintError> {
    let cache = ReadCache::new(File::open(path)?);
    let file = object::File::parse(&cache)?;
    let id = file.build_id()?.filter(|id| id.len() <= BYTES_MAX);
    Ok(id.map(hex::encode).unwrap_or_default())
}
