//! The last happenings of a world, kept only where a seed is replayed.

use std::collections::VecDeque;

const LINES: usize = 120;

#[derive(Default)]
pub struct Trace {
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub fn on() -> Trace {
        Trace { lines: Some(VecDeque::new()) }
    }

    /// Keeps a line; what it says is made only if anybody will read it.
    pub fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{:>9}.{:03} {}", now / 1000, now % 1000, line()));
    }

    pub fn print(&self) {
        self.lines.iter().flatten().for_each(|line| eprintln!("{line}"));
    }
}
