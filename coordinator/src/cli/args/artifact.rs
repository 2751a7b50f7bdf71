//! Arguments of `artifact`.

use super::{Output, To};
use clap::{Args, Subcommand};
use kulprit_common::id::Digest;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// List what is stored, newest first, and which open jobs need it
    List(ArtifactListArgs),
    /// Fetch an artifact into a file, and verify it
    Get(ArtifactGetArgs),
    /// Read artifacts to their end, and say which are corrupt or missing
    Verify(ArtifactVerifyArgs),
    /// Remove what retention lets go; never what an open job needs
    Gc(ArtifactGcArgs),
}

#[derive(Debug, Args)]
pub struct ArtifactListArgs {
    /// Only what open jobs need
    #[arg(long)]
    pub needed: bool,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kulprit artifact list -o json | jq -r '.[] | select(.content == \"vmlinux\").digest'\n  kulprit artifact get DIGEST --out vmlinux.zst && unzstd vmlinux.zst"
)]
pub struct ArtifactGetArgs {
    /// The artifact's digest (64 digits), as `artifact list` shows it
    #[arg(value_name = "DIGEST", value_parser = digest)]
    pub digest: Digest,
    /// The file; it is there only once it is whole and verified
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "What is corrupt is removed, and made again when a job wants it.\n\n\
    Exit codes: 0 where all is whole, 1 where something is not, or the store cannot be read.")]
pub struct ArtifactVerifyArgs {
    /// Digests of artifacts [default: all that is stored, and all that open jobs need]
    #[arg(value_name = "DIGEST", value_parser = digest)]
    pub digests: Vec<Digest>,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kulprit artifact gc --dry-run\n  kulprit artifact gc --keep-days 30 --max-gib 500"
)]
pub struct ArtifactGcArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Days that artifacts are kept which no open job needs [default: the coordinator's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_days: Option<u32>,
    /// GiB above which the oldest of them are removed [default: the coordinator's]
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub max_gib: Option<u64>,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

fn digest(text: &str) -> Result<Digest, String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    text.parse().map_err(|_| "a digest has 64 hexadecimal digits; see `kulprit artifact list`".to_owned())
}
