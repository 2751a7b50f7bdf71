//! The compiler's cache that agents share, behind the one of each host.
//!
//! Containers have no network: ccache finds a socket of the agent's there, which passes its
//! questions on (`sidecar`) to a server (`remote`), in a name space of the build's repository and
//! toolchain that the container cannot leave. Entries are not verifiable: whoever may write to
//! the server can have others build something else, see docs/security.md.

mod remote;
mod resp;
mod settings;
mod sidecar;

pub use settings::SharedCcacheArgs;

use crate::telemetry::FIGURES;
use kulprit_observe::figures::Count as _;
use remote::Remote;
use settings::Settings;
use sidecar::{Room, Tally};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the end of a build waits for what it made to be written.
const WRITE_OUT_MAX: Duration = Duration::from_secs(10);
/// Where the directory of the socket is seen in the container.
pub(super) const IN_CONTAINER: &str = "/ccache-shared";
const SOCKET: &str = "socket";

/// The server, and what this agent may do with it.
pub struct SharedCcache {
    remote: Arc<Remote>,
    room: Arc<Room>,
    may_write: bool,
}

/// What one build asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    pub hits: u64,
    pub misses: u64,
    pub failures: u64,
    pub written: u64,
    pub unwritten: u64,
}

impl SharedCcache {
    /// `None` where the agent was given none.
    pub fn open(args: &SharedCcacheArgs) -> anyhow::Result<Option<Arc<SharedCcache>>> {
        let Some(settings) = Settings::read(args)? else { return Ok(None) };
        let remote = Arc::new(Remote::new(settings)?);
        let room = Arc::new(Room::new());
        Ok(Some(Arc::new(SharedCcache { remote, room, may_write: args.shared_ccache_write })))
    }

    /// Serves one build from a socket in `dir`, which is made.
    pub fn serve(&self, dir: PathBuf, namespace: &str) -> io::Result<Serving> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        let listener = bind(&dir)?;
        // The container's user is not ours.
        fs::set_permissions(dir.join(SOCKET), Permissions::from_mode(0o666))?;
        let (tally, closed) = (Arc::new(Tally::default()), CancellationToken::new());
        let serving = sidecar::serve(
            listener,
            self.remote.clone(),
            self.room.clone(),
            namespace.to_owned(),
            self.may_write,
            tally.clone(),
            closed.clone(),
        );
        Ok(Serving { dir, tally, closed, task: tokio::spawn(serving), may_write: self.may_write })
    }
}

/// A path to a socket may have 107 bytes, and a state directory more. This one has few.
fn bind(dir: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(dir.join(SOCKET));
    let open = File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()))
}

/// One build's socket; dropping it ends what is spoken there.
#[derive(Debug)]
pub struct Serving {
    dir: PathBuf,
    tally: Arc<Tally>,
    closed: CancellationToken,
    task: JoinHandle<()>,
    may_write: bool,
}

impl Serving {
    /// The directory that the socket is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What ccache is told in the container.
    pub(super) fn storage(&self) -> String {
        let read_only = if self.may_write { "" } else { "|read-only" };
        // The agent bounds its own waits, well below these.
        format!("redis+unix:{IN_CONTAINER}/{SOCKET}|connect-timeout=2000|operation-timeout=5000{read_only}")
    }

    /// Closes the socket and writes out what waits, within bounds.
    pub async fn finish(mut self) -> Questions {
        self.closed.cancel();
        if tokio::time::timeout(WRITE_OUT_MAX, &mut self.task).await.is_err() {
            tracing::warn!("what a build made was not all written to the shared cache in time");
        }
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let questions = Questions {
            hits: read(&self.tally.hits),
            misses: read(&self.tally.misses),
            failures: read(&self.tally.failures),
            written: read(&self.tally.written),
            unwritten: read(&self.tally.unwritten),
        };
        for (result, count) in [
            ("hit", questions.hits),
            ("miss", questions.misses),
            ("failed", questions.failures),
            ("written", questions.written),
            ("unwritten", questions.unwritten),
        ] {
            FIGURES.shared_ccache.add(&[result], count);
        }
        questions
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
