//! Asks a kernel tree's own `scripts/get_maintainer.pl` who answers for a change and for a file,
//! in the toolchain's container: the script is the tree's, and no more to be trusted than its Makefiles.

use crate::container::{Access, Bind, Engine, Limits, NOTE_PREFIX, RunSpec, Unfinished, run_logged};
use kulprit_common::outcome::{InfraClass, Maintainers};
use kulprit_common::toolchain::SOURCE_DIR;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// It reads MAINTAINERS and the files asked for: seconds, even on a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);
/// A file with more maintainers than this lists everybody.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
const SCRIPT: &str = include_str!("maintainers/script.sh");

/// What is asked of one tree.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub source_dir: &'a Path,
    pub patch: Option<&'a str>,
    /// Relative to the tree's top.
    pub file: Option<&'a str>,
    pub image_id: &'a str,
    /// An empty directory for this attempt.
    pub work_dir: &'a Path,
    pub attempt_label: &'a str,
}

/// Runs the script. That it cannot answer is an answer too: no finding waits for a Perl module.
pub async fn ask(
    engine: &Engine,
    question: Question<'_>,
    cancel: CancellationToken,
) -> Result<Maintainers, Unfinished> {
    let inputs = question.work_dir.join("in");
    prepare(&inputs, &question).map_err(|error| Unfinished::io("write the question", &error))?;
    let spec = RunSpec {
        image_id: question.image_id,
        argv: ["/bin/sh", "/in/script.sh", question.file.unwrap_or_default()].map(String::from).into(),
        env: vec![("HOME", "/tmp".into()), ("LC_ALL", "C.UTF-8".into())],
        workdir: SOURCE_DIR,
        binds: vec![
            Bind { host: question.source_dir, container: SOURCE_DIR, access: Access::ReadOnly },
            Bind { host: &inputs, container: "/in", access: Access::ReadOnly },
        ],
        limits: Limits { time: LIMIT, log_bytes_max: OUTPUT_BYTES_MAX, ..Limits::default() },
        attempt: question.attempt_label,
    };
    let (unheard, _) = mpsc::channel(1);
    let log = question.work_dir.join("maintainers.log");
    let (exit, output) = match run_logged(engine, &spec, &log, unheard, &cancel).await {
        Ok(ended) => ended,
        Err(Unfinished::Infra(infra)) if infra.class == InfraClass::Timeout => {
            let problem = format!("scripts/get_maintainer.pl took longer than {} s", LIMIT.as_secs());
            return Ok(Maintainers { output: String::new(), problem: Some(problem) });
        }
        Err(other) => return Err(other),
    };
    let output = whole_lines(&output);
    // Whatever it did is the script's doing: it must not make agents look unfit, one after the other.
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    let problem = match (exit.code, exit.killed(&spec.limits)) {
        (0, _) => None,
        (_, Some(killed)) => Some(format!("scripts/get_maintainer.pl was stopped: {}", killed.reason)),
        (code, None) => Some(format!("scripts/get_maintainer.pl ended with code {code}: {}", last.trim())),
    };
    Ok(Maintainers { output, problem })
}

/// The output without what a cut in its middle left of two lines: half an address is another one.
fn whole_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let is_note = |at: usize| lines.get(at).is_some_and(|line| line.starts_with(NOTE_PREFIX));
    let is_whole = |at: &usize| !is_note(*at) && !is_note(at + 1) && !at.checked_sub(1).is_some_and(is_note);
    (0..lines.len()).filter(is_whole).map(|at| format!("{}\n", lines[at])).collect()
}

fn prepare(inputs: &Path, question: &Question<'_>) -> std::io::Result<()> {
    fs::create_dir_all(inputs)?;
    fs::set_permissions(inputs, fs::Permissions::from_mode(0o755))?;
    let texts = [("script.sh", Some(SCRIPT)), ("culprit.patch", question.patch)];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let path = inputs.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beside_a_cut_are_left_out() {
        let cut = format!("a\nhal\n{NOTE_PREFIX}left out\nf@b (maintainer:X)\nb\n");
        assert_eq!(whole_lines(&cut), "a\nb\n");
        assert_eq!(whole_lines("a\nb"), "a\nb\n");
    }
}
