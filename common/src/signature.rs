//! Reuse keys: equal inputs are one item, whichever job asks.

use crate::id::{Digest, RevisionId, TreeId};
use crate::job::{ConfigBase, KernelBuild, Machine, Reproducer, Timeouts};
use crate::patch::KnownFix;
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

/// The keys by which jobs know each other's kernels: what a revision is built to is settled by
/// its tree, the configuration, the toolchain, and the fixes that are put in by its ancestry.
pub struct SharedKeys {
    config: Digest,
    image_id: String,
    fixes: Vec<KnownFix>,
}

impl SharedKeys {
    pub fn new(kernel: &KernelBuild, image_id: &str, fixes: &[KnownFix]) -> Self {
        SharedKeys { config: config_key(kernel), image_id: image_id.into(), fixes: fixes.to_vec() }
    }

    pub fn of(&self, revision: &RevisionId, tree: &TreeId) -> Digest {
        let mut hasher = Hasher::new("kulprit shared 1");
        hasher.field(tree.as_bytes()).field(self.config.as_bytes()).field(self.image_id.as_bytes());
        for known in &self.fixes {
            let breaks = known.breaks.as_ref().map_or(&[][..], RevisionId::as_bytes);
            hasher.field(revision.as_bytes()).field(known.fix.as_bytes()).field(breaks);
        }
        hasher.finish()
    }
}

/// The key of what a boot depends on beside the kernel, up to the reproducer's start.
pub fn boot_key(machine: &Machine, t: &Timeouts) -> Digest {
    let mut hasher = Hasher::new("kulprit boot 1");
    hasher.field(&machine.memory_mib.to_le_bytes()).field(&machine.cpus.to_le_bytes());
    hasher.field(machine.cmdline.as_bytes());
    for limit in [t.first_byte_s, t.boot_s, t.settle_ms] {
        hasher.field(&limit.to_le_bytes());
    }
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
    fn fixes_make_a_kernel_another_one() {
        let (tree, revision) = (TreeId::from_bytes([1; 20]), |n| RevisionId::from_bytes([n; 20]));
        let known = |fix, breaks| KnownFix { fix: revision(fix), breaks, title: String::new() };
        let key = |fixes: &[KnownFix], of: u8| {
            SharedKeys::new(&kernel(), "sha256:1", fixes).of(&revision(of), &tree)
        };
        assert_eq!(key(&[], 1), key(&[], 2), "without fixes only the tree counts");
        let keys = [
            key(&[], 1),
            key(&[known(7, None)], 1),
            key(&[known(7, None)], 2),
            key(&[known(8, None)], 1),
            key(&[known(7, Some(revision(8)))], 1),
            key(&[known(7, None), known(8, None)], 1),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        let titled = KnownFix { title: "x".into(), ..known(7, None) };
        assert_eq!(key(&[titled], 1), keys[1], "a title is only for people");
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
