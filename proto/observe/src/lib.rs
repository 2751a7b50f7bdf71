//! Shows what a process does: logs, figures, traces, whether it is ready, and its manual page.
//!
//! Nothing here decides, and nobody waits for it: what cannot be shown is dropped. What there is to be
//! shown is the coordinator's and the agent's business.

pub mod figures;
pub mod logging;
pub mod manual;
pub mod ops;
pub mod traces;
