//! One ELF file of a kernel, the vmlinux or a module: its functions, and its debug information if any.

use super::VmlinuxError;
use super::relocated::Layout;
use gimli::{Dwarf, EndianArcSlice, RunTimeEndian, SectionId};
use kulprit_common::crash::{Place, Spot};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex, SectionKind, SymbolKind,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

type Reader = EndianArcSlice<RunTimeEndian>;

/// Levels that inlined functions and blocks are nested in; no compiler comes near.
const NESTED_MAX: isize = 512;
/// Functions of one name and size that are looked at.
const SAME_MAX: usize = 64;
/// A file that every kernel is made of.
const KNOWN_FILE: &str = "/init/main.c";

/// A function's begin, and the distance to the next one, which is the size that kernels print.
#[derive(Debug)]
pub(super) struct Function {
    pub name: String,
    pub address: u64,
    /// As the symbol says; padding up to the next function is no part of it.
    pub size: u64,
    pub distance: u64,
}

pub(super) struct Image {
    /// Sorted by address.
    pub functions: Vec<Function>,
    by_name: HashMap<String, Vec<usize>>,
    lines: Option<addr2line::Context<Reader>>,
    /// What stands before the paths that reports name.
    pub roots: Vec<String>,
    /// Units of the debug information that were looked at, by offset: whether they can be read.
    shallow: RefCell<HashMap<usize, bool>>,
}

impl Image {
    pub fn read(elf: &[u8], source_root: Option<&Path>) -> Result<Image, VmlinuxError> {
        let file = object::File::parse(elf)?;
        let layout = Layout::of(&file);
        let functions = functions(&file, &layout);
        if functions.is_empty() {
            return Err(VmlinuxError::NoSymbols);
        }
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, function) in functions.iter().enumerate() {
            by_name.entry(function.name.clone()).or_default().push(index);
        }
        let (lines, built_in) = debug_info(&file, &layout)?;
        let given = source_root.map(|root| root.to_string_lossy().into_owned());
        let roots = given.into_iter().chain(built_in).map(|root| root.trim_end_matches('/').to_owned());
        let roots = roots.filter(|root| !root.is_empty()).collect();
        Ok(Image { functions, by_name, lines, roots, shallow: RefCell::default() })
    }

    pub fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// The source lines of a spot, the outermost function last. Where several functions of one name and
    /// size would give different ones, there are none: a wrong file is worse.
    pub fn places(&self, spot: &Spot, returning: bool) -> Vec<Place> {
        let back = u64::from(returning && spot.offset > 0);
        let mut all = self
            .addresses(spot)
            .into_iter()
            .map(|begin| self.places_at(spot, begin.wrapping_add(spot.offset).wrapping_sub(back)));
        let Some(first) = all.next() else { return Vec::new() };
        if all.all(|places| places == first) { first } else { Vec::new() }
    }

    fn places_at(&self, spot: &Spot, address: u64) -> Vec<Place> {
        let Some(lines) = self.lines.as_ref().filter(|lines| self.is_shallow(lines, address)) else {
            return Vec::new();
        };
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

    pub fn spot_at(&self, address: u64) -> Option<Spot> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = &self.functions[after.checked_sub(1)?];
        let offset = address - function.address;
        let (name, size) = (function.name.clone(), function.distance);
        (offset < size).then_some(Spot { function: name, offset, size, module: None })
    }

    /// Where functions of this name and size begin: a kernel has many static functions of one name.
    fn addresses(&self, spot: &Spot) -> Vec<u64> {
        let Some(named) = self.by_name.get(&spot.function) else { return Vec::new() };
        let all: Vec<&Function> = named.iter().map(|&index| &self.functions[index]).collect();
        let of = |fits: &dyn Fn(&Function) -> bool| -> Vec<u64> {
            all.iter().filter(|it| fits(it)).map(|it| it.address).take(SAME_MAX).collect()
        };
        let exact = of(&|it| it.distance == spot.size);
        let near = if exact.is_empty() { of(&|it| it.size == spot.size) } else { exact };
        // What follows the last function of a module is not in its file.
        if near.is_empty() && spot.module.is_some() && all.len() == 1 {
            return vec![all[0].address];
        }
        near
    }

    /// Whether the debug information around an address can be read: addr2line calls itself for every
    /// level of nesting, and a hostile file has as many as it likes.
    fn is_shallow(&self, lines: &addr2line::Context<Reader>, address: u64) -> bool {
        let Some(unit) = lines.find_dwarf_and_unit(address).skip_all_loads() else { return true };
        let key = unit.unit.header.offset().0;
        if let Some(known) = self.shallow.borrow().get(&key) {
            return *known;
        }
        let shallow = depth_is_bounded(unit.unit).unwrap_or(false);
        self.shallow.borrow_mut().insert(key, shallow);
        shallow
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

/// Whether no entry of a unit is nested deeper than any compiler nests.
fn depth_is_bounded(unit: &gimli::Unit<Reader>) -> gimli::Result<bool> {
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        if entries.next_depth() > NESTED_MAX {
            return Ok(false);
        }
        if let Some(abbreviation) = entries.read_abbreviation()? {
            entries.skip_attributes(abbreviation.attributes())?;
        }
    }
    Ok(true)
}

