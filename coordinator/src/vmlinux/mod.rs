//! A built kernel's symbols and debug information, asked for source lines. Loaded once, asked often.

mod image;
mod modules;
mod relocated;
#[cfg(test)]
mod tests;

use image::Image;
use kulprit_common::crash::{Place, Spot, Symbols};
use modules::Modules;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// How a file compressed with zstd begins; artifacts are.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest kernels with debug information have less than 2 GiB.
const VMLINUX_BYTES_MAX: u64 = 4 << 30;

/// How much larger than its file a compressed one may be: kernels become five times smaller.
const UNPACKED_MAX: u64 = 100;

/// Why a file tells nothing of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum VmlinuxError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is no vmlinux: {0}; give the uncompressed ELF file that the build leaves at its top")]
    NotElf(#[from] object::Error),
    #[error("has no table of symbols; give the vmlinux that the build left, not a stripped one")]
    NoSymbols,
    #[error("has a section {0} that says it unpacks to {1} bytes, which its data cannot hold")]
    Oversized(String, u64),
    #[error("has debug information that cannot be read: {0}")]
    BadDebugInfo(#[from] gimli::Error),
}

/// The symbols of one built kernel, and its debug information if it has any.
pub struct Vmlinux {
    image: Image,
    modules: Option<Modules>,
}

impl Vmlinux {
    /// Reads a vmlinux, plain or compressed with zstd. `source_root` is where its sources lay when it
    /// was built; without it that is taken from the debug information.
    pub fn open(path: &Path, source_root: Option<&Path>) -> Result<Vmlinux, VmlinuxError> {
        Self::read(&read_file(path)?, source_root)
    }

    /// The same of an ELF file in memory.
    pub fn read(elf: &[u8], source_root: Option<&Path>) -> Result<Vmlinux, VmlinuxError> {
        Ok(Vmlinux { image: Image::read(elf, source_root)?, modules: None })
    }

    /// Has modules looked for below a directory, once a report names one.
    pub fn with_modules(self, dir: PathBuf) -> Vmlinux {
        Vmlinux { modules: Some(Modules::below(dir, self.image.roots.clone())), ..self }
    }

    /// Says whether there is debug information: without it functions are known, and no source lines.
    pub fn has_lines(&self) -> bool {
        self.image.has_lines()
    }
}

impl Symbols for Vmlinux {
    fn places(&self, spot: &Spot, returning: bool) -> Vec<Place> {
        let Some(name) = &spot.module else { return self.image.places(spot, returning) };
        let modules = self.modules.as_ref();
        modules.map(|modules| modules.places(name, spot, returning)).unwrap_or_default()
    }

    fn spot_at(&self, address: u64) -> Option<Spot> {
        self.image.spot_at(address)
    }
}

/// Reads a file, unpacking it where it is compressed with zstd. Devices and pipes have no end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let bytes = bounded(file, VMLINUX_BYTES_MAX)?;
    if !bytes.starts_with(&ZSTD_MAGIC) {
        return Ok(bytes);
    }
    let most = VMLINUX_BYTES_MAX.min(bytes.len() as u64 * UNPACKED_MAX);
    bounded(zstd::Decoder::new(&bytes[..])?, most)
}

fn bounded(from: impl io::Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::take(from, most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any kernel"));
    }
    Ok(bytes)
}
