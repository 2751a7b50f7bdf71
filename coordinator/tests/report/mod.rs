//! A kernel with debug information and KASAN, crashed in QEMU: what the report says of it.

use crate::farm::{self, kulprit, text};
use crate::kernel_commits::{self, commit, git};
use std::path::{Path, PathBuf};

const FILE: &str = "fs/eventfd.c";
/// Writes behind an array of four when a counter is read for the fifth time.
const EDITS: &[(&str, &str)] = &[
    (
        "	unsigned int flags;\n	int id;\n};\n",
        "	unsigned int flags;\n	int id;\n	unsigned int reads;\n	__u64 *seen;\n};\n\nstatic noinline void eventfd_keep(struct eventfd_ctx *ctx, __u64 cnt)\n{\n	ctx->seen[ctx->reads] = cnt;\n}\n\nstatic __always_inline void eventfd_was_read(struct eventfd_ctx *ctx, __u64 cnt)\n{\n	eventfd_keep(ctx, cnt);\n	ctx->reads++;\n}\n",
    ),
    (
        "		ida_simple_remove(&eventfd_ida, ctx->id);\n",
        "		ida_simple_remove(&eventfd_ida, ctx->id);\n	kfree(ctx->seen);\n",
    ),
    (
        "	eventfd_ctx_do_read(ctx, &ucnt);\n	current",
        "	eventfd_ctx_do_read(ctx, &ucnt);\n	eventfd_was_read(ctx, ucnt);\n	current",
    ),
    (
        "	ctx->flags = flags;\n	ctx->id",
        "	ctx->flags = flags;\n	ctx->reads = 0;\n	ctx->seen = kmalloc_array(4, sizeof(__u64), GFP_KERNEL | __GFP_NOFAIL);\n	ctx->id",
    ),
];
const REPRODUCER: &str = "\
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int main(void)
{
	uint64_t count = 1;
	int fd = eventfd(0, 0);

	for (int i = 0; i < 8; i++)
		if (write(fd, &count, 8) != 8 || read(fd, &count, 8) != 8)
			return 1;
	return 0;
}
";
const FRAGMENT: &str = "\
# CONFIG_SLOB is not set
CONFIG_SLUB=y
CONFIG_DEBUG_KERNEL=y
CONFIG_KASAN=y
CONFIG_KASAN_OUTLINE=y
# CONFIG_DEBUG_INFO_NONE is not set
CONFIG_DEBUG_INFO_DWARF4=y
CONFIG_DEBUG_PLIST=y
CONFIG_WQ_WATCHDOG=y
";

pub fn a_report_names_lines_people_and_instructions(history: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (repository, [good, bad]) = repository();
    let job = job(dir.path(), history, (&repository, &good, &bad));
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (job, cache) = (path(&job), path(&farm::cache().join("test")));
    let (state, shown) = (path(&state), path(&out));
    let args = ["run", &job, "--agents", "1", "--state", &state, "--cache", &cache, "--out", &shown];
    let output = kulprit(&args);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");

    let log = std::fs::read_to_string(out.join("log.txt")).expect("the log is written");
    assert!(log.contains("crash: KASAN: slab-out-of-bounds Write in eventfd_keep\n"), "{log}");
    let source = git(&repository, &["show", &format!("{bad}:{FILE}")], "");
    let line = |text: &str| 1 + source.lines().position(|line| line.contains(text)).expect("it is there");
    let stack = [
        format!("{FILE}:{}\n", line("ctx->seen[ctx->reads] = cnt;")),
        format!(" eventfd_was_read {FILE}:{} [inline]\n", line("eventfd_keep(ctx, cnt);")),
        format!("{FILE}:{}\n", line("eventfd_was_read(ctx, ucnt);")),
    ];
    let frames: Vec<&str> = log.lines().skip_while(|line| !line.starts_with(" eventfd_keep+0x")).collect();
    for (frame, place) in frames.iter().zip(&stack) {
        assert!(format!("{frame}\n").ends_with(place), "{frame} is not at {place}{log}");
    }
    assert!(frames.len() > 3, "{log}");

    assert!(log.contains("Code disassembly (best guess)"), "{log}");
    let to = r#"recipients (to): ["author@example.org" "linux-fsdevel@vger.kernel.org" "viro@zeniv.linux.org.uk"]"#;
    assert!(log.contains(&format!("{to}\nrecipients (cc): [\"linux-kernel@vger.kernel.org\"]\n")), "{log}");
    let report = std::fs::read(out.join("report.json")).expect("the report is written");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("it is JSON");
    assert_eq!(report["crash"]["guilty_file"], FILE, "{report}");
    assert_eq!(report["notes"], serde_json::json!([]), "{report}");

    let dropped = ["CONFIG_DEBUG_PLIST=n", "CONFIG_WQ_WATCHDOG=n"];
    assert_eq!(report["configuration"]["kernels"], 1, "{report}");
    assert_eq!(report["configuration"]["changed"], serde_json::json!(dropped), "{report}");
    assert!(log.contains("configuration: 2 symbols changed in all kernels, after 1 kernel tried"), "{log}");
}

/// A history of two commits on Debian's kernel: one that changes nothing that is compiled, and the bug.
fn repository() -> (PathBuf, [String; 2]) {
    let (repository, import) = kernel_commits::clone_base("report");
    let path = repository.as_path();
    let readme = git(path, &["show", "base:README"], "") + "\nOne more line.\n";
    let good = commit(path, &import, "README", &readme, "README: one more line");
    let mut source = git(path, &["show", &format!("base:{FILE}")], "");
    for (from, to) in EDITS {
        assert_eq!(source.matches(from).count(), 1, "{from}");
        source = source.replacen(from, to, 1);
    }
    let bad = commit(path, &good, FILE, &source, "eventfd: keep what was read");
    git(path, &["update-ref", "refs/heads/main", &bad], "");
    (repository, [good, bad])
}

fn job(dir: &Path, history: &Path, (repository, good, bad): (&Path, &str, &str)) -> PathBuf {
    std::fs::copy(history.join("tiny.config"), dir.join("tiny.config")).expect("a file is copied");
    std::fs::write(dir.join("kasan.config"), FRAGMENT).expect("a file is written");
    std::fs::write(dir.join("repro.c"), REPRODUCER).expect("a file is written");
    let job = format!(
        r#"
name = "report"
repository = "{}"
good = "{good}"
bad = "{bad}"
toolchain = "kulprit/gcc-10"

[config]
make_target = "tinyconfig"
fragments = ["tiny.config", "kasan.config"]

[reproducer]
c_source = "repro.c"

[machine]
memory_mib = 512
cmdline = "panic_on_warn=1 oops=panic"

[config_work]
drop_instrumentation = true
"#,
        repository.display()
    );
    let path = dir.join("job.toml");
    std::fs::write(&path, job).expect("a file is written");
    path
}
