//! A PostgreSQL of this machine's for a test: one server to a test program, gone with it, with a
//! database for each test; and a line to it that can be cut.

#![allow(dead_code, reason = "each test uses its share")]

use kulprit_common::farm::fact::Fact;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const STARTING: Duration = Duration::from_secs(90);

/// Ends the server, and removes it, once the test program has ended, however it did.
const KEEPER: &str = r#"
"$@" &
read -r _
kill -QUIT $!
wait $!
rm -rf "$DIR"
"#;

pub struct Server {
    pub dir: PathBuf,
    pub port: u16,
    _keeper: ChildStdin,
}

/// The server of this test program, or `None` with a word of why the test is skipped.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

impl Server {
    fn start() -> Option<Server> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("KULPRIT_TEST_REAL").is_none(), "PostgreSQL is missing: scripts/setup");
            eprintln!("skipped: PostgreSQL is missing; scripts/setup installs it");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory").keep();
        // It does not run as root.
        let user = nix::unistd::User::from_name("postgres").ok().flatten();
        let user = user.filter(|_| nix::unistd::geteuid().is_root());
        if let Some(user) = &user {
            std::os::unix::fs::chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("ours");
        }
        let as_user = |program: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "exec \"$@\"", "sh"]);
            if user.is_some() {
                command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            }
            command.arg(programs.join(program)).current_dir(&dir);
            command
        };
        let data = dir.join("data");
        let mut init = as_user("initdb");
        init.args(["--auth=trust", "--username=kulprit", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let made = init.arg("--pgdata").arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut serve = as_user("postgres");
        serve.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k"]).arg(&dir);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(serve.get_program()).args(serve.get_args());
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        keeper.env("DIR", &dir).current_dir(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let keeper = keeper.spawn().expect("it starts").stdin.take().expect("a pipe");
        let server = Server { dir, port, _keeper: keeper };
        let begun = Instant::now();
        while block_on(server.options("postgres").connect()).is_err() {
            let said = std::fs::read_to_string(server.dir.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < STARTING, "PostgreSQL does not start: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(server)
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        let url = format!("postgres://kulprit@127.0.0.1:{}/{database}", self.port);
        PgConnectOptions::from_str(&url).expect("a URL").disable_statement_logging()
    }

    /// A new, empty database; yields its name.
    pub fn database(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", MADE.fetch_add(1, Ordering::SeqCst));
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    pub async fn connect(&self, database: &str) -> PgConnection {
        self.options(database).connect().await.expect("it answers")
    }

    pub fn execute(&self, database: &str, text: &str) {
        block_on(async {
            let mut connection = self.connect(database).await;
            let text = sqlx::AssertSqlSafe(text.to_owned());
            sqlx::raw_sql(text).execute(&mut connection).await.expect("it is done");
            connection.close().await.expect("closed");
        });
    }

    pub fn facts_kept(&self, database: &str) -> usize {
        let count: i64 = block_on(async {
            let mut connection = self.connect(database).await;
            let text = "SELECT count(*) FROM kulprit_facts";
            sqlx::query_scalar(text).fetch_one(&mut connection).await.expect("a number")
        });
        usize::try_from(count).expect("a number")
    }

    /// Whether whoever led has given the lead up.
    pub fn is_given_up(&self, database: &str) -> bool {
        block_on(async {
            let mut connection = self.connect(database).await;
            let text = "SELECT renewed_at = '-infinity' FROM kulprit_leader";
            sqlx::query_scalar(text).fetch_one(&mut connection).await.expect("an answer")
        })
    }

    /// Lets a role in with its password only.
    pub fn ask_password_of(&self, role: &str) {
        let path = self.dir.join("data/pg_hba.conf");
        let rules = std::fs::read_to_string(&path).expect("it is there");
        std::fs::write(&path, format!("host all {role} 127.0.0.1/32 scram-sha-256\n{rules}"))
            .expect("written");
        self.execute("postgres", "SELECT pg_reload_conf()");
    }

    /// The facts in a database, each with the epoch of who wrote it.
    pub fn facts(&self, database: &str) -> Vec<(i64, Fact)> {
        let rows: Vec<(i64, Vec<u8>)> = block_on(async {
            let mut connection = self.connect(database).await;
            let text = "SELECT epoch, body FROM kulprit_facts ORDER BY seq";
            sqlx::query_as(text).fetch_all(&mut connection).await.expect("facts")
        });
        let read = |body: &[u8]| kulprit_proto::journal::decode(body).expect("a fact is readable");
        rows.iter().map(|(epoch, body)| (*epoch, read(body))).collect()
    }
}

pub fn url(port: u16, database: &str) -> String {
    format!("postgres://kulprit@127.0.0.1:{port}/{database}")
}

/// From tests of either kind: a runtime of its own on a thread of its own.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(future)
        });
        work.join().expect("it ends")
    })
}

/// Where Debian, or the path, has the server's programs; the newest of them.
fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = found.into_iter().rev().chain(std::env::split_paths(&path));
    all.into_iter().find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("an address").port()
}

const OPEN: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;
const LOSE_ANSWER: u8 = 3;
const SLOW: u8 = 4;
/// What a slow line takes, either way.
const DELAY: Duration = Duration::from_millis(100);

/// A line to the server.
pub struct Line {
    pub port: u16,
    state: Arc<AtomicU8>,
}

impl Line {
    pub fn to(server: &Server) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(AtomicU8::new(OPEN));
        let (target, of) = (server.port, state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let both = |it: &TcpStream| it.try_clone().expect("a second handle");
                let (up, down) = ((both(&client), both(&server)), (server, client));
                let (one, other) = (of.clone(), of.clone());
                std::thread::spawn(move || pump(up.0, up.1, &one, false));
                std::thread::spawn(move || pump(down.0, down.1, &other, true));
            }
        });
        Line { port, state }
    }

    /// Closes what is open, and refuses what comes.
    pub fn cut(&self) {
        self.state.store(CUT, Ordering::SeqCst);
    }

    /// Holds back whatever is said on either side.
    pub fn silence(&self) {
        self.state.store(SILENT, Ordering::SeqCst);
    }

    /// Lets what is asked through, and breaks when it is answered; then it is mended.
    pub fn lose_next_answer(&self) {
        self.state.store(LOSE_ANSWER, Ordering::SeqCst);
    }

    /// Takes its time for whatever is said.
    pub fn slow_down(&self) {
        self.state.store(SLOW, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.state.store(OPEN, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8, is_answer: bool) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    let mut bytes = [0; 64 << 10];
    loop {
        match state.load(Ordering::SeqCst) {
            CUT => break,
            SILENT => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            _ => {}
        }
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error)
                if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) =>
            {
                continue;
            }
            Err(_) => break,
        };
        // It may have been cut or silenced while this waited for something to be said.
        while state.load(Ordering::SeqCst) == SILENT {
            std::thread::sleep(Duration::from_millis(20));
        }
        match state.load(Ordering::SeqCst) {
            CUT => break,
            SLOW => std::thread::sleep(DELAY),
            _ => {}
        }
        let lost = is_answer
            && state.compare_exchange(LOSE_ANSWER, OPEN, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if lost || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// A directory for the state of one coordinator.
pub fn state(dir: &Path, name: &str) -> PathBuf {
    let state = dir.join(name);
    std::fs::create_dir_all(&state).expect("made");
    state
}
