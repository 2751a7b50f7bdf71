//! Shows a job until it ends, and how it ended.

use super::args::{Format, Output};
use super::client::Coordinator;
use super::ending::exit_code;
use super::failure::Failure;
use super::screen::{Screen, TICK};
use super::watching::News;
use super::{bisect, json};
use kulprit_proto::v1;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// A second apart.
const GET_RETRIES: u32 = 15;

/// Shows what comes until the job has ended; yields it with its renderings. `judge` may refuse
/// to go on at any update.
pub async fn to_the_end(
    coordinator: &mut Coordinator,
    job: &str,
    mut news: mpsc::Receiver<News>,
    screen: &mut Screen,
    mut judge: impl FnMut(&v1::WatchUpdate) -> Result<(), Failure>,
) -> Result<v1::JobView, Failure> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            news = news.recv() => match news {
                Some(News::Update(update)) => {
                    let ended = update.job.as_ref().is_some_and(|job| job.end.is_some());
                    let judged = judge(&update);
                    screen.show(*update);
                    judged?;
                    if ended {
                        return get_ended(coordinator, job).await;
                    }
                }
                Some(News::Said(line)) => screen.say(&line),
                Some(News::Failed(failure)) => return Err(failure),
                None => return Err(anyhow::anyhow!("follow job {job}: nothing more is heard of it").into()),
            },
            _ = tick.tick() => screen.tick(),
        }
    }
}

/// A coordinator that dies just now is back in a moment.
async fn get_ended(coordinator: &mut Coordinator, job: &str) -> Result<v1::JobView, Failure> {
    for _ in 0..GET_RETRIES {
        match coordinator.get(job).await {
            Err(Failure::Internal(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
            got => return got,
        }
    }
    coordinator.get(job).await
}

/// Prints the result of an ended job; the exit code is by ending.
pub fn conclude(view: &v1::JobView, files: &[PathBuf], output: Output) -> Result<u8, Failure> {
    let mut value = json::job(view);
    if let Value::Object(keys) = &mut value {
        let paths = files.iter().map(|path| path.to_string_lossy().into());
        keys.insert("files".into(), Value::Array(paths.collect()));
    }
    if output.format == Format::Json {
        bisect::write_json(&value)?;
    }
    let code = exit_code(view);
    match view.end.as_ref() {
        Some(end) if end.kind == "invalid" => Err(Failure::Input(match end.field.as_str() {
            "" => end.message.clone(),
            field => format!("{field}: {}", end.message),
        })),
        _ if output.format == Format::Json => Ok(code),
        _ => {
            bisect::write_text(&summary(view, files))?;
            Ok(code)
        }
    }
}

fn summary(view: &v1::JobView, files: &[PathBuf]) -> String {
    let mut text = match (&view.summary, &view.end) {
        (summary, _) if !summary.trim().is_empty() => format!("{}\n", summary.trim_end()),
        (_, Some(end)) => format!("{}: {}\n", end.kind, end.message),
        (_, None) => String::new(),
    };
    if !files.is_empty() {
        text.push_str("files:\n");
        files.iter().for_each(|path| text.push_str(&format!("  {}\n", path.display())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_the_files() {
        let end =
            v1::JobEnd { kind: "newer-ending".into(), message: "who knows".into(), ..Default::default() };
        let mut view = v1::JobView { end: Some(end), ..Default::default() };
        assert_eq!(summary(&view, &[]), "newer-ending: who knows\n");
        view.summary = "first bad commit: abc\n\n".into();
        let files = ["out/log.txt".into()];
        assert_eq!(summary(&view, &files), "first bad commit: abc\nfiles:\n  out/log.txt\n");
        assert_eq!(summary(&v1::JobView::default(), &[]), "");
    }
}
