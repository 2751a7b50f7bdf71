//! Sends an attempt's output to the coordinator as it comes, as far as both keep up.

use bytes::Bytes;
use kulprit_common::id::{AgentId, Attempt};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that may wait; more are dropped, for the stored log has them all.
const CHUNKS_MAX: usize = 256;

/// Where an attempt writes. The stream ends when the sender is dropped.
pub fn start(mut client: AgentsClient<Link>, agent: AgentId, attempt: Attempt) -> mpsc::Sender<Bytes> {
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let mut offset = 0;
    let chunks = ReceiverStream::new(receiver).map(move |data| {
        let chunk =
            v1::LogChunk { agent: agent.to_string(), attempt: attempt.0, offset, data: data.to_vec() };
        offset += chunk.data.len() as u64;
        chunk
    });
    tokio::spawn(async move {
        if let Err(status) = client.append_log(chunks).await {
            tracing::debug!(%attempt, %status, "the live log was cut off");
        }
    });
    sender
}
