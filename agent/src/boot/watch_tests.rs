use super::*;

const WARNING: &str = "[    3.100000] ------------[ cut here ]------------\n\
[    3.100001] WARNING: CPU: 0 PID: 71 at fs/planted.c:17 planted_bug+0x12/0x20\n\
[    3.100002] Modules linked in:\n\
[    3.100003] CPU: 0 PID: 71 Comm: reproducer Not tainted 6.1.0 #1\n\
[    3.100004] RIP: 0010:planted_bug+0x12/0x20\n\
[    3.100005] Call Trace:\n\
[    3.100006]  <TASK>\n\
[    3.100007]  do_syscall_64+0x35/0x80\n\
[    3.100008]  entry_SYSCALL_64_after_hwframe+0x6e/0xd8\n\
[    3.100009]  </TASK>\n\
[    3.100010] ---[ end trace 0000000000000000 ]---\n";
const PANIC: &str = "[    4.000000] Kernel panic - not syncing: planted\n\
[    4.000001] CPU: 0 PID: 71 Comm: reproducer Not tainted 6.1.0 #1\n\
[    4.000002] Call Trace:\n\
[    4.000003]  <TASK>\n\
[    4.000004]  planted_panic+0x35/0x80\n\
[    4.000005]  </TASK>\n\
[    4.000006] ---[ end Kernel panic - not syncing: planted ]---\n";

