//! The coordinator as the CLI reaches it: dialling, calls, and errors in people's words.

use super::args::To;
use super::credentials;
use super::failure::Failure;
use kulprit_common::access::Member;
use kulprit_common::id::Digest;
use kulprit_proto::MESSAGE_BYTES_MAX;
use kulprit_proto::tls::{self, Link, Trust};
use kulprit_proto::v1;
use kulprit_proto::v1::access_client::AccessClient;
use kulprit_proto::v1::artifacts_client::ArtifactsClient;
use kulprit_proto::v1::jobs_client::JobsClient;
use std::error::Error as _;
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// Where a coordinator is served and dialled unless somebody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7453";

/// A call that returns one answer; a large job takes a moment to render.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// What one address of several has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Leads,
    /// A coordinator is there, and says why it does not serve.
    StandsBy(String),
    /// Nobody answers, or nobody that this caller can speak to.
    Silent(String),
}

#[derive(Clone)]
pub struct Coordinator {
    client: JobsClient<Link>,
    access: AccessClient<Link>,
    artifacts: ArtifactsClient<Link>,
    url: String,
}

impl Coordinator {
    /// Finds the address and the credentials; the connection is made by the first call.
    pub async fn dial(to: &To) -> Result<Self, Failure> {
        let url = credentials::coordinator(to)?;
        check_addresses(&url)?;
        if !url.starts_with("https://") {
            return Self::local(&url);
        }
        let wallet = credentials::open(to)?;
        let link = Link::secure(&url, Trust::Wallet(wallet.clone())).map_err(|error| bad(&url, &error))?;
        // Here and not beside the call: a short command would be over before its certificate came.
        if tls::renewal_due(&wallet.current()).is_zero()
            && let Err(status) = tls::renew(&link, &wallet).await
        {
            tracing::debug!(why = tls::said(&status), "certificate not renewed yet");
        }
        tokio::spawn(tls::keep_current(link.clone(), wallet));
        Ok(Self::over(link, &url))
    }

    /// Plaintext, on this machine.
    pub fn local(url: &str) -> Result<Self, Failure> {
        Ok(Self::over(Link::plain(url).map_err(|error| bad(url, &error))?, url))
    }

