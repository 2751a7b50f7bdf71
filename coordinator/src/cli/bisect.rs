//! `kulprit bisect …`: one function per command.

use super::args::{
    CancelArgs, Format, ListArgs, LogArgs, Output, OverruleArgs, ReleaseArgs, ShowArgs, StartArgs, WatchArgs,
    Word,
};
use super::client::{Coordinator, to_flag};
use super::ending::exit_code;
use super::failure::Failure;
use super::say::say;
use super::screen::Screen;
use super::signals::Signals;
use super::submission::Submission;
use super::watching::{self, News};
use super::{follow, json, tables};
use clap::ValueEnum as _;
use kulprit_proto::v1;
use serde_json::{Value, json};
use std::io::Write as _;

/// What people type who know git: there is no such command, so it says which one is meant.
pub fn run() -> Failure {
    Failure::Input(
        "bisect run: there is no such command; to bisect with a command use\n  \
         kulprit bisect exec --good REV -- CMD…\nand to run a job file\n  kulprit run JOB.toml"
            .into(),
    )
}

pub async fn start(args: StartArgs) -> Result<u8, Failure> {
    let submission = Submission::load(&args.job)?;
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let request = format!("start-{}", uuid::Uuid::now_v7());
    let job = coordinator.submit(submission.request(request)).await?.job;
    if args.watch {
        return watch_job(coordinator, &job, args.output).await;
    }
    let hint = format!("job {job} submitted; follow it with\n  {}\n", watch_command(&job, coordinator.url()));
    print(args.output, || hint.clone(), || json!({ "job": job }))?;
    Ok(0)
}

pub async fn watch(args: WatchArgs) -> Result<u8, Failure> {
    let coordinator = Coordinator::dial(&args.to).await?;
    watch_job(coordinator, &args.job, args.output).await
}

async fn watch_job(mut coordinator: Coordinator, job: &str, output: Output) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let coordinator_url = coordinator.url().to_owned();
    let (_sender, news) = watching::follow(coordinator.clone(), job.to_owned());
    let mut screen = Screen::new();
    screen.say(&format!("job {job}"));
    let ended = tokio::select! {
        ended = follow::to_the_end(&mut coordinator, job, news, &mut screen, |_| Ok(())) => ended,
        () = signals.next() => Err(Failure::Interrupted(format!(
            "no longer watching; the job goes on. To watch it again:\n  {}",
            watch_command(job, &coordinator_url)
        ))),
    };
    screen.close();
    follow::conclude(&ended?, &[], output)
}

fn watch_command(job: &str, url: &str) -> String {
    format!("kulprit bisect watch {job}{}", to_flag(url))
}

pub async fn list(args: ListArgs) -> Result<u8, Failure> {
    let jobs = Coordinator::dial(&args.to).await?.list().await?;
    print(args.output, || tables::jobs(&jobs, tables::now_ms()), || json::jobs(&jobs))?;
    Ok(0)
}

pub async fn show(args: ShowArgs) -> Result<u8, Failure> {
    let view = Coordinator::dial(&args.to).await?.get(&args.job).await?;
    print(args.output, || tables::job(&view, tables::now_ms()), || json::job(&view))?;
    Ok(0)
}

pub async fn cancel(args: CancelArgs) -> Result<u8, Failure> {
    let view = Coordinator::dial(&args.to).await?.cancel(&args.job).await?;
    print(args.output, || format!("job {} is cancelled\n", view.id), || json::job(&view))?;
    Ok(0)
}

pub async fn overrule(args: OverruleArgs) -> Result<u8, Failure> {
    let word = args.word.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default();
    let request =
        v1::OverruleRequest { job: args.job.clone(), revision: args.revision.clone(), word: word.clone() };
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let answer = coordinator.overrule(request).await?;
    let (job, revision) = (&answer.job, &answer.revision);
    let said = match args.word {
        Word::Unsay => format!("job {job}: what was said of {revision} is taken back\n"),
        Word::Good | Word::Bad | Word::Skip => format!("job {job}: {revision} is {word} from now on\n"),
    };
    let hint = format!("the search goes on; follow it with\n  {}\n", watch_command(job, coordinator.url()));
    print(args.output, || said + &hint, || json!({ "job": job, "revision": revision, "word": word }))?;
    Ok(0)
}

