//! The log, replay, JSON and summary of whole jobs, as files; and what must hold of any log.
//! `KULPRIT_BLESS=1` writes the files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod report_support;

use kulprit_common::bisect::{Certificate, CertifiedParent, Finding, Role, Suspect};
use kulprit_common::history::History;
use kulprit_common::job::Mode;
use kulprit_common::outcome::{Outcome, Phase};
use kulprit_common::patch::Patch;
use kulprit_common::recipients::Recipients;
use kulprit_common::report::{
    Built, CommitDetails, Ends, FileStat, RunLine, ShownCrash, ending as endings, json, plot, replay,
    summary, text,
};
use kulprit_common::verdict::Verdict;
use proptest::prelude::*;
use report_support::*;

/// Releases walked, two agents, a merge, a skip, a failed build, an overtaken pick, an
/// overruled verdict, and a parent that only the certificate asked for.
fn cause() -> Scene {
    let history = History::new(vec![
        commit(id(1), &[], &[id(0x60)]),
        commit(id(2), &[0], &[]),
        commit(id(3), &[1], &[]),
        commit(id(4), &[2], &[]),
        commit(id(5), &[3], &[]),
        commit(id(11), &[3], &[]),
        commit(id(12), &[5], &[]),
        commit(id(6), &[4, 6], &[]),
        commit(id(7), &[7], &[]),
        commit(id(0x61), &[8], &[]),
    ]);
    let mut start = tested(id(0xee), Role::Start, Verdict::Bad, true);
    start.judgement.counts = counts(9, 1, 0, 0);
    let both = vec![
        seen(Phase::Boot, "INFO: task hung in other"),
        seen(Phase::Reproducer, "KASAN: use-after-free Read in x"),
        seen(Phase::Reproducer, TITLE),
    ];
    start.runs = vec![crashed(TITLE), RunLine::Saw(Outcome::Crashed(both)), RunLine::Saw(Outcome::Ok)];
    let mut boots = tested(id(12), Role::Search, Verdict::Skip, true);
    boots.runs = vec![
        boot_failed("WARNING in cpumask_next_wrap"),
        RunLine::Saw(Outcome::BootFailed {
            crashes: vec![],
            reason: "no byte on the console for 60 s".into(),
        }),
        RunLine::Saw(Outcome::NoReproducerStart { reason: "exec format error".into() }),
        RunLine::Saw(Outcome::Hung { reason: "no sign of life for 120 s".into() }),
        RunLine::Infra("qemu: died\nof itself".into()),
    ];
    let mut broken = tested(id(3), Role::Search, Verdict::Skip, true);
    broken.build = Built::Failed {
        message: "drivers/demo.c:12:2: error: 'x' undeclared\nmake: *** [demo.o] Error 1\n".into(),
    };
    broken.runs = vec![];
    let mut lost = tested(id(2), Role::Search, Verdict::Skip, false);
    lost.build = Built::Unavailable { reason: "two agents ran out of disk".into() };
    lost.runs = vec![];
    let mut overruled = tested(id(7), Role::Search, Verdict::Good, true);
    overruled.judgement.counts = counts(0, 3, 0, 0);
    let mut unreverted = tested(id(0xf6), Role::Revert(id(6)), Verdict::Skip, false);
    unreverted.build = Built::Unavailable { reason: "it conflicts in drivers/demo/demo.c".into() };
    unreverted.runs = vec![];
    let mut reverted = tested(id(0xf5), Role::Revert(id(5)), Verdict::Good, false);
    reverted.patches = vec![Patch::Revert(id(5))];
    let mut mended = tested(id(11), Role::Search, Verdict::Good, true);
    mended.patches = vec![Patch::Pick(id(0xf1))];
    mended.remarks = vec![format!("put in: {} (demo: mend it)", id(0xf1))];
    let mut scene = random(1);
    scene.job = job(Mode::Cause);
    scene.ends = Some(Ends {
        bad: revision(id(0xee), "the start"),
        good: Some(revision(id(0x60), "Linux 6.0")),
        good_tag: Some("v6.0".into()),
    });
    scene.history = Some(history.expect("parents come first"));
    scene.tested = vec![
        start,
        tested(id(0x60), Role::Release("v6.0".into()), Verdict::Good, true),
        tested(id(0x61), Role::Release("v6.1".into()), Verdict::Bad, true),
        boots,
        overruled,
        broken,
        tested(id(7), Role::Search, Verdict::Bad, true),
        mended,
        tested(id(1), Role::Search, Verdict::Good, false),
        lost,
        tested(id(6), Role::Search, Verdict::Bad, true),
        unreverted,
        tested(id(5), Role::Search, Verdict::Bad, true),
        tested(id(5), Role::Certify, Verdict::Bad, false),
        reverted,
        tested(id(4), Role::Certify, Verdict::Good, false),
    ];
    scene.rounds = rounds(&scene.tested, scene.history.as_ref().expect("set"), id(5));
    scene.ending = Some(culprit_ending());
    scene
}

