//! Decides everything kulprit decides, as pure functions of values.
//!
//! Nothing here knows the time, the network, a file or a thread: facts come in as
//! arguments, decisions go out as values. The hands are in `coordinator` and `agent`.

pub mod access;
pub mod artifact;
pub mod audit;
pub mod bisect;
pub mod command;
pub mod config_work;
pub mod crash;
pub mod farm;
pub mod history;
pub mod id;
pub mod job;
pub mod outcome;
pub mod patch;
pub mod recipients;
pub mod report;
pub mod retention;
pub mod signature;
pub mod simulate;
pub mod time;
pub mod toolchain;
pub mod trace_parent;
pub mod verdict;
pub mod version;
