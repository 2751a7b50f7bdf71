//! The artifact store and its endpoint: by digest, atomic, verified, bounded.

use bytes::Bytes;
use futures::StreamExt as _;
use kulprit_common::artifact::{Artifact, path};
use kulprit_common::id::Digest;
use kulprit_coordinator::artifacts::{Store, StoreError, router};
use object_store::ObjectStoreExt as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

const SIZE_MAX: u64 = 20 << 20;

fn chunks(parts: &'static [&'static [u8]]) -> impl futures::Stream<Item = Result<Bytes, StoreError>> + Unpin {
    futures::stream::iter(parts).map(|part| Ok(Bytes::from_static(part)))
}

fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            names.extend(files(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names
}

/// Waits for what is cleaned up in the background.
async fn settle(dir: &Path, count: usize) {
    for _ in 0..100 {
        if files(dir).len() == count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("left behind: {:?}", files(dir));
}

#[tokio::test]
async fn artifacts_are_stored_once_by_digest() {
    let dir = tempfile::tempdir().unwrap();
    for url in [dir.path().to_str().unwrap(), &format!("file://{}/other", dir.path().display()), "memory:///"]
    {
        let store = Store::open(url).unwrap();
        let artifact = store.put(Bytes::from_static(b"kernel")).await.unwrap();
        assert_eq!(artifact, Artifact { digest: Digest::of(b"kernel"), size: 6 });
        assert_eq!(store.put(Bytes::from_static(b"kernel")).await.unwrap(), artifact);
        assert!(store.exists(&artifact.digest).await.unwrap());
        assert_eq!(store.get_bytes(&artifact.digest, 6).await.unwrap(), "kernel");
        let refused = store.get_bytes(&artifact.digest, 5).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { max: 5 })));
        let absent = Digest::of(b"absent");
        assert!(!store.exists(&absent).await.unwrap());
        assert!(matches!(store.get_bytes(&absent, 9).await, Err(StoreError::NotFound(_))));
        let empty = store.put(Bytes::new()).await.unwrap();
        assert_eq!(store.get_bytes(&empty.digest, 0).await.unwrap(), "");
    }
    assert!(dir.path().join(path(&Digest::of(b"kernel"))).exists());
}

#[tokio::test]
async fn a_stream_is_visible_only_when_it_is_whole_and_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap()).unwrap();
    let digest = Digest::of(b"onetwo");
    let wrong = store.receive(digest, chunks(&[b"one", b"tw"]), 9).await;
    assert!(matches!(wrong, Err(StoreError::Mismatch { .. })));
    let long = store.receive(digest, chunks(&[b"one", b"two"]), 5).await;
    assert!(matches!(long, Err(StoreError::TooLarge { max: 5 })));
    let torn = chunks(&[b"one"]).chain(futures::stream::iter([Err(StoreError::Sender("gone".into()))]));
    assert!(matches!(store.receive(digest, torn, 9).await, Err(StoreError::Sender(_))));
    assert!(!store.exists(&digest).await.unwrap());
    settle(dir.path(), 0).await;

    let artifact = store.receive(digest, chunks(&[b"one", b"two"]), 6).await.unwrap();
    assert_eq!(artifact.size, 6);
    let at = dir.path().join(path(&digest));
    let before = std::fs::metadata(&at).unwrap().modified().unwrap();
    store.receive(digest, chunks(&[b"one", b"two"]), 6).await.unwrap();
    assert_eq!(std::fs::metadata(&at).unwrap().modified().unwrap(), before, "not written again");
    settle(dir.path(), 1).await;

    // A torn file is mended by the next upload, a wrong one is never handed out as right.
    std::fs::write(&at, "one").unwrap();
    assert!(matches!(store.get_bytes(&digest, 9).await, Err(StoreError::Corrupt(_))));
    store.receive(digest, chunks(&[b"onetwo"]), 6).await.unwrap();
    assert_eq!(store.get_bytes(&digest, 9).await.unwrap(), "onetwo");
    std::fs::write(&at, "onetwi").unwrap();
    assert!(matches!(store.get_bytes(&digest, 9).await, Err(StoreError::Corrupt(_))));
    println!(
        "FAULT|corrupt or truncated artifact, either direction|the coordinator's own endpoint: wrong, short and broken-off uploads refused, nothing visible|a_stream_is_visible_only_when_it_is_whole_and_right"
    );
}

#[tokio::test]
async fn a_file_larger_than_a_part_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store").to_str().unwrap()).unwrap();
    let bytes: Vec<u8> = (0..12_000_000u32).map(|i| (i % 251) as u8).collect();
    let file = dir.path().join("vmlinux");
    std::fs::write(&file, &bytes).unwrap();
    let artifact = store.put_file(&file).await.unwrap();
    assert_eq!(artifact, Artifact { digest: Digest::of(&bytes), size: bytes.len() as u64 });
    assert_eq!(store.get_bytes(&artifact.digest, SIZE_MAX).await.unwrap(), bytes);
    assert!(matches!(store.put_file(&dir.path().join("none")).await, Err(StoreError::File { .. })));
}

