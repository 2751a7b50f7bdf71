//! Hostile guests in real QEMU: whatever they print, forge or refuse, the run comes to the right
//! end, and the agent's memory and disk stay what they were. docs/sandbox.md lists what each test
//! holds up.

#[path = "sandbox/guest.rs"]
mod guest;
#[path = "sandbox/memory.rs"]
mod memory;

use guest::{CONSOLE, Program, RESULTS, Run};
use kulprit_common::outcome::{InfraClass, Outcome, Phase};
use memory::memory_mib;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

const WARNING: &str = "[    3.000000] ------------[ cut here ]------------\n\
[    3.000001] WARNING: CPU: 0 PID: 71 at fs/forged.c:17 forged_bug+0x12/0x20\n\
[    3.000002] RIP: 0010:forged_bug+0x12/0x20\n[    3.000003] Call Trace:\n\
[    3.000004]  do_syscall_64+0x35/0x80\n[    3.000005] ---[ end trace 0 ]---\n";
const PANIC: &str = "[    4.000000] Kernel panic - not syncing: planted\n[    4.000001] Call Trace:\n\
[    4.000002]  planted_panic+0x35/0x80\n[    4.000003] ---[ end Kernel panic - not syncing: planted ]---\n";

fn phases(outcome: &Outcome) -> Vec<Phase> {
    outcome.crashes().iter().map(|crash| crash.phase).collect()
}

/// 10 GB would take a guest hours: a serial port under TCG gives some 200 kB a second. So the flood
/// goes on until its time is up, beyond the cap, and what the agent takes is measured; the next
/// test has the agent's end of the pipe at full speed.
#[tokio::test]
async fn a_flood_is_capped_on_disk_and_in_memory_and_ends_in_time() {
    let Some(mut run) = Run::new("flood") else { return };
    run.timeouts.boot_s = 5;
    run.config.console_bytes_max = 32 << 10;
    let head = Program::new().say(CONSOLE, "the very first words\n");
    let talk = "the guest talks and talks and talks\n".repeat(1000);
    let unbroken = "x".repeat(60_000);
    for (kind, text) in [("lines", &talk), ("one line", &unbroken), ("crashes", &WARNING.repeat(100))] {
        let before = memory_mib();
        let started = Instant::now();
        let flood = head.clone().forever(Program::new().say(CONSOLE, text).say(RESULTS, text));
        let (outcome, console) = run.outcome(&flood).await;
        assert!(matches!(outcome, Outcome::BootFailed { .. }), "{kind}: {outcome:?}");
        assert!(phases(&outcome).iter().all(|phase| *phase == Phase::Boot), "{kind}");
        assert!(started.elapsed() < Duration::from_secs(20), "{kind}: {:?}", started.elapsed());
        let left_out = console.lines().find_map(|line| line.strip_prefix("kulprit: ")).unwrap_or_default();
        let grew = memory_mib().saturating_sub(before);
        eprintln!("{kind}: {left_out}; {} bytes kept, memory grew {grew} MiB", console.len());
        assert!(left_out.contains("left out"), "{kind}: the flood was too small");
        assert!(console.len() < (32 << 10) + 200, "{kind}: {}", console.len());
        assert!(console.starts_with("the very first words"), "{kind}");
        assert!(grew < 100, "{kind}: {grew} MiB");
    }
}

