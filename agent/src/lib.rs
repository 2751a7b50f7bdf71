//! Acts on one machine: builds kernels in containers, boots them in QEMU, reports what it saw.
//!
//! `sync` is the loop, `work` one attempt; what is to be done is decided by the coordinator.

pub mod artifacts;
pub mod boot;
pub mod build;
pub mod canary;
pub mod check;
pub mod checkout;
pub mod config;
pub mod contact;
pub mod container;
pub mod disk_guard;
pub mod engine_cleanup;
pub mod fingerprint;
pub mod guests;
pub mod health;
pub mod initramfs;
pub mod live_log;
pub mod maintainers;
pub mod preemption;
pub mod process;
pub mod reproducer;
pub mod slots;
pub mod source;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod untrusted;
pub mod work;
