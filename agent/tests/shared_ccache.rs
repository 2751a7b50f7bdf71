//! The compiler's cache that agents share: real containers without a network, a real Redis, and one
//! over HTTP. Skipped, with a word, where there is no engine, no toolchain or no Redis.

use kulprit_agent::build::{BuildRequest, Built, Questions, SharedCcache, SharedCcacheArgs, build};
use kulprit_agent::container::{Engine, Limits, Unfinished};
use kulprit_common::id::{Digest, Session};
use kulprit_common::job::{ConfigBase, KernelBuild};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "0123456789abcdef";
const FILES: usize = 30;

/// Makes what Linux's Makefile makes, of thirty files.
const MAKEFILE: &str = "\
objects := $(patsubst /src/%.c,$(O)/%.o,$(wildcard /src/*.c))\n\
tinyconfig olddefconfig:\n\t@mkdir -p $(O)/include/config; touch $(O)/.config\n\
$(O)/%.o: /src/%.c\n\t@$(CC) -O2 -c -o $@ $<\n\
vmlinux: $(objects)\n\t@gcc -static -Wl,--build-id=none -o $(O)/vmlinux $(objects)\n\
bzImage: vmlinux\n\t@mkdir -p $(O)/arch/x86/boot; cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage\n";

struct Bench {
    dir: TempDir,
    engine: Engine,
    image: String,
}

/// What a build came to.
struct Seen {
    fingerprint: Digest,
    /// Local hits, shared hits, misses.
    calls: [u64; 3],
    asked: Option<Questions>,
    took: Duration,
}

impl Bench {
    async fn new(test: &str) -> Option<Bench> {
        let name = std::env::var("KULPRIT_TEST_TOOLCHAIN").unwrap_or_else(|_| "kulprit/gcc-10".into());
        let found = async {
            let agent = format!("test-{test}-{}", std::process::id()).parse().unwrap();
            let engine = Engine::connect(agent, Session(1)).await?;
            let image = engine.image_id(&name).await?;
            Ok::<_, Unfinished>((engine, image))
        };
        let (engine, image) =
            found.await.map_err(|why| eprintln!("skipped: {why}; `make test` provides it")).ok()?;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::write(dir.path().join("source/Makefile"), MAKEFILE).unwrap();
        let bench = Bench { dir, engine, image };
        for file in 0..FILES {
            bench.write(file, "");
        }
        Some(bench)
    }

    fn write(&self, file: usize, more: &str) {
        let main = if file == 0 { "int main(void) { return 0; }" } else { "" };
        let text = format!("#include <stdio.h>\n{main}\nvoid f{file}(void) {{ puts(\"{file} {more}\"); }}\n");
        fs::write(self.dir.path().join(format!("source/f{file}.c")), text).unwrap();
    }

    /// Builds as an agent that has caches of its own.
    async fn build(&self, agent: &str, shared: Option<&SharedCcache>) -> Seen {
        let at = |name: &str| self.dir.path().join(agent).join(name);
        fs::create_dir_all(at("ccache")).unwrap();
        let serving = shared.map(|shared| shared.serve(at("socket"), NAMESPACE).unwrap());
        let kernel = KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![],
            make_args: vec![],
        };
        let request = BuildRequest {
            kernel: &kernel,
            image_id: &self.image,
            source_dir: &self.dir.path().join("source"),
            objects_dir: &at("objects"),
            ccache_dir: &at("ccache"),
            shared_ccache: serving.as_ref(),
            is_first: true,
            jobs: 2,
            limits: Limits { time: Duration::from_secs(300), ..Limits::default() },
            objects_bytes_max: 1 << 30,
            log: &at("log"),
            attempt_label: "test",
        };
        let started = Instant::now();
        let built = build(&self.engine, request, mpsc::channel(1).0, CancellationToken::new()).await;
        let asked = match serving {
            Some(serving) => Some(serving.finish().await),
            None => None,
        };
        let log = fs::read_to_string(at("log")).unwrap();
        let (Built::Kernel { fingerprint, .. }, _) = built.unwrap_or_else(|e| panic!("{e}\n{log}")) else {
            panic!("{log}");
        };
        let calls = calls(&log);
        println!("{agent}: {:.1?}, {calls:?}, {asked:?}", started.elapsed());
        Seen { fingerprint, calls, asked, took: started.elapsed() }
    }
}

/// `kulprit: ccache: 1 local hits, 2 shared hits, 3 misses (50 %)`.
fn calls(log: &str) -> [u64; 3] {
    let Some(line) = log.lines().find(|line| line.starts_with("kulprit: ccache: ")) else { return [0; 3] };
    let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).take(3).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{line}"))
}

fn shared(url: &str, write: bool) -> Arc<SharedCcache> {
    let args = SharedCcacheArgs {
        shared_ccache: Some(url.parse().unwrap()),
        shared_ccache_write: write,
        ..Default::default()
    };
    SharedCcache::open(&args).unwrap().expect("a URL was given")
}

/// Debian's Redis. `redis-tools` has the whole server under another name, and starts none.
struct Redis {
    child: Child,
    port: u16,
    password: String,
}

