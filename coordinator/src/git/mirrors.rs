//! Our own bare mirrors: of a URL by fetching, of a local path through alternates.

use super::credentials::Credentials;
use super::fetch::{bound_waits, fetch, remove_torn_packs, unreachable};
use super::url::{Location, mirror_name};
use super::{GitError, packing, patched, releases, show, trace, walk};
use crate::failpoint;
use git2::{ErrorCode, Oid, Repository};
use kulprit_common::crash::Functions;
use kulprit_common::history::{History, Revision, TaggedRelease};
use kulprit_common::id::{RevisionId, TreeId};
use kulprit_common::patch::{Order, Patch, Patched};
use kulprit_common::report::CommitDetails;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
            Location::Url(url) => self.open_url(&url, |_| false, progress),
        }
    }

    /// Opens a repository as the last fetch left it. What another coordinator's mirror had, and this
    /// one has not, is fetched: of a URL without a mirror, or with one that lacks these commits.
    pub fn reopen(
        &self,
        repository: &str,
        commits: &[RevisionId],
        progress: &mut dyn FnMut(String),
    ) -> Result<Mirror, GitError> {
        match Location::parse(repository)? {
            Location::Path(path) => self.open_path(&path),
            Location::Url(url) => match self.fetched_before(&url, commits) {
                Some(mirror) => Ok(mirror),
                None => self.open_url(&url, |mirror| has_all(mirror, commits), progress),
            },
        }
    }

    /// The same without the network; `None` where it takes a fetch.
    pub fn at_hand(&self, repository: &str, commits: &[RevisionId]) -> Result<Option<Mirror>, GitError> {
        match Location::parse(repository)? {
            Location::Path(path) => self.open_path(&path).map(Some),
            Location::Url(url) => Ok(self.fetched_before(&url, commits)),
        }
    }

    /// Where the mirror of a URL is kept.
    pub fn path_of(&self, url: &str) -> PathBuf {
        self.dir.join(mirror_name(url))
    }

    fn fetched_before(&self, url: &str, commits: &[RevisionId]) -> Option<Mirror> {
        let path = self.path_of(url);
        let source = open_existing(&path).ok().filter(|source| has_all(source, commits))?;
        Some(self.mirror(source, path))
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

    fn open_url(
        &self,
        url: &str,
        is_enough: impl FnOnce(&Repository) -> bool,
        progress: &mut dyn FnMut(String),
    ) -> Result<Mirror, GitError> {
        let path = self.path_of(url);
        let _lock = self.lock(&path)?;
        remove_torn_packs(&path);
        let source = open_or_init(&path)?;
        // Somebody else may have fetched it meanwhile.
        if !is_enough(&source) {
            fetch(&source, url, self.credentials.as_deref(), progress)
                .map_err(|error| unreachable(url, &error))?;
        }
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

fn has_all(mirror: &Repository, commits: &[RevisionId]) -> bool {
    commits.iter().all(|id| oid(id).is_ok_and(|oid| mirror.find_commit(oid).is_ok()))
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
