//! Decides what a run observed: takes bytes, times and QEMU's end, gives deadlines and the outcome.
//!
//! Without IO and clock: every time is the duration since QEMU's start. The longest a run may take
//! is the sum of the stages' limits, so there is no further timer for the whole.

use super::lines::{Lines, Word, word};
use kulprit_common::crash::{ConsoleParser, Crash};
use kulprit_common::job::Timeouts;
use kulprit_common::outcome::{Outcome, Phase, SeenCrash};
use std::time::Duration;

/// More than init's settling may take until it starts the reproducer.
const START_SLACK: Duration = Duration::from_secs(60);
/// More than reproducer and lingering may take; a busy host makes a guest's clock lag.
const END_SLACK: Duration = Duration::from_secs(30);
/// From init's last word to QEMU's exit.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// A report that goes on this many times longer than it may pause is cut.
const DRAIN_PAUSES_MAX: u32 = 10;
/// A run with more crashes than this before the reproducer's start, and as many after it, tells
/// nothing more.
const CRASHES_MAX: usize = 100;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What runs is not the kernel that was built, by the build id that it tells.
    OtherKernel(String),
    /// QEMU exited by itself: the guest restarted, or panicked.
    Exited,
    /// Nothing was printed in time.
    NoOutput,
    /// Init's marker did not come in time.
    NoMarker,
    /// Init was up, and then did not start the reproducer in time.
    NoStart,
    /// Init says that it could not start the reproducer.
    CannotStart(String),
    /// Init gave no sign of life for too long.
    Silent,
    /// Init lives, and yet did not end the reproducer in time.
    Overdue,
    /// The reproducer crashed the kernel and the report is complete.
    Drained,
    /// Everything went its course.
    Done,
}

enum Stage {
    /// Nothing printed yet.
    Dark,
    Booting,
    Settling {
        since: Duration,
    },
    Running {
        since: Duration,
        sign: Duration,
    },
    /// Init said its last word; the guest is going down.
    Done {
        since: Duration,
    },
}

struct Drain {
    since: Duration,
    /// When the console last said something.
    last: Duration,
}

/// The line of the console from which on a phase holds.
///
/// The two ports have no common order, so a marker in the console itself counts more than the
/// line at which the console was when the word came through the result channel.
#[derive(Default)]
struct Border {
    marked: Option<usize>,
    said: Option<usize>,
}

impl Border {
    fn line(&self) -> Option<usize> {
        self.marked.or(self.said)
    }
}

/// One run as it is being watched.
pub struct Watch {
    timeouts: Timeouts,
    nonce: String,
    marker: String,
    stage: Stage,
    console: Lines,
    results: Lines,
    parser: ConsoleParser,
    /// The console's line at which `parser` began.
    parser_line: usize,
    crashes: Vec<Crash>,
    up: Border,
    start: Border,
    drain: Option<Drain>,
    /// The build id that the kernel must tell; empty where any will do.
    build_id: String,
    /// Nothing is to be run: whether init comes up is all there is to see.
    boot_only: bool,
    ending: Option<Ending>,
}

impl Watch {
    pub fn new(timeouts: Timeouts, nonce: String, marker: String) -> Watch {
        Watch {
            timeouts,
            nonce,
            marker,
            stage: Stage::Dark,
            console: Lines::default(),
            results: Lines::default(),
            parser: ConsoleParser::new(),
            parser_line: 0,
            crashes: Vec::new(),
            up: Border::default(),
            start: Border::default(),
            drain: None,
            build_id: String::new(),
            boot_only: false,
            ending: None,
        }
    }

    /// Ends the run where another kernel runs than the one of this build id.
    pub fn of_kernel(self, build_id: &str) -> Watch {
        Watch { build_id: build_id.to_owned(), ..self }
    }

    /// Ends the run where the reproducer would start.
    pub fn of_the_boot(mut self) -> Watch {
        self.boot_only = true;
        self
    }

    /// Takes bytes of the console. Feed what there is on the result channel first.
    pub fn console(&mut self, now: Duration, bytes: &[u8]) {
        if matches!(self.stage, Stage::Dark) {
            self.stage = Stage::Booting;
        }
        if let Some(drain) = &mut self.drain {
            drain.last = now;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.console_line(now, piece);
            let fresh = self.parser.feed(piece);
            self.keep(fresh);
        }
        if self.drain.is_none() && self.reproducer_crashed() {
            self.drain = Some(Drain { since: now, last: now });
        }
    }

