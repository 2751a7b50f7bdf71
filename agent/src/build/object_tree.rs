//! The object tree: what earlier builds left, fit for the next one or wiped.
//!
//! Make goes by file times. They mean something only against one work tree, within one life of
//! the host, and after builds that ended in order; `open` sees to that. What it needs to know
//! stands beside the tree, out of the container's reach.

use super::config;
use crate::checkout::boot_id;
use crate::container::{Unfinished, container_user};
use crate::untrusted;
use kulprit_common::job::{ConfigBase, KernelBuild};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) struct ObjectTree {
    root: PathBuf,
    /// Where a warm tree waits while a clean one is tried.
    aside: PathBuf,
    inputs: PathBuf,
    /// There while make runs.
    dirty: PathBuf,
    /// There once a build ended in order; says which work tree and life of the host it was.
    state: PathBuf,
    circumstances: String,
    warm: bool,
}

impl ObjectTree {
    /// Opens or creates the tree below `dir`, for builds of `source`.
    pub(super) async fn open(dir: &Path, source: &Path) -> Result<Self, Unfinished> {
        let (dir, source) = (dir.to_path_buf(), source.to_path_buf());
        blocking("open the object tree", move || Self::open_blocking(&dir, &source)).await
    }

    fn open_blocking(dir: &Path, source: &Path) -> io::Result<Self> {
        let source_id = fs::metadata(source)?;
        let source = source.canonicalize()?;
        let mut tree = ObjectTree {
            root: Self::root_in(dir),
            aside: dir.join("aside"),
            inputs: dir.join("inputs"),
            dirty: dir.join("dirty"),
            state: dir.join("state"),
            circumstances: format!(
                "{} {} {} {}",
                boot_id(),
                source_id.ino(),
                dated_back(&source),
                source.display()
            ),
            warm: false,
        };
        fs::create_dir_all(&tree.inputs)?;
        untrusted::remove(&tree.aside)?;
        tree.warm = tree.is_fit()? && tree.repair()?;
        if !tree.warm {
            tree.wipe()?;
        }
        Ok(tree)
    }

    /// Where the tree below `dir` is.
    pub(super) fn root_in(dir: &Path) -> PathBuf {
        dir.join("tree")
    }

