//! Source lines of a small program that the machine's compiler builds as a kernel is built.

use super::*;
use object::{Object as _, ObjectSection as _};
use std::process::Command;

const SOURCE: &str = "\
volatile int seen;
static inline __attribute__((always_inline)) void planted(int value)
{
	seen = value;
	__asm__ volatile (\"nop; nop\");
}
__attribute__((noinline)) int caller(int value)
{
	seen = 1;
	if (value)
		planted(value);
	return seen;
}
int _start(void)
{
	return caller(seen) + 1;
}
";

fn symbolise(report: &str, symbols: &Vmlinux) -> String {
    kulprit_common::crash::symbolise(report, symbols).report
}

/// Builds `SOURCE` in `dir`; nothing where the machine has no compiler.
fn build(dir: &Path, flags: &[&str]) -> Option<PathBuf> {
    std::fs::create_dir_all(dir.join("fs/gamma")).expect("made");
    std::fs::write(dir.join("fs/gamma/planted.c"), SOURCE).expect("written");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(dir).args(["-O2", "-ffreestanding", "-nostdlib", "-static", "-no-pie"]).args(flags);
    let built = gcc.args(["-o", "vmlinux", "fs/gamma/planted.c"]).output().ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(dir.join("vmlinux"))
}

/// A frame for each byte of `caller`, as a trap there would be printed.
fn traps(vmlinux: &Vmlinux) -> Vec<String> {
    let caller =
        vmlinux.image.functions.iter().find(|it| it.name == "caller").expect("the function is there");
    (0..caller.size).map(|offset| format!("RIP: 0010:caller+{offset:#x}/{:#x}", caller.distance)).collect()
}

#[test]
fn lines_and_inlined_callers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(path) = build(dir.path(), &["-g"]) else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    let vmlinux = Vmlinux::open(&path, None).expect("read");
    assert!(vmlinux.has_lines());
    let all: Vec<String> = traps(&vmlinux).iter().map(|trap| symbolise(trap, &vmlinux)).collect();
    let trap = traps(&vmlinux).into_iter().zip(&all).find(|(_, text)| text.contains("planted.c:5"));
    let (trap, text) = trap.unwrap_or_else(|| panic!("no line of the trap in {all:?}"));
    let expected = format!("RIP: 0010:planted fs/gamma/planted.c:5 [inline]\n{trap} fs/gamma/planted.c:11\n");
    assert_eq!(*text, expected);

    // The same from a file as the farm keeps it, with the root said.
    let packed = dir.path().join("vmlinux.zst");
    let bytes = zstd::encode_all(&std::fs::read(&path).expect("read")[..], 1).expect("packed");
    std::fs::write(&packed, bytes).expect("written");
    let vmlinux = Vmlinux::open(&packed, Some(dir.path())).expect("read");
    assert_eq!(symbolise(&trap, &vmlinux), expected);

    // A function of another size is that of another kernel.
    let other = trap.rsplit_once('/').expect("a size").0.to_owned() + "/0xfff";
    assert_eq!(symbolise(&other, &vmlinux), format!("{other}\n"));
    let caller = vmlinux.image.functions.iter().find(|it| it.name == "caller").expect("there");
    let spot = vmlinux.spot_at(caller.address + 1).expect("inside");
    assert_eq!((spot.function.as_str(), spot.offset), ("caller", 1));
    assert_eq!(vmlinux.spot_at(0), None);
}

