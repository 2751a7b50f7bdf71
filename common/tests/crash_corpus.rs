//! Crash parsing against consoles with known answers: our fixtures, the shared corpus, and any bytes.

// Tests are hands: they read files and print what they found.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kulprit_common::crash::{ConsoleParser, Crash, Match, Target, compare, guilty_file, parse};
use proptest::prelude::*;

/// Shares of the shared corpus that must not be lost again, in per mille; just beneath what is reached.
const LEAST: &[(&str, usize)] = &[
    ("title", 980),
    ("alt titles", 985),
    ("type", 990),
    ("frame", 1000),
    ("corrupted", 980),
    ("suppressed", 995),
    ("panicked", 995),
    ("executor", 995),
    ("guilty file", 970),
];

/// What a fixture's or corpus file's header says of one crash.
#[derive(Debug, Default)]
struct Expected {
    title: String,
    alts: Vec<String>,
    kind: String,
    frame: Option<String>,
    frames: Option<String>,
    corrupted: bool,
    suppressed: bool,
    panicked: bool,
    executor: Option<String>,
}

/// Splits a file into the expected crashes and the console.
fn read(path: &Path) -> (Vec<Expected>, Vec<u8>) {
    let bytes = std::fs::read(path).expect("test data is readable");
    let (header, console) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        _ if bytes.starts_with(b"\n") => (&bytes[..0], &bytes[1..]),
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (&bytes[..], &bytes[..0]),
    };
    let mut crashes: Vec<Expected> = Vec::new();
    for line in String::from_utf8_lossy(header).lines() {
        let Some((key, value)) = line.split_once(": ") else { continue };
        if key == "TITLE" {
            crashes.push(Expected { title: value.to_owned(), ..Expected::default() });
        }
        let Some(crash) = crashes.last_mut() else { continue };
        match key {
            "ALT" => crash.alts.push(value.to_owned()),
            "TYPE" => crash.kind = value.to_owned(),
            "EXECUTOR" => crash.executor = Some(value.to_owned()),
            "SUPPRESSED" => crash.suppressed = true,
            "FRAME" => crash.frame = Some(value.to_owned()),
            "FRAMES" => crash.frames = Some(value.to_owned()),
            "CORRUPTED" => crash.corrupted = true,
            "PANICKED" => crash.panicked = true,
            _ => {}
        }
    }
    for crash in &mut crashes {
        crash.alts.sort();
    }
    (crashes, console.to_vec())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("test data is readable");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable entry").path()).collect();
    files.sort();
    files
}

#[test]
fn fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crash");
    for path in files(&folder) {
        let (expected, console) = read(&path);
        let crashes = parse(&console);
        let titles: Vec<&str> = crashes.iter().map(|crash| crash.title.as_str()).collect();
        let wanted: Vec<&str> = expected.iter().map(|crash| crash.title.as_str()).collect();
        assert_eq!(titles, wanted, "{}", path.display());
        for (crash, expected) in crashes.iter().zip(&expected) {
            assert_eq!(crash.alt_titles, expected.alts, "{}", path.display());
            assert_eq!(crash.frame, expected.frame, "{}", path.display());
            assert_eq!(crash.corrupted, expected.corrupted, "{}", path.display());
            assert_eq!(crash.panicked, expected.panicked, "{}", path.display());
            if let Some(frames) = &expected.frames {
                assert_eq!(crash.frames.join(" "), *frames, "{}", path.display());
            }
            assert!(crash.first_line <= crash.last_line && !crash.report.is_empty(), "{}", path.display());
        }
    }
}

#[derive(Default)]
struct Score {
    right: usize,
    of: usize,
}

impl Score {
    fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.of += 1;
    }

    fn per_mille(&self) -> usize {
        (self.right * 1000).checked_div(self.of).unwrap_or(1000)
    }
}

