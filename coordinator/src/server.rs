//! The gRPC services: outside input is checked here and becomes events.

mod agents;
mod jobs;

use crate::artifacts::Store;
use crate::driver::Handle;
use crate::logs::Logs;
use kulprit_proto::MESSAGE_BYTES_MAX;
use kulprit_proto::v1::agents_server::AgentsServer;
use kulprit_proto::v1::jobs_server::JobsServer;
use std::sync::Arc;

#[derive(Clone)]
pub struct Services {
    pub driver: Handle,
    pub store: Arc<Store>,
    pub logs: Logs,
    /// Where agents find artifacts: an object store URL.
    pub artifacts_url: String,
    pub lease_ms: u64,
}

impl Services {
    pub fn agents(&self) -> AgentsServer<Services> {
        AgentsServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn jobs(&self) -> JobsServer<Services> {
        JobsServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}
