//! The way in: listening, TLS, who is at the other end, and what that one may do.
//!
//! `authority` signs certificates, `keys` has the coordinator's own, `listen` takes connections,
//! `gate` holds each call against the farm's roll, `guard` is the gate in front of gRPC and HTTP,
//! `weight` bounds the memory of what passes.

pub mod authority;
pub mod gate;
pub mod guard;
pub mod keys;
pub mod listen;
mod weight;

use kulprit_common::access::{Peer, Principal};
use kulprit_common::id::AgentId;
use std::net::IpAddr;
use std::sync::Arc;
use tonic::Status;

/// What is known of a connection. It travels with every request that comes over it.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: Arc<Peer>,
    pub ip: IpAddr,
    /// The host that was called, as the caller named it; set by the guard.
    pub called: Option<Arc<str>>,
}

impl Caller {
    /// Of a request that has passed the guard.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Caller, Status> {
        let caller = request.extensions().get::<Caller>();
        caller.ok_or_else(|| Status::internal("a request without a caller"))
    }

    pub fn principal(&self) -> Result<Principal, Status> {
        self.peer.principal().ok_or_else(|| Status::unauthenticated("a certificate is needed"))
    }

    /// Refuses an agent that speaks for another.
    pub fn speaks_for(&self, agent: &AgentId) -> Result<(), Status> {
        match self.peer.confined_to() {
            Some(own) if own != agent => {
                tracing::warn!(caller = %own, ip = %self.ip, asked = %agent, "an agent spoke for another");
                Err(Status::permission_denied(format!("agent: {own} cannot speak for {agent}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}