    /// Takes bytes of the result channel.
    pub fn results(&mut self, now: Duration, bytes: &[u8]) {
        let mut words = Vec::new();
        self.results.feed(bytes, |_, line| words.extend(word(line, &self.nonce)));
        for word in words {
            self.hear(now, word);
        }
    }

    /// When `expire` wants to be called next, if nothing comes before.
    pub fn deadline(&self) -> Duration {
        let stage = self.stage_deadline();
        self.drain_deadline().map_or(stage, |drain| drain.min(stage))
    }

    /// Looks which timer ran out.
    pub fn expire(&mut self, now: Duration) {
        if self.ending.is_some() {
            return;
        }
        if self.drain_deadline().is_some_and(|deadline| deadline <= now) {
            self.ending = Some(Ending::Drained);
        } else if self.stage_deadline() <= now {
            self.ending = Some(match self.stage {
                Stage::Dark => Ending::NoOutput,
                Stage::Booting => Ending::NoMarker,
                Stage::Settling { .. } => Ending::NoStart,
                Stage::Running { sign, .. } if sign + self.silence() <= now => Ending::Silent,
                Stage::Running { .. } => Ending::Overdue,
                Stage::Done { .. } => Ending::Done,
            });
        }
    }

    /// Takes note that QEMU exited.
    pub fn exited(&mut self) {
        let ending = match self.stage {
            Stage::Done { .. } => Ending::Done,
            Stage::Dark | Stage::Booting | Stage::Settling { .. } | Stage::Running { .. } => Ending::Exited,
        };
        self.ending.get_or_insert(ending);
    }

    /// How the run ended, once it did: then QEMU has no more to say, and can be killed.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// What the run observed.
    pub fn conclude(mut self) -> Outcome {
        if self.boot_only && !matches!(self.stage, Stage::Dark | Stage::Booting) {
            return Outcome::Ok;
        }
        self.part(0);
        let crashes = std::mem::take(&mut self.crashes);
        let seen: Vec<_> = crashes
            .into_iter()
            .map(|crash| SeenCrash { phase: self.phase(crash.first_line), crash })
            .collect();
        if seen.iter().any(|crash| crash.phase == Phase::Reproducer) {
            return Outcome::Crashed(seen);
        }
        let started = matches!(self.stage, Stage::Running { .. } | Stage::Done { .. });
        if let Some(first) = seen.first() {
            let reason = format!("crashed before the reproducer started: {}", first.crash.title);
            return Outcome::BootFailed { crashes: seen, reason };
        }
        let ending = self.ending.take().unwrap_or(Ending::Exited);
        let reason = self.reason(&ending);
        match ending {
            Ending::Done => Outcome::Ok,
            Ending::CannotStart(reason) => Outcome::NoReproducerStart { reason },
            Ending::OtherKernel(_) => Outcome::BootFailed { crashes: seen, reason },
            Ending::Exited if !started => Outcome::BootFailed { crashes: seen, reason },
            Ending::NoOutput | Ending::NoMarker | Ending::NoStart => {
                Outcome::BootFailed { crashes: seen, reason }
            }
            // A report that the parser does not count as a crash ends as the hang it is.
            Ending::Exited | Ending::Silent | Ending::Overdue | Ending::Drained => Outcome::Hung { reason },
        }
    }

    fn hear(&mut self, now: Duration, word: Word) {
        let line = self.console.count;
        match (word, &mut self.stage) {
            (_, Stage::Done { .. }) => {}
            // The reproducer's talk counts for nothing here.
            (Word::Kernel(id), Stage::Dark | Stage::Booting) => {
                if !self.build_id.is_empty() && id != self.build_id {
                    self.ending.get_or_insert(Ending::OtherKernel(id));
                }
            }
            (Word::Up, Stage::Dark | Stage::Booting) => {
                self.up.said = Some(line);
                self.stage = Stage::Settling { since: now };
            }
            (Word::Start, Stage::Dark | Stage::Booting | Stage::Settling { .. }) => {
                self.start.said = Some(line);
                self.stage = Stage::Running { since: now, sign: now };
                if self.boot_only {
                    self.ending.get_or_insert(Ending::Done);
                }
            }
            (Word::CannotStart(reason), _) => {
                self.ending.get_or_insert(Ending::CannotStart(reason));
            }
            (Word::Done, Stage::Running { .. }) => self.stage = Stage::Done { since: now },
            (_, Stage::Running { sign, .. }) => *sign = now,
            (_, Stage::Dark | Stage::Booting | Stage::Settling { .. }) => {}
        }
    }