    /// Has `fill` make the tree below `dir`; its times must go with those of `source`.
    pub(super) fn plant(
        dir: &Path,
        source: &Path,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let tree = Self::open_blocking(dir, source)?;
        tree.wipe()?;
        fs::remove_dir(&tree.root)?;
        fill(&tree.root)?;
        fs::write(&tree.state, &tree.circumstances)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the script reads.
    pub(super) fn inputs(&self) -> &Path {
        &self.inputs
    }

    /// Whether an earlier build left objects that can be used.
    pub(super) fn is_warm(&self) -> bool {
        self.warm
    }

    pub(super) fn write_inputs(&self, kernel: &KernelBuild) -> io::Result<()> {
        let base = match &kernel.config {
            ConfigBase::File(text) => text,
            ConfigBase::Target(_) => "",
        };
        write_readable(&self.inputs.join("base.config"), base)?;
        write_readable(&self.inputs.join("fragments.config"), &config::fragments(kernel))?;
        write_readable(&self.inputs.join("signing_key.pem"), config::SIGNING_KEY)?;
        fs::set_permissions(&self.inputs, fs::Permissions::from_mode(0o755))
    }

    /// Marks the tree as being changed.
    pub(super) fn begin(&self) -> Result<(), Unfinished> {
        File::create(&self.dirty).map(drop).map_err(|e| Unfinished::io("mark the object tree", &e))
    }

    /// Takes the mark away: make ended in order, well or not.
    pub(super) fn end(&mut self) -> Result<(), Unfinished> {
        let end = || {
            fs::write(&self.state, &self.circumstances)?;
            fs::remove_file(&self.dirty)
        };
        end().map_err(|e| Unfinished::io("mark the object tree", &e))?;
        self.warm = true;
        Ok(())
    }

    /// Puts a warm tree aside and begins a clean one.
    pub(super) async fn set_aside(&mut self) -> Result<(), Unfinished> {
        self.warm = false;
        let (root, aside, state) = (self.root.clone(), self.aside.clone(), self.state.clone());
        blocking("set the object tree aside", move || {
            remove_file(&state)?;
            fs::rename(&root, aside)?;
            create_for_container(&root)
        })
        .await
    }

    /// Has the warm tree again: the clean one came no farther.
    pub(super) async fn take_back(&mut self) -> Result<(), Unfinished> {
        let (root, aside, state) = (self.root.clone(), self.aside.clone(), self.state.clone());
        let circumstances = self.circumstances.clone();
        blocking("take the object tree back", move || {
            remove_file(&state)?;
            untrusted::remove(&root)?;
            fs::rename(aside, &root)?;
            fs::write(state, circumstances)
        })
        .await
    }

    /// Drops the warm tree: the clean one is better.
    pub(super) async fn forget(&mut self) -> Result<(), Unfinished> {
        let aside = self.aside.clone();
        blocking("remove the object tree", move || untrusted::remove(&aside)).await
    }

    /// Drops what was built: it takes too much, or nobody can walk it.
    pub(super) async fn discard(&mut self) -> Result<(), Unfinished> {
        self.warm = false;
        let (root, state) = (self.root.clone(), self.state.clone());
        blocking("remove the object tree", move || {
            remove_file(&state)?;
            untrusted::remove(&root)?;
            create_for_container(&root)
        })
        .await
    }

    /// Begins anew. The state goes first: a wipe that is interrupted must not leave a tree that
    /// seems fit.
    fn wipe(&self) -> io::Result<()> {
        remove_file(&self.state)?;
        remove_file(&self.dirty)?;
        untrusted::remove(&self.root)?;
        create_for_container(&self.root)
    }

    /// Whether times in the tree can be compared with those in the work tree.
    fn is_fit(&self) -> io::Result<bool> {
        let Ok(state) = fs::read_to_string(&self.state) else { return Ok(false) };
        let owner = fs::symlink_metadata(&self.root)?.uid();
        // A clock that was set back would make new sources look older than old objects.
        let clock_ran_on = fs::metadata(&self.state)?.modified()? <= SystemTime::now();
        Ok(state == self.circumstances && owner == container_user().0 && clock_ran_on)
    }

    /// Removes what an interrupted build wrote, for it may be half written and look newer than
    /// its source. Returns `false` if the tree is beyond that.
    fn repair(&self) -> io::Result<bool> {
        let Ok(mark) = fs::metadata(&self.dirty) else { return Ok(true) };
        let since = mark.modified()?;
        // An interrupted makefile may have left a tree that cannot be walked.
        let Ok(written) = written_since(&self.root, since) else { return Ok(false) };
        // kconfig tells make there which symbols changed; what it said would be lost.
        if written.iter().any(|path| path.starts_with(self.root.join("include/config"))) {
            return Ok(false);
        }
        written.iter().try_for_each(fs::remove_file)?;
        fs::remove_file(&self.dirty)?;
        Ok(true)
    }
}

/// Changes whenever the times in a work tree are set back, which makes them say nothing to the
/// objects that were built from it before.
fn dated_back(source: &Path) -> String {
    fs::read_to_string(dating_mark(source)).unwrap_or_default()
}

/// Has object trees of this work tree start anew, but for those planted from now on.
pub(super) fn mark_dated_back(source: &Path) -> io::Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fs::write(dating_mark(&source.canonicalize()?), since.as_nanos().to_string())
}

fn dating_mark(source: &Path) -> PathBuf {
    source.with_extension("dated")
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates a directory that the container's user may write to.
pub(super) fn create_for_container(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let (uid, gid) = container_user();
    let meta = fs::metadata(dir)?;
    if meta.uid() != uid {
        chown(dir, Some(uid), Some(gid))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// The files below `dir` with a time at or after `since`.
fn written_since(dir: &Path, since: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let walked = untrusted::walk(dir, |path, meta| {
        if !meta.is_dir() && meta.modified().map_err(untrusted::Excess::Unreadable)? >= since {
            found.push(path.to_owned());
        }
        Ok(())
    });
    walked.map(|()| found).map_err(io::Error::other)
}

fn write_readable(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Unfinished> {
    let done = tokio::task::spawn_blocking(work).await.expect("file operations do not panic");
    done.map_err(|e| Unfinished::io(what, &e))
}
