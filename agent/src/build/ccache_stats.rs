//! What ccache says of each compilation of a build, counted.
//!
//! It is written where the build's commands write, so nothing of it is believed but a count.

use crate::telemetry::FIGURES;
use kulprit_observe::figures::Count as _;
use nix::fcntl::OFlag;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Below the top of the object tree.
const NAME: &str = ".kulprit-ccache-stats";
/// The same for the commands in the container.
pub(super) const IN_CONTAINER: &str = "/build/.kulprit-ccache-stats";
/// A kernel has some 30,000 files, with 200 bytes said of each.
const BYTES_MAX: u64 = 32 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Had by this host.
    hit: u64,
    /// Had by the cache that agents share.
    shared: u64,
    miss: u64,
    /// What is not cached: links, tests of the compiler.
    other: u64,
}

/// Forgets what an earlier build left.
pub(super) fn clear(tree: &Path) {
    // What cannot be removed is counted once more, which does no harm.
    let _ = fs::remove_file(path(tree));
}

/// Counts what the build that has just ended left, where it used ccache.
pub(super) fn count(tree: &Path) -> Option<Calls> {
    let read = File::options().read(true).custom_flags(flags()).open(path(tree)).and_then(text);
    let calls = calls(&read.ok()?);
    let Calls { hit, shared, miss, other } = calls;
    tracing::info!(local_hits = hit, shared_hits = shared, misses = miss, "ccache");
    for (result, count) in [("hit", hit), ("shared-hit", shared), ("miss", miss), ("other", other)] {
        FIGURES.ccache.add(&[result], count);
    }
    clear(tree);
    Some(calls)
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calls { hit, shared, miss, .. } = self;
        write!(f, "ccache: {hit} local hits, {shared} shared hits, {miss} misses")?;
        match (hit + shared).checked_mul(100).and_then(|hits| hits.checked_div(hit + shared + miss)) {
            Some(percent) => write!(f, " ({percent} %)"),
            None => Ok(()),
        }
    }
}

fn path(tree: &Path) -> PathBuf {
    tree.join(NAME)
}

/// No link is followed out of the tree, and no pipe waited for.
fn flags() -> i32 {
    (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()
}

fn text(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of each compilation there is a line `# FILE`, and what came of it in the lines below.
fn calls(text: &str) -> Calls {
    let mut calls = Calls::default();
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        match (line.starts_with('#'), blocks.last_mut()) {
            (true, _) => blocks.push(Vec::new()),
            (false, Some(block)) => block.push(line.trim()),
            (false, None) => {}
        }
    }
    for block in blocks {
        let has = |word: &str| block.contains(&word);
        let is_hit = has("direct_cache_hit") || has("preprocessed_cache_hit");
        match (is_hit, has("remote_storage_hit"), has("cache_miss")) {
            (true, false, _) => calls.hit += 1,
            (true, true, _) => calls.shared += 1,
            (false, _, true) => calls.miss += 1,
            (false, _, false) => calls.other += 1,
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilations_are_counted_by_what_came_of_them() {
        let text = "stray\n# a.c\ndirect_cache_hit\nlocal_storage_hit\n# b.c\ndirect_cache_miss\n\
                    preprocessed_cache_miss\ncache_miss\n# c.c\npreprocessed_cache_hit\n# d\ncalled_for_link\n\
                    # e.c\ndirect_cache_hit\nlocal_storage_miss\nremote_storage_hit\n";
        let counted = calls(text);
        assert_eq!(counted, Calls { hit: 2, shared: 1, miss: 1, other: 1 });
        assert_eq!(counted.to_string(), "ccache: 2 local hits, 1 shared hits, 1 misses (75 %)");
        assert_eq!(calls(""), Calls::default());
        assert_eq!(calls("").to_string(), "ccache: 0 local hits, 0 shared hits, 0 misses");
    }

    #[test]
    fn what_a_build_plants_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "# a.c\ncache_miss\n").expect("written");
        std::os::unix::fs::symlink(&elsewhere, path(dir.path())).expect("linked");
        assert!(File::options().read(true).custom_flags(flags()).open(path(dir.path())).is_err());
        clear(dir.path());
        assert!(elsewhere.exists() && !path(dir.path()).exists());
        nix::unistd::mkfifo(&path(dir.path()), nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(count(dir.path()), None);
    }
}