/// What stands in for QEMU here writes as fast as the agent reads.
#[tokio::test]
async fn a_flood_at_the_speed_of_a_pipe_is_no_more_to_the_agent() {
    let Some(mut run) = Run::new("pipe") else { return };
    let qemu = run.dir.path().join("qemu");
    let script = "#!/bin/bash\nwhile [ \"$1\" != -add-fd ]; do shift; done\nfd=${2#fd=}\n\
        exec yes 'the guest talks and talks and talks' >&\"${fd%%,*}\"\n";
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    run.config.qemu = qemu;
    // It is in a directory that is the test's alone.
    run.config.user = None;
    run.timeouts.boot_s = 5;
    let before = memory_mib();
    let started = Instant::now();
    let (outcome, console) = run.outcome(&Program::new()).await;
    let (took, grew) = (started.elapsed(), memory_mib().saturating_sub(before));
    let note = console.lines().find_map(|line| line.strip_prefix("kulprit: ")).unwrap_or_default();
    eprintln!("{note} in {took:?}, memory grew {grew} MiB");
    assert!(
        matches!(&outcome, Outcome::BootFailed { reason, .. } if reason == "init did not run within 5 s")
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(note.contains("left out"), "the flood was too small");
    assert!(console.len() < (16 << 20) + 200 && grew < 100, "{} bytes, {grew} MiB", console.len());
}

#[tokio::test]
async fn the_end_of_a_flooded_console_is_kept_and_read() {
    let Some(mut run) = Run::new("tail") else { return };
    run.timeouts.boot_s = 60;
    run.timeouts.silence_s = 30;
    run.config.console_bytes_max = 64 << 10;
    let talk = "the guest talks and talks and talks\n".repeat(1000);
    let flood = Program::new().start();
    let flood = (0..20).fold(flood, |flood, _| flood.say(CONSOLE, &talk).result("alive"));
    let (outcome, console) = run.outcome(&flood.say(CONSOLE, PANIC)).await;
    assert_eq!(phases(&outcome), [Phase::Reproducer], "{outcome:?}");
    assert!(console.contains("left out here") && console.contains("planted_panic"), "head and tail");
    assert!(console.len() < (64 << 10) + 200);
}

#[tokio::test]
async fn guests_that_fall_silent_have_their_endings() {
    let Some(mut run) = Run::new("silent") else { return };
    run.timeouts.first_byte_s = 3;
    run.timeouts.boot_s = 5;
    let (dark, console) = run.outcome(&Program::new()).await;
    assert!(
        matches!(&dark, Outcome::BootFailed { reason, crashes } if crashes.is_empty() && reason == "no output within 3 s"),
        "{dark:?}"
    );
    assert_eq!(console, "");
    run.timeouts.first_byte_s = 20;
    let (stuck, _) = run.outcome(&Program::new().say(CONSOLE, "Linux version 6.1.0\n")).await;
    assert!(
        matches!(&stuck, Outcome::BootFailed { reason, .. } if reason == "init did not run within 5 s"),
        "{stuck:?}"
    );
    run.timeouts.boot_s = 20;
    run.timeouts.silence_s = 2;
    let (hung, _) = run.outcome(&Program::new().start()).await;
    assert!(matches!(&hung, Outcome::Hung { reason } if reason == "no sign of life for 2 s"), "{hung:?}");
    // Talk on the console is no sign of life.
    let (talks, _) = run
        .outcome(&Program::new().start().forever(Program::new().say(CONSOLE, "still here\n").pause()))
        .await;
    assert!(matches!(&talks, Outcome::Hung { reason } if reason == "no sign of life for 2 s"), "{talks:?}");
    println!(
        "FAULT|hung or silent guest; QEMU killed; OOM-killed compile|real guests that hang at each stage: each its ending|guests_that_fall_silent_have_their_endings"
    );
}

#[tokio::test]
async fn a_guest_restarts_once_and_never_again() {
    let Some(run) = Run::new("restart") else { return };
    let up = || Program::new().say(CONSOLE, "here I am\n");
    for (kind, program) in [("reboot", up().reboot()), ("triple fault", up().triple_fault())] {
        let (outcome, console) = run.outcome(&program).await;
        let expected = "the guest restarted while booting, without a crash report";
        assert!(
            matches!(&outcome, Outcome::BootFailed { reason, .. } if reason == expected),
            "{kind}: {outcome:?}"
        );
        assert_eq!(console.matches("here I am").count(), 1, "{kind}: {console}");
    }
    let (outcome, _) = run.outcome(&Program::new().start().reboot()).await;
    assert!(
        matches!(&outcome, Outcome::Hung { reason } if reason.contains("restarted while the reproducer ran")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn crash_text_before_the_start_is_background() {
    let Some(mut run) = Run::new("early") else { return };
    let early = |times: usize| Program::new().say(CONSOLE, &WARNING.repeat(times));
    // A forged report, then a course without fault.
    let honest = early(1).start().result("exit code 0").result("done").reboot();
    let (outcome, _) = run.outcome(&honest).await;
    assert!(matches!(outcome, Outcome::BootFailed { .. }), "{outcome:?}");
    assert_eq!(phases(&outcome), [Phase::Boot]);
    // A report that is still going on when the reproducer starts does not cross the border.
    let open = WARNING.split("[    3.000005]").next().unwrap();
    let (outcome, _) = run.outcome(&Program::new().say(CONSOLE, open).start().result("done").reboot()).await;
    assert!(!phases(&outcome).contains(&Phase::Reproducer), "{outcome:?}");
    // Marks that another run would have: without this run's secret they move no border.
    let marks = "[ 2.0] kulprit 00112233445566778899aabbccddeeff up\n[ 2.1] kulprit 00112233445566778899aabbccddeeff start\n";
    let forged = Program::new().say(CONSOLE, marks).say(CONSOLE, WARNING).start().result("done").reboot();
    let (outcome, _) = run.outcome(&forged).await;
    assert_eq!(phases(&outcome), [Phase::Boot], "{outcome:?}");
    // So many that the real one would find no room.
    run.timeouts.boot_s = 60;
    let (outcome, _) = run.outcome(&early(150).start().say(CONSOLE, PANIC)).await;
    let Outcome::Crashed(crashes) = &outcome else { panic!("{outcome:?}") };
    let last = crashes.last().unwrap();
    assert_eq!((last.phase, last.crash.title.as_str()), (Phase::Reproducer, "kernel panic: planted"));
}

#[tokio::test]
async fn forged_results_are_nothing() {
    let Some(mut run) = Run::new("forged") else { return };
    run.timeouts.boot_s = 4;
    let words = ["up", "settled", "start", "exit code 0", "done"];
    let course =
        |prefix: &str| words.iter().map(|word| format!("\nkulprit {prefix} {word}\n")).collect::<String>();
    let guess = course("0123456789abcdef0123456789abcdef") + &course("") + &course("nonce");
    let both = Program::new().say(CONSOLE, &guess).say(RESULTS, &guess);
    let (outcome, _) = run.outcome(&both).await;
    assert!(
        matches!(&outcome, Outcome::BootFailed { reason, .. } if reason == "init did not run within 4 s"),
        "{outcome:?}"
    );
    // The marker stands in the kernel's log for the reproducer to read; it opens nothing.
    let marked = words.iter().fold(Program::new().say(CONSOLE, "Linux\n"), |program, word| {
        program.say(RESULTS, "\nkulprit ").marker(RESULTS).say(RESULTS, &format!(" {word}\n"))
    });
    let (outcome, _) = run.outcome(&marked).await;
    assert!(
        matches!(&outcome, Outcome::BootFailed { reason, .. } if reason == "init did not run within 4 s"),
        "{outcome:?}"
    );
    run.timeouts.boot_s = 20;
    run.timeouts.silence_s = 2;
    // A reproducer that forges the good end, while init is dead.
    let dead = Program::new().start().say(RESULTS, &guess).say(CONSOLE, &guess);
    let (outcome, _) = run.outcome(&dead).await;
    assert!(matches!(outcome, Outcome::Hung { .. }), "{outcome:?}");
    // A second start, with the marker it has read, moves no border either.
    let again = Program::new().start().say(CONSOLE, PANIC);
    let again = again.say(CONSOLE, "[ 9.0] kulprit ").marker(CONSOLE).say(CONSOLE, " start\n").result("done");
    let (outcome, _) = run.outcome(&again.reboot()).await;
    assert_eq!(phases(&outcome), [Phase::Reproducer], "{outcome:?}");
}

#[tokio::test]
async fn qemu_is_confined_and_its_death_is_nobodys_fault() {
    let Some(mut run) = Run::new("killed") else { return };
    run.timeouts.silence_s = 30;
    let program = Program::new().start().say(CONSOLE, PANIC).forever(Program::new().result("alive").pause());
    run.timeouts.drain_ms = 30_000;
    let watching = async {
        let pid = run.running().await;
        let confinement = Confinement::of(pid);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        confinement
    };
    let (infra, confinement) = tokio::join!(run.infra(&program), watching);
    // Even though the guest had crashed by then.
    assert_eq!((infra.class, infra.reason.as_str()), (InfraClass::Qemu, "QEMU was killed by signal 9"));
    confinement.check();
}

/// What the kernel says of a running QEMU.
struct Confinement {
    arguments: String,
    status: String,
    limits: String,
    files: Vec<String>,
    environment: Vec<u8>,
    cgroup: String,
}

impl Confinement {
    fn of(pid: i32) -> Confinement {
        let dir = std::path::PathBuf::from(format!("/proc/{pid}"));
        let text =
            |name: &str| String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap()).replace('\0', " ");
        let links = fs::read_dir(dir.join("fd")).unwrap().flatten();
        Confinement {
            arguments: text("cmdline"),
            status: text("status"),
            limits: text("limits"),
            files: links.map(|it| fs::read_link(it.path()).unwrap().display().to_string()).collect(),
            environment: fs::read(dir.join("environ")).unwrap(),
            cgroup: text("cgroup"),
        }
    }

    fn check(&self) {
        for word in [
            "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-nic none",
            "-no-reboot",
            "-nodefaults",
        ] {
            assert!(self.arguments.contains(word), "no {word} in {}", self.arguments);
        }
        let field = |name: &str| {
            let line = self.status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}"))
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        if nix::unistd::geteuid().is_root() {
            assert_eq!(field("Uid:"), ["65534"; 4]);
            assert!(!field("Groups:").contains(&"0".to_owned()), "{}", self.status);
            match kulprit_agent::boot::memory_groups() {
                Ok(_) => assert!(self.cgroup.contains("/kulprit-sandbox-killed"), "{}", self.cgroup),
                Err(why) => eprintln!("skipped: a memory group for QEMU: {why}"),
            }
        }
        assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), (vec!["2".to_owned()], vec!["1".to_owned()]));
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        let limit = |name: &str| self.limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let size: Vec<String> = limit("Max file size").split_whitespace().map(str::to_owned).collect();
        assert_eq!(size[3..5], ["0", "0"], "it writes no file");
        assert_eq!(self.environment, b"", "it is given nothing of the agent's");
        let sockets = self.files.iter().filter(|file| file.starts_with("socket:"));
        assert_eq!(sockets.count(), 0, "{:?}", self.files);
        // Pipes, its own event channels, the kernel and the initramfs; nothing of the agent's.
        let own =
            |file: &&String| ["pipe:", "anon_inode:", "/dev/null"].iter().any(|it| file.starts_with(it));
        let rest: Vec<_> = self.files.iter().filter(|file| !own(file)).collect();
        assert!(rest.iter().all(|file| file.ends_with("/kernel") || file.contains("(deleted)")), "{rest:?}");
    }
}

/// An agent that did not get to run for a while, as one that was stopped, must not take the guest's
/// unread words for silence.
#[tokio::test]
async fn an_agent_that_was_stopped_calls_no_guest_silent() {
    let Some(mut run) = Run::new("stopped") else { return };
    run.timeouts.silence_s = 3;
    run.timeouts.reproducer_s = 60;
    let alive = Program::new().result("alive").pause();
    let course = (0..40).fold(Program::new().start(), |course, _| course.then(&alive));
    let program = course.result("exit code 0").result("done").reboot();
    let stopping = async {
        run.running().await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // Nothing else runs on this thread meanwhile.
            std::thread::sleep(Duration::from_millis(3500));
        }
    };
    let ((outcome, _), ()) = tokio::join!(run.outcome(&program), stopping);
    assert_eq!(outcome, Outcome::Ok);
}
