//! Azure's store, played by Azurite where `KULPRIT_TEST_AZURITE` names its program. It comes with npm, and is
//! therefore nothing that the tests as a whole ask for.

use super::Process;
use super::cloud::send;
use super::s3::http;
use http::{Method, Request};
use kulprit_common::artifact::path;
use kulprit_common::id::Digest;
use kulprit_coordinator::artifacts::Presigned;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::signer::Signer as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const ACCOUNT: &str = "coordinators";
/// In base64, as an account's keys are.
const KEY: &str = "Y29vcmRpbmF0b3JzLXNlY3JldA==";
const CONTAINER: &str = "farm";

/// The coordinator's `--artifacts`.
pub const URL: &str = "az://farm/some/prefix";

pub struct Azurite {
    program: PathBuf,
    server: Option<Process>,
    dir: PathBuf,
    port: u16,
}

impl Azurite {
    /// One with an empty container; `None`, with a word, where the program is not named.
    pub fn start(dir: &Path) -> Option<Azurite> {
        let Some(program) = std::env::var_os("KULPRIT_TEST_AZURITE").map(PathBuf::from) else {
            eprintln!("skipped: KULPRIT_TEST_AZURITE does not name azurite-blob, of npm's package azurite");
            return None;
        };
        std::fs::create_dir_all(dir).expect("a directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let mut azurite = Azurite { program, server: None, dir: dir.to_owned(), port };
        azurite.come_back();
        azurite.make_container();
        Some(azurite)
    }

    pub fn come_back(&mut self) {
        let mut command = match self.program.extension().is_some_and(|it| it == "js") {
            true => Command::new("node"),
            false => Command::new(&self.program),
        };
        if self.program.extension().is_some_and(|it| it == "js") {
            command.arg(&self.program);
        }
        command.args(["--blobPort", &self.port.to_string(), "--disableTelemetry", "--silent", "--location"]);
        command.arg(&self.dir).env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.server = Some(Process::of(child.expect("KULPRIT_TEST_AZURITE starts")));
        let address = ("127.0.0.1", self.port);
        super::wait_for("Azurite", Duration::from_secs(60), || std::net::TcpStream::connect(address).is_ok());
    }

    /// It is told to end, so that it writes down what it has.
    pub fn go(&mut self) {
        self.server.take().expect("it runs").stop();
    }

    /// Makes all that is stored two days older; the server must be away.
    pub fn age(&self) {
        let books = self.dir.join("__azurite_db_blob__.json");
        let mut written: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&books).expect("its books")).expect("they are JSON");
        let old = "2026-01-01T00:00:00.000Z";
        let all = written["collections"].as_array_mut().expect("an array").iter_mut();
        for blob in
            all.filter(|it| it["name"] == "$BLOBS_COLLECTION$").flat_map(|it| it["data"].as_array_mut())
        {
            blob.iter_mut().for_each(|it| it["properties"]["lastModified"] = old.into());
        }
        std::fs::write(books, written.to_string()).expect("written");
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    fn make_container(&self) {
        let url = format!("{}/{CONTAINER}?restype=container", self.endpoint());
        let request = Request::builder().method(Method::PUT).uri(&url).header("content-length", "0");
        let mut request: HttpRequest = request.body(HttpRequestBody::empty()).expect("a request");
        let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("it is base64"));
        AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request).expect("it is signed");
        let headers: Vec<(&str, String)> = request
            .headers()
            .iter()
            .filter(|(name, _)| *name != "content-length")
            .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII").to_owned()))
            .collect();
        let (status, said, _) = http("PUT", &url, &headers, b"");
        assert_eq!(status, 201, "{}", super::text(&said));
    }

    /// What a coordinator is told, and nobody else.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ENDPOINT", self.endpoint()),
            ("AZURE_ALLOW_HTTP", "true".into()),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.into()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.into()),
            ("NO_PROXY", "127.0.0.1".into()),
        ]
    }

    pub fn tell(&self, command: &mut Command) {
        command.args(["--artifacts", URL]).envs(self.settings());
    }
}

/// Has other bytes stand under a digest, with what the settings of this process give access to.
pub async fn spoil(settings: Vec<(&'static str, String)>, digest: &Digest, bytes: &[u8]) {
    let builder =
        settings.into_iter().fold(MicrosoftAzureBuilder::new(), |builder, (name, value)| {
            match name.to_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            }
        });
    let container = builder.with_container_name(CONTAINER).build().expect("the settings do");
    let at = format!("some/prefix/{}", path(digest)).into();
    let url = container.signed_url(Method::PUT, &at, Duration::from_secs(60)).await.expect("signed");
    let put = Presigned { url: url.into(), headers: vec![("x-ms-blob-type", "BlockBlob".into())] };
    assert_eq!(send("PUT", &put, bytes), 201);
}
