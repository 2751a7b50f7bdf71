//! Takes a build's results out of the object tree, which hostile makefiles had their hands on.

use super::Built;
use crate::container::Unfinished;
use crate::fingerprint::{self, build_id};
use kulprit_common::outcome::InfraClass;
use std::path::{Path, PathBuf};

/// Larger than any kernel, and small enough to be read and sent by an agent that has other work.
const IMAGE_BYTES_MAX: u64 = 512 << 20;
const VMLINUX_BYTES_MAX: u64 = 4 << 30;
pub(super) const CONFIG_BYTES_MAX: u64 = 4 << 20;

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
        let file = |path: &str, bytes_max| plain_file(&root, path, bytes_max);
        let image = file(image.path, IMAGE_BYTES_MAX)?;
        let (vmlinux, config) = (file("vmlinux", VMLINUX_BYTES_MAX)?, file(".config", CONFIG_BYTES_MAX)?);
        let unreadable = |error| {
            let reason = format!("failed to take the kernel's fingerprint: {error}");
            Unfinished::infra(InfraClass::Internal, reason)
        };
        let fingerprint = fingerprint::of_file(&vmlinux).map_err(unreadable)?;
        let build_id = build_id::of_file(&vmlinux).map_err(unreadable)?;
        Ok(Built::Kernel { image, vmlinux, config, fingerprint, build_id })
    });
    collected.await.expect("collecting does not panic")
}

/// A regular file below `root`, reached without any symlink: a makefile must not have us
/// publish a file of the host, wait for a pipe, or read holes without end.
fn plain_file(root: &Path, path: &str, bytes_max: u64) -> Result<PathBuf, Unfinished> {
    let root = root.canonicalize().map_err(|e| Unfinished::io("open the object tree", &e))?;
    let file = root.join(path);
    let direct = file.canonicalize().is_ok_and(|real| real == file);
    let meta = std::fs::symlink_metadata(&file).ok().filter(|meta| direct && meta.is_file());
    let Some(meta) = meta else {
        let reason = format!("make succeeded, but {path} is not there as a plain file");
        return Err(Unfinished::infra(InfraClass::Internal, reason));
    };
    if meta.len() > bytes_max {
        let reason = format!("make succeeded, but {path} has more than {} MiB", bytes_max >> 20);
        return Err(Unfinished::infra(InfraClass::Limit, reason));
    }
    Ok(file)
}
