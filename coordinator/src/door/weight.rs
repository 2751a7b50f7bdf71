//! Bounds the memory that messages take: many large ones at once are refused, whoever sends them.
//!
//! A message is weighed by the length that its gRPC head declares, before its bytes are gathered,
//! and weighs until its call is answered or the next message of the stream begins.

use super::gate::Who;
use http_body::Frame;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// What weighs nothing: syncs and log lines.
const LIGHT: u64 = 64 << 10;
/// Of one peer: some reproducers and a few crash-laden outcomes.
const PER_PEER_MAX: u64 = 128 << 20;
const TOTAL_MAX: u64 = 1 << 30;

#[derive(Default)]
pub struct Scales {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: u64,
    by: HashMap<Who, u64>,
}

impl Scales {
    /// Whether `who` may hold `new` bytes instead of `old`; if so it does.
    fn change(&self, who: &Who, old: u64, new: u64) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.by.get(who).copied().unwrap_or(0) - old + new;
        let total = held.total - old + new;
        if new > old && (own > PER_PEER_MAX || total > TOTAL_MAX) {
            return false;
        }
        held.total = total;
        match own {
            0 => held.by.remove(who),
            own => held.by.insert(who.clone(), own),
        };
        true
    }
}

/// A call under way; what it holds is let go with it.
pub struct Call {
    scales: Arc<Scales>,
    who: Who,
    holds: Mutex<u64>,
}

impl Call {
    pub fn new(scales: Arc<Scales>, who: Who) -> Arc<Self> {
        Arc::new(Call { scales, who, holds: Mutex::new(0) })
    }

    fn begin(&self, length: u64) -> Result<(), Status> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let new = if length <= LIGHT { 0 } else { length };
        if !self.scales.change(&self.who, *holds, new) {
            return Err(Status::resource_exhausted("too many large messages at once; send them again later"));
        }
        *holds = new;
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let holds = *self.holds.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.scales.change(&self.who, holds, 0);
    }
}

/// A request's body on its way to the decoder.
pub struct Weighed {
    inner: Body,
    call: Arc<Call>,
    /// Of the message's head: a flag and its length.
    head: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: u64,
}

impl Weighed {
    pub fn new(inner: Body, call: Arc<Call>) -> Self {
        Weighed { inner, call, head: Vec::with_capacity(5), left: 0 }
    }

    fn weigh(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= now as u64;
                bytes = &bytes[now..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if let [_, a, b, c, d] = self.head[..] {
                self.head.clear();
                self.left = u32::from_be_bytes([a, b, c, d]).into();
                self.call.begin(self.left)?;
            }
        }
        Ok(())
    }
}

impl http_body::Body for Weighed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.inner), cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(refused) = self.weigh(data)
        {
            return Poll::Ready(Some(Err(refused)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(scales: &Arc<Scales>, member: &str) -> Weighed {
        let who = Who::Member(member.parse().unwrap());
        Weighed::new(Body::empty(), Call::new(scales.clone(), who))
    }

    fn head(length: u32) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn one_peers_large_messages_are_bounded_and_let_go() {
        let scales = Arc::new(Scales::default());
        let mut calls: Vec<Weighed> = (0..6).map(|_| call(&scales, "agent/a")).collect();
        let begun: Vec<bool> = calls.iter_mut().map(|it| it.weigh(&head(30 << 20)).is_ok()).collect();
        assert_eq!(begun, [true, true, true, true, false, false]);
        assert!(call(&scales, "agent/a").weigh(&head(64 << 10)).is_ok(), "what is light passes");
        assert!(call(&scales, "agent/b").weigh(&head(30 << 20)).is_ok(), "and so do others");
        calls.remove(0);
        assert!(calls[3].weigh(&head(30 << 20)).is_ok());
        drop(calls);
        let held = scales.held.lock().unwrap();
        assert_eq!((held.total, held.by.len()), (0, 0));
    }

    #[test]
    fn all_peers_together_are_bounded_too() {
        let scales = Arc::new(Scales::default());
        let peers = (0..20).map(|index| format!("agent/a{index}"));
        let mut calls: Vec<Weighed> = peers.map(|peer| call(&scales, &peer)).collect();
        let begun = calls.iter_mut().filter_map(|it| it.weigh(&head(100 << 20)).ok()).count();
        assert_eq!(begun, 10);
    }

    #[test]
    fn messages_of_a_stream_weigh_one_by_one_however_they_are_cut() {
        let scales = Arc::new(Scales::default());
        let mut stream = call(&scales, "agent/a");
        let message = [head(100 << 10), vec![1; 100 << 10]].concat();
        for piece in message.repeat(40).chunks(997) {
            stream.weigh(piece).unwrap();
            assert!(scales.held.lock().unwrap().total <= 100 << 10);
        }
        stream.weigh(&head(10)).unwrap();
        assert_eq!(scales.held.lock().unwrap().total, 0);
    }
}
