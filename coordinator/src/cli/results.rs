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
    let plot = Some(("posterior.svg", &view.plot)).filter(|(_, plot)| !plot.is_empty());
    let always = [
        ("summary.txt", &view.summary),
        ("log.txt", &view.log),
        ("replay.txt", &view.replay),
        ("report.json", &view.json),
    ];
    for (name, text) in always.into_iter().chain(plot) {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        paths.push(path);
    }
    Ok(paths)
}
