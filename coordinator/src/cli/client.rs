//! The coordinator as the CLI reaches it: dialling, calls, and errors in people's words.

use super::failure::Failure;
use kulprit_proto::MESSAGE_BYTES_MAX;
use kulprit_proto::v1;
use kulprit_proto::v1::jobs_client::JobsClient;
use std::error::Error as _;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A call that returns one answer; a large job takes a moment to render.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How soon a coordinator that vanished without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Coordinator {
    client: JobsClient<Channel>,
    url: String,
}

impl Coordinator {
    /// Checks the address; the connection is made by the first call.
    pub fn dial(url: &str) -> Result<Self, Failure> {
        check_address(url).map_err(|why| Failure::Input(format!("--coordinator {url}: {why}")))?;
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| Failure::Input(format!("--coordinator {url}: {error}")))?
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let client = JobsClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Coordinator { client, url: url.to_owned() })
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

    pub async fn agents(&mut self) -> Result<Vec<v1::AgentView>, Failure> {
        let answer = self.client.agent_list(timed(v1::AgentListRequest {})).await;
        answer.map(|answer| answer.into_inner().agents).map_err(|status| self.failure(&status))
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

    /// What a status means for the person at the terminal.
    pub fn failure(&self, status: &Status) -> Failure {
        match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => {
                Failure::Input(status.message().into())
            }
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

/// The last cause is the one that says something: "connection refused".
pub fn root_cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(below) = cause.and_then(|error| error.source()) {
        cause = Some(below);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// Why an address is not dialled: what is said is not encrypted, so it stays on this machine.
fn check_address(text: &str) -> Result<(), String> {
    let url =
        url::Url::parse(text).map_err(|error| format!("not a URL ({error}); write http://HOST:PORT"))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err("TLS is not spoken yet; use http:// on this machine, or an SSH tunnel".into()),
        other => {
            return Err(format!("{other:?} is not a way to reach a coordinator; write http://HOST:PORT"));
        }
    }
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if local {
        Ok(())
    } else {
        Err("without TLS only loopback addresses are dialled; use an SSH tunnel".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_loopback_addresses_are_dialled() {
        for (url, allowed) in [
            ("http://127.0.0.1:7453", true),
            ("http://127.3.2.1:1", true),
            ("http://[::1]:7453", true),
            ("http://localhost:7453", true),
            ("https://127.0.0.1:7453", false),
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
