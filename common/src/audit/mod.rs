//! A second opinion on a bisection that somebody else made, from its log alone.
//!
//! `parse` reads the log, `likeness` says how alike two titles are, `scale` puts the steps in
//! the order of history, `weigh` makes probabilities of them, `opinion`, `view` and `advice`
//! draw conclusions, and `render` says them. There is no git history: the order of the steps and the arithmetic of
//! `Bisecting: N revisions left` stand for it.

mod advice;
mod likeness;
mod line;
mod log;
mod opinion;
mod parse;
mod reasons;
mod render;
mod scale;
mod view;
mod weigh;

pub use log::{Close, Kind, Log, Published, Role, Run, Test, Word};
pub use opinion::{Advice, Audit, Belief, Standing, StepOpinion, Waste, audit};
pub use parse::Parser;
pub use render::text;

/// Reads a whole log; any bytes are one, if perhaps one that says nothing.
pub fn read(bytes: &[u8]) -> Log {
    let mut parser = Parser::default();
    parser.feed(bytes);
    parser.finish()
}
