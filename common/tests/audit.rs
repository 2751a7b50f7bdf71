//! Audits of bisection logs: the seeds, whose truth is known, and logs made up for one point each.
// The ban on files is for the core, not for its tests.
#![allow(clippy::disallowed_methods)]

use kulprit_common::audit::{self, Audit, Close, Kind, Parser, Standing, Word};
use proptest::prelude::*;

fn seed(name: &str) -> Option<String> {
    let path = format!("{}/../../shared/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: no {path}");
    }
    text
}

fn audited(text: &str) -> Audit {
    audit::audit(&audit::read(text.as_bytes())).expect("a bisection log")
}

#[test]
fn the_derailed_seed_is_seen_through() {
    let Some(text) = seed("001_c44cd56752ba921a.txt") else { return };
    let audit = audited(&text);
    println!("{}", audit::text(&audit));
    let doubted = &audit.steps[audit.first_doubtful.expect("a doubtful step") - 1];
    assert_eq!(doubted.revision.short(), "d40b9fdee6dc");
    assert!(doubted.reason.contains("WARNING in kvm_wait"), "{}", doubted.reason);
    assert_eq!(audit.belief.standing, Standing::Rejected);
    assert_eq!(audit.suspects[0].revision.map(|it| it.short()).as_deref(), Some("1eabf46a7763"));
    let next: Vec<_> = audit.next.iter().map(|advice| advice.text.as_str()).collect();
    assert!(next.iter().any(|text| text.contains("1eabf46a7763 reverted")), "{next:?}");
    assert!(next.iter().any(|text| text.contains("fe07bfda2fb9")), "{next:?}");
    assert!(audit.wasted.runs_enough * 2 < audit.wasted.runs);
}

#[test]
fn the_right_seeds_are_upheld() {
    for name in ["000_a56d280c9f3660c7.txt", "004_31b8e8139fc28d69.txt"] {
        let Some(text) = seed(name) else { return };
        let audit = audited(&text);
        println!("{}", audit::text(&audit));
        assert_eq!(audit.belief.standing, Standing::Upheld, "{name}");
        assert_eq!(audit.first_doubtful, None, "{name}");
        assert_eq!(audit.suspects[0].revision, audit.belief.revision, "{name}");
    }
}

#[test]
fn carriage_returns_pieces_and_missing_ends_change_nothing_else() {
    let Some(text) = seed("001_c44cd56752ba921a.txt") else { return };
    let whole = audit::read(text.as_bytes());
    assert_eq!(audit::read(text.replace('\n', "\r\n").as_bytes()), whole);
    let mut parser = Parser::default();
    text.as_bytes().chunks(7).for_each(|piece| parser.feed(piece));
    assert_eq!(parser.finish(), whole);
    for cut in (0..text.len()).step_by(331) {
        let log = audit::read(&text.as_bytes()[..cut]);
        let Some(audit) = audit::audit(&log) else { continue };
        assert!(audit.suspects.iter().all(|it| (0.0..=1.0).contains(&it.probability)));
        let _ = audit::text(&audit);
    }
    // Without its head the log still says what was searched for.
    let from = text.find("# git bisect start").expect("a range");
    let headless = audited(&text[from..]);
    assert_eq!(headless.target.as_deref(), Some("WARNING in unsafe_follow_pfn"));
    assert_eq!(headless.kind, Kind::Cause);
    // And without the range too, from some step on.
    let from = text.find("Bisecting: 575").expect("a step");
    let tail = audited(&text[from..]);
    let doubted = &tail.steps[tail.first_doubtful.expect("a doubtful step") - 1];
    assert_eq!(doubted.revision.short(), "d40b9fdee6dc");
    assert_eq!(tail.belief.standing, Standing::Rejected);
}

fn id(n: usize) -> String {
    format!("{n:040x}")
}

/// A log over a line of commits 1 to `size`, the newer end last, made as git would.
struct Script {
    text: String,
    low: usize,
    high: usize,
    fix: bool,
}

impl Script {
    fn new(fix: bool, size: usize, title: &str) -> Script {
        let (header, old, new) = match fix {
            false => (
                format!("bisecting cause commit starting from {}", id(size)),
                "OK".into(),
                format!("crashed: {title}"),
            ),
            true => (
                format!("bisecting fixing commit since {}", id(9999)),
                format!("crashed: {title}"),
                "OK".into(),
            ),
        };
        let (first, second) = if fix { (9999, size) } else { (size, 9999) };
        let (own, other) = if fix { (&old, &new) } else { (&new, &old) };
        let tag =
            if fix { format!("testing current HEAD {}", id(size)) } else { "testing release v5.0".into() };
        let text = format!(
            "{header}\nbuilding syzkaller on {}\ntesting commit {} with gcc (GCC) 8.1.0\nall runs: {own}\n{tag}\n\
             testing commit {} with gcc (GCC) 8.1.0\nall runs: {other}\n# git bisect start {} {}\n",
            id(1234567),
            id(first),
            id(second),
            id(size),
            id(9999)
        );
        Script { text, low: 0, high: size, fix }
    }

