//! `kulprit parse`: the crashes in console files, as titles, facts and reports. No farm is needed.

use super::args::{Format, ParseArgs};
use super::failure::Failure;
use super::say::say;
use crate::vmlinux::Vmlinux;
use kulprit_common::crash::{ConsoleParser, Crash, disassembly, guilty_file, symbolise};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

/// Bytes read at once; one crash-free GiB then costs no more memory than this.
const CHUNK_BYTES: usize = 256 * 1024;
/// What is kept of an input as it came, for reports whose first line is no longer there.
const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// How terminals of Windows begin what they save.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// Stands for standard input where a file is asked for.
const STDIN: &str = "-";

/// What one input holds.
struct Parsed {
    file: String,
    crashes: Vec<Crash>,
    guilty_file: Option<String>,
}

pub fn parse(args: &ParseArgs) -> Result<u8, Failure> {
    let vmlinux = args.vmlinux.as_deref().map(|path| open(path, args)).transpose()?;
    let mut out = io::stdout().lock();
    let mut unreadable = Vec::new();
    for path in &args.files {
        let parsed = match read(path, vmlinux.as_ref()) {
            Ok(parsed) => parsed,
            // The other files are read all the same.
            Err(why) => {
                unreadable.push(why);
                continue;
            }
        };
        let text = match args.output.format {
            Format::Json => format!("{}\n", document(&parsed)),
            Format::Table => describe(&parsed),
        };
        out.write_all(text.as_bytes()).map_err(Failure::output)?;
    }
    out.flush().map_err(Failure::output)?;
    if unreadable.is_empty() { Ok(0) } else { Err(Failure::Input(unreadable.join("\n"))) }
}

/// Reads the kernel that is to tell source lines, and says if it cannot.
fn open(path: &Path, args: &ParseArgs) -> Result<Vmlinux, Failure> {
    let vmlinux = Vmlinux::open(path, args.source_root.as_deref())
        .map_err(|error| Failure::Input(format!("--vmlinux {}: {error}", shown(path))))?;
    if !vmlinux.has_lines() {
        say(&format!(
            "warning: {} has no debug information, so reports get no source lines; build it with \
             CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y",
            shown(path)
        ));
    }
    let beside = || path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let modules = args.modules.as_deref().unwrap_or_else(beside);
    if !modules.is_dir() {
        return Err(Failure::Input(format!("--modules {}: is no directory", shown(modules))));
    }
    Ok(vmlinux.with_modules(modules.to_owned()))
}

/// Gives reports source lines. Functions that are not known are most likely another kernel's.
fn symbolise_all(file: &str, crashes: &mut [Crash], vmlinux: &Vmlinux) {
    let (mut known, mut unknown) = (0, 0);
    for crash in crashes {
        let symbolised = symbolise(&crash.report, vmlinux);
        known += symbolised.known;
        unknown += symbolised.unknown;
        crash.report = symbolised.report;
    }
    if unknown > 0 && vmlinux.has_lines() {
        let all = known + unknown;
        say(&format!(
            "warning: {file}: the vmlinux does not know {unknown} of {all} frames; is it of the kernel that printed this?"
        ));
    }
}

fn read(path: &Path, vmlinux: Option<&Vmlinux>) -> Result<Parsed, String> {
    let file = shown(path);
    let unreadable = |error: io::Error| {
        format!("{file}: cannot be read: {error}; give a console log, or - for standard input")
    };
    let mut input: Box<dyn Read> = if path == Path::new(STDIN) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut parser = ConsoleParser::new();
    let mut crashes = Vec::new();
    let mut head = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        crashes.extend(parser.feed(&chunk[..length]));
        let room = HEAD_BYTES_MAX - head.len();
        head.extend_from_slice(&chunk[..length.min(room)]);
    }
    let cut = parser.is_full();
    crashes.extend(parser.finish());
    if cut {
        let kept = crashes.len();
        say(&format!("warning: {file}: only the first {kept} crashes are kept; what follows was not read"));
    }
    if let Some(vmlinux) = vmlinux {
        symbolise_all(&file, &mut crashes, vmlinux);
    }
    if UTF16_MARKS.iter().any(|mark| head.starts_with(mark)) {
        say(&format!(
            "warning: {file}: is UTF-16, which no kernel writes; convert it: iconv -f UTF-16 -t UTF-8"
        ));
    }
    let guilty = crashes.first().and_then(|crash| guilty_file(&crash.report));
    let guilty_file = guilty.or_else(|| {
        let head = String::from_utf8_lossy(&head);
        head.lines().any(is_symbolised).then(|| guilty_file(&head)).flatten()
    });
    Ok(Parsed { file: path.display().to_string(), crashes, guilty_file })
}

