//! One artifact through the endpoint, counted however it ends.

use super::StoreError;
use crate::telemetry::FIGURES;
use bytes::Bytes;
use kulprit_observe::figures::{Count as _, Measure as _};
use std::time::Instant;

pub(super) struct Transfer {
    direction: &'static str,
    started: Instant,
    left: Option<u64>,
    ended: bool,
}

impl Transfer {
    /// Bytes that come in; it failed unless it is said to be done.
    pub fn incoming() -> Self {
        Transfer { direction: "in", started: Instant::now(), left: None, ended: false }
    }

    /// As many bytes that go out; it failed unless all of them do.
    pub fn outgoing(size: u64) -> Self {
        Transfer { direction: "out", started: Instant::now(), left: Some(size), ended: false }
    }

    /// A chunk on its way out; where the last one does not fit its digest, an error comes behind it.
    pub fn saw(&mut self, chunk: &Result<Bytes, StoreError>) {
        let Ok(chunk) = chunk else { return };
        FIGURES.transfer_bytes.add(&[self.direction], chunk.len() as u64);
        self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
    }

    /// All of it came in.
    pub fn came(mut self, bytes: u64) {
        FIGURES.transfer_bytes.add(&[self.direction], bytes);
        self.end("done");
    }

    fn end(&mut self, ending: &str) {
        self.ended = true;
        FIGURES.transfers.one(&[self.direction, ending]);
        FIGURES.transfer_time.took(&[self.direction], self.started.elapsed());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        match (self.ended, self.left) {
            (true, _) => {}
            (false, Some(0)) => self.end("done"),
            (false, Some(_) | None) => self.end("failed"),
        }
    }
}
