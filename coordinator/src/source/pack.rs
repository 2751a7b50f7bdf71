//! Has git make a pack, within bounds of time and size.
//!
//! The git program does it rather than libgit2, which makes no thin packs and compresses anew what
//! the mirror's own packs hold compressed: minutes where git takes seconds.

use super::{Say, SourceError};
use kulprit_common::id::RevisionId;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The whole tree of a kernel packs to some 250 MB.
const PACK_BYTES_MAX: u64 = 4 << 30;
/// A mirror without packs of its own has everything compressed anew.
const PACK_TIME_MAX: Duration = Duration::from_secs(30 * 60);
const CHUNK_BYTES: usize = 1 << 20;
/// What git says of its progress is cut into lines by carriage returns.
const SAID_BYTES_MAX: usize = 4 << 10;
const TORN_PREFIX: &str = "packing-";

/// Removes what an earlier life was making.
pub(super) fn remove_torn(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TORN_PREFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Packs the trees of `commits`, without what the tree of `base` has. The history is cut off at
/// every one of them. Dropping the future ends git.
pub(super) async fn make(
    dir: &Path,
    mirror: &Path,
    commits: &[RevisionId],
    base: Option<&RevisionId>,
    say: Say<'_>,
) -> Result<NamedTempFile, SourceError> {
    let limit = PACK_TIME_MAX.as_secs();
    let packed = tokio::time::timeout(PACK_TIME_MAX, pack(dir, mirror, commits, base, say)).await;
    packed.map_err(|_| SourceError::TooSlow(limit))?
}

async fn pack(
    dir: &Path,
    mirror: &Path,
    commits: &[RevisionId],
    base: Option<&RevisionId>,
    say: Say<'_>,
) -> Result<NamedTempFile, SourceError> {
    let file = tempfile::Builder::new().prefix(TORN_PREFIX).tempfile_in(dir)?;
    let mut to = tokio::fs::File::from_std(file.reopen()?);
    let mut git = command(mirror, base.is_some()).spawn().map_err(SourceError::NoGit)?;
    let (stdin, stdout, stderr) = (git.stdin.take(), git.stdout.take(), git.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        unreachable!("all three are piped");
    };
    let asked = wanted(commits, base);
    let ask = async move {
        // Where git ends early, it says why.
        let _ = stdin.write_all(asked.as_bytes()).await;
    };
    let ((), written, said) = tokio::join!(ask, write(stdout, &mut to), listen(stderr, say));
    written?;
    if git.wait().await?.success() {
        return Ok(file);
    }
    Err(SourceError::Failed(said))
}

fn command(mirror: &Path, is_thin: bool) -> Command {
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(mirror);
    // Where the mirror's own history is cut off does not matter: ours is at the commits named.
    git.args(["--shallow-file", "", "pack-objects", "--revs", "--shallow", "--stdout", "--progress"]);
    git.args(["--delta-base-offset"]).args(is_thin.then_some("--thin"));
    for name in ["GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"] {
        git.env_remove(name);
    }
    // The settings of whoever started us have no say in what agents get.
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
    git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    git
}

fn wanted(commits: &[RevisionId], base: Option<&RevisionId>) -> String {
    let cut = commits.iter().chain(base).map(|commit| format!("--shallow {commit}\n"));
    let wanted = commits.iter().map(|commit| format!("{commit}\n"));
    cut.chain(wanted).chain(base.map(|base| format!("^{base}\n"))).collect()
}

async fn write(mut from: impl AsyncRead + Unpin, to: &mut tokio::fs::File) -> Result<(), SourceError> {
    let (mut chunk, mut size) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(to.flush().await?);
        }
        size += read as u64;
        if size > PACK_BYTES_MAX {
            // Nobody reads on, so that git ends as well.
            return Err(SourceError::TooLarge { max: PACK_BYTES_MAX });
        }
        to.write_all(&chunk[..read]).await?;
    }
}

/// Passes progress on; yields the last that git said.
async fn listen(mut from: impl AsyncRead + Unpin, say: Say<'_>) -> String {
    let (mut chunk, mut line, mut last) = ([0; 1024], Vec::new(), String::new());
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        for byte in &chunk[..read] {
            match byte {
                b'\r' | b'\n' if !line.is_empty() => {
                    last = String::from_utf8_lossy(&line).trim().to_owned();
                    line.clear();
                    if let Some(said) = progress(&last) {
                        say(said);
                    }
                }
                b'\r' | b'\n' => {}
                byte if line.len() < SAID_BYTES_MAX => line.push(*byte),
                _ => {}
            }
        }
    }
    last
}

/// `Compressing objects:  40% (4/10)` in words of ours.
fn progress(line: &str) -> Option<String> {
    let (doing, rest) = line.split_once(':')?;
    let percent: u32 = rest.trim_start().split_once('%')?.0.parse().ok()?;
    let doing = match doing {
        "Counting objects" => "counts",
        "Compressing objects" => "compresses",
        "Writing objects" => "packs",
        _ => return None,
    };
    Some(format!("the coordinator {doing} the source, {percent} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_from_the_rest() {
        for (line, said) in [
            ("Compressing objects:  40% (4/10)", Some("the coordinator compresses the source, 40 %")),
            ("Writing objects: 100% (9/9), done.", Some("the coordinator packs the source, 100 %")),
            ("Enumerating objects: 48, done.", None),
            ("fatal: bad object 12", None),
            ("", None),
        ] {
            assert_eq!(progress(line).as_deref(), said, "{line}");
        }
    }

    #[test]
    fn history_is_cut_off_at_each_commit() {
        let id = |byte| RevisionId::from_bytes([byte; 20]);
        let (a, b) = (id(1), id(2));
        assert_eq!(wanted(&[a], None), format!("--shallow {a}\n{a}\n"));
        assert_eq!(wanted(&[a], Some(&b)), format!("--shallow {a}\n--shallow {b}\n{a}\n^{b}\n"));
    }
}
