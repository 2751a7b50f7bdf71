//! A built kernel's symbols and debug information, asked for source lines. Loaded once, asked often.

use gimli::{Dwarf, EndianArcSlice, RunTimeEndian, SectionId};
use kulprit_common::crash::{Place, Spot, Symbols};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

type Reader = EndianArcSlice<RunTimeEndian>;

/// How a file compressed with zstd begins; artifacts are.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest kernels with debug information have less than 2 GiB.
const VMLINUX_BYTES_MAX: u64 = 4 << 30;

/// Why a file tells nothing of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum VmlinuxError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is no vmlinux: {0}; give the uncompressed ELF file that the build leaves at its top")]
    NotElf(#[from] object::Error),
    #[error("has no table of symbols; give the vmlinux that the build left, not a stripped one")]
    NoSymbols,
    #[error("has debug information that cannot be read: {0}")]
    BadDebugInfo(#[from] gimli::Error),
}

/// A function's begin, and the distance to the next one, which is the size that kernels print.
#[derive(Debug)]
struct Function {
    name: String,
    address: u64,
    /// As the symbol says; padding up to the next function is no part of it.
    size: u64,
    distance: u64,
}

/// The symbols of one built kernel, and its debug information if it has any.
pub struct Vmlinux {
    /// Sorted by address.
    functions: Vec<Function>,
    by_name: HashMap<String, Vec<usize>>,
    lines: Option<addr2line::Context<Reader>>,
    /// What stands before the paths that reports name.
    roots: Vec<String>,
}

impl Vmlinux {
    /// Reads a vmlinux, plain or compressed with zstd. `source_root` is where its sources lay when it
    /// was built; without it that is taken from the debug information.
    pub fn open(path: &Path, source_root: Option<&Path>) -> Result<Vmlinux, VmlinuxError> {
        let length = std::fs::metadata(path)?.len();
        if length > VMLINUX_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any kernel").into());
        }
        let bytes = std::fs::read(path)?;
        if !bytes.starts_with(&ZSTD_MAGIC) {
            return Self::read(&bytes, source_root);
        }
        let mut plain = Vec::new();
        let unpacked = io::Read::take(zstd::Decoder::new(&bytes[..])?, VMLINUX_BYTES_MAX);
        io::copy(&mut io::BufReader::new(unpacked), &mut plain)?;
        Self::read(&plain, source_root)
    }

    /// The same of an ELF file in memory.
    pub fn read(elf: &[u8], source_root: Option<&Path>) -> Result<Vmlinux, VmlinuxError> {
        let file = object::File::parse(elf)?;
        let functions = functions(&file);
        if functions.is_empty() {
            return Err(VmlinuxError::NoSymbols);
        }
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, function) in functions.iter().enumerate() {
            by_name.entry(function.name.clone()).or_default().push(index);
        }
        let (lines, built_in) = debug_info(&file)?;
        let given = source_root.map(|root| root.to_string_lossy().into_owned());
        let roots = given.into_iter().chain(built_in).map(|root| root.trim_end_matches('/').to_owned());
        Ok(Vmlinux { functions, by_name, lines, roots: roots.filter(|root| !root.is_empty()).collect() })
    }

    /// Says whether there is debug information: without it functions are known, and no source lines.
    pub fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// The address of a function by name and size. A kernel has many static functions of one name.
    fn address(&self, spot: &Spot) -> Option<u64> {
        let all = self.by_name.get(&spot.function)?.iter().map(|&index| &self.functions[index]);
        let fits = |function: &&Function| function.distance == spot.size || function.size == spot.size;
        let function = all.clone().find(|it| it.distance == spot.size).or_else(|| all.clone().find(fits))?;
        Some(function.address)
    }

    fn relative(&self, path: &str) -> String {
        let inside = |root: &String| path.strip_prefix(root.as_str())?.strip_prefix('/');
        let path = self.roots.iter().find_map(inside).unwrap_or(path);
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "." => {}
                ".." if parts.last().is_some_and(|last| !["", ".."].contains(last)) => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        parts.join("/")
    }
}

impl Symbols for Vmlinux {
    fn places(&self, spot: &Spot, returning: bool) -> Vec<Place> {
        let (Some(lines), Some(begin)) = (&self.lines, self.address(spot)) else { return Vec::new() };
        let back = u64::from(returning && spot.offset > 0);
        let address = begin.wrapping_add(spot.offset).wrapping_sub(back);
        // Every section is in memory, so that there is nothing to load.
        let Ok(mut frames) = lines.find_frames(address).skip_all_loads() else { return Vec::new() };
        let mut places = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let function = name.map_or_else(|| spot.function.clone(), |name| name.into_owned());
            let location = frame.location.and_then(|at| Some((at.file?, at.line?)));
            if let Some((file, line)) = location {
                places.push(Place { function, file: self.relative(file), line });
            }
        }
        places
    }

    fn spot_at(&self, address: u64) -> Option<Spot> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = &self.functions[after.checked_sub(1)?];
        let offset = address - function.address;
        (offset < function.distance).then(|| Spot {
            function: function.name.clone(),
            offset,
            size: function.distance,
        })
    }
}

fn functions(file: &object::File) -> Vec<Function> {
    let mut functions: Vec<Function> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            let (address, size) = (symbol.address(), symbol.size());
            Some(Function { name: name.to_owned(), address, size, distance: size })
        })
        .collect();
    functions.sort_by_key(|function| function.address);
    let mut next = None;
    for index in (0..functions.len()).rev() {
        if index + 1 < functions.len() && functions[index + 1].address > functions[index].address {
            next = Some(functions[index + 1].address);
        }
        if let Some(next) = next {
            functions[index].distance = next - functions[index].address;
        }
    }
    functions
}

type Lines = (Option<addr2line::Context<Reader>>, Option<String>);

/// The debug information, if there is any, and the directory that the first file was compiled in.
fn debug_info(file: &object::File) -> Result<Lines, VmlinuxError> {
    if file.section_by_name(".debug_info").or_else(|| file.section_by_name(".zdebug_info")).is_none() {
        return Ok((None, None));
    }
    let endian = match file.endianness() {
        Endianness::Little => RunTimeEndian::Little,
        Endianness::Big => RunTimeEndian::Big,
    };
    let section = |id: SectionId| -> Result<Reader, VmlinuxError> {
        let found = file.section_by_name(id.name()).map(|section| section.uncompressed_data()).transpose()?;
        Ok(Reader::new(Arc::from(found.unwrap_or_default()), endian))
    };
    let dwarf = Dwarf::load(section)?;
    let mut directory = None;
    if let Some(header) = dwarf.units().next()? {
        let unit = dwarf.unit(header)?;
        directory = unit.comp_dir.as_ref().map(|it| String::from_utf8_lossy(it).into_owned());
    }
    Ok((Some(addr2line::Context::from_dwarf(dwarf)?), directory))
}

#[cfg(test)]
#[path = "vmlinux_tests.rs"]
mod tests;