#[test]
fn shared_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/crash-corpus/report");
    if !folder.is_dir() {
        eprintln!("skipped: no corpus at {}", folder.display());
        return;
    }
    let mut scores = Scores::default();
    let mut silent = Score::default();
    for path in files(&folder) {
        let (expected, console) = read(&path);
        let end = console.windows(9).position(|w| w == b"\nREPORT:\n").unwrap_or(console.len());
        let crashes = parse(&console[..end]);
        match expected.first() {
            Some(expected) => scores.compare(&path, expected, crashes.first()),
            None => silent.count(crashes.is_empty()),
        }
    }
    let guilty = folder.with_file_name("guilty");
    for path in files(&guilty) {
        let text =
            String::from_utf8_lossy(&std::fs::read(&path).expect("test data is readable")).into_owned();
        let (header, report) = text.split_once("\n\n").expect("a header and a report");
        let expected = header.lines().find_map(|line| line.strip_prefix("FILE: "));
        scores.check(&path, "guilty file", expected.unwrap_or(""), &guilty_file(report).unwrap_or_default());
    }
    println!("{}", scores.differing);
    println!("no crash where none is: {}/{}", silent.right, silent.of);
    for (what, score) in &scores.of {
        println!("{what}: {}/{} = {} per mille", score.right, score.of, score.per_mille());
    }
    assert_eq!(silent.right, silent.of, "a crash was reported where none is");
    for (what, least) in LEAST {
        assert!(scores.of[what].per_mille() >= *least, "{what}");
    }
}

/// What was compared, by name, and every difference in words.
#[derive(Default)]
struct Scores {
    of: BTreeMap<&'static str, Score>,
    differing: String,
}

impl Scores {
    fn check(&mut self, path: &Path, what: &'static str, expected: &str, found: &str) {
        self.of.entry(what).or_default().count(expected == found);
        if expected != found {
            let name = path.file_name().expect("a file has a name").display();
            let _ = writeln!(self.differing, "{name}\t{what}\t{expected:?} found {found:?}");
        }
    }

    fn compare(&mut self, path: &Path, expected: &Expected, found: Option<&Crash>) {
        let yes = |it: bool| if it { "yes" } else { "no" };
        let of = |get: &dyn Fn(&Crash) -> String| found.map_or_else(|| "no crash".to_owned(), get);
        self.check(path, "title", &expected.title, &of(&|it| it.title.clone()));
        self.check(path, "alt titles", &expected.alts.join(" | "), &of(&|it| it.alt_titles.join(" | ")));
        self.check(path, "type", &expected.kind, &of(&|it| it.kind().to_owned()));
        self.check(path, "corrupted", yes(expected.corrupted), &of(&|it| yes(it.corrupted).to_owned()));
        self.check(path, "suppressed", yes(expected.suppressed), &of(&|it| yes(it.suppressed).to_owned()));
        self.check(path, "panicked", yes(expected.panicked), &of(&|it| yes(it.panicked).to_owned()));
        if let Some(frame) = &expected.frame {
            self.check(path, "frame", frame, &of(&|it| it.frame.clone().unwrap_or_default()));
        }
        let executor = |it: &Crash| {
            it.executor().map_or_else(String::new, |it| format!("proc={}, id={}", it.proc, it.id))
        };
        self.check(path, "executor", expected.executor.as_deref().unwrap_or(""), &of(&executor));
    }
}

/// Parses in chunks whose lengths repeat `lengths`.
fn parse_chunked(console: &[u8], lengths: &[usize]) -> Vec<Crash> {
    let mut parser = ConsoleParser::new();
    let mut crashes = Vec::new();
    let mut rest = console;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at((*length).clamp(1, rest.len()));
        crashes.extend(parser.feed(chunk));
        rest = tail;
    }
    crashes.extend(parser.finish());
    crashes
}

/// Lines of all fixtures in any order, with some noise: close to real consoles, and to broken ones.
fn shuffled_lines() -> impl Strategy<Value = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crash");
    let lines: Vec<Vec<u8>> = files(&folder)
        .iter()
        .flat_map(|path| read(path).1.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect();
    let line = prop_oneof![9 => prop::sample::select(lines), 1 => prop::collection::vec(any::<u8>(), 0..80)];
    prop::collection::vec(line, 0..120).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_never_panic(console in prop::collection::vec(any::<u8>(), 0..4096)) {
        parse(&console);
    }

    #[test]
    fn chunking_changes_nothing(
        console in shuffled_lines(),
        lengths in prop::collection::vec(1usize..200, 1..8),
    ) {
        let whole = parse(&console);
        prop_assert_eq!(&parse_chunked(&console, &lengths), &whole);
        for pair in whole.windows(2) {
            prop_assert!(pair[0].first_line <= pair[1].first_line);
        }
        for crash in &whole {
            prop_assert!(crash.title.chars().count() <= 120 && crash.frames.len() <= 32);
            prop_assert!(crash.files.len() <= 32 && crash.report.len() <= 64 * 1024);
        }
    }
}

