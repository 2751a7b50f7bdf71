//! Which packs of a repository there are. It is a memory and no more: what is lost is packed again.

use kulprit_common::artifact::Artifact;
use kulprit_common::id::{Digest, RevisionId};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Packs that are remembered, the newest ones.
const ENTRIES_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The commits whose trees it makes whole.
    pub commits: Vec<RevisionId>,
    /// The commit whose tree whoever takes it has already; none for one that holds everything.
    pub base: Option<RevisionId>,
    #[serde(with = "kept")]
    pub pack: Artifact,
}

#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    /// Oldest first.
    entries: Vec<Entry>,
}

impl Shelf {
    /// Reads what an earlier life remembered, if it can be read.
    pub fn open(dir: &Path, name: &str) -> Shelf {
        let path = dir.join(format!("{name}.json"));
        let entries = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Shelf { path, entries: entries.unwrap_or_default() }
    }

    /// The newest that fits.
    pub fn find(&self, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.entries.iter().rev().find(|entry| fits(entry)).cloned()
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.entries.iter().any(|entry| entry.pack.digest == *digest)
    }

    pub fn add(&mut self, entry: Entry) -> std::io::Result<()> {
        self.entries.push(entry);
        if self.entries.len() > ENTRIES_MAX {
            // The newest base outlives what was made against it.
            let base = self.entries.iter().rposition(|entry| entry.base.is_none());
            let oldest = if base == Some(0) { 1 } else { 0 };
            self.entries.remove(oldest);
        }
        self.write()
    }

    pub fn forget(&mut self, digest: &Digest) -> std::io::Result<()> {
        self.entries.retain(|entry| entry.pack.digest != *digest);
        self.write()
    }

    fn write(&self) -> std::io::Result<()> {
        let dir = self.path.parent().expect("it stands in a directory");
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(&self.entries)?)?;
        file.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

mod kept {
    use super::{Artifact, Digest};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(artifact: &Artifact, to: S) -> Result<S::Ok, S::Error> {
        (artifact.digest, artifact.size).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Artifact, D::Error> {
        let (digest, size) = <(Digest, u64)>::deserialize(from)?;
        Ok(Artifact { digest, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u16, base: Option<u8>) -> Entry {
        let [high, low] = number.to_be_bytes();
        let mut id = [0; 20];
        (id[0], id[1]) = (high, low);
        let pack = Artifact { digest: Digest::of(&number.to_be_bytes()), size: u64::from(number) };
        let base = base.map(|base| RevisionId::from_bytes([base; 20]));
        Entry { commits: vec![RevisionId::from_bytes(id)], base, pack }
    }

    #[test]
    fn a_shelf_is_remembered_and_bounded_and_keeps_its_base() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut shelf = Shelf::open(dir.path(), "linux");
        shelf.add(entry(0, None)).expect("written");
        for number in 1..=300 {
            shelf.add(entry(number, Some(1))).expect("written");
        }
        let again = Shelf::open(dir.path(), "linux");
        assert_eq!(again.entries, shelf.entries);
        assert_eq!(again.entries.len(), ENTRIES_MAX);
        assert_eq!(again.find(|entry| entry.base.is_none()), Some(entry(0, None)));
        assert!(!again.has(&entry(1, None).pack.digest) && again.has(&entry(300, None).pack.digest));
        shelf.forget(&entry(300, None).pack.digest).expect("written");
        assert!(!Shelf::open(dir.path(), "linux").has(&entry(300, None).pack.digest));
        std::fs::write(dir.path().join("linux.json"), "{ torn").expect("written");
        assert!(Shelf::open(dir.path(), "linux").entries.is_empty());
    }
}
