//! A repository of commits that "build" within seconds, one of which is to blame.

use kulprit_common::id::{Digest, RevisionId};
use std::path::{Path, PathBuf};

/// What a history is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub commits: usize,
    /// Index of the commit that is to blame; 0 is the good end.
    pub culprit: usize,
    /// What a build takes at least.
    pub build_s: u32,
    /// What it writes.
    pub build_mib: u32,
}

/// The oldest commit is the good end, and `main` the bad one.
pub struct Planted {
    pub repository: PathBuf,
    /// Oldest first.
    pub commits: Vec<RevisionId>,
    pub culprit: RevisionId,
}

/// As much of kbuild as an agent calls: configures in an instant, and makes a "kernel" that is
/// text, with a real ELF file beside it, whose fingerprint is that of the text.
const MAKEFILE: &str = r#"
tinyconfig olddefconfig:
	@touch $(O)/.config
vmlinux:
	@sleep $(shell cat build_s)
	@head -c $(shell cat build_mib)M /dev/zero >$(O)/filler && rm $(O)/filler
	@cat version planted 2>/dev/null >$(O)/kernel.txt; true
	@(printf 'const char text[] = "'; tr '\n' ' ' <$(O)/kernel.txt; printf '"; int _start(void) { return text[0]; }\n') >$(O)/kernel.c
	@gcc -nostdlib -static -Wl,--build-id=none -o $(O)/vmlinux $(O)/kernel.c
bzImage: vmlinux
	@mkdir -p $(O)/arch/x86/boot
	@cp $(O)/kernel.txt $(O)/arch/x86/boot/bzImage
	@$(if $(filter large,$(FOR)),head -c 40M /dev/zero >>$(O)/arch/x86/boot/bzImage)
"#;

impl Planted {
    /// Makes the history in `dir/linux`.
    pub fn new(dir: &Path, shape: Shape) -> Planted {
        Planted::with_ballast(dir, shape, 0)
    }

    /// The same with a file of so many bytes that do not compress, which no commit changes.
    pub fn with_ballast(dir: &Path, shape: Shape, bytes: usize) -> Planted {
        let repository = dir.join("linux");
        std::fs::create_dir_all(&repository).expect("a directory");
        let git = |args: &[&str]| super::git(&repository, args);
        let write = |name: &str, text: &str| std::fs::write(repository.join(name), text).expect("written");
        git(&["init", "-q", "-b", "main"]);
        write("Makefile", MAKEFILE);
        if bytes > 0 {
            std::fs::write(repository.join("ballast"), noise(bytes)).expect("written");
        }
        write("build_s", &shape.build_s.to_string());
        write("build_mib", &shape.build_mib.to_string());
        let mut commits = Vec::new();
        for index in 0..shape.commits {
            // The culprit touches nothing that others do, so that it can be reverted.
            match index == shape.culprit {
                true => write("planted", "a bug\n"),
                false => write("version", &format!("version {index}\n")),
            }
            git(&["add", "."]);
            git(&["commit", "-q", "-m", &format!("kernel: change {index}")]);
            commits.push(git(&["rev-parse", "HEAD"]).parse().expect("a commit id"));
        }
        let culprit = commits[shape.culprit];
        Planted { repository, commits, culprit }
    }

    /// Writes a job file about it, under this name; the reproducer is a script. Kernels of `large` are.
    pub fn job(&self, name: &str) -> PathBuf {
        let dir = self.repository.parent().expect("it has a parent");
        std::fs::write(dir.join("repro.sh"), "#!/bin/sh\n").expect("written");
        let lines = [
            format!("name = \"{name}\""),
            format!("repository = \"{}\"", self.repository.display()),
            "bad = \"main\"".into(),
            format!("good = \"{}\"", self.commits[0]),
            "mode = \"cause\"".into(),
            "toolchain = \"kulprit/gcc-10\"".into(),
            "[config]".into(),
            "make_target = \"tinyconfig\"".into(),
            // Jobs that differ in this share no builds.
            format!("make_args = [\"FOR={name}\"]"),
            "[reproducer]".into(),
            "script = \"repro.sh\"".into(),
            "[runs]".into(),
            "max = 3".into(),
            "first_max = 3".into(),
            "[timeouts]".into(),
            "settle_ms = 0".into(),
            "linger_ms = 0".into(),
            "drain_ms = 300".into(),
            "[machine]".into(),
            "memory_mib = 64".into(),
        ];
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, lines.join("\n")).expect("written");
        path
    }

    /// Where a revision stands in the history.
    pub fn index(&self, revision: &RevisionId) -> Option<usize> {
        self.commits.iter().position(|it| it == revision)
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut digest = Digest::of(b"ballast");
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        noise.extend_from_slice(digest.as_bytes());
        digest = Digest::of(digest.as_bytes());
    }
    noise
}