    /// Looks for markers, and for results of a guest that has no port of its own for them.
    fn console_line(&mut self, now: Duration, piece: &[u8]) {
        let (mut mark, mut said) = (None, None);
        self.console.feed(piece, |index, line| {
            mark = word(line, &self.marker).map(|word| (word, index));
            said = word(line, &self.nonce);
        });
        match mark {
            Some((Word::Up, line)) if self.up.marked.is_none() => self.up.marked = Some(line),
            Some((Word::Start, line)) if self.start.marked.is_none() => {
                self.start.marked = Some(line);
                self.part(line);
            }
            Some(_) | None => {}
        }
        if let Some(word) = said {
            self.hear(now, word);
        }
    }

    /// Begins a new parse at the reproducer's start: a report of before takes in lines of a
    /// panic after it, but here is a border that no report crosses.
    fn part(&mut self, line: usize) {
        let before = std::mem::replace(&mut self.parser, ConsoleParser::new());
        self.keep(before.finish());
        self.parser_line = line;
    }

    fn keep(&mut self, crashes: Vec<Crash>) {
        for crash in crashes {
            let first_line = crash.first_line + self.parser_line;
            let last_line = crash.last_line + self.parser_line;
            // However much a guest prints before the start, what comes after it is kept.
            let after = self.phase(first_line) == Phase::Reproducer;
            let alike = |it: &&Crash| (self.phase(it.first_line) == Phase::Reproducer) == after;
            if self.crashes.iter().filter(alike).count() < CRASHES_MAX {
                self.crashes.push(Crash { first_line, last_line, ..crash });
            }
        }
    }

    fn reproducer_crashed(&self) -> bool {
        let open = self.start.marked.is_some() && self.parser.crash_started();
        open || self.crashes.last().is_some_and(|crash| self.phase(crash.first_line) == Phase::Reproducer)
    }

    fn phase(&self, line: usize) -> Phase {
        if self.start.line().is_some_and(|start| line >= start) {
            Phase::Reproducer
        } else if self.up.line().is_some_and(|up| line >= up) {
            Phase::Settle
        } else {
            Phase::Boot
        }
    }

    fn stage_deadline(&self) -> Duration {
        let boot = Duration::from_secs(self.timeouts.boot_s.into());
        match self.stage {
            Stage::Dark => Duration::from_secs(self.timeouts.first_byte_s.into()).min(boot),
            Stage::Booting => boot,
            Stage::Settling { since } => {
                since + Duration::from_millis(self.timeouts.settle_ms.into()) + START_SLACK
            }
            Stage::Running { since, sign } => (sign + self.silence()).min(since + self.course() + END_SLACK),
            Stage::Done { since } => since + SHUTDOWN,
        }
    }

    fn drain_deadline(&self) -> Option<Duration> {
        let pause = Duration::from_millis(self.timeouts.drain_ms.into());
        let drain = self.drain.as_ref()?;
        Some((drain.last + pause).min(drain.since + pause * DRAIN_PAUSES_MAX))
    }

    fn silence(&self) -> Duration {
        Duration::from_secs(self.timeouts.silence_s.into())
    }

    fn course(&self) -> Duration {
        Duration::from_secs(self.timeouts.reproducer_s.into())
            + Duration::from_millis(self.timeouts.linger_ms.into())
    }

    fn reason(&self, ending: &Ending) -> String {
        let limits = &self.timeouts;
        match ending {
            Ending::Exited => {
                let when = match self.stage {
                    Stage::Dark => "before it printed anything",
                    Stage::Booting => "while booting",
                    Stage::Settling { .. } => "before the reproducer started",
                    Stage::Running { .. } | Stage::Done { .. } => "while the reproducer ran",
                };
                format!("the guest restarted {when}, without a crash report")
            }
            Ending::OtherKernel(id) => format!("another kernel runs, with the build id {id}"),
            Ending::NoOutput => format!("no output within {} s", limits.first_byte_s.min(limits.boot_s)),
            Ending::NoMarker => format!("init did not run within {} s", limits.boot_s),
            Ending::NoStart => "the guest fell silent before the reproducer started".to_owned(),
            Ending::CannotStart(reason) => reason.clone(),
            Ending::Silent => format!("no sign of life for {} s", limits.silence_s),
            Ending::Overdue => {
                let limit = self.course() + END_SLACK;
                format!("the reproducer's end did not come within {} s", limit.as_secs())
            }
            Ending::Drained => "the kernel printed a report that is not a crash, and was stopped".to_owned(),
            Ending::Done => "done".to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
