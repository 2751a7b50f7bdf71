//! Where a journal is kept: in a file of the state directory, unless a database is named.

use super::{Database, JournalError, file};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub enum Place {
    File(PathBuf),
    Database(Database),
}

/// The journal of a state directory.
pub fn file_in(state: &Path) -> PathBuf {
    state.join("journal.sqlite")
}

impl Place {
    /// The database at a URL, or else the file in a state directory.
    pub fn new(url: Option<&str>, state: &Path) -> Result<Place, JournalError> {
        match url {
            Some(url) => Database::parse(url).map(Place::Database),
            None => Ok(Place::File(file_in(state))),
        }
    }

    /// What the journal takes on disk; nothing where that cannot be seen.
    pub async fn size(&self) -> u64 {
        match self {
            Place::File(path) => file::size(path),
            Place::Database(database) => database.size().await.unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Database(database) => write!(f, "{database}"),
        }
    }
}
