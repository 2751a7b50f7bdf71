//! Reports with source lines: kernels' symbols are fetched from the store and kept for the next report.

use crate::artifacts::Store;
use crate::vmlinux::Vmlinux;
use anyhow::Context as _;
use futures::TryStreamExt as _;
use kulprit_common::artifact::Artifact;
use kulprit_common::crash::{Symbolised, symbolise};
use kulprit_common::id::Digest;
use kulprit_common::toolchain::SOURCE_DIR;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Kernels held at once: one with all debug information takes a GiB.
const KERNELS_MAX: usize = 2;

/// A store that does not answer must not keep a finding back.
const LIMIT: Duration = Duration::from_secs(300);

/// A report as far as source lines are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub report: String,
    /// Why there are none.
    pub note: Option<String>,
}

/// Symbols look things up lazily, so one report is explained at a time.
type Shared = Arc<Mutex<Vmlinux>>;

/// Explains reports.
///
/// Kernels are known by the digest of their vmlinux and not by their fingerprint: that one is the same
/// for kernels whose line numbers differ.
#[derive(Clone)]
pub struct Symbols {
    store: Arc<Store>,
    /// For a vmlinux on its way into memory.
    dir: PathBuf,
    /// The last used stands last.
    loaded: Arc<Mutex<Vec<(Digest, Shared)>>>,
    /// Held while one is loaded: two at once would take twice the memory.
    loading: Arc<tokio::sync::Mutex<()>>,
}

impl Symbols {
    pub fn new(store: Arc<Store>, dir: impl Into<PathBuf>) -> Symbols {
        Symbols { store, dir: dir.into(), loaded: Arc::default(), loading: Arc::default() }
    }

    /// Gives the report source lines. Whatever goes wrong, there is the report.
    pub async fn explain(&self, report: String, vmlinux: Artifact) -> Explained {
        let lacking = |why: String| Explained {
            report: report.clone(),
            note: Some(format!("the report has no source lines: {why}")),
        };
        let explaining = tokio::time::timeout(LIMIT, self.lines(report.clone(), &vmlinux));
        match explaining.await {
            Ok(Ok(Some(it))) if it.known == 0 && it.unknown > 0 => {
                lacking("the kernel knows none of its functions".into())
            }
            Ok(Ok(Some(it))) => Explained { report: it.report, note: None },
            Ok(Ok(None)) => lacking(
                "the kernel has no debug information; set CONFIG_DEBUG_INFO_DWARF4=y, or \
                 CONFIG_DEBUG_INFO=y before v5.18"
                    .into(),
            ),
            Ok(Err(error)) => lacking(format!("failed to {error:#}")),
            Err(_) => lacking(format!("it took longer than {} s", LIMIT.as_secs())),
        }
    }

    /// The report with lines; `None` where the kernel has no debug information.
    async fn lines(&self, report: String, vmlinux: &Artifact) -> anyhow::Result<Option<Symbolised>> {
        let symbols = self.symbols(vmlinux).await?;
        let explain = move || {
            let symbols = lock(&symbols);
            symbols.has_lines().then(|| symbolise(&report, &*symbols))
        };
        tokio::task::spawn_blocking(explain).await.context("explain the report")
    }

    async fn symbols(&self, vmlinux: &Artifact) -> anyhow::Result<Shared> {
        if let Some(known) = self.known(&vmlinux.digest) {
            return Ok(known);
        }
        let _alone = self.loading.lock().await;
        // Whoever was waited for may have loaded it.
        if let Some(known) = self.known(&vmlinux.digest) {
            return Ok(known);
        }
        tokio::fs::create_dir_all(&self.dir)
            .await
            .with_context(|| format!("create {}", self.dir.display()))?;
        let file = tempfile::NamedTempFile::new_in(&self.dir)
            .with_context(|| format!("create a file in {}", self.dir.display()))?;
        self.fetch(vmlinux, file.path()).await?;
        let read = move || Vmlinux::open(file.path(), Some(Path::new(SOURCE_DIR)));
        let loaded = tokio::task::spawn_blocking(read).await.context("read the vmlinux")?;
        let loaded = Arc::new(Mutex::new(loaded.context("read the vmlinux")?));
        self.keep(vmlinux.digest, loaded.clone());
        Ok(loaded)
    }

    async fn fetch(&self, vmlinux: &Artifact, to: &Path) -> anyhow::Result<()> {
        let mut reading = self.store.get(&vmlinux.digest).await?;
        anyhow::ensure!(reading.artifact.size == vmlinux.size, "read the vmlinux: it has another size");
        let mut file = tokio::fs::File::create(to).await.context("write the vmlinux")?;
        while let Some(chunk) = reading.bytes.try_next().await? {
            file.write_all(&chunk).await.context("write the vmlinux")?;
        }
        file.flush().await.context("write the vmlinux")
    }

    fn known(&self, digest: &Digest) -> Option<Shared> {
        let mut loaded = lock(&self.loaded);
        let at = loaded.iter().position(|(known, _)| known == digest)?;
        let entry = loaded.remove(at);
        loaded.push(entry.clone());
        Some(entry.1)
    }

    fn keep(&self, digest: Digest, vmlinux: Shared) {
        let mut loaded = lock(&self.loaded);
        while loaded.len() >= KERNELS_MAX {
            loaded.remove(0);
        }
        loaded.push((digest, vmlinux));
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
