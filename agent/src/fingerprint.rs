//! The digest of what a kernel does, blind to the line numbers that stand in its tables.
//!
//! SHA-256 over the SHA-256s of vmlinux's allocated sections, in their order, without those
//! that occupy no file space and without notes (the build id is one). Before hashing, the line
//! numbers in `__bug_table`, in `__dyndbg` and in the source locations of sanitizers are
//! zeroed, so that a commit that only shifts lines leaves the fingerprint alone.
//!
//! A line number that the compiler put into an instruction (`might_sleep()`, lockdep's and
//! some other debugging macros) cannot be told from any other constant: with such options a
//! shift of lines changes the fingerprint. That is the safe side, a pair of runs too many.

pub mod build_id;
mod lines;

use kulprit_common::id::Digest;
use object::read::elf::{ElfFile32, ElfFile64};
use object::{Endianness, FileKind, ObjectSection as _, ReadCache, ReadRef, SectionFlags, SectionKind, elf};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::path::Path;

/// What a kernel can have mapped (KERNEL_IMAGE_SIZE of x86-64). Headers of a forged file may all
/// name the same bytes, and sections are held in memory.
const SECTIONS_BYTES_MAX: u64 = 1 << 30;
/// What a section takes beside its bytes, so that their number is bounded too.
const SECTION_OVERHEAD: u64 = 4096;

/// Why a file has no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::Error),
    #[error("not an ELF file")]
    OtherFormat,
    #[error("it has no allocated sections")]
    Empty,
    #[error("its allocated sections have more than {} MiB", SECTIONS_BYTES_MAX >> 20)]
    TooLarge,
}

/// The fingerprint of a vmlinux. Reads only its allocated sections.
pub fn of_file(path: &Path) -> Result<Digest, FingerprintError> {
    let cache = ReadCache::new(File::open(path)?);
    of(&cache)
}

/// The fingerprint of a vmlinux in memory.
pub fn of_bytes(elf: &[u8]) -> Result<Digest, FingerprintError> {
    of(elf)
}

fn of<'data, R: ReadRef<'data>>(data: R) -> Result<Digest, FingerprintError> {
    let sections = match FileKind::parse(data)? {
        FileKind::Elf64 => sections(&ElfFile64::<Endianness, R>::parse(data)?)?,
        FileKind::Elf32 => sections(&ElfFile32::<Endianness, R>::parse(data)?)?,
        _ => return Err(FingerprintError::OtherFormat),
    };
    if sections.is_empty() {
        return Err(FingerprintError::Empty);
    }
    Ok(digest(&sections))
}

/// An allocated section of a linked kernel.
pub(crate) struct Section {
    name: String,
    address: u64,
    executable: bool,
    data: Vec<u8>,
}

/// Allocated sections, with what is needed to read pointers in them.
pub(crate) struct Sections {
    all: Vec<Section>,
    little_endian: bool,
    pointer_bytes: u64,
}

impl Sections {
    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn sections<'data, O: object::Object<'data>>(file: &O) -> Result<Sections, FingerprintError> {
    let (mut all, mut bytes) = (Vec::new(), 0u64);
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let allocated = sh_flags.contains(elf::SHF_ALLOC);
        let skipped = matches!(
            section.kind(),
            SectionKind::UninitializedData | SectionKind::UninitializedTls | SectionKind::Note
        );
        if allocated && !skipped {
            let name = section.name()?;
            let needed = [section.size(), name.len() as u64, SECTION_OVERHEAD];
            bytes = needed.into_iter().fold(bytes, u64::saturating_add);
            if bytes > SECTIONS_BYTES_MAX {
                return Err(FingerprintError::TooLarge);
            }
            all.push(Section {
                name: name.to_string(),
                address: section.address(),
                executable: sh_flags.contains(elf::SHF_EXECINSTR),
                data: section.data()?.to_vec(),
            });
        }
    }
    Ok(Sections {
        all,
        little_endian: file.is_little_endian(),
        pointer_bytes: if file.is_64() { 8 } else { 4 },
    })
}

fn digest(sections: &Sections) -> Digest {
    let mut whole = Sha256::new();
    for section in &sections.all {
        let mut data = section.data.clone();
        lines::zero(sections, section, &mut data);
        whole.update(Sha256::digest(&data));
    }
    Digest::from_bytes(whole.finalize().into())
}