fn culprit_ending() -> kulprit_common::report::Ending {
    let parent =
        CertifiedParent { revision: id(4), counts: counts(0, 10, 0, 0), fingerprint: fingerprint(&id(4)) };
    let certificate = Certificate {
        culprit: counts(10, 0, 0, 0),
        culprit_fingerprint: fingerprint(&id(5)),
        parents: vec![parent],
        reverted: Some(counts(0, 3, 0, 0)),
        overruled: vec![],
    };
    let mut ending = ending(Finding::Culprit { revision: id(5), certificate: Box::new(certificate) });
    ending.culprit = Some(CommitDetails {
        revision: id(5),
        parents: vec![id(4)],
        author: "Ann Author <ann@example.org>".into(),
        date: "Wed Nov 30 16:10:52 2022 -0800".into(),
        subject: "demo: free it earlier".into(),
        message:
            "demo: free it earlier\n\nIt was freed late.\n\nSigned-off-by: Ann Author <ann@example.org>\n"
                .into(),
        files: vec![
            FileStat { path: "drivers/demo/demo.c".into(), insertions: 12, deletions: 56 },
            FileStat { path: "include/linux/demo.h".into(), insertions: 1, deletions: 0 },
        ],
    });
    let report = "------------[ cut here ]------------\n\
        WARNING: CPU: 0 PID: 1 at drivers/demo/demo.c:12 demo_ioctl+0x1/0x2 drivers/demo/demo.c:12\n\
        Code: 55 48 89 e5 <0f> 0b 5d c3\n\
        Call Trace:\n demo_ioctl+0x1/0x2 drivers/demo/demo.c:12\n";
    ending.crash = Some(ShownCrash::new(TITLE.into(), report.into()));
    ending.recipients = Recipients::of_commit(
        "Ann Author <ann@example.org>",
        "s\n\nReviewed-by: Rev Iewer <rev@example.org>\nSigned-off-by: Ann Author <ANN@example.org>\n",
    );
    ending.recipients.add_maintainers(
        "demo@lists.example.org (open list:DEMO)\nlinux-kernel@vger.kernel.org (open list)\n",
    );
    ending.notes = vec!["the kernel has no debug information".into()];
    ending
}

/// The good end is newer and given; git's words are turned round.
fn fix() -> Scene {
    let dag = Dag(vec![vec![], vec![0], vec![1], vec![2], vec![3], vec![4], vec![5]]);
    let ids: Vec<_> = (0x20..0x27).map(id).collect();
    let mut scene = search(&dag, &ids, Mode::Fix, &mut Rng(5));
    scene.job.good = Some("v6.2".into());
    scene.job.target = Some(TITLE.into());
    let found = scene.ending.as_ref().map(|ending| ending.finding.clone());
    if let Some(Finding::Culprit { revision, .. }) = found {
        scene.rounds = rounds(&scene.tested, scene.history.as_ref().expect("a range"), revision);
    }
    scene
}

