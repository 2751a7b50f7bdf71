//! A report that is still arriving: its lines so far, how much is kept of them, and what goes on with it.

use super::line::{Context, Line};
use super::oops::{self, Compiled};

/// Lines and bytes kept of one report. The longest real ones, lists of all locks, have about 1500 lines.
const REPORT_LINES_MAX: usize = 2000;
const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Lines after an oops line that are taken for its report before any stack shows.
const CERTAIN_LINES: usize = 100;

/// A report in progress.
pub(super) struct Open {
    pub lines: Vec<Line>,
    bytes: usize,
    pub candidates: Vec<&'static Compiled>,
    pub context: Option<Context>,
    /// Length of `lines` up to the last one that is certainly the report's.
    certain: usize,
    /// Console line of that one.
    pub last_number: usize,
    pub stack_seen: bool,
    pub panicked: bool,
    /// Parts of a stack came after as many lines as are kept.
    pub cut: bool,
    /// Console line at which the report was over.
    pub closed_at: Option<usize>,
}

impl Open {
    pub fn new(line: Line, candidates: Vec<&'static Compiled>) -> Self {
        Self {
            bytes: line.text.len(),
            context: line.context,
            certain: 1,
            last_number: line.number,
            stack_seen: false,
            panicked: oops::is_panic(&line.text),
            cut: false,
            closed_at: None,
            candidates,
            lines: vec![line],
        }
    }

    /// The lines that are certainly the report's.
    pub fn report(&self) -> &[Line] {
        &self.lines[..self.certain]
    }

    pub fn every_context(&self) -> bool {
        self.candidates.first().is_some_and(|c| c.rule.every_context)
    }

    pub fn absorbs(&self, text: &str) -> bool {
        !self.stack_seen
            && self.candidates.iter().any(|c| c.absorbs.as_ref().is_some_and(|p| p.is_match(text)))
    }

    /// A symbolised oops line is printed once for every function inlined there.
    pub fn repeats(&self, text: &str) -> bool {
        let last = self.lines.last().map_or("", |line| line.text.as_str());
        last.contains("[inline]") && last.split(' ').next() == text.split(' ').next()
    }

    /// Takes a line, as long as there is room; `frame` says that it shows a function on a stack.
    pub fn append(&mut self, line: &Line, frame: bool) {
        let text = line.text.as_str();
        if self.lines.len() < REPORT_LINES_MAX && self.bytes + text.len() < REPORT_BYTES_MAX {
            self.bytes += text.len();
            self.lines.push(line.clone());
            let near = self.lines.len() - self.certain < CERTAIN_LINES;
            if frame
                || oops::is_panic(text)
                || text.starts_with("---[ end ")
                || text.starts_with("====")
                || near && !self.stack_seen
            {
                self.certain = self.lines.len();
            }
        } else {
            self.cut |= frame;
        }
        if frame {
            self.stack_seen = true;
            self.last_number = line.number;
        }
    }
}
