//! The search from outside: tables, the reference's cases, properties, git as an oracle, cost.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "the bans keep `common` pure; its tests read graphs, ask git and take times"
)]

mod cases;
mod git;
mod properties;
mod rounds;
mod scale;
mod tables;
mod world;
