//! The search from outside: tables, the reference's cases, properties, git as an oracle, cost.

mod cases;
mod git;
mod properties;
mod scale;
mod tables;
mod world;
