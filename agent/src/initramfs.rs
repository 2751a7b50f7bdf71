//! The initramfs of a run: a base with our init, and behind it an archive with the run's own files.
//!
//! Format: cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
//! The kernel unpacks archives that follow each other, so the base is made once.

use std::path::Path;
use std::sync::LazyLock;

/// Our static init, as the build script built it.
static INIT: &[u8] = include_bytes!(env!("KULPRIT_GUEST_INIT"));

static BASE: LazyLock<Vec<u8>> = LazyLock::new(base);

/// Directories in which init finds things or mounts them.
const DIRECTORIES: [&str; 8] = ["bin", "dev", "kulprit", "proc", "root", "run", "sys", "tmp"];

/// Character devices with major and minor number, for kernels without devtmpfs.
const DEVICES: [(&str, u32, u32); 10] = [
    ("dev/console", 5, 1),
    ("dev/full", 1, 7),
    ("dev/kmsg", 1, 11),
    ("dev/null", 1, 3),
    ("dev/random", 1, 8),
    ("dev/tty", 5, 0),
    ("dev/ttyS0", 4, 64),
    ("dev/ttyS1", 4, 65),
    ("dev/urandom", 1, 9),
    ("dev/zero", 1, 5),
];

/// What init is to do in one run. `guest-init/src/plan.rs` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Proves that a result line is from our init.
    pub nonce: &'a str,
    /// The same for the kernel's log, which the reproducer can read; so another one.
    pub marker: &'a str,
    pub settle_ms: u64,
    pub reproducer_ms: u64,
    pub linger_ms: u64,
    /// Whether the reproducer is a script; it then needs a busybox.
    pub script: bool,
    pub args: &'a [String],
}

impl Plan<'_> {
    fn render(&self, busybox: bool) -> String {
        let yes = |flag| if flag { "yes" } else { "no" };
        let mut text = format!(
            "nonce={}\nmarker={}\nsettle_ms={}\nreproducer_ms={}\nlinger_ms={}\nscript={}\nbusybox={}\n",
            self.nonce,
            self.marker,
            self.settle_ms,
            self.reproducer_ms,
            self.linger_ms,
            yes(self.script),
            yes(busybox)
        );
        for arg in self.args {
            let arg = arg.replace('\\', "\\\\").replace('\n', "\\n");
            text.push_str(&format!("arg={arg}\n"));
        }
        text
    }
}

/// The whole initramfs of a run. Equal input gives equal bytes.
pub fn build(plan: &Plan, reproducer: &[u8], busybox: Option<&[u8]>) -> Vec<u8> {
    let mut run = Archive::default();
    run.file("kulprit/plan", 0o600, plan.render(busybox.is_some()).as_bytes());
    run.file("kulprit/reproducer", 0o755, reproducer);
    if let Some(busybox) = busybox {
        run.file("bin/busybox", 0o755, busybox);
        run.symlink("bin/sh", "busybox");
    }
    let mut image = BASE.clone();
    image.extend(run.finish());
    image
}

fn base() -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    for (name, major, minor) in DEVICES {
        archive.device(name, major, minor);
    }
    archive.file("init", 0o755, INIT);
    archive.finish()
}

/// Why the host's busybox is of no use in a guest.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    #[error("scripts need a static busybox, and `{path}` cannot be read: {error}; install busybox-static")]
    Missing { path: String, error: std::io::Error },
    #[error("`{path}` is not an x86-64 executable; install busybox-static")]
    NotExecutable { path: String },
    #[error("`{path}` is linked dynamically, and guests have no libraries; install busybox-static")]
    Dynamic { path: String },
}

/// Reads a busybox that can run in a guest.
pub fn read_busybox(path: &Path) -> Result<Vec<u8>, BusyboxError> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| BusyboxError::Missing { path: name(), error })?;
    match asks_for_interpreter(&bytes) {
        Some(false) => Ok(bytes),
        Some(true) => Err(BusyboxError::Dynamic { path: name() }),
        None => Err(BusyboxError::NotExecutable { path: name() }),
    }
}

