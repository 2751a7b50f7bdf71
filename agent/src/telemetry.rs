//! What the agent shows of itself: figures, spans of attempts, readiness. See docs/metrics.md.

mod attempt;
mod figures;
mod ops;

pub use attempt::{Course, Went, outcome_word, span};
pub use figures::FIGURES;
pub use ops::{Contact, Ops};
