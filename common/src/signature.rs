//! Reuse keys: equal inputs are one item, whichever job asks.

use crate::id::{Digest, TreeId};
use crate::job::{ConfigBase, KernelBuild, Machine, Reproducer, Timeouts};
use sha2::Digest as _;

/// Hashes fields with their lengths, so that no two lists of fields read the same.
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// `domain` names what is hashed and the version of its layout.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Hasher(sha2::Sha256::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.field(&(items.len() as u64).to_le_bytes());
        for item in items {
            self.field(item.as_bytes());
        }
        self
    }

    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

/// The key of a build: the tree after patches, the configuration, the toolchain, make's arguments.
pub fn build_key(tree: &TreeId, kernel: &KernelBuild, image_id: &str) -> Digest {
    let mut hasher = Hasher::new("kulprit build 1");
    hasher.field(tree.as_bytes()).field(config_key(kernel).as_bytes()).field(image_id.as_bytes());
    hasher.finish()
}

/// The key of a configuration with make's arguments: object trees are kept warm under it.
pub fn config_key(kernel: &KernelBuild) -> Digest {
    let mut hasher = Hasher::new("kulprit config 1");
    hasher.field(kernel.arch.as_bytes());
    match &kernel.config {
        ConfigBase::File(text) => hasher.field(b"file").field(text.as_bytes()),
        ConfigBase::Target(target) => hasher.field(b"target").field(target.as_bytes()),
    };
    hasher.list(kernel.fragments.iter().map(|fragment| fragment.text.as_str()));
    hasher.list(kernel.make_args.iter().map(String::as_str));
    hasher.finish()
}

/// The key of a compiled reproducer.
pub fn reproducer_key(reproducer: &Reproducer, image_id: &str) -> Digest {
    let mut hasher = Hasher::new("kulprit reproducer 1");
    hasher.field(reproducer.digest.as_bytes()).field(image_id.as_bytes());
    hasher.list(reproducer.cflags.iter().map(String::as_str));
    hasher.finish()
}

/// The key of the question who answers for a revision's change and for a file.
pub fn maintainers_key(tree: &TreeId, patch: Option<&str>, file: Option<&str>, image_id: &str) -> Digest {
    let mut hasher = Hasher::new("kulprit maintainers 1");
    hasher.field(tree.as_bytes()).field(image_id.as_bytes());
    hasher.list(patch.into_iter().collect::<Vec<_>>().into_iter());
    hasher.list(file.into_iter().collect::<Vec<_>>().into_iter());
    hasher.finish()
}

/// The key of the runs of one kernel with one reproducer in one kind of machine.
///
/// The kernel is named by its fingerprint, so that kernels that differ in line numbers alone
/// share their runs.
pub fn runs_key(
    fingerprint: &Digest,
    executable: &Digest,
    args: &[String],
    machine: &Machine,
    t: &Timeouts,
) -> Digest {
    let mut hasher = Hasher::new("kulprit runs 1");
    hasher.field(fingerprint.as_bytes()).field(executable.as_bytes());
    hasher.list(args.iter().map(String::as_str));
    hasher.field(&machine.memory_mib.to_le_bytes()).field(&machine.cpus.to_le_bytes());
    hasher.field(machine.cmdline.as_bytes());
    for limit in [t.first_byte_s, t.boot_s, t.settle_ms, t.reproducer_s, t.linger_ms, t.silence_s, t.drain_ms]
    {
        hasher.field(&limit.to_le_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Fragment;

    fn kernel() -> KernelBuild {
        KernelBuild {
            arch: "x86_64".into(),
            config: ConfigBase::Target("tinyconfig".into()),
            fragments: vec![Fragment { name: "a".into(), text: "CONFIG_A=y\n".into() }],
            make_args: vec![],
        }
    }

    #[test]
    fn every_input_of_a_build_moves_its_key() {
        let tree = TreeId::from_bytes([1; 20]);
        let base = build_key(&tree, &kernel(), "sha256:1");
        let mut changed = kernel();
        changed.fragments[0].text.push_str("CONFIG_B=y\n");
        let mut target = kernel();
        target.config = ConfigBase::File("tinyconfig".into());
        let mut args = kernel();
        args.make_args.push("W=1".into());
        for other in [
            build_key(&TreeId::from_bytes([2; 20]), &kernel(), "sha256:1"),
            build_key(&tree, &kernel(), "sha256:2"),
            build_key(&tree, &changed, "sha256:1"),
            build_key(&tree, &target, "sha256:1"),
            build_key(&tree, &args, "sha256:1"),
        ] {
            assert_ne!(base, other);
        }
        let mut renamed = kernel();
        renamed.fragments[0].name = "b".into();
        assert_eq!(base, build_key(&tree, &renamed, "sha256:1"), "a fragment's name is only for people");
    }
}