impl Redis {
    fn start(dir: &Path) -> Option<Redis> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let password = "a-word-of-the-store".to_owned();
        let mut command = Command::new("redis-check-rdb");
        command.arg0("redis-server").args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &port.to_string(), "--requirepass", &password]).arg("--dir").arg(dir);
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(why) => {
                assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "redis-check-rdb: {why}");
                eprintln!("skipped: redis-check-rdb: {why}; `make test` provides it");
                return None;
            }
        };
        let redis = Redis { child, port, password };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(redis)
    }

    fn shared(&self, dir: &Path, write: bool) -> Arc<SharedCcache> {
        use std::os::unix::fs::PermissionsExt as _;
        let login = dir.join("login");
        fs::write(&login, format!(":{}\n", self.password)).unwrap();
        fs::set_permissions(&login, fs::Permissions::from_mode(0o600)).unwrap();
        let args = SharedCcacheArgs {
            shared_ccache: Some(format!("redis://127.0.0.1:{}/1", self.port).parse().unwrap()),
            shared_ccache_write: write,
            shared_ccache_credentials: Some(login),
            shared_ccache_ca: None,
        };
        SharedCcache::open(&args).unwrap().expect("a URL was given")
    }

    fn keys(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "AUTH {}\r\nSELECT 1\r\nKEYS *\r\n", self.password).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["+OK", "+OK"]);
        let count: usize = lines.next().unwrap()[1..].parse().unwrap();
        lines.take(2 * count).skip(1).step_by(2).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the image's ccache can share at all.
fn is_able(first: &Seen) -> bool {
    let able = first.asked.as_ref().is_some_and(|asked| asked.misses + asked.failures > 0);
    if !able {
        assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "the image's ccache is too old");
        eprintln!("skipped: the image's ccache is too old; scripts/toolchain makes it anew");
    }
    able
}

#[tokio::test]
async fn what_one_agent_compiled_another_takes_and_only_writers_write() {
    let Some(bench) = Bench::new("shared").await else { return };
    let Some(mut redis) = Redis::start(bench.dir.path()) else { return };
    let (writer, reader) = (redis.shared(bench.dir.path(), true), redis.shared(bench.dir.path(), false));
    let files = FILES as u64;
    let first = bench.build("a", Some(&writer)).await;
    if !is_able(&first) {
        return;
    }
    assert_eq!(first.calls[2], files, "everything is compiled");
    let keys = redis.keys();
    assert!(keys.len() as u64 >= files, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with(&format!("{NAMESPACE}/"))), "{keys:?}");

    let second = bench.build("b", Some(&reader)).await;
    assert_eq!(second.fingerprint, first.fingerprint);
    assert!(second.calls[1] * 10 > files * 9, "{:?}", second.calls);

    // What a reader compiles stays with it.
    bench.write(7, "changed");
    let third = bench.build("c", Some(&reader)).await;
    assert_eq!(third.calls, [0, files - 1, 1]);
    assert_ne!(third.fingerprint, first.fingerprint);
    let mut after = redis.keys();
    let mut before = keys;
    before.sort();
    after.sort();
    assert_eq!(after, before);

    // The server goes, and builds go on.
    redis.child.kill().unwrap();
    redis.child.wait().unwrap();
    let alone = bench.build("d", Some(&writer)).await;
    assert_eq!(alone.fingerprint, third.fingerprint);
    assert_eq!(alone.calls[2], files);
    assert!(alone.asked.is_some_and(|asked| asked.failures > 0 && asked.hits == 0));
}

#[tokio::test]
async fn a_server_that_never_answers_delays_no_build_for_long() {
    let Some(bench) = Bench::new("silent").await else { return };
    let plain = bench.build("a", None).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let asked = bench.build("b", Some(&shared(&url, true))).await;
    if !is_able(&asked) {
        return;
    }
    assert_eq!(asked.fingerprint, plain.fingerprint);
    // Three questions of 2 s, two at a time, and then none for half a minute.
    assert!(asked.took < plain.took * 3 + Duration::from_secs(20), "{:?}, {:?}", asked.took, plain.took);
}

#[tokio::test]
async fn http_will_do_as_well() {
    let Some(bench) = Bench::new("http").await else { return };
    let (listener, stored) = (TcpListener::bind("127.0.0.1:0").unwrap(), Stored::default());
    let url = format!("http://{}/ccache/", listener.local_addr().unwrap());
    let kept = stored.clone();
    std::thread::spawn(move || serve(&listener, &kept));
    let first = bench.build("a", Some(&shared(&url, true))).await;
    if !is_able(&first) {
        return;
    }
    let second = bench.build("b", Some(&shared(&url, false))).await;
    assert_eq!(second.fingerprint, first.fingerprint);
    assert!(second.calls[1] * 10 > FILES as u64 * 9, "{:?}", second.calls);
    let below = format!("/ccache/{NAMESPACE}/");
    assert!(stored.lock().unwrap().keys().all(|path| path.starts_with(&below)));
}

type Stored = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// GET and PUT, one request a connection.
fn serve(listener: &TcpListener, stored: &Stored) {
    for stream in listener.incoming().flatten() {
        let stored = stored.clone();
        std::thread::spawn(move || answer(stream, &stored));
    }
}

fn answer(mut stream: TcpStream, stored: &Stored) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        lines.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    let mut stored = stored.lock().ok()?;
    let (status, body) = match (&method[..], stored.get(&path)) {
        ("PUT", _) => {
            stored.insert(path, body);
            ("201 Created", Vec::new())
        }
        (_, Some(body)) => ("200 OK", body.clone()),
        (_, None) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(&[head.into_bytes(), body].concat()).ok()
}