pub async fn release(args: ReleaseArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let answer = coordinator.release(&args.job, &args.what).await?;
    let (job, items) = (&answer.job, &answer.items);
    let text = || {
        let names = items.join(", ");
        let follow = watch_command(job, coordinator.url());
        format!("job {job}: {names} may be tried again\nthe search goes on; follow it with\n  {follow}\n")
    };
    print(args.output, text, || json!({ "job": job, "released": items }))?;
    Ok(0)
}

pub async fn log(args: LogArgs) -> Result<u8, Failure> {
    if args.output.format == Format::Json && (args.follow || args.attempt.is_some()) {
        return Err(Failure::Input(
            "-o json: does not go with --follow or --attempt, which stream text".into(),
        ));
    }
    let mut coordinator = Coordinator::dial(&args.to).await?;
    if let Some(attempt) = &args.attempt {
        let attempt = u64::from_str_radix(attempt, 16).map_err(|_| {
            Failure::Input(format!(
                "--attempt {attempt}: is not an attempt id (hexadecimal, see `kulprit agent list`)"
            ))
        })?;
        return attempt_log(coordinator, attempt, args.follow).await;
    }
    if args.follow {
        return follow_log(coordinator, args.job).await;
    }
    let view = coordinator.get(&args.job).await?;
    let (key, text) = match (args.replay, args.plot) {
        (true, _) if !teaches(&view.replay) => {
            let end = view.end.as_ref().map(|end| format!(" ({}: {})", end.kind, end.message));
            return Err(Failure::Input(format!(
                "--replay: job {} has no verdict that git could learn from{}",
                view.id,
                end.unwrap_or_default()
            )));
        }
        (true, _) => ("replay", view.replay),
        (false, true) if view.plot.is_empty() => {
            return Err(Failure::Input(format!(
                "--plot: there is nothing to draw of job {} before its range is searched",
                view.id
            )));
        }
        (false, true) => ("plot", view.plot),
        (false, false) => ("log", view.log),
    };
    print(args.output, || text.clone(), || json!({ "job": view.id, key: text }))?;
    Ok(0)
}

/// Whether a replay text has more than its beginning.
fn teaches(replay: &str) -> bool {
    replay.lines().any(|line| line.starts_with("git bisect ") && line != "git bisect start")
}

async fn follow_log(coordinator: Coordinator, job: String) -> Result<u8, Failure> {
    let mut asked = coordinator.clone();
    let (sender, mut news) = watching::follow(coordinator, job.clone());
    // Held by the other side alone, the channel closes when that has no more to say.
    drop(sender);
    while let Some(news) = news.recv().await {
        match news {
            News::Update(update) => write_text(&update.log)?,
            News::Said(line) => say(&line),
            News::Failed(failure) => return Err(failure),
        }
    }
    Ok(exit_code(&asked.get(&job).await?))
}

async fn attempt_log(mut coordinator: Coordinator, attempt: u64, follow: bool) -> Result<u8, Failure> {
    let mut stream = coordinator.read_log(attempt, follow).await?;
    let mut stdout = std::io::stdout().lock();
    loop {
        match stream.message().await {
            Ok(Some(chunk)) => {
                stdout.write_all(&chunk.data).and_then(|()| stdout.flush()).map_err(Failure::output)?;
            }
            Ok(None) => return Ok(0),
            Err(status) => return Err(coordinator.failure(&status)),
        }
    }
}

/// Prints one or the other form.
pub fn print(
    output: Output,
    text: impl FnOnce() -> String,
    value: impl FnOnce() -> Value,
) -> Result<(), Failure> {
    match output.format {
        Format::Table => write_text(&text()),
        Format::Json => write_json(&value()),
    }
}

pub fn write_json(value: &Value) -> Result<(), Failure> {
    write_text(&format!("{value:#}\n"))
}

pub fn write_text(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::output)
}
