//! Watches what a container writes to the host's disk, and says when it is too much.
//!
//! No engine limits a directory of the host, and file systems do so only where somebody set quotas
//! up. So the directories are added up: while the command runs whenever the disk fills at some
//! speed, and once more at its end.

use super::{Access, Bind, RunSpec};
use crate::untrusted;
use kulprit_common::outcome::{Infra, InfraClass};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A disk that filled by less since the last look is not looked into: adding up takes a while.
const GROWTH_BYTES: u64 = 256 << 20;
const GROWTH_FILES: u64 = 50_000;

/// The writable directories of one container.
pub(super) struct Room {
    directories: Vec<Directory>,
    /// Less free than this, and the agent could not even say how it went.
    free_bytes_min: u64,
}

#[derive(Clone)]
struct Directory {
    host: PathBuf,
    container: String,
    bytes_max: u64,
    /// Free bytes and files of the disk when the directory was looked into last.
    free: Option<(u64, u64)>,
}

impl Room {
    pub(super) fn new(spec: &RunSpec<'_>) -> Room {
        Room {
            directories: spec.binds.iter().filter_map(directory).collect(),
            free_bytes_min: spec.limits.disk_free_bytes_min,
        }
    }

    /// Comes back once too much is written, with the failure that this is.
    pub(super) async fn overflow(&mut self) -> Infra {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(infra) = self.look(false).await {
                return infra;
            }
        }
    }

    /// Looks for the last time, when the container is gone.
    pub(super) async fn at_end(&mut self) -> Option<Infra> {
        self.look(true).await
    }

    async fn look(&mut self, last: bool) -> Option<Infra> {
        let (mut directories, free_bytes_min) = (self.directories.clone(), self.free_bytes_min);
        let looked = tokio::task::spawn_blocking(move || {
            let found = directories.iter_mut().find_map(|directory| directory.look(last, free_bytes_min));
            (directories, found)
        });
        let (directories, found) = looked.await.expect("adding up does not panic");
        self.directories = directories;
        found
    }
}

fn directory(bind: &Bind<'_>) -> Option<Directory> {
    let Access::Writable { bytes_max } = bind.access else { return None };
    Some(Directory {
        host: bind.host.to_owned(),
        container: bind.container.to_owned(),
        bytes_max,
        free: free(bind.host),
    })
}

impl Directory {
    fn look(&mut self, last: bool, free_bytes_min: u64) -> Option<Infra> {
        let now = free(&self.host);
        if let Some((bytes, _)) = now
            && bytes < free_bytes_min
            && !last
        {
            let reason = format!("stopped with {} MiB of disk left on the agent", bytes >> 20);
            return Some(Infra { class: InfraClass::Disk, reason });
        }
        let grew = match (self.free, now) {
            (Some((bytes, files)), Some((bytes_now, files_now))) => {
                bytes.saturating_sub(bytes_now) > GROWTH_BYTES
                    || files.saturating_sub(files_now) > GROWTH_FILES
            }
            _ => true,
        };
        if !grew && !last {
            return None;
        }
        self.free = now;
        let excess = untrusted::measure(&self.host, self.bytes_max).err()?;
        let reason = format!("it left {excess} in {}", self.container);
        Some(Infra { class: InfraClass::Limit, reason })
    }
}

fn free(path: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(path).ok()?;
    Some((stat.blocks_available().saturating_mul(stat.fragment_size()), stat.files_available()))
}
