//! A git server over HTTP that wants a password: git's own CGI program behind a small listener.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub const USER: &str = "kulprit-reader";
pub const PASSWORD: &str = "correct-horse-battery-staple";
/// `USER:PASSWORD` as it stands in a header.
pub const ENCODED: &str = "a3VscHJpdC1yZWFkZXI6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==";

struct Shared {
    root: PathBuf,
    refused: AtomicUsize,
    logged_in: AtomicUsize,
    /// What it does in place of serving.
    instead: Mutex<Instead>,
}

/// What a server does that does not serve.
#[derive(Clone, Debug, Default)]
pub enum Instead {
    #[default]
    Nothing,
    /// It answers that it is away.
    Away,
    /// It sends everybody to another server.
    Redirect(String),
    /// The same, once they have logged in.
    RedirectMembers(String),
}

pub struct GitServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Option<tokio::runtime::Runtime>,
}

impl GitServer {
    /// Serves the repositories in `root`.
    pub fn start(root: &Path) -> GitServer {
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            refused: AtomicUsize::default(),
            logged_in: AtomicUsize::default(),
            instead: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        listener.set_nonblocking(true).expect("set");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let router = Router::new().fallback(answer).with_state(shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("taken");
            axum::serve(listener, router).await.expect("served");
        });
        GitServer { shared, address, serving: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Writes the coordinator's logins for this server.
    pub fn logins(&self, path: &Path) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file =
            std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).expect("a file");
        let url = self.url("");
        let text = format!("[[repository]]\nurl = \"{url}\"\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\n");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Requests that came without the password.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Requests that came with any login.
    pub fn logged_in(&self) -> usize {
        self.shared.logged_in.load(Ordering::Relaxed)
    }

    pub fn instead(&self, instead: Instead) {
        *self.shared.instead.lock().expect("whole") = instead;
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let redirect = |to: &str| {
        let there = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        let moved = Response::builder().status(StatusCode::FOUND).header("location", format!("{to}{there}"));
        moved.body(Body::empty()).expect("valid")
    };
    let instead = shared.instead.lock().expect("whole").clone();
    let login = header("authorization");
    if !login.is_empty() {
        shared.logged_in.fetch_add(1, Ordering::Relaxed);
    }
    match &instead {
        Instead::Away => {
            let away = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            return away.body(Body::empty()).expect("valid");
        }
        Instead::Redirect(to) => return redirect(to),
        Instead::Nothing | Instead::RedirectMembers(_) => {}
    }
    if login != format!("Basic {ENCODED}") {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        let refusal = Response::builder().status(StatusCode::UNAUTHORIZED);
        return refusal
            .header("www-authenticate", "Basic realm=\"private\"")
            .body(Body::empty())
            .expect("valid");
    }
    if let Instead::RedirectMembers(to) = &instead {
        return redirect(to);
    }
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_USER", USER);
    let body = axum::body::to_bytes(body, 1 << 30).await.expect("a body");
    tokio::task::spawn_blocking(move || run(command, &body)).await.expect("it ends")
}

fn run(mut command: Command, body: &Bytes) -> Response<Body> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().expect("git runs");
    child.stdin.take().expect("piped").write_all(body).expect("read");
    let said = child.wait_with_output().expect("it ends").stdout;
    let end = said.windows(4).position(|it| it == b"\r\n\r\n").expect("headers have an end");
    let headers = String::from_utf8_lossy(&said[..end]).into_owned();
    let mut response = Response::builder();
    for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap_or("500")),
            name => response.header(name, value),
        };
    }
    response.body(Body::from(said[end + 4..].to_vec())).expect("a response")
}
