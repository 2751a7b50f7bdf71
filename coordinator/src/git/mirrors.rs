//! Our own bare mirrors: of a URL by fetching, of a local path through alternates.

use super::credentials::Credentials;
use super::url::{Location, mirror_name, redact};
use super::{GitError, packing, patched, releases, show, trace, walk};
use crate::failpoint;
use git2::{AutotagOption, Direction, ErrorCode, FetchOptions, FetchPrune, ProxyOptions, RemoteCallbacks};
use git2::{Oid, Repository};
use kulprit_common::crash::Functions;
use kulprit_common::history::{History, Revision, TaggedRelease};
use kulprit_common::id::{RevisionId, TreeId};
use kulprit_common::patch::{Order, Patch, Patched};
use kulprit_common::report::CommitDetails;
use nix::fcntl::{Flock, FlockArg};
use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// How long a git server may take to be reached.
const CONNECT_TIMEOUT_MS: i32 = 20_000;

/// How long a git server may say nothing at all; while it packs, it sends keep-alives.
const SILENCE_TIMEOUT_MS: i32 = 120_000;

const OWN_LOGIN: &str = "it does not take the login that the coordinator has for it";

/// Progress is for people: no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The directory of all mirrors.
#[derive(Clone, Debug)]
pub struct Mirrors {
    dir: PathBuf,
    credentials: Option<Arc<Credentials>>,
    touched: Arc<trace::Touched>,
}

/// One repository, open for reading. It is `Send`, but not `Sync`: one thread at a time.
pub struct Mirror {
    /// Where objects and refs are looked up: the user's repository itself, or the mirror of a URL.
    source: Repository,
    path: PathBuf,
    touched: Arc<trace::Touched>,
}

impl Mirrors {
    /// Takes the directory that holds, or will hold, the mirrors.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        bound_waits();
        Mirrors { dir: dir.into(), credentials: None, touched: Arc::default() }
    }

    /// Logs in where a server asks for it and these have a login for it.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Mirrors { credentials: Some(Arc::new(credentials)), ..self }
    }

    /// Opens a repository: a path is used in place, a URL is fetched first.
    pub fn open(&self, repository: &str, progress: &mut dyn FnMut(String)) -> Result<Mirror, GitError> {
        match Location::parse(repository)? {
            Location::Path(path) => self.open_path(&path),
            Location::Url(url) => self.open_url(&url, progress),
        }
    }

    /// Opens a repository without the network, as the last fetch left it.
    pub fn reopen(&self, repository: &str) -> Result<Mirror, GitError> {
        match Location::parse(repository)? {
            Location::Path(path) => self.open_path(&path),
            Location::Url(url) => {
                let path = self.dir.join(mirror_name(&url));
                Ok(self.mirror(open_existing(&path)?, path))
            }
        }
    }

    fn open_path(&self, path: &Path) -> Result<Mirror, GitError> {
        let path = path.canonicalize().map_err(|_| GitError::NotARepository { path: path.into() })?;
        let source = open_existing(&path)?;
        let own = self.dir.join(mirror_name(&path.to_string_lossy()));
        let _lock = self.lock(&own)?;
        failpoint::pass("before-mirror");
        borrow_objects(&source, &own)?;
        failpoint::pass("after-mirror");
        Ok(self.mirror(source, own))
    }

    fn open_url(&self, url: &str, progress: &mut dyn FnMut(String)) -> Result<Mirror, GitError> {
        let path = self.dir.join(mirror_name(url));
        let _lock = self.lock(&path)?;
        remove_torn_packs(&path);
        let source = open_or_init(&path)?;
        fetch(&source, url, self.credentials.as_deref(), progress)
            .map_err(|error| unreachable(url, &error))?;
        Ok(self.mirror(source, path))
    }

    fn mirror(&self, source: Repository, path: PathBuf) -> Mirror {
        Mirror { source, path, touched: self.touched.clone() }
    }

    /// One writer of a mirror at a time, in whatever process.
    fn lock(&self, mirror: &Path) -> Result<Flock<File>, GitError> {
        let path = mirror.with_extension("lock");
        let failed = |source| GitError::Mirror { path: path.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
    }
}

