//! The streaming parser: which lines belong to which report, and when a report is complete.

use std::collections::VecDeque;

use super::Crash;
use super::analyse::{self, Report};
use super::line::{self, Line, Splitter};
use super::oops::{self, Compiled};
use super::open::Open;
use super::prefilter;
use super::rules::REBOOT_TITLE;
use super::stack;

/// Crashes kept from one console; a kernel that prints more repeats itself.
const CRASHES_MAX: usize = 1000;
/// Reports held at once, interleaved or just over; more CPUs than this do not oops together.
const HELD_MAX: usize = 32;
/// Console lines for which a report that is over is still held: a panic because of it may follow.
const LINGER_LINES: usize = 1000;
/// Console lines since a stack within which a panic is taken for its consequence, whoever printed it.
const PANIC_LINES: usize = 100;
/// Console lines without any part of a stack after which a report is over.
const QUIET_LINES_MAX: usize = 400;
/// Uptime from which a boot banner is no part of the console's own boot.
const RUNNING_S: u64 = 10;

/// Finds crashes in a console, fed in chunks of any size.
///
/// Bytes of any kind are taken; memory is bounded, time linear in the bytes fed.
pub struct ConsoleParser {
    splitter: Splitter,
    reports: Reports,
}

impl Default for ConsoleParser {
    fn default() -> Self {
        Self::new()
    }
}

impl ConsoleParser {
    pub fn new() -> Self {
        Self { splitter: Splitter::default(), reports: Reports::default() }
    }

    /// Takes the next bytes and returns the crashes whose reports they complete, in console order.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<Crash> {
        let Self { splitter, reports } = self;
        while !bytes.is_empty() && !reports.is_full() {
            if splitter.at_line_begin() && reports.open.is_empty() {
                let calm = prefilter::calm_lines(bytes);
                if !calm.is_empty() {
                    splitter.skip(calm);
                    reports.calm_lines(calm);
                    bytes = &bytes[calm.len()..];
                    continue;
                }
            }
            bytes = splitter.line(bytes, |number, raw| reports.raw_line(number, raw));
        }
        std::mem::take(&mut reports.done)
    }

    /// Says whether an oops line has been seen whose report may still be arriving.
    pub fn crash_started(&self) -> bool {
        !self.is_full() && !self.reports.open.is_empty()
    }

    /// Says whether as many crashes were found as are kept of one console; what follows is not read.
    pub fn is_full(&self) -> bool {
        self.reports.is_full()
    }

    /// Returns the crashes whose reports the end of the console completes.
    pub fn finish(mut self) -> Vec<Crash> {
        let Self { splitter, reports } = &mut self;
        splitter.finish(|number, raw| reports.raw_line(number, raw));
        reports.close_all();
        std::mem::take(&mut reports.done)
    }
}

#[derive(Default)]
struct Reports {
    /// Reports in console order of their oops lines.
    open: VecDeque<Open>,
    done: Vec<Crash>,
    found: usize,
    uptime_s: u64,
    stamps_seen: bool,
    /// Anything at all was printed.
    spoke: bool,
    /// Firmware began anew under a machine that had been running.
    restarted: bool,
    /// A line was seen after which crashes are the machine's or a program's fault.
    suppressed: bool,
}

impl Reports {
    fn is_full(&self) -> bool {
        self.found == CRASHES_MAX
    }

    /// Takes note of whole lines, none of which may matter, while no report is open.
    fn calm_lines(&mut self, lines: &[u8]) {
        self.spoke = self.spoke || !lines.trim_ascii().is_empty();
        if let Some(stamp_s) = line::last_stamp_s(lines) {
            self.stamps_seen = true;
            self.uptime_s = stamp_s;
        }
    }

    fn raw_line(&mut self, number: usize, raw: &[u8]) {
        if self.is_full() {
            return;
        }
        let matters = prefilter::may_matter(raw);
        if matters {
            self.suppressed = self.suppressed || oops::suppresses(raw);
            if oops::is_firmware_banner(raw) {
                self.restarted = self.spoke;
            }
        }
        self.spoke = self.spoke || !raw.trim_ascii().is_empty();
        if self.open.is_empty() && !matters {
            if let Some(stamp_s) = line::leading_stamp_s(raw) {
                self.stamps_seen = true;
                self.uptime_s = stamp_s;
            }
            return;
        }
        for line in line::read(number, raw) {
            if let Some(stamp_s) = line.stamp_s {
                self.stamps_seen = true;
                if !oops::is_boot_banner(&line.text) {
                    self.uptime_s = stamp_s;
                }
            }
            self.line(line);
        }
        self.emit(number);
    }