/// Whether an ELF executable names a dynamic linker; `None` if it is none for x86-64.
fn asks_for_interpreter(bytes: &[u8]) -> Option<bool> {
    use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = FileHeader64::<object::Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    if header.e_machine(endian) != EM_X86_64 {
        return None;
    }
    let segments = header.program_headers(endian, bytes).ok()?;
    Some(segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP))
}

/// A cpio archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), b"");
    }

    fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, 0o020_666, (major, minor), b"");
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, (0, 0), content);
    }

    fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, 0o120_777, (0, 0), target.as_bytes());
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GiB");
        let name_size = name.len() as u32 + 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend(content);
        self.pad(4);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.pad(512);
        self.bytes
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists what archives behind each other contain, as the kernel would read it.
    fn list(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            // Between archives the kernel skips zeros.
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes = &bytes[zeros..];
            if bytes.is_empty() {
                return entries;
            }
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let at = 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let content_at = (110 + name_size).next_multiple_of(4);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let content = bytes[content_at..content_at + size].to_vec();
            bytes = &bytes[(content_at + size).next_multiple_of(4)..];
            if name != "TRAILER!!!" {
                entries.push((name, mode, content));
            }
        }
    }

    fn plan(args: &[String]) -> Plan<'_> {
        Plan { nonce: "n", marker: "m", settle_ms: 1, reproducer_ms: 2, linger_ms: 3, script: true, args }
    }

    #[test]
    fn the_image_holds_init_devices_and_the_run() {
        let args = ["a b".to_owned(), "line\nbreak\\".to_owned()];
        let image = build(&plan(&args), b"#!/bin/sh\n", Some(b"BB"));
        assert_eq!(image.len() % 512, 0);
        let entries = list(&image);
        let find = |name: &str| entries.iter().find(|entry| entry.0 == name).unwrap();
        assert_eq!(find("init").1, 0o100_755);
        assert_eq!(find("init").2, INIT);
        assert_eq!(find("dev/console").1, 0o020_666);
        assert_eq!(find("dev/null").1, 0o020_666);
        assert_eq!(find("kulprit/reproducer").2, b"#!/bin/sh\n");
        assert_eq!(find("bin/busybox").2, b"BB");
        assert_eq!(find("bin/sh").2, b"busybox");
        let text = String::from_utf8(find("kulprit/plan").2.clone()).unwrap();
        let expected = "nonce=n\nmarker=m\nsettle_ms=1\nreproducer_ms=2\nlinger_ms=3\nscript=yes\n\
                        busybox=yes\narg=a b\narg=line\\nbreak\\\\\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn directories_come_before_what_they_hold() {
        let image = build(&plan(&[]), b"", None);
        let names: Vec<_> = list(&image).into_iter().map(|entry| entry.0).collect();
        for (index, name) in names.iter().enumerate() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(names[..index].iter().any(|earlier| earlier == parent), "{name}");
            }
        }
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        assert_eq!(build(&plan(&[]), b"x", None), build(&plan(&[]), b"x", None));
    }

    #[test]
    fn our_init_is_static() {
        assert_eq!(asks_for_interpreter(INIT), Some(false));
    }

    #[test]
    fn a_busybox_of_no_use_is_named_with_what_to_do() {
        let missing = read_busybox(Path::new("/nonexistent/busybox")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/busybox") && missing.contains("busybox-static"), "{missing}");
        let dynamic = read_busybox(Path::new("/bin/ls")).unwrap_err();
        assert!(matches!(dynamic, BusyboxError::Dynamic { .. }), "{dynamic}");
        let text = read_busybox(Path::new("/etc/passwd")).unwrap_err();
        assert!(matches!(text, BusyboxError::NotExecutable { .. }), "{text}");
    }
}
