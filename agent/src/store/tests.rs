//! The agent's side of artifacts, against a directory and against an HTTP server.

use super::{AgentStore, Cache};
use bytes::Bytes;
use kulprit_common::artifact::{Artifact, path};
use kulprit_common::id::Digest;
use kulprit_common::outcome::InfraClass;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Set for the child process of the test of proxies: the URL to use.
const CHILD: &str = "KULPRIT_TEST_STORE";

/// A server of one artifact at most, which counts requests and may fail the first ones.
#[derive(Default)]
pub(super) struct Server {
    body: Mutex<Option<Vec<u8>>>,
    pub puts: AtomicUsize,
    gets: AtomicUsize,
    /// GET answers that break off in the middle, before good ones come.
    torn: AtomicUsize,
    /// Answers of 503, before anything else.
    busy: AtomicUsize,
    /// What it says to everything with a 403, if it does.
    pub refusal: Option<&'static str>,
}

impl Server {
    pub fn start(self) -> (Arc<Server>, String) {
        self.start_at(([127, 0, 0, 1], 0).into())
    }

    fn start_at(self, address: SocketAddr) -> (Arc<Server>, String) {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = Arc::new(self);
        let serving = server.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.answer(connection));
            }
        });
        (server, url)
    }

    fn answer(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut head = Vec::new();
        for line in reader.by_ref().lines().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            head.push(line.to_lowercase());
        }
        let method = head.first().and_then(|line| line.split(' ').next()).unwrap_or("").to_owned();
        let length =
            head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let one_less = |n: usize| n.checked_sub(1);
        if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let _ =
                connection.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        if let Some(said) = self.refusal {
            let length = said.len();
            let head = format!("HTTP/1.1 403 No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = connection.write_all(format!("{head}{said}").as_bytes());
            return;
        }
        let mut stored = self.body.lock().unwrap();
        let mut torn = false;
        match method.as_str() {
            "put" => {
                self.puts.fetch_add(1, Ordering::SeqCst);
                *stored = Some(body);
                let head =
                    "HTTP/1.1 201 Created\r\netag: \"it\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = connection.write_all(head.as_bytes());
                return;
            }
            "get" => {
                self.gets.fetch_add(1, Ordering::SeqCst);
                torn = self.torn.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
            }
            _ => {}
        }
        let Some(bytes) = stored.as_ref() else {
            let _ =
                connection.write_all(b"HTTP/1.1 404 None\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
        let _ = connection.write_all(head.as_bytes());
        if method == "get" {
            let sent = if torn { bytes.len() / 2 } else { bytes.len() };
            let _ = connection.write_all(&bytes[..sent]);
        }
    }
}

fn artifact(bytes: &[u8]) -> Artifact {
    Artifact { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let bytes: Vec<u8> = (0..12_000_000u32).map(|i| (i % 251) as u8).collect();
    let file = dir.path().join("bzImage");
    std::fs::write(&file, &bytes).unwrap();
    let (server, http) = Server::default().start();
    let local = format!("file://{}/store", dir.path().display());
    for (name, url) in [("a", http), ("b", local)] {
        let store = AgentStore::open(&url, None).unwrap();
        let cache = Cache::open(dir.path().join(name), 1 << 30).unwrap();
        let up = store.upload(&file).await.unwrap();
        assert_eq!(up, artifact(&bytes));
        assert_eq!(store.upload(&file).await.unwrap(), up);
        let cached = store.download(&up, &cache).await.unwrap();
        assert_eq!(std::fs::read(cached.path()).unwrap(), bytes);
        assert_eq!(cached.path().file_name().unwrap().to_str().unwrap(), up.digest.to_string());
        assert_eq!(cached.path().metadata().unwrap().permissions().mode() & 0o777, 0o444);
        store.download(&up, &cache).await.unwrap();
    }
    assert_eq!(server.puts.load(Ordering::SeqCst), 1, "what is there is not sent again");
    assert_eq!(server.gets.load(Ordering::SeqCst), 1, "what is here is not fetched again");
    assert!(dir.path().join("store").join(path(&artifact(&bytes).digest)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_downloads_happen_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = Server { body: Mutex::new(Some(vec![5; 3_000_000])), ..Server::default() }.start();
    let (store, cache) = (AgentStore::open(&url, None).unwrap(), Cache::open(dir.path(), 1 << 30).unwrap());
    let wanted = artifact(&vec![5; 3_000_000]);
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (store, cache) = (store.clone(), cache.clone());
            tokio::spawn(async move { store.download(&wanted, &cache).await.unwrap() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().path().metadata().unwrap().len(), wanted.size);
    }
    assert_eq!(server.gets.load(Ordering::SeqCst), 1);
    assert_eq!(names(dir.path()), [wanted.digest.to_string()]);
}

#[tokio::test]
async fn failures_in_passing_are_outlived() {
    let dir = tempfile::tempdir().unwrap();
    let body = vec![9; 100_000];
    let server =
        Server { torn: 1.into(), busy: 2.into(), body: Mutex::new(Some(body.clone())), ..Server::default() };
    let (_, url) = server.start();
    let (store, cache) = (AgentStore::open(&url, None).unwrap(), Cache::open(dir.path(), 1 << 30).unwrap());
    let cached = store.download(&artifact(&body), &cache).await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), body);
}

/// A coordinator that restarts is away for some seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = AgentStore::open(&format!("http://{address}/"), None).unwrap();
    let upload = tokio::spawn(async move { store.upload_bytes(Bytes::from_static(b"patience")).await });
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let (server, _) = Server::default().start_at(address);
    upload.await.unwrap().unwrap();
    assert_eq!(server.puts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn failures_that_last_are_infra_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, url) = Server { body: Mutex::new(Some(vec![1; 1000])), ..Server::default() }.start();
    let (store, cache) = (AgentStore::open(&url, None).unwrap(), Cache::open(dir.path(), 1 << 30).unwrap());
    for damaged in [artifact(&[2; 1000]), artifact(&[1; 999]), artifact(&[1; 1001])] {
        let infra = store.download(&damaged, &cache).await.unwrap_err();
        assert_eq!(infra.class, InfraClass::Artifact);
        assert!(infra.reason.contains("damaged"), "{}", infra.reason);
    }
    assert_eq!(names(dir.path()), [""; 0]);
    let infra = store.upload(&dir.path().join("none")).await.unwrap_err();
    assert_eq!(infra.class, InfraClass::Disk);
    assert_eq!(AgentStore::open("ftp://x/", None).unwrap_err().class, InfraClass::Artifact);
}

#[tokio::test]
async fn the_cache_forgets_what_was_used_least_recently() {
    let dir = tempfile::tempdir().unwrap();
    let (farm, own) = (dir.path().join("farm"), dir.path().join("cache"));
    std::fs::create_dir(&farm).unwrap();
    let store = AgentStore::open(farm.to_str().unwrap(), None).unwrap();
    let mut artifacts = Vec::new();
    for i in 0..4u8 {
        artifacts.push(store.upload_bytes(Bytes::from(vec![i; 1000])).await.unwrap());
    }
    let cache = Cache::open(&own, 2500).unwrap();
    let held = store.download(&artifacts[0], &cache).await.unwrap();
    store.download(&artifacts[1], &cache).await.unwrap();
    store.download(&artifacts[2], &cache).await.unwrap();
    assert!(cache.get(&artifacts[1]).is_none(), "the oldest that nobody holds has gone");
    assert!(cache.get(&artifacts[2]).is_some());
    assert!(held.path().exists());
    drop(held);
    store.download(&artifacts[3], &cache).await.unwrap();
    assert!(cache.get(&artifacts[0]).is_none());
    drop(cache);

    // A later life knows what is there, and clears what was torn.
    std::fs::write(own.join("staged-x"), "torn").unwrap();
    std::fs::set_permissions(
        own.join(artifacts[2].digest.to_string()),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    std::fs::write(own.join(artifacts[2].digest.to_string()), "cut").unwrap();
    let cache = Cache::open(&own, 1500).unwrap();
    assert!(cache.get(&artifacts[3]).is_some());
    assert!(cache.get(&artifacts[2]).is_none(), "a file of another length is not what it says");
    assert!(!own.join("staged-x").exists());
}

/// Not a test of its own: the process that `loopback_is_not_proxied` gives a proxy to.
#[tokio::test]
async fn child_uploads_to_loopback() {
    let Ok(url) = std::env::var(CHILD) else { return };
    AgentStore::open(&url, None).unwrap().upload_bytes(Bytes::from_static(b"hello")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_not_proxied() {
    let (server, url) = Server::default().start();
    let run = move || {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "store::tests::child_uploads_to_loopback"]).env(CHILD, url);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            child.env(name, "http://127.0.0.1:1/");
        }
        child.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(server.puts.load(Ordering::SeqCst), 1);
}
