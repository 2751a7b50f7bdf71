//! Removes what an earlier life of this agent left: its containers and its scratch files.
//!
//! Mirrors, work trees, object trees and ccache stay; they repair themselves when next used.

use crate::container::{Engine, Unfinished};
use crate::untrusted;
use std::fs;
use std::io;
use std::path::Path;

/// What was found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub containers: usize,
    /// Entries of the scratch directory.
    pub files: usize,
}

/// To be called at start, before any work: every container of ours is then a leftover, and so
/// is everything in `scratch_dir`, where attempts keep their files.
pub async fn at_start(engine: &Engine, scratch_dir: &Path) -> Result<Leftovers, Unfinished> {
    // Containers first: they may hold files below the scratch directory.
    let containers = engine.remove_all_leftovers().await?;
    let dir = scratch_dir.to_path_buf();
    let emptied =
        tokio::task::spawn_blocking(move || empty(&dir)).await.expect("file operations do not panic");
    let files = emptied.map_err(|e| Unfinished::io("empty the scratch directory", &e))?;
    Ok(Leftovers { containers, files })
}

/// Removes everything in `dir` and keeps `dir`; creates it if it is not there.
fn empty(dir: &Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        untrusted::remove(&entry.path())?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_emptied_and_symlinks_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, kept) = (dir.path().join("scratch"), dir.path().join("kept"));
        fs::create_dir_all(scratch.join("attempt/deep")).unwrap();
        fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(&kept, scratch.join("link")).unwrap();
        assert_eq!(empty(&scratch).unwrap(), 2);
        assert_eq!(empty(&scratch).unwrap(), 0);
        assert!(kept.exists());
    }
}