    /// Tests the middle: `bad` is git's word, `runs` the lines of its runs.
    fn step(&mut self, word: &str, runs: &str) -> usize {
        let at = self.low + (self.high - self.low) / 2;
        let left = self.high - at - 1;
        self.text += &format!(
            "Bisecting: {left} revisions left to test after this (roughly 3 steps)\n[{0}] net: change {at}\n\
             testing commit {0} with gcc (GCC) 8.1.0\n{runs}\n# git bisect {word} {0}\n",
            id(at)
        );
        match word {
            "bad" => self.high = at,
            "good" => self.low = at,
            _ => {}
        }
        at
    }

    fn close(&mut self) -> String {
        let (word, at) = (if self.fix { "good" } else { "bad" }, id(self.high));
        self.text += &format!("{at} is the first bad commit\nfirst {word} commit: {at} net: change\n");
        std::mem::take(&mut self.text)
    }
}

const ALL_OK: &str = "all runs: OK";

#[test]
fn fixes_are_read_the_other_way_round() {
    let mut script = Script::new(true, 64, "WARNING in foo");
    while script.high - script.low > 1 {
        let at = script.low + (script.high - script.low) / 2;
        if at >= 23 {
            script.step("bad", ALL_OK)
        } else {
            script.step("good", "all runs: crashed: WARNING in foo")
        };
    }
    let audit = audited(&script.close());
    assert_eq!((audit.kind, audit.belief.standing), (Kind::Fix, Standing::Upheld), "{}", audit::text(&audit));
    assert_eq!(audit.belief.revision.map(|it| it.to_string()), Some(id(23)));
}

#[test]
fn a_stranger_that_decides_is_pointed_at() {
    let mut script = Script::new(false, 1024, "WARNING in foo");
    script.step("bad", "all runs: crashed: WARNING in foo");
    let derailed = script.step("bad", "all runs: crashed: KASAN: use-after-free Read in bar");
    while script.high - script.low > 1 {
        script.step("good", ALL_OK);
    }
    let audit = audited(&script.close());
    let doubted = &audit.steps[audit.first_doubtful.expect("a doubtful step") - 1];
    assert_eq!(doubted.revision.to_string(), id(derailed), "{}", audit::text(&audit));
    assert_eq!(audit.belief.standing, Standing::Rejected);
    assert!(audit.next.iter().any(|advice| advice.action == "halve"), "{:?}", audit.next);
    assert_eq!(audit.suspects[0].commits, 255);
}

#[test]
fn a_rare_bug_makes_quiet_steps_doubtful() {
    let rare = "run #0: crashed: WARNING in foo\nrun #1: OK\nrun #2: OK\nrun #3: OK\nrun #4: OK\nrun #5: OK\nrun #6: OK\nrun #7: OK\nrun #8: OK\nrun #9: OK";
    let mut script = Script::new(false, 512, "WARNING in foo");
    script.text = script.text.replacen("all runs: crashed: WARNING in foo", rare, 1);
    for word in ["good", "bad", "bad", "good", "bad", "bad", "good", "good"] {
        script.step(word, if word == "bad" { rare } else { ALL_OK });
    }
    while script.high - script.low > 1 {
        script.step("good", ALL_OK);
    }
    let audit = audited(&script.close());
    assert_ne!(audit.belief.standing, Standing::Upheld, "{}", audit::text(&audit));
    assert!(audit.rate.is_some_and(|rate| rate < 0.4));
    assert_eq!(audit.steps[audit.first_doubtful.expect("doubtful") - 1].verdict, Some(Word::Good));
}

#[test]
fn endings_without_a_culprit_are_named() {
    let start = Script::new(false, 16, "WARNING in foo").text;
    let skips = {
        let mut script = Script::new(false, 16, "WARNING in foo");
        script.step("bad", "all runs: crashed: WARNING in foo");
        script.step(
            "skip",
            "all runs: boot failed: BUG: unable to handle kernel NULL pointer dereference in early",
        );
        script.text
            + &format!(
                "There are only 'skip'ped commits left to test.\nThe first bad commit could be any of:\n{}\n{}\nWe cannot bisect more!\n",
                id(1),
                id(2)
            )
    };
    let cases = [
        (format!("{start}error: failed to fetch\n"), Close::Error("failed to fetch".into())),
        (skips.clone(), Close::Inconclusive),
        (start.clone(), Close::Truncated),
        (format!("{start}crash still not fixed or there were kernel test errors\n"), Close::NotFixed),
        (
            format!("{start}oldest tested release already had the bug or it had kernel test errors\n"),
            Close::OldestReleaseHasBug,
        ),
    ];
    for (text, close) in cases {
        let audit = audited(&text);
        assert_eq!((audit.close.clone(), audit.belief.standing), (close, Standing::None), "{text}");
        assert!(!audit::text(&audit).is_empty());
    }
    assert_eq!(audit::read(skips.as_bytes()).suspects.len(), 2);
    assert_eq!(audited(&skips).wasted.skipped_steps, 1);
}