/// Says whether a line is a frame of a report that was given source lines, not one of a console.
fn is_symbolised(line: &str) -> bool {
    if line.starts_with('[') && !line.starts_with("[<") {
        return false;
    }
    let place = |after: &str| {
        after.split_whitespace().nth(1).is_some_and(|place| place.contains(".") && place.contains(':'))
    };
    line.ends_with("[inline]")
        || line.split_once("/0x").is_some_and(|(before, after)| before.contains("+0x") && place(after))
}

/// A path for messages; a file's name may hold anything, and terminals obey some of it.
fn shown(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "?")
}

/// The object of `-o json`; its keys are stable, lines count from 1.
fn document(parsed: &Parsed) -> Value {
    let crash = |crash: &Crash| {
        json!({
            "title": crash.title,
            "alt_titles": crash.alt_titles,
            "type": crash.kind(),
            "frame": crash.frame,
            "corrupted": crash.corrupted,
            "suppressed": crash.suppressed,
            "panicked": crash.panicked,
            "executor": crash.executor(),
            "first_line": crash.first_line + 1,
            "last_line": crash.last_line + 1,
            "report": crash.report,
        })
    };
    json!({
        "file": parsed.file,
        "crashes": parsed.crashes.iter().map(crash).collect::<Vec<_>>(),
        "guilty_file": parsed.guilty_file,
    })
}

/// What a person reads: every title with its facts, then the first report with its instructions.
fn describe(parsed: &Parsed) -> String {
    let mut text = match parsed.crashes.len() {
        0 => format!("{}: no crash\n", parsed.file),
        1 => format!("{}: 1 crash\n", parsed.file),
        many => format!("{}: {many} crashes\n", parsed.file),
    };
    for crash in &parsed.crashes {
        let _ = writeln!(text, "\n{}", crash.title);
        for alt in &crash.alt_titles {
            let _ = writeln!(text, "  also       {alt}");
        }
        for (name, value) in facts(crash) {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
    }
    if let Some(file) = &parsed.guilty_file {
        let _ = writeln!(text, "\nguilty file: {file}");
    }
    if let Some(first) = parsed.crashes.first() {
        let _ = write!(text, "\n{}", first.report);
        if let Some(code) = disassembly(&first.report) {
            let _ = write!(text, "----------------\n{code}");
        }
    }
    // A console may hold anything; the terminal gets only what prints.
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "?")
}

fn facts(crash: &Crash) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !crash.kind().is_empty() {
        facts.push(("type", crash.kind().to_owned()));
    }
    if let Some(frame) = &crash.frame {
        facts.push(("frame", frame.clone()));
    }
    facts.push(("lines", format!("{} to {}", crash.first_line + 1, crash.last_line + 1)));
    if let Some(executor) = crash.executor() {
        facts.push(("executor", format!("process {}, program {}", executor.proc, executor.id)));
    }
    for (is, note) in [
        (crash.corrupted, "corrupted: part of the report is missing"),
        (crash.suppressed, "suppressed: the guest's memory or programs failed first"),
        (crash.panicked, "the kernel panicked"),
    ] {
        if is {
            facts.push(("note", note.to_owned()));
        }
    }
    facts
}