#[test]
fn paths_are_relative_to_where_a_kernel_built_elsewhere_had_its_sources() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, objects) = (dir.path().join("source"), dir.path().join("objects"));
    for place in [&source.join("init"), &source.join("fs"), &objects] {
        std::fs::create_dir_all(place).expect("made");
    }
    std::fs::write(source.join("init/main.c"), SOURCE).expect("written");
    std::fs::write(source.join("fs/first.c"), "int first(void) { return 1; }\n").expect("written");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(&objects).args(["-O2", "-g", "-ffreestanding", "-nostdlib", "-static", "-no-pie"]);
    gcc.args(["-o", "vmlinux"]).args([source.join("fs/first.c"), source.join("init/main.c")]);
    let Ok(built) = gcc.output() else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let vmlinux = Vmlinux::open(&objects.join("vmlinux"), None).expect("read");
    let all: String = traps(&vmlinux).iter().map(|trap| symbolise(trap, &vmlinux)).collect();
    assert!(all.contains(" init/main.c:11\n") && !all.contains("source/"), "{all}");
}

#[test]
fn a_kernel_without_debug_information_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(path) = build(dir.path(), &[]) else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    let vmlinux = Vmlinux::open(&path, None).expect("read");
    assert!(!vmlinux.has_lines());
    let trap = &traps(&vmlinux)[0];
    assert_eq!(symbolise(trap, &vmlinux), format!("{trap}\n"));
    let stripped = build(dir.path(), &["-s"]).expect("it was there before");
    assert!(matches!(Vmlinux::open(&stripped, None), Err(VmlinuxError::NoSymbols)));
}

#[test]
fn what_is_no_kernel_is_refused() {
    assert!(matches!(Vmlinux::read(b"", None), Err(VmlinuxError::NotElf(_))));
    assert!(matches!(Vmlinux::read(b"\x7fELF\x02\x01\x01", None), Err(VmlinuxError::NotElf(_))));
    let absent = Vmlinux::open(Path::new("/nowhere/vmlinux"), None);
    assert!(matches!(absent, Err(VmlinuxError::Unreadable(_))));
}

