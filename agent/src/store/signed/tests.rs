//! Uploads against a coordinator that does as a test wants, and a store over HTTP.

use super::super::tests::Server;
use super::super::{AgentStore, InfraClass};
use kulprit_common::id::{AgentId, Attempt};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use kulprit_proto::v1::agents_server::{Agents, AgentsServer};
use kulprit_proto::v1::upload_response::How;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::{Request, Response, Status, Streaming};

const PART_BYTES: u64 = 4;

/// A coordinator that signs uploads in parts.
#[derive(Clone, Default)]
struct Signer {
    store: String,
    /// Whether it signs for nothing at all.
    is_mute: bool,
    /// How often it is away when it is told that all was sent.
    away: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl Signer {
    /// Yields the agent's store, for which it signs.
    async fn start(self) -> AgentStore {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(AgentsServer::new(self)).serve(address));
        let client = AgentsClient::new(Link::plain(&format!("http://{address}")).unwrap());
        let agent: AgentId = "a".parse().unwrap();
        AgentStore::signed(client, agent).unwrap().for_attempt(Attempt(1))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Agents for Signer {
    type SourceStream = tokio_stream::Empty<Result<v1::SourceUpdate, Status>>;

    async fn upload(&self, request: Request<v1::UploadRequest>) -> Answer<v1::UploadResponse> {
        let request = request.into_inner();
        let size = request.artifact.expect("it is named").size;
        let parts = if self.is_mute { 0 } else { size.div_ceil(PART_BYTES) };
        let of = |part| v1::Presigned { url: format!("{}{part}", self.store), headers: Vec::new() };
        let requests = (u64::from(request.first)..parts).map(of).collect();
        let (upload, first) = ("it".into(), request.first);
        let parts = v1::Parts { upload, part_bytes: PART_BYTES, first, requests };
        Ok(Response::new(v1::UploadResponse { how: Some(How::Parts(parts)) }))
    }

    async fn uploaded(&self, request: Request<v1::UploadedRequest>) -> Answer<v1::UploadedResponse> {
        self.told.fetch_add(1, Ordering::SeqCst);
        let one_less = |n: usize| n.checked_sub(1);
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Status::unavailable("it restarts"));
        }
        let stored = request.into_inner().etags.len() == 3;
        Ok(Response::new(v1::UploadedResponse { stored }))
    }

    async fn sync(&self, _: Request<v1::SyncRequest>) -> Answer<v1::SyncResponse> {
        Err(Status::unimplemented("sync"))
    }

    async fn complete(&self, _: Request<v1::CompleteRequest>) -> Answer<v1::CompleteResponse> {
        Err(Status::unimplemented("complete"))
    }

    async fn append_log(&self, _: Request<Streaming<v1::LogChunk>>) -> Answer<v1::AppendLogResponse> {
        Err(Status::unimplemented("append_log"))
    }

    async fn source(&self, _: Request<v1::SourceRequest>) -> Answer<Self::SourceStream> {
        Err(Status::unimplemented("source"))
    }

    async fn download(&self, _: Request<v1::DownloadRequest>) -> Answer<v1::DownloadResponse> {
        Err(Status::unimplemented("download"))
    }
}

/// A coordinator that restarts between the last part and the word that it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_parts_are_sent_what_is_left_is_to_say_so() {
    let (server, url) = Server::default().start();
    let coordinator = Signer { store: url, away: Arc::new(2.into()), ..Signer::default() };
    let told = coordinator.told.clone();
    let store = coordinator.start().await;
    store.upload_bytes("ten bytes.".into()).await.expect("it is there");
    assert_eq!(told.load(Ordering::SeqCst), 3);
    assert_eq!(server.puts.load(Ordering::SeqCst), 3, "no part is sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_which_none_is_signed_make_no_sense() {
    let store = Signer { is_mute: true, ..Signer::default() }.start().await;
    let infra = store.upload_bytes("ten bytes.".into()).await.expect_err("there is no way");
    assert_eq!(infra.class, InfraClass::Internal);
    assert!(infra.reason.contains("makes no sense"), "{}", infra.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_refuses_is_said_in_its_own_word_and_no_more() {
    let said =
        "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>sig=it</Message></Error>";
    for (said, expected) in [
        (said, "artifact store: the store answers 403 Forbidden: SignatureDoesNotMatch"),
        ("go away", "artifact store: the store answers 403 Forbidden"),
    ] {
        let mut server = Server::default();
        server.refusal = Some(said);
        let (_server, url) = server.start();
        let store = Signer { store: url, ..Signer::default() }.start().await;
        let infra = store.upload_bytes("ten bytes.".into()).await.expect_err("it is refused");
        assert_eq!((infra.class, infra.reason.as_str()), (InfraClass::Artifact, expected));
    }
}
