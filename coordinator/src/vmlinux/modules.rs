//! Modules of a kernel: their files are found by name in its build tree, and read once asked for.

use super::image::Image;
use super::read_file;
use kulprit_common::crash::{Place, Spot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A kernel's build tree has some 10,000 directories; what has more is none.
const DIRECTORIES_MAX: usize = 100_000;

/// Modules below a directory.
pub(super) struct Modules {
    dir: PathBuf,
    /// Of the kernel itself: modules are compiled beside it.
    roots: Vec<String>,
    /// Files by module name; found when the first module is asked for.
    files: RefCell<Option<HashMap<String, PathBuf>>>,
    read: RefCell<HashMap<String, Option<Image>>>,
}

impl Modules {
    pub fn below(dir: PathBuf, roots: Vec<String>) -> Modules {
        Modules { dir, roots, files: RefCell::default(), read: RefCell::default() }
    }

    /// The source lines of a spot in a module; none where there is no such module, or none that can
    /// be read.
    pub fn places(&self, module: &str, spot: &Spot, returning: bool) -> Vec<Place> {
        let mut read = self.read.borrow_mut();
        let image = read.entry(module.to_owned()).or_insert_with(|| self.read(module));
        image.as_ref().map(|image| image.places(spot, returning)).unwrap_or_default()
    }

    fn read(&self, module: &str) -> Option<Image> {
        let mut files = self.files.borrow_mut();
        let path = files.get_or_insert_with(|| find(&self.dir)).get(module)?;
        let mut image = Image::read(&read_file(path).ok()?, None).ok()?;
        image.roots.splice(0..0, self.roots.iter().cloned());
        Some(image)
    }
}

/// Every `name.ko` or `name.ko.debug`, plain or packed with zstd, below a directory. Of two with one
/// name the first in order of paths counts; symbolic links are not followed.
fn find(dir: &Path) -> HashMap<String, PathBuf> {
    let mut found: HashMap<String, PathBuf> = HashMap::new();
    let mut directories = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        seen += 1;
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (path, file_name) = (entry.path(), entry.file_name());
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir)
                && seen + directories.len() < DIRECTORIES_MAX
            {
                directories.push(path);
            } else if kind.is_ok_and(|kind| kind.is_file())
                && let Some(name) = file_name.to_str().and_then(module_name)
            {
                let known = found.entry(name).or_insert_with(|| path.clone());
                if path < *known {
                    *known = path;
                }
            }
        }
    }
    found
}

/// The kernel writes modules' names with underscores, whatever their files are called.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.debug", ".ko.zst"].iter().find_map(|ending| file.strip_suffix(ending))?;
    Some(stem.replace('-', "_"))
}