/// A job that ended before any search, and how.
fn early(finding: Finding, tested: Vec<kulprit_common::report::Tested>) -> Scene {
    let mut scene = random(1);
    scene.job = job(Mode::Cause);
    scene.ends = Some(Ends { bad: revision(id(0xee), "the start"), good: None, good_tag: None });
    scene.history = None;
    (scene.tested, scene.rounds) = (tested, vec![]);
    scene.ending = Some(ending(finding));
    scene
}

fn early_endings() -> Vec<Scene> {
    let one = |role, verdict| vec![tested(id(0xee), role, verdict, true)];
    vec![
        early(Finding::NotReproduced { counts: counts(0, 18, 1, 1) }, one(Role::Start, Verdict::Good)),
        early(
            Finding::BadEndBroken { reason: "it does not boot:\nkernel panic".into() },
            one(Role::Start, Verdict::Skip),
        ),
        early(Finding::GoodEndIsBad { revision: id(0xee) }, one(Role::GoodEnd, Verdict::Bad)),
        early(
            Finding::OldestReleaseHasBug { revision: id(0xee), tag: "v5.0".into() },
            one(Role::Release("v5.0".into()), Verdict::Bad),
        ),
        early(Finding::NotFixed { revision: id(0xee) }, vec![]),
        early(Finding::Blocked { by: "no agent has the toolchain kulprit/gcc-10".into() }, vec![]),
    ]
}

fn suspects() -> Scene {
    let mut scene = cause();
    scene.tested.truncate(8);
    scene.rounds.truncate(4);
    let suspects =
        [(id(5), 0.62), (id(6), 0.38)].map(|(revision, probability)| Suspect { revision, probability });
    let reason = "neither builds".to_string();
    scene.ending = Some(ending(Finding::Suspects { suspects: suspects.to_vec(), reason }));
    scene
}

#[test]
fn whole_jobs_read_as_they_should() {
    for (name, scene) in [("cause", cause()), ("fix", fix()), ("suspects", suspects())] {
        let record = scene.record();
        snapshot(&format!("{name}.log"), &text::render(&record));
        snapshot(&format!("{name}.replay"), &replay::render(&record));
        snapshot(&format!("{name}.summary"), &summary::render(&record));
        snapshot(&format!("{name}.svg"), &plot::render(&record));
        snapshot(&format!("{name}.json"), &(format!("{:#}", json::render(&record)) + "\n"));
    }
}

#[test]
fn every_early_ending_has_its_words() {
    let mut all = String::new();
    for scene in early_endings() {
        let record = scene.record();
        let finding = &scene.ending.as_ref().expect("ended").finding;
        all.push_str(&format!(
            "=== {} (exit code {})\n",
            endings::kind(finding),
            endings::exit_code(finding)
        ));
        all.push_str(&format!("{}--- summary\n{}", text::render(&record), summary::render(&record)));
        all.push_str(&format!("--- json\n{}\n", json::render(&record)["finding"]));
    }
    snapshot("early-endings.txt", &all);
}

#[test]
fn a_job_without_ends_renders() {
    let mut scene = early(Finding::Blocked { by: "the repository cannot be reached".into() }, vec![]);
    scene.ends = None;
    let log = text::render(&scene.record());
    assert!(log.ends_with("error: blocked: the repository cannot be reached\n"), "{log}");
    assert_eq!(replay::render(&scene.record()), "git bisect start\n");
    assert_eq!(summary::render(&scene.at(0, false)), "", "a running job has no summary");
}

fn check_prefixes(scene: &Scene) {
    let whole = text::render(&scene.record());
    for verdicts in 0..=scene.tested.len() {
        let part = text::render(&scene.at(verdicts, false));
        assert!(whole.starts_with(&part), "after {verdicts} verdicts:\n{part}\nbut in the end:\n{whole}");
    }
    let mut unknown = scene.at(0, false);
    (unknown.ends, unknown.history, unknown.rounds) = (None, None, &[]);
    assert!(whole.starts_with(&text::render(&unknown)), "before the ends are known");
}