/// What happens in a run, one after the other.
enum Event<'a> {
    Console(&'a str),
    Result(&'a str),
    /// Milliseconds pass.
    Wait(u64),
    Exit,
}
use Event::{Console, Exit, Result, Wait};

const OTHER: Event<'static> = Result("\nkulprit N kernel 0b\n");
const UP: Event<'static> = Result("\nkulprit N up\n");
const START: Event<'static> = Result("\nkulprit N settled\n\nkulprit N start\n");
const MARK_UP: Event<'static> = Console("[    2.8] kulprit M up\n");
const MARK_START: Event<'static> = Console("[    3.0] kulprit M start\n");
const DONE: Event<'static> = Result("\nkulprit N exit code 0\n\nkulprit N done\n");
const BANNER: Event<'static> = Console("[    0.000000] Linux version 6.1.0\n");

fn timeouts() -> Timeouts {
    Timeouts { drain_ms: 1000, silence_s: 20, reproducer_s: 60, linger_ms: 1000, ..Timeouts::default() }
}

/// Plays events, lets every timer run out after the last, and says when the run was over.
fn play(events: &[Event]) -> (Outcome, Duration) {
    play_on(Watch::new(timeouts(), "N".into(), "M".into()), events)
}

fn play_on(mut watch: Watch, events: &[Event]) -> (Outcome, Duration) {
    let mut now = Duration::ZERO;
    for event in events.iter().chain(&[Wait(u64::from(u32::MAX))]) {
        match event {
            Console(text) => watch.console(now, text.as_bytes()),
            Result(text) => watch.results(now, text.as_bytes()),
            Exit => watch.exited(),
            Wait(time) => {
                let until = now + Duration::from_millis(*time);
                while watch.ending().is_none() && watch.deadline() <= until {
                    now = now.max(watch.deadline());
                    watch.expire(now);
                }
                if watch.ending().is_none() {
                    now = until;
                }
            }
        }
        if watch.ending().is_some() {
            break;
        }
    }
    (watch.conclude(), now)
}

fn check(name: &str, events: &[Event], expected: &str, at_ms: u64) {
    let (outcome, at) = play(events);
    let seen: Vec<_> =
        outcome.crashes().iter().map(|crash| format!("{:?} {}", crash.phase, crash.crash.title)).collect();
    let text = match &outcome {
        Outcome::Ok => "ok".to_owned(),
        Outcome::Crashed(_) => format!("crashed {seen:?}"),
        Outcome::BootFailed { reason, .. } => format!("boot failed: {reason} {seen:?}"),
        Outcome::NoReproducerStart { reason } => format!("not started: {reason}"),
        Outcome::Hung { reason } => format!("hung: {reason}"),
    };
    assert_eq!(text, expected, "{name}");
    assert_eq!(at, Duration::from_millis(at_ms), "{name}");
}

#[test]
fn runs_without_crashes() {
    check("a good run", &[BANNER, UP, MARK_UP, START, MARK_START, DONE, Exit], "ok", 0);
    check("a guest that does not go down", &[BANNER, UP, START, Wait(7), DONE], "ok", 5007);
    check(
        "results on the console",
        &[Console("kulprit N up\nkulprit N start\nkulprit N done\n"), Exit],
        "ok",
        0,
    );
    check("nothing", &[], "boot failed: no output within 60 s []", 60_000);
    check("no init", &[BANNER], "boot failed: init did not run within 300 s []", 300_000);
    let restarted = "boot failed: the guest restarted while booting, without a crash report []";
    check("a restart while booting", &[BANNER, Exit], restarted, 0);
    let dark = "boot failed: the guest restarted before it printed anything, without a crash report []";
    check("a restart at once", &[Exit], dark, 0);
    let silent = "boot failed: the guest fell silent before the reproducer started []";
    check("no start", &[BANNER, UP], silent, 60_200);
    check("a hang", &[BANNER, UP, START], "hung: no sign of life for 20 s", 20_000);
    let restarted = "hung: the guest restarted while the reproducer ran, without a crash report";
    check("a restart", &[BANNER, UP, START, Exit], restarted, 0);
    let refused = [BANNER, UP, START, Result("kulprit N cannot-start Exec format error\n")];
    check("no reproducer", &refused, "not started: Exec format error", 0);
    let forged = [BANNER, UP, START, MARK_START, Result("kulprit X done\nkulprit done\nkulprit M done\n")];
    check("forged results", &forged, "hung: no sign of life for 20 s", 20_000);
    let mut alive = vec![BANNER, UP, START];
    alive.extend((0..100).flat_map(|_| [Wait(1000), Result("kulprit N alive\n")]));
    check("no end", &alive, "hung: the reproducer's end did not come within 91 s", 91_000);
}

#[test]
fn crashes_by_phase() {
    let boot = Console(WARNING);
    let title = "WARNING in planted_bug";
    let early = format!("boot failed: crashed before the reproducer started: {title} [\"Boot {title}\"]");
    check("while booting", &[BANNER, boot, UP, MARK_UP, START, MARK_START, DONE, Exit], &early, 0);
    let settle = early.replace("Boot WARNING", "Settle WARNING");
    let late_markers = [BANNER, UP, START, MARK_UP, Console(WARNING), MARK_START, DONE, Exit];
    check("the console's markers count", &late_markers, &settle, 0);
    let crashed = format!("crashed [\"Reproducer {title}\"]");
    check("by the reproducer", &[BANNER, UP, MARK_UP, START, MARK_START, Console(WARNING)], &crashed, 1000);
    check("and then an end", &[BANNER, UP, START, MARK_START, Console(WARNING), Wait(9), Exit], &crashed, 9);
    let unmarked = [BANNER, UP, START, Console(WARNING), DONE, Exit];
    check("without markers", &unmarked, &crashed, 0);
    let both = format!("crashed [\"Boot {title}\", \"Reproducer kernel panic: planted\"]");
    let two = [BANNER, Console(WARNING), UP, MARK_UP, START, MARK_START, Console(PANIC), Exit];
    check("a panic is no part of an earlier warning", &two, &both, 0);
    let dead = [BANNER, Console(PANIC), Exit];
    let reason = "crashed before the reproducer started: kernel panic: planted";
    check("a panic at boot", &dead, &format!("boot failed: {reason} [\"Boot kernel panic: planted\"]"), 0);
}

#[test]
fn crashes_before_the_start_do_not_crowd_out_those_after_it() {
    let (many, late) = (WARNING.repeat(150), WARNING.replace("planted_bug", "late_bug"));
    for (name, events) in [
        ("with markers", &[BANNER, Console(&many), UP, MARK_UP, START, MARK_START, Console(&late), Exit][..]),
        ("without", &[BANNER, Console(&many), UP, START, Console(&late), Exit]),
    ] {
        let (outcome, _) = play(events);
        let titles = |phase| {
            let of_phase = outcome.crashes().iter().filter(move |it| it.phase == phase);
            of_phase.map(|it| it.crash.title.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(titles(Phase::Boot), ["WARNING in planted_bug"; CRASHES_MAX], "{name}");
        assert_eq!(titles(Phase::Reproducer), ["WARNING in late_bug"], "{name}");
    }
}

#[test]
fn a_report_may_go_on_but_not_forever() {
    let mut events = vec![BANNER, UP, START, MARK_START, Console(WARNING)];
    events.extend((0..3).flat_map(|_| [Wait(900), Console("[ 4.000000]  more+0x1/0x2\n")]));
    check("three more lines", &events, "crashed [\"Reproducer WARNING in planted_bug\"]", 3700);
    events.extend((0..30).flat_map(|_| [Wait(900), Console("[ 4.000000]  more+0x1/0x2\n")]));
    check("more and more", &events, "crashed [\"Reproducer WARNING in planted_bug\"]", 10_000);
}

#[test]
fn however_the_console_is_cut_the_outcome_is_the_same() {
    let text = format!("{WARNING}[ 3.0] kulprit M up\n[ 3.1] kulprit M start\n{PANIC}");
    let whole = play(&[UP, START, Console(&text), Exit]).0;
    for size in [1, 2, 7, 50, 333] {
        let mut watch = Watch::new(timeouts(), "N".into(), "M".into());
        watch.results(Duration::ZERO, b"kulprit N up\nkulprit N start\n");
        for chunk in text.as_bytes().chunks(size) {
            watch.console(Duration::ZERO, chunk);
        }
        watch.exited();
        assert_eq!(watch.conclude(), whole, "chunks of {size}");
    }
}

#[test]
fn a_run_of_the_boot_ends_where_a_reproducer_would_start() {
    let title = "WARNING in planted_bug";
    let early = format!("Boot {title}");
    for (name, events, failed) in [
        ("up", &[BANNER, UP, START][..], None),
        ("up after a warning", &[BANNER, Console(WARNING), UP, MARK_UP, START], None),
        ("silent once it was up", &[BANNER, UP], None),
        ("a panic after init was up", &[BANNER, UP, MARK_UP, Console(PANIC), Exit], None),
        ("nothing started", &[BANNER, UP, Result("kulprit N cannot-start Exec format error\n")], None),
        ("a panic", &[BANNER, Console(PANIC), Exit], Some("Boot kernel panic: planted")),
        ("a warning and then silence", &[BANNER, Console(WARNING)], Some(early.as_str())),
        ("silence", &[BANNER], Some("")),
    ] {
        let watch = Watch::new(timeouts(), "N".into(), "M".into()).of_the_boot();
        let (outcome, _) = play_on(watch, events);
        let crashes = outcome.crashes().iter().map(|it| format!("{:?} {}", it.phase, it.crash.title));
        match failed {
            None => assert_eq!(outcome, Outcome::Ok, "{name}"),
            Some(seen) => {
                assert!(matches!(outcome, Outcome::BootFailed { .. }), "{name}: {outcome:?}");
                assert_eq!(crashes.collect::<Vec<_>>().join(", "), seen, "{name}");
            }
        }
    }
}

#[test]
fn another_kernel_than_was_built_tells_nothing_and_is_ended_at_once() {
    let course =
        [BANNER, Wait(2000), OTHER, UP, MARK_UP, Wait(200), START, MARK_START, Console(WARNING), DONE];
    let ending = |build_id: &str, events: &[Event]| {
        let mut watch = Watch::new(timeouts(), "N".into(), "M".into()).of_kernel(build_id);
        for event in events {
            match event {
                Console(text) => watch.console(Duration::ZERO, text.as_bytes()),
                Result(text) => watch.results(Duration::ZERO, text.as_bytes()),
                Wait(_) | Exit => {}
            }
        }
        watch.ending().cloned()
    };
    assert_eq!(ending("0a", &course[..3]), Some(Ending::OtherKernel("0b".into())));
    for build_id in ["0b", ""] {
        assert_eq!(ending(build_id, &course[..3]), None);
        let watch = Watch::new(timeouts(), "N".into(), "M".into()).of_kernel(build_id);
        assert!(matches!(play_on(watch, &course).0, Outcome::Crashed(_)));
    }
    // A reproducer that got hold of the words changes nothing.
    assert_eq!(ending("0a", &[BANNER, UP, START, OTHER]), None);
}