impl Mirror {
    /// Our own bare repository, which sees every object of the original; for those who write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finds what `rev` names: a commit id, also abbreviated, a branch, a tag, `HEAD`, `x~3`.
    pub fn resolve(&self, rev: &str) -> Result<Revision, GitError> {
        let commit = self.commit(rev)?;
        let release = releases::newest(&self.source, commit.id())?;
        Ok(revision(&commit, release))
    }

    /// The same without the release, which takes a walk: the commit and its subject.
    pub fn name(&self, rev: &str) -> Result<(RevisionId, String), GitError> {
        let commit = self.commit(rev)?;
        Ok((revision_id(commit.id()), subject(&commit)))
    }

    fn commit(&self, rev: &str) -> Result<git2::Commit<'_>, GitError> {
        let unknown = |why: &str| GitError::UnknownRevision { rev: rev.into(), why: why.into() };
        let object = self.source.revparse_single(rev).map_err(|error| match error.code() {
            ErrorCode::NotFound => unknown("no commit, branch or tag in the repository has this name"),
            ErrorCode::Ambiguous => unknown("several commits begin with it; give more digits"),
            ErrorCode::InvalidSpec => unknown("it is not the name of a commit, branch or tag"),
            ErrorCode::UnbornBranch => unknown("the repository has no commits yet"),
            _ => GitError::Git(error),
        })?;
        object.peel_to_commit().map_err(|_| unknown("it does not name a commit"))
    }

    /// The commit that the repository's `HEAD` stands on.
    pub fn head(&self) -> Result<Revision, GitError> {
        self.resolve("HEAD")
    }

    /// The release tags that `bad` descends from or is, newest first.
    pub fn releases(&self, bad: &RevisionId) -> Result<Vec<TaggedRelease>, GitError> {
        releases::reachable(&self.source, oid(bad)?)
    }

    /// Refuses ends that span no range, with the errors of `history`.
    pub fn check_range(&self, good: &RevisionId, bad: &RevisionId) -> Result<(), GitError> {
        walk::range(&self.source, oid(good)?, oid(bad)?).map(|_| ())
    }

    /// The commits that `bad` has and `good` has not, parents first.
    pub fn history(&self, good: &RevisionId, bad: &RevisionId) -> Result<History, GitError> {
        walk::history(&self.source, oid(good)?, oid(bad)?)
    }

    /// What each of these commits touches, as far as it is worth looking at; nothing for merges.
    pub fn touched(&self, commits: &[RevisionId]) -> Result<Vec<Vec<String>>, GitError> {
        commits.iter().map(|id| self.touched.of(&self.source, oid(id)?)).collect()
    }

    /// Those of the paths that define functions of a stack, those of the innermost first.
    pub fn defining<'p>(
        &self,
        revision: &RevisionId,
        paths: impl Iterator<Item = &'p str>,
        functions: &Functions,
    ) -> Result<Vec<String>, GitError> {
        trace::defining(&self.source, oid(revision)?, paths, functions)
    }

    /// The source that was ordered, or why a revert does not apply. Its objects are written into
    /// the mirror, never into the user's repository.
    pub fn patched(&self, order: &Order) -> Result<Result<Patched, String>, GitError> {
        patched::carry_out(&Repository::open(&self.path)?, order)
    }

    /// What an agent is to have for a revision with patches, beside what it holds.
    pub fn needed(
        &self,
        revision: &RevisionId,
        patches: &[Patch],
        held: &[RevisionId],
    ) -> Result<packing::Needed, GitError> {
        packing::needed(&self.source, revision, patches, held)
    }

    /// The commit as `git show --stat` has it; a merge is compared with its first parent.
    pub fn details(&self, revision: &RevisionId) -> Result<CommitDetails, GitError> {
        show::details(&self.source, oid(revision)?)
    }

    /// A commit's change as a patch; `None` for a merge, which has none of its own.
    pub fn patch(&self, revision: &RevisionId) -> Result<Option<String>, GitError> {
        show::patch(&self.source, oid(revision)?)
    }
}

pub(super) fn revision(
    commit: &git2::Commit<'_>,
    release: Option<kulprit_common::toolchain::Release>,
) -> Revision {
    Revision {
        id: revision_id(commit.id()),
        tree: tree_id(commit.tree_id()),
        subject: subject(commit),
        release,
    }
}

pub(super) fn subject(commit: &git2::Commit<'_>) -> String {
    String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default()).into_owned()
}

