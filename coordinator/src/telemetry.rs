//! What the coordinator shows of itself: figures, spans, readiness. It is told what happens, and tells
//! nobody what to do; see docs/metrics.md for what each figure means.

pub mod attempts;
pub mod figures;
mod ops;

pub use figures::FIGURES;
pub use ops::{Ops, Phase};