#[test]
fn a_log_only_grows() {
    [cause(), fix(), suspects()].iter().chain(&early_endings()).for_each(check_prefixes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_log_only_grows_and_keeps_the_grammar(seed in any::<u64>()) {
        let scene = random(seed);
        check_prefixes(&scene);
        check_grammar(&text::render(&scene.record()));
    }
}

#[test]
fn the_grammar_holds_for_our_logs_and_the_newest_seed() {
    [cause(), fix(), suspects()].iter().for_each(|scene| check_grammar(&text::render(&scene.record())));
    if let Some(seed) = seed("000_a56d280c9f3660c7.txt") {
        check_grammar(&seed);
    }
}

#[test]
fn a_plot_is_well_formed_whatever_others_wrote() {
    let mut scene = cause();
    scene.job.name = "<a & \"b\"> 'c' \u{1}\u{7f}\n".into();
    scene.job.target = Some("</text><script>alert(1)</script> & ]]>".into());
    let history = scene.history.as_ref().expect("a range");
    let mut commits = history.commits().to_vec();
    commits.iter_mut().for_each(|commit| commit.subject = "fs/<b>: & \u{0} ü".into());
    scene.history = Some(History::new(commits).expect("as before"));
    let drawn = plot::render(&scene.record());
    let elements = elements(&drawn);
    assert!(!elements.contains("script") && !drawn.contains("alert(1)<"), "{drawn}");
    for wanted in ["svg", "title", "style", "path", "line", "text"] {
        assert!(elements.contains(wanted), "{wanted} in {elements:?}");
    }
    // Every kernel picked in the range is there, and all three verdicts.
    let marks =
        ["bad", "good", "skip"].map(|class| drawn.matches(&format!("class=\"{class}\"><title>")).count());
    assert!(marks.iter().all(|&marks| marks > 1), "{marks:?}");
    let running = plot::render(&scene.at(6, false));
    elements_of_part(&running);
    assert_eq!(plot::render(&scene.at(1, false)), "", "nothing is believed yet");
}

fn elements_of_part(svg: &str) {
    assert!(elements(svg).contains("svg") && !svg.contains("found: "), "{svg}");
}

#[test]
fn of_many_rounds_some_are_left_out_of_the_plot() {
    let mut scene = cause();
    let last = scene.rounds.last().expect("rounds").clone();
    scene.rounds.extend(std::iter::repeat_n(last, 200));
    let all = scene.rounds.iter().filter(|round| round.belief.is_some()).count();
    let drawn = plot::render(&scene.record());
    assert_eq!(drawn.matches("class=\"mass\"").count(), 60);
    assert!(drawn.contains(&format!("(60 of {all} rounds are shown)")), "{drawn}");
}

/// The names of the elements of a text that must be well-formed XML.
fn elements(xml: &str) -> std::collections::BTreeSet<String> {
    let entity = regex::Regex::new("&(amp|lt|gt|quot|#39);").expect("a pattern");
    let tag = regex::Regex::new("^<(/?)([a-z]+)((?: [a-zA-Z0-9-]+=\"[^\"<]*\")*)(/?)>").expect("a pattern");
    let allowed =
        |c: char| matches!(c, '\n' | '\t' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(xml.chars().all(allowed), "a character that XML has not");
    let mut names = std::collections::BTreeSet::new();
    let (mut open, mut rest): (Vec<String>, &str) = (Vec::new(), xml.trim_end());
    while !rest.is_empty() {
        if let Some(found) = tag.captures(rest) {
            let name = found[2].to_string();
            match (&found[1], &found[4]) {
                ("/", _) => assert_eq!(open.pop(), Some(name.clone()), "closed at {rest:.60}"),
                (_, "/") => {}
                _ => open.push(name.clone()),
            }
            names.insert(name);
            rest = &rest[found[0].len()..];
        } else {
            assert!(!rest.starts_with('<') && !open.is_empty(), "at {rest:.60}");
            let text = &rest[..rest.find('<').unwrap_or(rest.len())];
            assert!(!text.contains('>') && !entity.replace_all(text, "").contains('&'), "{text}");
            rest = &rest[text.len()..];
        }
    }
    assert_eq!(open, Vec::<String>::new());
    names
}

fn seed(name: &str) -> Option<String> {
    let path = format!("{}/../../shared/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: no {path}");
    }
    text
}

/// The lines of a log up to its closing, held against the grammar of the reference.
fn check_grammar(log: &str) {
    let lines: Vec<&str> = log.lines().filter(|line| !is_remark(line)).collect();
    let mut at = 0;
    let mut next = |expected: &str, at: &mut usize| -> bool {
        let fits = regex::Regex::new(&format!("^{expected}$")).expect("a pattern");
        let found = lines.get(*at).is_some_and(|line| fits.is_match(line));
        *at += usize::from(found);
        found
    };
    const C: &str = "[0-9a-f]{40}";
    assert!(next(".+ starts bisection .+", &mut at), "the first line");
    assert!(next(&format!("bisecting (cause commit starting from|fixing commit since) {C}"), &mut at));
    next(&format!("building syzkaller on {C}"), &mut at);
    loop {
        let ensures = next(&format!("ensuring issue is reproducible on original commit {C}"), &mut at);
        if ensures {
            assert!(next("", &mut at), "a blank line");
        } else if !next(r"testing release v\S+", &mut at)
            && !next(&format!("testing current HEAD {C}"), &mut at)
        {
            let given_good_end = lines[at].starts_with("testing commit");
            if !given_good_end {
                break;
            }
        }
        check_test(&mut next, &mut at);
    }
    let _started = next(&format!("# git bisect start {C} {C}"), &mut at);
    while next(r"Bisecting: \d+ revisions? left to test after this \(roughly \d+ steps?\)", &mut at) {
        assert!(next(&format!(r"\[{C}\] .*"), &mut at), "{:?}", lines[at]);
        assert!(next("", &mut at), "a blank line");
        check_test(&mut next, &mut at);
        assert!(next(&format!("# git bisect (good|bad|skip) {C}"), &mut at), "{:?}", lines[at]);
    }
    let closes = next(&format!("{C} is the first bad commit"), &mut at)
        || next("reproducer is flaky .*", &mut at)
        || next("revisions tested: .*", &mut at);
    assert!(closes, "line {at}: {:?}\n{log}", lines.get(at));
}

fn check_test(next: &mut impl FnMut(&str, &mut usize) -> bool, at: &mut usize) {
    assert!(next("testing commit [0-9a-f]{40} gcc", at), "line {at}");
    assert!(next("compiler: .+", at), "line {at}");
    if next("failed building [0-9a-f]{40}: .+", at) {
        return;
    }
    next("kernel signature: [0-9a-f]{64}", at);
    const V: &str = "(OK|(crashed|boot failed|basic kernel testing failed|infra problem): .+)";
    if !next(&format!("all runs: {V}"), at) {
        assert!(next(&format!("run #0: {V}"), at), "line {at}");
        while next(&format!(r"run #\d+: {V}"), at) {}
    }
}

fn is_remark(line: &str) -> bool {
    line.starts_with("# ") && !line.starts_with("# git bisect ")
}

#[test]
fn the_seeds_count_as_git_does() {
    use kulprit_common::report::git_state::estimate_steps;
    let line =
        regex::Regex::new(r"^Bisecting: (\d+) revisions? left .*roughly (\d+) steps?\)$").expect("a pattern");
    for name in ["000_a56d280c9f3660c7.txt", "001_c44cd56752ba921a.txt", "004_31b8e8139fc28d69.txt"] {
        let Some(log) = seed(name) else { return };
        let mut seen = 0;
        for found in log.lines().filter_map(|text| line.captures(text)) {
            let (left, steps): (usize, u32) =
                (found[1].parse().expect("a number"), found[2].parse().expect("a number"));
            assert_eq!(text::bisecting(left, steps).trim_end(), &found[0]);
            // `left` is all − reaches − 1, so that some `all` above it must give these steps.
            assert!(
                (left + 1..4 * left + 8).any(|all| estimate_steps(all) == steps),
                "{name}: {}",
                &found[0]
            );
            seen += 1;
        }
        assert!(seen > 10, "{name}");
    }
}