pub(super) fn revision_id(oid: Oid) -> RevisionId {
    RevisionId::from_bytes(oid.as_bytes().try_into().expect("libgit2 is built for SHA-1"))
}

pub(super) fn tree_id(oid: Oid) -> TreeId {
    TreeId::from_bytes(oid.as_bytes().try_into().expect("libgit2 is built for SHA-1"))
}

fn oid(id: &RevisionId) -> Result<Oid, GitError> {
    Ok(Oid::from_bytes(id.as_bytes())?)
}

fn open_existing(path: &Path) -> Result<Repository, GitError> {
    Repository::open(path).map_err(|error| match error.code() {
        ErrorCode::NotFound => GitError::NotARepository { path: path.into() },
        ErrorCode::Owner => GitError::ForeignOwner { path: path.into() },
        _ => GitError::Git(error),
    })
}

fn open_or_init(path: &Path) -> Result<Repository, GitError> {
    if path.join("HEAD").exists() { open_existing(path) } else { Ok(Repository::init_bare(path)?) }
}

/// Makes the mirror at `own` see the objects of `source`, also those it borrows itself.
fn borrow_objects(source: &Repository, own: &Path) -> Result<(), GitError> {
    open_or_init(own)?;
    let failed = |error| GitError::Mirror { path: own.into(), source: error };
    let objects = source.commondir().join("objects");
    replace(&own.join("objects/info/alternates"), format!("{}\n", objects.display()).as_bytes())
        .map_err(failed)?;
    // Where history is cut off is not among the objects.
    match std::fs::read(source.commondir().join("shallow")) {
        Ok(roots) => replace(&own.join("shallow"), &roots).map_err(failed),
        Err(_) => match std::fs::remove_file(own.join("shallow")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// Writes a file so that no reader sees half of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().expect("a file stands in a directory");
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

/// Fetches all heads and tags, and remembers which branch the server's `HEAD` names.
fn fetch(
    repository: &Repository,
    url: &str,
    credentials: Option<&Credentials>,
    progress: &mut dyn FnMut(String),
) -> Result<(), git2::Error> {
    progress(format!("fetching {}", redact(url)));
    let refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let mut remote = repository.remote_anonymous(url)?;
    let head = {
        let connection =
            remote.connect_auth(Direction::Fetch, Some(logging_in(url, credentials)), Some(proxy()))?;
        connection.default_branch().ok()
    };
    let mut options = FetchOptions::new();
    options
        .proxy_options(proxy())
        .prune(FetchPrune::On)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false)
        .remote_callbacks(callbacks(logging_in(url, credentials), progress));
    remote.fetch(&refspecs, Some(&mut options), None)?;
    match head.as_ref().and_then(|name| name.as_str().ok()) {
        Some(name) => repository.set_head(name),
        None => Ok(()),
    }
}

fn proxy() -> ProxyOptions<'static> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

/// Without a login for the URL, a server that wants one is answered with an error.
fn logging_in<'a>(url: &str, credentials: Option<&Credentials>) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    if let Some(login) = credentials.and_then(|credentials| credentials.login(url)) {
        let mut tried = false;
        callbacks.credentials(move |_, _, _| match std::mem::replace(&mut tried, true) {
            false => git2::Cred::userpass_plaintext(&login.user, &login.password),
            true => Err(auth(OWN_LOGIN)),
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

fn unreachable(url: &str, error: &git2::Error) -> GitError {
    let why = match error.code() {
        ErrorCode::Auth if error.message() == OWN_LOGIN => OWN_LOGIN.to_owned(),
        ErrorCode::Auth => "it wants a login, and kulprit never asks for one: see --git-credentials of \
                            kulprit-coordinator"
            .to_owned(),
        ErrorCode::Certificate => format!("its certificate is not trusted ({})", error.message()),
        _ => error.message().replace(url, &redact(url)),
    };
    GitError::Unreachable { url: redact(url), why }
}

/// Removes what an interrupted fetch left; the lock says that nobody is writing it.
fn remove_torn_packs(mirror: &Path) {
    let Ok(entries) = std::fs::read_dir(mirror.join("objects/pack")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pack_git2_") {
            // A leftover that stays costs space, nothing else.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Bounds libgit2's waits for servers, once per process.
fn bound_waits() {
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
