//! Acts for the farm: keeps facts, mirrors and artifacts, and serves agents and operators.
//!
//! `driver` is the loop; what is decided is decided in `kulprit_common::farm`.

pub mod artifacts;
pub mod backup;
pub mod cli;
pub mod door;
pub mod driver;
pub mod failpoint;
pub mod git;
pub mod hands;
pub mod journal;
pub mod keeper;
pub mod logs;
pub mod opening;
pub mod process;
pub mod ready;
pub mod server;
pub mod serving;
pub mod source;
pub mod standby;
pub mod storing;
pub mod symbols;
pub mod telemetry;
pub mod vmlinux;