#[test]
fn urls_name_their_store_or_what_is_wrong_with_them() {
    for url in ["s3://bucket/some/prefix", "gs://bucket/p"] {
        Store::open(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    for (url, why) in [
        ("ftp://host/x", "is not one of file, memory, s3, gs, az"),
        ("http://host/x", "is not one of file, memory, s3, gs, az"),
        ("file://host/x", "three slashes"),
        ("s3:///x", "bucket is missing"),
        ("/proc/none/x", "No such file"),
    ] {
        let error = Store::open(url).expect_err(url).to_string();
        assert!(error.contains(why) && error.contains(url), "{error}");
    }
    for (url, shown) in [
        ("ftp://key:secret@host/x?sig=secret", "ftp://key@host/x:"),
        ("https://a.b.c.d.amazonaws.com/x?X-Amz-Signature=secret", "https://a.b.c.d.amazonaws.com/x:"),
        ("s3://key:secret@bucket:port/x", "s3://…:"),
        ("s3://key:sec/ret@/x", "s3://…:"),
    ] {
        let error = Store::open(url).expect_err(url).to_string();
        assert!(error.contains(shown), "{error}");
        assert!(!error.contains("secret") && !error.contains("sec/ret"), "{error}");
    }
}

async fn serve(store: Store) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(Arc::new(store), SIZE_MAX);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Sends bytes as they stand here, and gives the whole answer.
async fn raw(address: SocketAddr, request: Vec<u8>) -> String {
    let exchange = move || {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.write_all(&request).unwrap();
        let mut answer = Vec::new();
        // A server that refuses early may reset the connection behind its answer.
        let _ = connection.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_speaks_what_object_store_needs() {
    let dir = tempfile::tempdir().unwrap();
    let address = serve(Store::open(dir.path().to_str().unwrap()).unwrap()).await;
    let client = object_store::http::HttpBuilder::new()
        .with_url(format!("http://{address}/"))
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
        .build()
        .unwrap();
    let bytes = Bytes::from(vec![7; 11_000_000]);
    let digest = Digest::of(&bytes);
    let at = object_store::path::Path::from(path(&digest));
    assert!(matches!(client.head(&at).await, Err(object_store::Error::NotFound { .. })));
    client.put(&at, bytes.clone().into()).await.unwrap();
    let meta = client.head(&at).await.unwrap();
    assert_eq!((meta.size, meta.e_tag), (bytes.len() as u64, Some(format!("\"{digest}\""))));
    assert!(meta.last_modified.timestamp() > 1_600_000_000);
    assert_eq!(client.get(&at).await.unwrap().bytes().await.unwrap(), bytes);

    let wrong = object_store::path::Path::from(path(&Digest::of(b"x")));
    let refused = client.put(&wrong, Bytes::from_static(b"y").into()).await.unwrap_err().to_string();
    assert!(refused.contains("422"), "{refused}");
    settle(dir.path(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_refuses_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "s").unwrap();
    let address = serve(Store::open(dir.path().join("store").to_str().unwrap()).unwrap()).await;
    let digest = Digest::of(b"body").to_string();
    let right = format!("/sha256/{}/{digest}", &digest[..2]);
    let upper = digest.to_uppercase();
    for (method, path, headers, body, status) in [
        ("GET", right.as_str(), "", &b""[..], "404"),
        ("HEAD", &right, "", b"", "404"),
        ("PUT", &right, "content-length: 4\r\n", b"BODY", "422"),
        ("PUT", &right, "content-length: 99999999\r\n", b"", "413"),
        ("PUT", &right, "content-length: 4\r\n", b"body", "201"),
        ("PUT", &right, "content-length: 4\r\n", b"body", "201"),
        ("GET", &right, "", b"", "200"),
        ("DELETE", &right, "", b"", "405"),
        ("PUT", &format!("/sha256/00/{digest}"), "content-length: 4\r\n", b"body", "404"),
        ("GET", &format!("/sha256/{}/{upper}", &upper[..2]), "", b"", "404"),
        ("GET", "/sha256/../secret", "", b"", "404"),
        ("GET", "/sha256/%2e%2e/%2e%2e%2fsecret", "", b"", "404"),
        ("PUT", "/sha256/..%2f../secret", "content-length: 1\r\n", b"x", "404"),
        ("GET", "/", "", b"", "404"),
    ] {
        let answer = raw(address, request(method, path, headers, body)).await;
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(status), "{method} {path}: {first}");
    }
    // Over the limit without having said so.
    let mut long = request("PUT", &right, "transfer-encoding: chunked\r\n", b"");
    let chunk = vec![0; 1 << 20];
    for _ in 0..=SIZE_MAX >> 20 {
        long.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        long.extend_from_slice(&chunk);
        long.extend_from_slice(b"\r\n");
    }
    let answer = raw(address, long).await;
    assert!(answer.is_empty() || answer.contains("413"), "{}", answer.lines().next().unwrap_or_default());
    // A sender that breaks off leaves nothing.
    raw_broken(address, request("PUT", &right, "content-length: 40\r\n", b"torn"));
    settle(&dir.path().join("store"), 1).await;
    assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"s");
}

fn raw_broken(address: SocketAddr, request: Vec<u8>) {
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(&request).unwrap();
}