    fn over(link: Link, url: &str) -> Self {
        let access = AccessClient::new(link.clone());
        let artifacts = ArtifactsClient::new(link.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let client = JobsClient::new(link)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Coordinator { client, access, artifacts, url: url.to_owned() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn token_create(
        &mut self,
        request: v1::TokenCreateRequest,
    ) -> Result<v1::TokenCreateResponse, Failure> {
        let answer = self.access.token_create(timed(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn tokens(&mut self) -> Result<Vec<v1::TokenView>, Failure> {
        let answer = self.access.token_list(timed(v1::TokenListRequest {})).await;
        answer.map(|answer| answer.into_inner().tokens).map_err(|status| self.failure(&status))
    }

    pub async fn token_revoke(&mut self, id: &str) -> Result<String, Failure> {
        let answer = self.access.token_revoke(timed(v1::TokenRevokeRequest { id: id.into() })).await;
        answer.map(|answer| answer.into_inner().id).map_err(|status| self.failure(&status))
    }

    pub async fn revoke(&mut self, member: &Member) -> Result<(), Failure> {
        let request = v1::RevokeRequest { role: member.role.to_string(), name: member.name.to_string() };
        self.access.revoke(timed(request)).await.map_err(|status| self.failure(&status))?;
        Ok(())
    }

    pub async fn submit(&mut self, request: v1::SubmitRequest) -> Result<v1::SubmitResponse, Failure> {
        let answer = self.client.submit(timed(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// The job with its renderings.
    pub async fn get(&mut self, job: &str) -> Result<v1::JobView, Failure> {
        let answer = self.client.get(timed(v1::GetRequest { job: job.into() })).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn list(&mut self) -> Result<Vec<v1::JobView>, Failure> {
        let answer = self.client.list(timed(v1::ListRequest {})).await;
        answer.map(|answer| answer.into_inner().jobs).map_err(|status| self.failure(&status))
    }

    pub async fn cancel(&mut self, job: &str) -> Result<v1::JobView, Failure> {
        let answer = self.client.cancel(timed(v1::CancelRequest { job: job.into() })).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn overrule(&mut self, request: v1::OverruleRequest) -> Result<v1::OverruleResponse, Failure> {
        let answer = self.client.overrule(timed(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn release(&mut self, job: &str, what: &str) -> Result<v1::ReleaseResponse, Failure> {
        let request = v1::ReleaseRequest { job: job.into(), what: what.into() };
        let answer = self.client.release(timed(request)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn agent_quarantine(&mut self, agent: &str, reason: &str) -> Result<(), Failure> {
        let request = v1::AgentQuarantineRequest { agent: agent.into(), reason: reason.into() };
        let answer = self.client.agent_quarantine(timed(request)).await;
        answer.map(drop).map_err(|status| self.failure(&status))
    }

    pub async fn agent_release(&mut self, agent: &str) -> Result<(), Failure> {
        let answer = self.client.agent_release(timed(v1::AgentReleaseRequest { agent: agent.into() })).await;
        answer.map(drop).map_err(|status| self.failure(&status))
    }

    pub async fn agents(&mut self) -> Result<Vec<v1::AgentView>, Failure> {
        let answer = self.client.agent_list(timed(v1::AgentListRequest {})).await;
        answer.map(|answer| answer.into_inner().agents).map_err(|status| self.failure(&status))
    }

    pub async fn status(&mut self) -> Result<v1::FarmStatusResponse, Failure> {
        let answer = self.client.farm_status(timed(v1::FarmStatusRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// Whether the coordinator at this address serves.
    pub async fn presence(&mut self) -> Presence {
        match self.client.farm_status(timed(v1::FarmStatusRequest {})).await {
            Ok(_) => Presence::Leads,
            Err(status) => absence(&status),
        }
    }

    pub async fn watch(&mut self, job: &str) -> Result<Streaming<v1::WatchUpdate>, Status> {
        let answer = self.client.watch(v1::WatchRequest { job: job.into() }).await;
        answer.map(tonic::Response::into_inner)
    }

    pub async fn read_log(
        &mut self,
        attempt: u64,
        follow: bool,
    ) -> Result<Streaming<v1::ReadLogChunk>, Failure> {
        let answer = self.client.read_log(v1::ReadLogRequest { attempt, follow }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn artifact_list(&mut self) -> Result<Streaming<v1::ArtifactView>, Failure> {
        let answer = self.artifacts.list(v1::ArtifactListRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn artifact_get(&mut self, digest: &Digest) -> Result<Streaming<v1::ArtifactChunk>, Failure> {
        let request = v1::ArtifactGetRequest { digest: digest.as_bytes().to_vec() };
        let answer = self.artifacts.get(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn artifact_verify(
        &mut self,
        digests: &[Digest],
    ) -> Result<Streaming<v1::ArtifactVerdict>, Failure> {
        let digests = digests.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let answer = self.artifacts.verify(v1::ArtifactVerifyRequest { digests }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub async fn artifact_gc(
        &mut self,
        request: v1::ArtifactGcRequest,
    ) -> Result<Streaming<v1::ArtifactGone>, Failure> {
        let answer = self.artifacts.gc(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// What a status means for the person at the terminal.
    pub fn failure(&self, status: &Status) -> Failure {
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated => Failure::Input(status.message().into()),
            _ if is_out_of_reach(status) && self.url.starts_with("https://") => Failure::Internal(
                anyhow::anyhow!("reach the coordinator at {}: {}", self.url, root_cause(status)),
            ),
            _ if is_out_of_reach(status) => Failure::Internal(anyhow::anyhow!(
                "reach a coordinator at {}: {}\n  start one with `kulprit-coordinator --state DIR`, name another with \
                 --coordinator,\n  or use `kulprit run JOB.toml`, which brings its own",
                self.url,
                root_cause(status),
            )),
            _ => {
                Failure::Internal(anyhow::anyhow!("get an answer from {}: {}", self.url, root_cause(status)))
            }
        }
    }
}

/// What a command that is shown needs to reach the same coordinator; nothing, where that is the
/// default.
pub fn to_flag(url: &str) -> String {
    let is_default = std::env::var_os("KULPRIT_COORDINATOR").is_none() && url == DEFAULT_URL;
    if is_default { String::new() } else { format!(" --coordinator {url}") }
}

/// Whether the same call may succeed once the coordinator is back.
pub fn is_out_of_reach(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => true,
        // A connection that broke in the middle of a stream.
        Code::Unknown | Code::Internal => {
            status.source().is_some() || status.message().contains("h2 protocol")
        }
        _ => false,
    }
}

/// What a call that failed says of who was called.
fn absence(status: &Status) -> Presence {
    match status.code() {
        // Said by the other end: an error of the connection has a source.
        Code::Unavailable if status.source().is_none() => Presence::StandsBy(status.message().into()),
        _ => Presence::Silent(root_cause(status)),
    }
}

/// The last cause is the one that says something: "connection refused".
pub fn root_cause(status: &Status) -> String {
    tls::said(status)
}

fn bad(url: &str, error: &tls::TlsError) -> Failure {
    Failure::Input(format!("--coordinator {url}: {error}"))
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// Each address of a list.
fn check_addresses(list: &str) -> Result<(), Failure> {
    let refused = |url: &str, why| Failure::Input(format!("--coordinator {url}: {why}"));
    let mut checked = 0;
    for url in tls::addresses(list) {
        check_address(url).map_err(|why| refused(url, why))?;
        checked += 1;
    }
    // None at all is as wrong as an empty one.
    if checked == 0 { check_address("").map_err(|why| refused(list, why)) } else { Ok(()) }
}

/// Why an address is not dialled: what is said is not encrypted, so it stays on this machine.
fn check_address(text: &str) -> Result<(), String> {
    let url =
        url::Url::parse(text).map_err(|error| format!("not a URL ({error}); write https://HOST:PORT"))?;
    match url.scheme() {
        "http" => {}
        "https" => return Ok(()),
        other => {
            return Err(format!("{other:?} is not a way to reach a coordinator; write https://HOST:PORT"));
        }
    }
    match tls::is_loopback(text) {
        true => Ok(()),
        false => Err("without TLS only loopback addresses are dialled; write https://".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_this_machine() {
        for (url, allowed) in [
            ("http://127.0.0.1:7453", true),
            ("http://127.3.2.1:1", true),
            ("http://[::1]:7453", true),
            ("http://localhost:7453", true),
            ("https://127.0.0.1:7453", true),
            ("https://farm.example.org:7453", true),
            ("http://10.0.0.1:7453", false),
            ("http://127.0.0.1.example.org:1", false),
            ("unix:/run/x", false),
            ("127.0.0.1:7453", false),
            ("", false),
        ] {
            assert_eq!(check_address(url).is_ok(), allowed, "{url}");
        }
    }
}
