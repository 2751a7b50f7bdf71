//! Speaks: the generated services, and the conversions between the wire and `kulprit-common`.
//!
//! Outside input enters through `convert` (`TryFrom`, errors name the field) and nowhere else.

pub mod convert;
pub mod journal;
pub mod supervisor;
pub mod tls;

/// What the programs say they are, and tell each other: `1.2.3`, with `+LABEL` behind it where
/// they were built with `KULPRIT_LABEL`, as nightly builds are.
pub const VERSION: &str = env!("KULPRIT_VERSION");

/// The generated code of package `kulprit.v1`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("kulprit.v1");
}

/// The services as gRPC's reflection tells of them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message either side takes: a reproducer with its job, or a crash-laden outcome.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
