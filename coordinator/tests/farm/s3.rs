//! A real S3 server: s3s-fs, as `scripts/object-store` makes it. A bucket is a directory of it.

use super::{Process, cache, wait_for};
use kulprit_common::artifact::Artifact;
use kulprit_common::id::Digest;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const KEY: &str = "coordinators-key";
const SECRET: &str = "coordinators-secret";

/// The coordinator's `--artifacts`.
pub const URL: &str = "s3://farm/some/prefix";

pub struct S3 {
    _server: Process,
    dir: PathBuf,
    pub port: u16,
}

impl S3 {
    /// `None`, with a word, where the server is not there.
    pub fn start(dir: &Path) -> Option<S3> {
        let program = cache().join("tools/bin/s3s-fs");
        if !program.exists() {
            assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "{} is missing", program.display());
            eprintln!("skipped: {} is missing; `scripts/object-store` makes it", program.display());
            return None;
        }
        std::fs::create_dir_all(dir.join("farm")).expect("a bucket");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", KEY]);
        command.args(["--secret-key", SECRET]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Process::of(command.spawn().expect("the S3 server starts"));
        wait_for("the S3 server", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(S3 { _server: server, dir: dir.to_owned(), port })
    }

    /// What a coordinator is told, and nobody else.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("NO_PROXY", "127.0.0.1".into()),
        ]
    }

    pub fn tell(&self, command: &mut Command) {
        command.args(["--artifacts", URL]).envs(self.settings());
    }

    /// Files of the bucket below the prefix, the server's own notes left out.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.dir.join("farm/some/prefix"), &mut found);
        found
    }

    /// Parts that wait to be put together.
    pub fn parts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.dir, &mut found);
        found.retain(|path| path.to_string_lossy().contains(".upload_id"));
        found
    }

    /// Makes all that is stored so much older.
    pub fn age(&self, by: Duration) {
        for path in self.objects() {
            let file = std::fs::File::options().write(true).open(path).expect("it opens");
            file.set_modified(SystemTime::now() - by).expect("its time is set");
        }
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => walk(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

pub fn artifact(bytes: &[u8]) -> Artifact {
    Artifact { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// One request, as it stands here; the status and the body.
pub fn http(
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> (u16, Vec<u8>, BTreeMap<String, String>) {
    let url = url::Url::parse(url).expect("a URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().expect("a port"));
    let mut connection = TcpStream::connect((host, port)).expect("the server is up");
    let mut head = format!("{method} {}?{} HTTP/1.1\r\n", url.path(), url.query().unwrap_or(""));
    head += &format!("host: {host}:{port}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{head}\r\n").as_bytes()).expect("sent");
    // One that refuses early may not read it all.
    let _ = connection.write_all(body);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (status, answer[end + 4..].to_vec(), fields)
}
