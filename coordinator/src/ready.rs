//! The file in which a coordinator says where it is served.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where gRPC is served, `http://127.0.0.1:7453`.
    pub grpc: String,
    /// Where artifacts are served, likewise.
    pub artifacts: String,
    /// Where figures are served, if they are.
    #[serde(default)]
    pub ops: Option<String>,
    pub pid: u32,
}

impl Ready {
    /// Writes the file whole or not at all.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string(self).context("describe the addresses")?;
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, text).with_context(|| format!("write {}", temporary.display()))?;
        std::fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
    }

    /// Reads it; `None` while it is not there.
    pub fn read(path: &Path) -> anyhow::Result<Option<Ready>> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).with_context(|| format!("read {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}