#[test]
fn a_commit_that_changes_no_kernel_is_not_believed() {
    let mut script = Script::new(false, 64, "WARNING in foo");
    while script.high - script.low > 1 {
        let at = script.low + (script.high - script.low) / 2;
        if at >= 40 {
            script.step("bad", "all runs: crashed: WARNING in foo")
        } else {
            script.step("good", ALL_OK)
        };
    }
    let signature = "ab".repeat(32);
    let text = script.close() + &format!("culprit signature: {signature}\nparent  signature: {signature}\n");
    let audit = audited(&text);
    assert_ne!(audit.belief.standing, Standing::Upheld);
    assert!(audit.belief.reasons[0].contains("same kernel"), "{:?}", audit.belief);
}

#[test]
fn what_is_no_log_is_told_from_one() {
    for bytes in [&b""[..], b"hello\nworld\n", &[0xff, 0xfe, 0, 10, 13, 200], b"{\"json\": 1}"] {
        assert_eq!(audit::audit(&audit::read(bytes)), None);
    }
}

/// Lines of a log, and others, in any order.
fn any_line() -> impl Strategy<Value = String> {
    let title =
        prop::sample::select(vec!["WARNING in a_b", "WARNING in a_c", "no output from test machine", "x"]);
    let run = prop_oneof![
        Just("OK".to_string()),
        title.clone().prop_map(|title| format!("crashed: {title}")),
        title.prop_map(|title| format!("boot failed: {title}")),
        Just("infra problem: gone".to_string()),
    ];
    let word = prop::sample::select(vec!["good", "bad", "skip", "start", "log"]);
    let commit = (0usize..9).prop_map(id);
    prop_oneof![
        commit.clone().prop_map(|id| format!("testing commit {id} gcc")),
        (0u32..12, run.clone()).prop_map(|(n, run)| format!("run #{n}: {run}")),
        run.prop_map(|run| format!("all runs: {run}")),
        (word, commit.clone(), commit.clone())
            .prop_map(|(word, a, b)| format!("# git bisect {word} {a} {b}")),
        any::<u64>().prop_map(|n| format!("Bisecting: {n} revisions left to test after this")),
        (0u64..30).prop_map(|n| format!("Bisecting: {n} revisions left to test after this")),
        commit.clone().prop_map(|id| format!("[{id}] Merge branch 'x'")),
        commit.clone().prop_map(|id| format!("{id} is the first bad commit")),
        commit,
        prop::sample::select(vec![
            "bisecting fixing commit since 0",
            "crash: WARNING in a_b",
            "Merge: a b",
            " a | 2 +-",
            ":1 2 3\tfs",
            "testing release v5.1",
            "testing current HEAD",
            "error: x",
            "bisection is inconclusive",
            "revisions tested: 17, total time: 4h26m47.4s (build: 1h, test: 2h38m35s)",
        ])
        .prop_map(String::from),
        ".{0,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_audited(lines in prop::collection::vec(any_line(), 0..60)) {
        let log = audit::read(lines.join("\n").as_bytes());
        if let Some(audit) = audit::audit(&log) {
            let sum: f64 = audit.suspects.iter().map(|it| it.probability).sum();
            prop_assert!(sum <= 1.0 + 1e-9 && audit.suspects.iter().all(|it| it.probability >= 0.0));
            prop_assert!(!audit::text(&audit).is_empty());
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = audit::audit(&audit::read(&bytes));
    }
}

#[test]
fn our_own_logs_say_how_many_runs_they_took() {
    let mut script = Script::new(false, 4, "WARNING in foo");
    script.step("good", &format!("{ALL_OK}\n# in 2 runs"));
    script.step("bad", "all runs: crashed: WARNING in foo\n# in 1 run\n# in 4000000000 runs of another kind");
    let log = audit::read(script.close().as_bytes());
    let totals: Vec<u32> = log.tests.iter().map(|test| test.total()).collect();
    assert_eq!(totals, [10, 10, 2, 1]);
}
