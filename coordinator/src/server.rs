//! The gRPC services: outside input is checked here and becomes events.

mod access;
mod agents;
mod artifacts;
mod enrol;
mod jobs;
mod room;
mod source;
mod status;
mod transfers;

pub use room::Room;

use crate::artifacts::Store;
use crate::door::Caller;
use crate::door::keys::Keys;
use crate::driver::Handle;
use crate::journal::Place;
use crate::keeper::Keeper;
use crate::logs::Logs;
use crate::source::Sources;
use kulprit_common::id::AgentId;
use kulprit_proto::MESSAGE_BYTES_MAX;
use kulprit_proto::v1::access_server::AccessServer;
use kulprit_proto::v1::agents_server::AgentsServer;
use kulprit_proto::v1::artifacts_server::ArtifactsServer;
use kulprit_proto::v1::enrol_server::EnrolServer;
use kulprit_proto::v1::jobs_server::JobsServer;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The most that anybody says without a certificate: a token and a certificate request.
const ENROL_BYTES_MAX: usize = 64 << 10;

/// Where agents find artifacts.
#[derive(Clone, Debug)]
pub enum ArtifactsAt {
    /// An object store URL.
    Url(String),
    /// The coordinator's own endpoint: this port, at whatever host the agent reached us by.
    Port(u16),
}

impl ArtifactsAt {
    fn url(&self, caller: &Caller) -> String {
        match (self, &caller.called) {
            (ArtifactsAt::Url(url), _) => url.clone(),
            (ArtifactsAt::Port(port), Some(host)) => format!("https://{host}:{port}/"),
            (ArtifactsAt::Port(port), None) => format!("https://localhost:{port}/"),
        }
    }
}

#[derive(Clone)]
pub struct Services {
    pub driver: Handle,
    pub store: Arc<Store>,
    pub sources: Arc<Sources>,
    pub keeper: Arc<Keeper>,
    pub logs: Logs,
    pub artifacts: ArtifactsAt,
    /// Absent where plaintext is spoken.
    pub keys: Option<Arc<Keys>>,
    pub lease_ms: u64,
    pub room: Room,
    pub journal: Place,
    /// The store as it was named, and when this process began to serve.
    pub store_name: String,
    pub started: Instant,
    /// Agents that were answered while they held something.
    pub met: Arc<Mutex<HashSet<AgentId>>>,
}

impl Services {
    pub fn agents(&self) -> AgentsServer<Services> {
        AgentsServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn artifacts(&self) -> ArtifactsServer<Services> {
        ArtifactsServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn enrol(&self) -> EnrolServer<Services> {
        EnrolServer::new(self.clone()).max_decoding_message_size(ENROL_BYTES_MAX)
    }

    pub fn access(&self) -> AccessServer<Services> {
        AccessServer::new(self.clone()).max_decoding_message_size(ENROL_BYTES_MAX)
    }

    pub fn jobs(&self) -> JobsServer<Services> {
        JobsServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}