#[test]
fn a_started_crash_is_told_before_its_report_is_complete() {
    let mut parser = ConsoleParser::new();
    assert!(parser.feed(b"[    1.000000] all is well\n").is_empty());
    assert!(!parser.crash_started());
    assert!(parser.feed(b"[    2.000000] kernel BUG at mm/slab.c:1!\n").is_empty());
    assert!(parser.crash_started());
    assert_eq!(parser.finish().len(), 1);
}

#[test]
fn the_same_bug_by_another_title_is_related() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crash");
    let crashes = |name: &str| parse(&read(&folder.join(name)).1);
    let ring = crashes("register-key-then-gpf.txt");
    let target = target(&ring[1]);
    assert_eq!(compare(&target, &ring[1]), Match::Same);
    assert_eq!(compare(&target, &ring[0]), Match::Related);
    assert_eq!(compare(&target, &crashes("task-hung.txt")[0]), Match::Unrelated);
}

#[test]
fn a_flood_of_crashes_is_bounded() {
    let flood = "[    2.000000] kernel BUG at mm/slab.c:1!\n".repeat(5000);
    let crashes = parse(flood.as_bytes());
    assert_eq!(crashes.len(), 1000);
}

/// The crash at the end of a recorded bisection log, by the title that the log gives it.
fn seed(name: &str) -> Option<(String, Vec<Crash>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seeds").join(name);
    let text = std::fs::read_to_string(path).ok()?;
    let (title, report) = text.split_once("\ncrash: ")?.1.split_once('\n')?;
    Some((title.to_owned(), parse(report.as_bytes())))
}

fn target(crash: &Crash) -> Target {
    let Crash { title, alt_titles, frames, files, .. } = crash.clone();
    Target { title, alt_titles, frames, files }
}

/// One rule for both: what misled one recorded bisection is no kin of its target, and what the
/// other one met on its way is.
#[test]
fn recorded_bisections_are_told_apart() {
    let names = ["000_a56d280c9f3660c7.txt", "001_c44cd56752ba921a.txt", "004_31b8e8139fc28d69.txt"];
    let Some([frames, kvm, ring]) =
        names.iter().map(|name| seed(name)).collect::<Option<Vec<_>>>().map(|all| {
            let all: [_; 3] = all.try_into().expect("three seeds");
            all
        })
    else {
        eprintln!("skipped: no recorded bisections beside the repository");
        return;
    };
    for (title, crashes) in [&frames, &kvm, &ring] {
        assert!(crashes.iter().any(|crash| crash.title == *title), "{title} is not in {crashes:#?}");
    }
    // Blamed wrongly: every run of the blamed commit showed a stray warning of the lock code.
    let mut pinned = target(&frames.1[0]);
    pinned.title = "WARNING in unsafe_follow_pfn".to_owned();
    pinned.frames.insert(0, "unsafe_follow_pfn".to_owned());
    assert_eq!(compare(&pinned, &kvm.1[0]), Match::Unrelated);
    // Blamed rightly: other titles on the way to the same place, the target's own fault behind them.
    let start = Target {
        title: "general protection fault in io_commit_cqring".to_owned(),
        alt_titles: vec!["bad-access in io_commit_cqring".to_owned()],
        frames: [
            "io_commit_cqring",
            "io_cqring_overflow_flush",
            "io_ring_ctx_wait_and_kill",
            "io_uring_setup",
        ]
        .map(str::to_owned)
        .into(),
        files: vec!["fs/io_uring.c".to_owned()],
    };
    let key = ring.1.iter().find(|crash| crash.title == ring.0).expect("checked above");
    assert_eq!(compare(&start, key), Match::Related);
    assert_eq!(compare(&start, &kvm.1[0]), Match::Unrelated);
    assert_eq!(compare(&pinned, key), Match::Unrelated);
}
