//! Console text to crashes: titles, frames and stacks, and how alike two crashes are.
//!
//! `prefilter` passes over lines that cannot matter, `line` reads the others, `stream` gathers them into
//! reports (`open`), `oops` and `rules` say what a report is, `stack`, `helpers` and `stall` find the
//! function to blame, `analyse` and `title` put it together.

mod analyse;
mod code;
mod compare;
mod damage;
mod definitions;
mod guilty;
mod helpers;
mod kind;
mod line;
mod oops;
mod open;
mod prefilter;
mod rules;
mod stack;
mod stall;
mod stream;
mod symbolise;
mod title;

use serde::{Deserialize, Serialize};

pub use code::disassembly;
pub use compare::{Similarity, compare, leads_to, similarity, similarity_in_run};
pub use definitions::Functions;
pub use guilty::guilty_file;
pub use kind::{Executor, kind};
pub use stream::ConsoleParser;
pub use symbolise::{Place, Spot, Symbolised, Symbols, symbolise};

/// One crash that a console reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Crash {
    /// At most 120 characters, as syzbot would name it.
    pub title: String,
    /// Further titles of the same bug, sorted.
    pub alt_titles: Vec<String>,
    /// Function that names the bug.
    pub frame: Option<String>,
    /// Stack functions in order, innermost first, helpers left out; at most 32.
    pub frames: Vec<String>,
    /// Source files that the report names; at most 32.
    pub files: Vec<String>,
    /// The report is damaged: what should stand in it does not.
    pub corrupted: bool,
    /// The machine or a program was at fault before the kernel was: not worth a person's time.
    #[serde(default)]
    pub suppressed: bool,
    /// The crash is a kernel panic, or one follows closely.
    pub panicked: bool,
    /// 0-based console lines.
    pub first_line: usize,
    pub last_line: usize,
    /// The report's lines without printk prefixes; at most 64 KiB.
    pub report: String,
}

impl Crash {
    /// A crash of which nothing is known but its title.
    pub fn titled(title: &str) -> Self {
        Crash {
            title: title.into(),
            alt_titles: vec![],
            frame: None,
            frames: vec![],
            files: vec![],
            corrupted: false,
            suppressed: false,
            panicked: false,
            first_line: 0,
            last_line: 0,
            report: String::new(),
        }
    }
}

/// How a crash relates to the one that is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// A title of the one is a title of the other.
    Same,
    /// Another title, but both stacks lead with the same functions.
    Related,
    Unrelated,
}

/// The crash that is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub title: String,
    #[serde(default)]
    pub alt_titles: Vec<String>,
    #[serde(default)]
    pub frames: Vec<String>,
    #[serde(default)]
    pub files: Vec<String>,
}

/// Finds every crash of a whole console, in console order.
pub fn parse(console: &[u8]) -> Vec<Crash> {
    let mut parser = ConsoleParser::new();
    let mut crashes = parser.feed(console);
    crashes.extend(parser.finish());
    crashes
}
