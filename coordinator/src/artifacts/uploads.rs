//! The books of uploads in parts: what was begun is on disk before anybody is told, so that what breaks off,
//! on either side, is taken back. Stores keep parts, and bill for them, without end.

use kulprit_common::artifact::Artifact;
use kulprit_common::id::Digest;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Without a word of its sender for so long, an upload has broken off.
pub const IDLE_MAX: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Debug)]
pub(super) struct Uploads {
    dir: PathBuf,
}

/// An upload as it is kept: a file of its own, whose time is that of the last word of its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub upload: String,
    pub artifact: Artifact,
}

impl Uploads {
    pub fn open(dir: PathBuf) -> io::Result<Uploads> {
        std::fs::create_dir_all(&dir)?;
        Ok(Uploads { dir })
    }

    pub fn note(&self, begun: &Begun) -> io::Result<()> {
        let file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&file, begun)?;
        file.as_file().sync_data()?;
        file.persist(self.path(&begun.upload))?;
        Ok(())
    }

    /// Whether it is under way; if so, its sender was heard of just now.
    pub fn is_under_way(&self, begun: &Begun) -> bool {
        let path = self.path(&begun.upload);
        let known = read(&path).is_some_and(|known| known == *begun);
        known && std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now())).is_ok()
    }

    pub fn forget(&self, upload: &str) {
        // What stays is looked at again later.
        let _ = std::fs::remove_file(self.path(upload));
    }

    /// Those whose senders were not heard of for longer than `idle`.
    pub fn broken_off(&self, idle: Duration) -> Vec<Begun> {
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let old = files.filter(|file| {
            let modified = file.metadata().and_then(|meta| meta.modified());
            modified.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() >= idle)
        });
        old.filter_map(|file| read(&file.path())).collect()
    }

    /// Ids hold whatever their store likes.
    fn path(&self, upload: &str) -> PathBuf {
        self.dir.join(format!("{}.json", Digest::of(upload.as_bytes())))
    }
}

fn read(path: &Path) -> Option<Begun> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_known_until_it_has_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let uploads = Uploads::open(dir.path().join("uploads")).expect("it opens");
        let artifact = Artifact { digest: Digest::of(b"k"), size: 1 };
        let begun = Begun { upload: "../a/b?c".into(), artifact };
        assert!(!uploads.is_under_way(&begun));
        uploads.note(&begun).expect("noted");
        let again = Uploads::open(dir.path().join("uploads")).expect("a later life");
        assert!(again.is_under_way(&begun));
        let of_another = Begun { artifact: Artifact { size: 2, ..artifact }, ..begun.clone() };
        assert!(!again.is_under_way(&of_another), "an upload is one artifact's");
        assert_eq!(again.broken_off(IDLE_MAX), []);
        assert_eq!(again.broken_off(Duration::ZERO), std::slice::from_ref(&begun));
        again.forget(&begun.upload);
        assert_eq!(again.broken_off(Duration::ZERO), []);
    }
}
