//! Sections of a file that is not linked yet, as a module is: laid out one behind the other, and
//! their debug information filled in accordingly.

use super::VmlinuxError;
use object::{
    Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _, RelocationKind, RelocationTarget,
    SectionFlags, SectionIndex,
};
use std::borrow::Cow;
use std::collections::HashMap;

/// How much larger than its data a compressed section may say that it is: debug information has a tenth
/// of its size packed.
const COMPRESSION_MAX: u64 = 64;

/// Where the sections of a file lie. All of a linked file lie at 0: its addresses are absolute.
pub(super) struct Layout {
    bases: HashMap<SectionIndex, u64>,
    relocatable: bool,
}

impl Layout {
    pub fn of(file: &object::File) -> Layout {
        let relocatable = file.kind() == ObjectKind::Relocatable;
        let mut bases = HashMap::new();
        let mut next = 0u64;
        for section in file.sections().filter(|section| relocatable && is_loaded(&section.flags())) {
            let align = section.align().max(1);
            next = next.checked_next_multiple_of(align).unwrap_or(next);
            bases.insert(section.index(), next);
            next = next.saturating_add(section.size());
        }
        Layout { bases, relocatable }
    }

    /// What is to be added to an address in a section.
    pub fn base(&self, section: Option<SectionIndex>) -> u64 {
        section.and_then(|section| self.bases.get(&section)).copied().unwrap_or(0)
    }

    /// A section's bytes, with what refers to other sections filled in.
    pub fn data<'data>(
        &self,
        file: &object::File<'data>,
        section: &object::Section<'data, '_>,
    ) -> Result<Cow<'data, [u8]>, VmlinuxError> {
        let packed = section.compressed_data()?;
        // Memory is set aside for what is said, before a byte is unpacked.
        if packed.uncompressed_size > (packed.data.len() as u64).saturating_mul(COMPRESSION_MAX) {
            let name = section.name().unwrap_or_default().to_owned();
            return Err(VmlinuxError::Oversized(name, packed.uncompressed_size));
        }
        let data = packed.decompress()?;
        if !self.relocatable {
            return Ok(data);
        }
        let mut data = data.into_owned();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(symbol) else { continue };
            let bytes = usize::from(relocation.size() / 8);
            if relocation.kind() != RelocationKind::Absolute || ![4, 8].contains(&bytes) {
                continue;
            }
            let place = usize::try_from(offset).ok().and_then(|at| data.get_mut(at..at.checked_add(bytes)?));
            let Some(place) = place else { continue };
            let there =
                if relocation.has_implicit_addend() { number(place, file.is_little_endian()) } else { 0 };
            let value = self
                .base(symbol.section_index())
                .wrapping_add(symbol.address())
                .wrapping_add_signed(relocation.addend())
                .wrapping_add(there);
            write(place, value, file.is_little_endian());
        }
        Ok(Cow::Owned(data))
    }
}

fn is_loaded(flags: &SectionFlags) -> bool {
    match flags {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & object::elf::SHF_ALLOC.0 != 0,
        _ => false,
    }
}

fn number(place: &[u8], little: bool) -> u64 {
    let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if little { place.iter().rev().fold(0, fold) } else { place.iter().fold(0, fold) }
}

fn write(place: &mut [u8], value: u64, little: bool) {
    let bytes = if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let length = place.len();
    place.copy_from_slice(if little { &bytes[..length] } else { &bytes[8 - length..] });
}
