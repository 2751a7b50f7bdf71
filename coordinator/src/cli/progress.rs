//! How far a long call has come: a bar on a terminal, now and then a line elsewhere.

use super::say::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Without a bar nothing is silent for longer.
const SPEAK_EVERY: Duration = Duration::from_secs(30);

pub struct Progress {
    what: &'static str,
    /// 0 where it is not known.
    all: u64,
    spoke: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(what: &'static str, all: u64) -> Progress {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg} {human_pos} of {human_len} {wide_bar}");
            bar.set_style(style.expect("the template is sound"));
            bar.set_message(what);
            bar
        });
        Progress { what, all, spoke: Instant::now(), bar }
    }

    pub fn of(&mut self, all: u64) {
        self.all = all;
        if let Some(bar) = &self.bar {
            bar.set_length(all);
        }
    }

    pub fn at(&mut self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.spoke.elapsed() >= SPEAK_EVERY => {
                self.spoke = Instant::now();
                match self.all {
                    0 => say(&format!("{} {done}", self.what)),
                    all => say(&format!("{} {done} of {all}", self.what)),
                }
            }
            None => {}
        }
    }

    pub fn close(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
