//! Builds hostile guests and runs them in real QEMU.

use kulprit_agent::boot::{BootError, BootReport, BootRequest, QemuConfig, boot, qemu};
use kulprit_common::job::{Machine, ReproducerKind, Timeouts};
use kulprit_common::outcome::{Infra, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The console.
pub const CONSOLE: u8 = 1;
/// The result channel.
pub const RESULTS: u8 = 2;

/// What a guest does, one word after the other; at the end it hangs.
#[derive(Clone, Default)]
pub struct Program {
    bytes: Vec<u8>,
}

impl Program {
    pub fn new() -> Program {
        Program::default()
    }

    pub fn say(mut self, port: u8, text: &str) -> Program {
        for piece in text.as_bytes().chunks(usize::from(u16::MAX)) {
            self.bytes.extend([1, port]);
            self.bytes.extend(u16::try_from(piece.len()).unwrap().to_le_bytes());
            self.bytes.extend(piece);
        }
        self
    }

    /// Prints the nonce of the result channel.
    pub fn nonce(mut self, port: u8) -> Program {
        self.bytes.extend([2, port, 0]);
        self
    }

    /// Prints the word that marks phases in the kernel's log.
    pub fn marker(mut self, port: u8) -> Program {
        self.bytes.extend([2, port, 40]);
        self
    }

    /// What our init says over the result channel.
    pub fn result(self, word: &str) -> Program {
        self.say(RESULTS, "\nkulprit ").nonce(RESULTS).say(RESULTS, &format!(" {word}\n"))
    }

    /// What our init says there and in the kernel's log.
    pub fn mark(self, word: &str) -> Program {
        let said = self.result(word).say(CONSOLE, "[    2.000000] kulprit ");
        said.marker(CONSOLE).say(CONSOLE, &format!(" {word}\n"))
    }

    /// Comes up and starts the reproducer, as an honest guest does.
    pub fn start(self) -> Program {
        self.say(CONSOLE, "[    0.000000] Linux version 6.1.0\n").mark("up").result("settled").mark("start")
    }

    /// A fraction of a second.
    pub fn pause(mut self) -> Program {
        self.bytes.push(4);
        self.bytes.extend(100_000_000_u32.to_le_bytes());
        self
    }

    pub fn reboot(mut self) -> Program {
        self.bytes.push(5);
        self
    }

    pub fn triple_fault(mut self) -> Program {
        self.bytes.push(6);
        self
    }

    pub fn then(mut self, more: &Program) -> Program {
        self.bytes.extend(&more.bytes);
        self
    }

    /// Does all that `round` does, again and again.
    pub fn forever(mut self, round: Program) -> Program {
        let here = u32::try_from(self.bytes.len()).unwrap();
        assert!(!round.bytes.is_empty());
        self.bytes.extend(round.bytes);
        self.bytes.push(3);
        self.bytes.extend(here.to_le_bytes());
        self
    }
}

/// How a guest is run, and what is left of it.
pub struct Run {
    pub dir: tempfile::TempDir,
    pub timeouts: Timeouts,
    pub config: QemuConfig,
    pub name: String,
}

impl Run {
    /// `None`, after a word of why, where QEMU or binutils are missing.
    pub fn new(test: &str) -> Option<Run> {
        for program in ["qemu-system-x86_64", "as", "ld"] {
            if Command::new(program).arg("--version").output().is_err() {
                assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "{program} is not installed");
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        // A boot on a machine that does much else still comes to its first byte in this time.
        let timeouts = Timeouts {
            first_byte_s: 20,
            boot_s: 20,
            settle_ms: 0,
            silence_s: 5,
            reproducer_s: 30,
            drain_ms: 1000,
            ..Timeouts::default()
        };
        let config = QemuConfig { user: qemu::unprivileged_user(), ..QemuConfig::default() };
        let name = format!("sandbox-{test}-{}", std::process::id());
        Some(Run { dir: tempfile::tempdir().unwrap(), timeouts, config, name })
    }

    pub async fn boot(&self, program: &Program) -> Result<BootReport, BootError> {
        let kernel = image(self.dir.path(), program);
        // No guest here touches more.
        let machine = Machine { memory_mib: 64, cpus: 1, ..Machine::default() };
        let request = BootRequest {
            kernel: &kernel,
            build_id: "",
            reproducer: b"binary",
            kind: ReproducerKind::Binary,
            args: &[],
            machine: &machine,
            timeouts: &self.timeouts,
            work_dir: self.dir.path(),
            name: &self.name,
        };
        let (live, _unheard) = mpsc::channel(1);
        let ended = boot(&self.config, request, live, CancellationToken::new());
        let ended = tokio::time::timeout(Duration::from_secs(100), ended).await;
        self.assert_nothing_left();
        ended.expect("every run comes to an end")
    }

    pub async fn outcome(&self, program: &Program) -> (Outcome, String) {
        let report = self.boot(program).await.unwrap();
        let console = std::fs::read(report.console).unwrap();
        (report.outcome, String::from_utf8_lossy(&console).into_owned())
    }

    pub async fn infra(&self, program: &Program) -> Infra {
        match self.boot(program).await {
            Err(BootError::Infra(infra)) => infra,
            other => panic!("{other:?}"),
        }
    }

    /// The process that runs this guest.
    pub fn pid(&self) -> Option<i32> {
        let name = format!("guest=kulprit-{}", self.name);
        let runs = |dir: &Path| {
            let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == name.as_bytes())
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        entries.filter(|dir| runs(dir)).find_map(|dir| dir.file_name()?.to_str()?.parse().ok())
    }

    /// Waits until the guest printed something, and says which process runs it.
    pub async fn running(&self) -> i32 {
        let console = self.dir.path().join(format!("{}.console", self.name));
        loop {
            let said = std::fs::metadata(&console).is_ok_and(|meta| meta.len() > 0);
            if let (true, Some(pid)) = (said, self.pid()) {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.pid(), None, "QEMU was left");
        let left: Vec<_> =
            std::fs::read_dir(self.dir.path()).unwrap().flatten().map(|it| it.path()).collect();
        let console = left.iter().filter(|path| path.extension().is_some_and(|it| it == "console"));
        assert!(console.count() <= 1 && left.len() <= 5, "{left:?}");
    }
}

fn image(dir: &Path, program: &Program) -> PathBuf {
    let (object, binary, image) = (dir.join("guest.o"), dir.join("guest.bin"), dir.join("kernel"));
    if !binary.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/guest.S");
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("as").arg("--32").arg("-o").arg(&object).arg(source));
        let format = "-m elf_i386 -N -Ttext=0x100000 --oformat binary";
        run(Command::new("ld").args(format.split(' ')).arg("-o").arg(&binary).arg(&object));
    }
    let mut bytes = std::fs::read(binary).unwrap();
    bytes.extend(&program.bytes);
    bytes.push(0);
    std::fs::write(&image, bytes).unwrap();
    // QEMU's user reads it by its descriptor.
    std::fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    image
}
