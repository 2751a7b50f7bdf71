//! A command whose whole output is wanted as text.

use super::{Engine, Exit, LogSink, RunSpec, Unfinished};
use bytes::Bytes;
use std::fs;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs a command, and reads what it printed: at most the limit for logs, the middle left out.
pub async fn run_logged(
    engine: &Engine,
    spec: &RunSpec<'_>,
    log: &Path,
    live: mpsc::Sender<Bytes>,
    cancel: &CancellationToken,
) -> Result<(Exit, String), Unfinished> {
    let failed = |e: std::io::Error| Unfinished::io("write the log", &e);
    let mut sink = LogSink::create(log, spec.limits.log_bytes_max, live).map_err(failed)?;
    let exit = engine.run(spec, &mut sink, cancel).await;
    let log = sink.finish().map_err(failed)?;
    let text = fs::read(&log.path).map_err(|e| Unfinished::io("read the log", &e))?;
    Ok((exit?, String::from_utf8_lossy(&text).into_owned()))
}
