//! The files a finished job leaves.

use super::failure::Failure;
use kulprit_proto::v1;
use std::path::{Path, PathBuf};

/// Writes summary, log, replay text, JSON and, if there is one, the plot; yields their paths.
pub fn write(dir: &Path, view: &v1::JobView) -> Result<Vec<PathBuf>, Failure> {
    let failed =
        |path: &Path, error: std::io::Error| Failure::internal(format!("write {}", path.display()), error);
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut paths = Vec::new();
    for (name, text) in [
        ("summary.txt", &view.summary),
        ("log.txt", &view.log),
        ("replay.txt", &view.replay),
        ("report.json", &view.json),
        ("posterior.svg", &view.plot),
    ] {
        if name == "posterior.svg" && text.is_empty() {
            continue;
        }
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        paths.push(path);
    }
    Ok(paths)
}
