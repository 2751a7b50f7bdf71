//! Fetching a mirror from its server.

use super::GitError;
use super::credentials::Credentials;
use super::url::{has_login, redact};
use git2::Repository;
use git2::{
    AutotagOption, ErrorCode, FetchOptions, FetchPrune, ProxyOptions, RemoteCallbacks, RemoteRedirect,
};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

/// How long a git server may take to be reached.
const CONNECT_TIMEOUT_MS: i32 = 20_000;

/// How long a git server may say nothing at all; while it packs, it sends keep-alives.
const SILENCE_TIMEOUT_MS: i32 = 120_000;

const OWN_LOGIN: &str = "it does not take the login that the coordinator has for it";

const ELSEWHERE: &str =
    "it sends the coordinator on, to where it has no login; give the URL that it leads to";

/// Progress is for people: no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Fetches all heads and tags, and remembers which branch the server's `HEAD` names.
///
/// Where a login is at stake, no server may send us to another one.
pub(super) fn fetch(
    repository: &Repository,
    url: &str,
    credentials: Option<&Credentials>,
    progress: &mut dyn FnMut(String),
) -> Result<(), git2::Error> {
    progress(format!("fetching {}", redact(url)));
    let refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let mut remote = repository.remote_anonymous(url)?;
    let login = credentials.filter(|credentials| credentials.login(url).is_some());
    let mut options = FetchOptions::new();
    options
        .proxy_options(proxy())
        .prune(FetchPrune::On)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false)
        .remote_callbacks(callbacks(logging_in(login), progress));
    if login.is_some() || has_login(url) {
        options.follow_redirects(RemoteRedirect::None);
    }
    remote.fetch(&refspecs, Some(&mut options), None)?;
    match remote.default_branch().ok().as_ref().and_then(|name| name.as_str().ok()) {
        Some(name) => repository.set_head(name),
        None => Ok(()),
    }
}

fn proxy() -> ProxyOptions<'static> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

/// A server is shown the login that is meant for it, whoever sent us there. Without one, a server that
/// wants one is answered with an error.
fn logging_in(credentials: Option<&Credentials>) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    if let Some(credentials) = credentials {
        let mut tried = false;
        callbacks.credentials(move |asking, _, _| match credentials.login(asking) {
            None => Err(auth(ELSEWHERE)),
            Some(_) if std::mem::replace(&mut tried, true) => Err(auth(OWN_LOGIN)),
            Some(login) => git2::Cred::userpass_plaintext(&login.user, &login.password),
        });
    }
    callbacks
}

fn auth(message: &str) -> git2::Error {
    git2::Error::new(ErrorCode::Auth, git2::ErrorClass::Http, message)
}

fn callbacks<'a>(
    mut callbacks: RemoteCallbacks<'a>,
    progress: &'a mut dyn FnMut(String),
) -> RemoteCallbacks<'a> {
    let mut last = Instant::now();
    let say = RefCell::new(move |line: String| {
        if last.elapsed() >= PROGRESS_EVERY && !line.is_empty() {
            last = Instant::now();
            progress(line);
        }
    });
    let say = std::rc::Rc::new(say);
    let transfer = say.clone();
    callbacks.sideband_progress(move |text| {
        let text = String::from_utf8_lossy(text);
        let line = text.rsplit(['\r', '\n']).map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
        say.borrow_mut()(line.to_owned());
        true
    });
    callbacks.transfer_progress(move |stats| {
        let (received, total) = (stats.received_objects(), stats.total_objects());
        let line = if received < total {
            format!("received {received} of {total} objects, {} MiB", stats.received_bytes() >> 20)
        } else {
            format!("resolved {} of {} deltas", stats.indexed_deltas(), stats.total_deltas())
        };
        transfer.borrow_mut()(line);
        true
    });
    callbacks
}

pub(super) fn unreachable(url: &str, error: &git2::Error) -> GitError {
    let why = match error.code() {
        ErrorCode::Auth if [OWN_LOGIN, ELSEWHERE].contains(&error.message()) => error.message().to_owned(),
        ErrorCode::Auth => "it wants a login, and kulprit never asks for one: see --git-credentials of \
                            kulprit-coordinator"
            .to_owned(),
        ErrorCode::Certificate => format!("its certificate is not trusted ({})", error.message()),
        _ => error.message().replace(url, &redact(url)),
    };
    GitError::Unreachable { url: redact(url), why }
}

/// Removes what an interrupted fetch left; the lock says that nobody is writing it.
pub(super) fn remove_torn_packs(mirror: &Path) {
    let Ok(entries) = std::fs::read_dir(mirror.join("objects/pack")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pack_git2_") {
            // A leftover that stays costs space, nothing else.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Bounds libgit2's waits for servers, once per process.
pub(super) fn bound_waits() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // libgit2 offers these as process-wide integers only. They are read when a connection is
        // opened, and every connection of ours is opened by a `Mirrors`, so after this.
        #[allow(unsafe_code)]
        let set = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_TIMEOUT_MS)
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(SILENCE_TIMEOUT_MS))
        };
        set.expect("libgit2 knows its timeouts");
    });
}