/// Two functions in sections of their own, so that both begin at 0 in the file.
const MODULE: &str = "\
volatile int seen;
static inline __attribute__((always_inline)) void first(void)
{
	seen = 4;
}
__attribute__((section(\".init.text\"), noinline)) int begin(void)
{
	return seen;
}
__attribute__((noinline)) int work(int value)
{
	seen = value;
	first();
	return seen;
}
";

#[test]
fn functions_of_modules_have_lines() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(kernel) = build(dir.path(), &["-g"]) else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    let module_dir = dir.path().join("drivers/delta");
    std::fs::create_dir_all(&module_dir).expect("made");
    std::fs::write(module_dir.join("my-mod.c"), MODULE).expect("written");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(dir.path()).args(["-O2", "-g", "-ffreestanding", "-c", "-o", "drivers/delta/my-mod.ko"]);
    let built = gcc.arg("drivers/delta/my-mod.c").output().expect("gcc runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let vmlinux = Vmlinux::open(&kernel, None).expect("read").with_modules(dir.path().into());
    let file = "drivers/delta/my-mod.c";
    let everywhere = |function: &str| -> Vec<String> {
        let frame = |at| format!("RIP: 0010:{function}+{at:#x}/0x99 [my_mod]");
        (0..32).map(|at| symbolise(&frame(at), &vmlinux)).collect()
    };
    for (function, line) in
        [("work", format!("{file}:12 [my_mod]\n")), ("begin", format!("{file}:8 [my_mod]\n"))]
    {
        let all = everywhere(function);
        assert!(all.iter().any(|text| text.ends_with(&line)), "{line} is not in {all:?}");
        assert!(all.iter().all(|text| !text.contains("planted.c")), "{all:?}");
    }
    let inline = format!("RIP: 0010:first {file}:4 [inline] [my_mod]\n");
    let all = everywhere("work");
    assert!(all.iter().any(|text| text.starts_with(&inline)), "{all:?}");
    for unknown in [" work+0x0/0x99 [other]", " work+0x0/0x99"] {
        assert_eq!(symbolise(unknown, &vmlinux), format!("{unknown}\n"));
    }
}

/// Fuzzing damaged the header of a compressed section: gigabytes were set aside for nothing.
#[test]
fn a_section_that_says_more_than_it_can_hold_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(path) = build(dir.path(), &["-g", "-gz"]) else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    let mut elf = std::fs::read(&path).expect("read");
    let packed = |section: &object::Section| {
        let range = section.compressed_file_range().ok()?;
        (range.format != object::CompressionFormat::None).then_some(range.offset as usize)
    };
    let file = object::File::parse(&elf[..]).expect("an ELF file");
    let data = file.sections().find_map(|it| packed(&it)).expect("a section is compressed");
    // Before the data stand its unpacked size and its alignment, eight bytes each.
    let size = 1u64 << 40;
    elf[data - 16..data - 8].copy_from_slice(&size.to_le_bytes());
    let refused = Vmlinux::read(&elf, None).err();
    assert!(matches!(refused, Some(VmlinuxError::Oversized(_, said)) if said == size), "{refused:?}");
}

#[test]
fn functions_of_one_name_and_size_are_told_only_if_they_agree() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let body = "static int __attribute__((noinline, used)) same(int x) { return x * 3; }\n";
    let main = "int other(int x);\nint _start(void) { return same(1) + other(2); }\n";
    let other = "int other(int x) { return same(x); }\n";
    for (name, rest) in [("one.c", main), ("two.c", other)] {
        std::fs::write(dir.path().join(name), format!("{body}{rest}")).expect("written");
    }
    let mut gcc = Command::new("gcc");
    gcc.current_dir(dir.path()).args(["-O1", "-g", "-ffreestanding", "-nostdlib", "-static", "-no-pie"]);
    let Ok(built) = gcc.args(["-o", "vmlinux", "one.c", "two.c"]).output() else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let vmlinux = Vmlinux::open(&dir.path().join("vmlinux"), None).expect("read");
    let sizes: Vec<u64> =
        vmlinux.image.functions.iter().filter(|it| it.name == "same").map(|it| it.distance).collect();
    assert!(sizes.len() == 2 && sizes[0] == sizes[1], "{sizes:?}");
    let frame = format!(" same+0x1/{:#x}\n", sizes[0]);
    assert_eq!(symbolise(&frame, &vmlinux), frame);
}

#[test]
fn what_is_no_file_is_not_read() {
    for path in ["/dev/zero", "/proc/self"] {
        assert!(matches!(Vmlinux::open(Path::new(path), None), Err(VmlinuxError::Unreadable(_))), "{path}");
    }
    // A file of zeros packs too well to be a kernel.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bomb = dir.path().join("vmlinux.zst");
    std::fs::write(&bomb, zstd::encode_all(&vec![0; 64 << 20][..], 1).expect("packed")).expect("written");
    assert!(matches!(Vmlinux::open(&bomb, None), Err(VmlinuxError::Unreadable(_))));
}

/// Reading nested functions recurses: a hostile file could end the process.
#[test]
fn debug_information_nested_beyond_reason_tells_nothing() {
    use std::fmt::Write as _;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut source =
        String::from("static inline __attribute__((always_inline)) int f0(volatile int *x) { return *x; }\n");
    for n in 1..600 {
        let before = n - 1;
        let _ = writeln!(
            source,
            "static inline __attribute__((always_inline)) int f{n}(volatile int *x) {{ return f{before}(x) + *x; }}"
        );
    }
    source.push_str("__attribute__((noinline)) int caller(volatile int *x) { return f599(x); }\nint seen;\nint _start(void) { return caller(&seen); }\n");
    std::fs::write(dir.path().join("deep.c"), source).expect("written");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(dir.path()).args(["-O1", "-g", "-ffreestanding", "-nostdlib", "-static", "-no-pie"]);
    let Ok(built) = gcc.args(["-o", "vmlinux", "deep.c"]).output() else {
        eprintln!("skipped: no gcc on this machine");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let vmlinux = Vmlinux::open(&dir.path().join("vmlinux"), None).expect("read");
    let trap = &traps(&vmlinux)[4];
    assert_eq!(symbolise(trap, &vmlinux), format!("{trap}\n"));
}