/// Everything in executable sections that the kernel's own table of symbols has: what is written in
/// assembler has no type. Padding before functions is left out there too.
fn functions(file: &object::File, layout: &Layout) -> Vec<Function> {
    let code: HashSet<SectionIndex> =
        file.sections().filter(|section| section.kind() == SectionKind::Text).map(|it| it.index()).collect();
    let is_code = |symbol: &object::Symbol| {
        symbol.kind() == SymbolKind::Text
            || matches!(symbol.kind(), SymbolKind::Unknown | SymbolKind::Label)
                && symbol.section_index().is_some_and(|section| code.contains(&section))
    };
    let is_name =
        |name: &str| !name.is_empty() && !name.starts_with(['.', '$']) && !name.starts_with("__pfx_");
    let mut functions: Vec<Function> = file
        .symbols()
        .filter(|symbol| symbol.is_definition() && is_code(symbol))
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| is_name(name))?;
            let address = layout.base(symbol.section_index()).wrapping_add(symbol.address());
            Some(Function { name: name.to_owned(), address, size: symbol.size(), distance: symbol.size() })
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

type Lines = (Option<addr2line::Context<Reader>>, Vec<String>);

/// The debug information, if there is any, and what it says of where the sources lay.
fn debug_info(file: &object::File, layout: &Layout) -> Result<Lines, VmlinuxError> {
    if file.section_by_name(".debug_info").or_else(|| file.section_by_name(".zdebug_info")).is_none() {
        return Ok((None, Vec::new()));
    }
    let endian = match file.endianness() {
        Endianness::Little => RunTimeEndian::Little,
        Endianness::Big => RunTimeEndian::Big,
    };
    let section = |id: SectionId| -> Result<Reader, VmlinuxError> {
        let found = file.section_by_name(id.name()).map(|section| layout.data(file, &section)).transpose()?;
        Ok(Reader::new(Arc::from(found.unwrap_or_default()), endian))
    };
    let dwarf = Dwarf::load(section)?;
    let roots = roots(&dwarf)?;
    Ok((Some(addr2line::Context::from_dwarf(dwarf)?), roots))
}

/// Where the sources lay, as far as the debug information tells: the place of a file that every kernel
/// has, and the directory that the first file was compiled in. They differ for builds outside the tree.
fn roots(dwarf: &Dwarf<Reader>) -> Result<Vec<String>, VmlinuxError> {
    let mut units = dwarf.units();
    let mut compiled_in = None;
    let mut known = None;
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let text = |it: &Reader| String::from_utf8_lossy(it).into_owned();
        compiled_in = compiled_in.or_else(|| unit.comp_dir.as_ref().map(text));
        let place =
            unit.name.as_ref().and_then(|name| text(name).strip_suffix(KNOWN_FILE).map(str::to_owned));
        if place.is_some() {
            known = place;
            break;
        }
    }
    Ok(known.into_iter().chain(compiled_in).collect())
}