    fn line(&mut self, line: Line) {
        if oops::is_boot_banner(&line.text) {
            self.boot(&line);
            return;
        }
        for open in self.open.iter_mut().filter(|open| line.number - open.last_number > QUIET_LINES_MAX) {
            open.closed_at.get_or_insert(line.number);
        }
        let candidates = oops::candidates(&line, self.stamps_seen);
        if candidates.is_empty() || self.continued_by(&line) {
            self.append(&line);
        } else {
            self.start(line, candidates);
        }
    }

    /// Says whether an oops line belongs to a report that is open, and notes what it tells of it.
    fn continued_by(&mut self, line: &Line) -> bool {
        let panic = oops::is_panic(&line.text);
        let related = |open: &Open| line.belongs_to(open.context) || open.every_context();
        if panic {
            let near = |open: &Open| line.number - open.last_number <= PANIC_LINES;
            for open in self.open.iter_mut().filter(|open| related(open) || near(open)) {
                open.panicked = true;
            }
        }
        self.open.iter().rev().filter(|open| open.closed_at.is_none()).any(|open| {
            let continues = || {
                oops::continues(&line.text, open.stack_seen)
                    || open.absorbs(&line.text)
                    || open.repeats(&line.text)
            };
            panic || open.panicked || (related(open) && continues())
        })
    }

    /// Opens a report; those before it in the same context are over.
    fn start(&mut self, line: Line, candidates: Vec<&'static Compiled>) {
        // A program's complaint does not end what the kernel is printing.
        let ended = |open: &Open| line.stamp_s.is_some() || open.lines[0].stamp_s.is_none();
        for open in self.open.iter_mut().filter(|open| line.belongs_to(open.context) && ended(open)) {
            open.closed_at.get_or_insert(line.number);
        }
        if self.open.len() == HELD_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.hand_out(&oldest);
        }
        self.open.push_back(Open::new(line, candidates));
    }

    fn append(&mut self, line: &Line) {
        if self.open.iter().all(|open| open.closed_at.is_some()) {
            return;
        }
        // Asked once: as many reports as are held may get the line.
        let frame = stack::is_frame(&line.text);
        for open in self.open.iter_mut().filter(|open| open.closed_at.is_none()) {
            if line.belongs_to(open.context) || open.every_context() {
                open.append(line, frame);
            }
        }
    }

    /// No report reaches across a boot; a boot of a running kernel is a crash by itself.
    fn boot(&mut self, line: &Line) {
        self.close_all();
        if (self.restarted || self.uptime_s >= RUNNING_S) && !self.is_full() {
            self.found += 1;
            self.done.push(Crash {
                title: REBOOT_TITLE.to_owned(),
                alt_titles: Vec::new(),
                frame: None,
                frames: Vec::new(),
                files: Vec::new(),
                corrupted: false,
                suppressed: self.suppressed,
                panicked: false,
                first_line: line.number,
                last_line: line.number,
                report: format!("{}\n", line.text),
            });
        }
        self.uptime_s = 0;
        self.restarted = false;
    }

    fn close_all(&mut self) {
        while let Some(open) = self.open.pop_front() {
            self.hand_out(&open);
        }
    }

    /// Hands out reports that have been over for a while, as long as no other stands before them.
    fn emit(&mut self, now: usize) {
        let is_due = |open: &mut Open| open.closed_at.is_some_and(|at| now - at > LINGER_LINES);
        while let Some(open) = self.open.pop_front_if(is_due) {
            self.hand_out(&open);
        }
    }

    fn hand_out(&mut self, open: &Open) {
        if self.is_full() {
            return;
        }
        let report = Report {
            lines: open.report(),
            candidates: &open.candidates,
            suppressed: self.suppressed,
            panicked: open.panicked,
            cut: open.cut,
        };
        if let Some(crash) = analyse::crash(&report) {
            self.found += 1;
            self.done.push(crash);
        }
    }
}
