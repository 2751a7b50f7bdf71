//! Takes a build's results out of the object tree, which hostile makefiles had their hands on.

use super::Built;
use crate::container::Unfinished;
use crate::fingerprint;
use kulprit_common::outcome::InfraClass;
use std::path::{Path, PathBuf};

/// What is made for an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    /// Make's target.
    pub target: &'static str,
    /// Below the object tree.
    pub path: &'static str,
}

pub(super) fn image_of(arch: &str) -> Result<Image, Unfinished> {
    match arch {
        "x86_64" | "i386" => Ok(Image { target: "bzImage", path: "arch/x86/boot/bzImage" }),
        other => {
            let reason = format!("this agent does not know how to make an image for {other:?}");
            Err(Unfinished::infra(InfraClass::Toolchain, reason))
        }
    }
}

/// Finds the results and takes the kernel's fingerprint.
pub(super) async fn collect(root: &Path, image: Image) -> Result<Built, Unfinished> {
    let root = root.to_path_buf();
    let collected = tokio::task::spawn_blocking(move || {
        let file = |path: &str| plain_file(&root, path);
        let (image, vmlinux, config) = (file(image.path)?, file("vmlinux")?, file(".config")?);
        let fingerprint = fingerprint::of_file(&vmlinux).map_err(|error| {
            Unfinished::infra(
                InfraClass::Internal,
                format!("failed to take the kernel's fingerprint: {error}"),
            )
        })?;
        Ok(Built::Kernel { image, vmlinux, config, fingerprint })
    });
    collected.await.expect("collecting does not panic")
}

/// A regular file below `root`, reached without any symlink: a makefile must not have us
/// publish a file of the host.
fn plain_file(root: &Path, path: &str) -> Result<PathBuf, Unfinished> {
    let root = root.canonicalize().map_err(|e| Unfinished::io("open the object tree", &e))?;
    let path = root.join(path);
    if path.canonicalize().is_ok_and(|real| real == path) && path.is_file() {
        return Ok(path);
    }
    let reason = format!("make succeeded, but {} is not there as a plain file", path.display());
    Err(Unfinished::infra(InfraClass::Internal, reason))
}
