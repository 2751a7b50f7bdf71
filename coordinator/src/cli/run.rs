//! `kulprit run`: a coordinator and agents of its own as child processes, one job, one result.

mod children;
mod fitness;
mod local_farm;
mod places;
mod resume;

use super::args::RunArgs;
use super::client::{Coordinator, to_flag};
use super::ending::{exit_code, is_worth_another_try};
use super::failure::Failure;
use super::say::say;
use super::screen::Screen;
use super::signals::Signals;
use super::submission::Submission;
use super::{follow, results, watching};
use fitness::Fitness;
use kulprit_common::report::ending::EXIT_BAD_INPUT;
use kulprit_proto::v1;
use local_farm::LocalFarm;
pub use local_farm::program;
use places::Places;
pub use places::{cache_dir, temporary_base};

/// Jobs of one content in one state directory: each but the last was refused, blocked or cancelled.
const TRIES_MAX: u32 = 1000;

pub async fn run(args: RunArgs) -> Result<u8, Failure> {
    let submission = Submission::load(&args.job)?;
    let programs = local_farm::Programs::find()?;
    let mut signals = Signals::listen()?;
    let places = Places::prepare(&args)?;
    let mut screen = Screen::new();
    screen.say(&format!("state in {}", places.state.display()));

    let mut farm = LocalFarm::new(programs, &args, &places);
    let ended = tokio::select! {
        ended = search(&mut farm, &submission, Fitness::new(args.agents), &mut screen) => ended,
        () = signals.next() => Err(Failure::Interrupted(resume::message(&args, &places))),
    };
    if matches!(ended, Err(Failure::Interrupted(_))) {
        screen.say("stopping everything; once more kills it");
    }
    screen.close();
    // The result is told before the farm is taken down, which may take some seconds.
    let code = ended.as_ref().ok().map(exit_code);
    let told = ended.and_then(|view| tell(&args, &submission, &places, &view));
    tokio::select! {
        () = farm.stop() => {}
        () = signals.next() => farm.kill().await,
    }
    tidy(&args, &places, code, &told);
    told
}

/// Brings the farm up, submits, and follows the job to its end.
async fn search(
    farm: &mut LocalFarm,
    submission: &Submission,
    mut fitness: Fitness,
    screen: &mut Screen,
) -> Result<v1::JobView, Failure> {
    let url = farm.start_coordinator(screen).await?;
    let mut coordinator = Coordinator::local(&url)?;
    let (view, is_new) = submit(&mut coordinator, submission).await?;
    if view.end.is_some() {
        // A new one that was refused at once tells why by itself.
        if !is_new {
            screen.say(&format!("job {} has ended before; another --state searches anew", view.id));
        }
        return Ok(view);
    }
    let verb = if is_new { "submitted" } else { "taken up again" };
    screen.say(&format!("job {} {verb}, coordinator at {url}", view.id));
    name_others(&mut coordinator, &view.id, &url, screen).await?;
    farm.start_agents(&url)?;
    let (say, news) = watching::follow(coordinator.clone(), view.id.clone());
    tokio::select! {
        ended = follow::to_the_end(&mut coordinator, &view.id, news, screen, |it| fitness.judge(it)) => ended,
        given_up = farm.keep_alive(&say) => Err(given_up),
    }
}

/// A job file that was changed makes another job. The one before goes on and takes its share of
/// the agents, which nobody expects.
async fn name_others(
    coordinator: &mut Coordinator,
    own: &str,
    url: &str,
    screen: &Screen,
) -> Result<(), Failure> {
    let jobs = coordinator.list().await?;
    for other in jobs.iter().filter(|job| job.end.is_none() && job.id != own) {
        screen.say(&format!(
            "job {id}, of another job file, is unfinished in this directory and goes on too; \
             `kulprit bisect cancel {id}{to}` ends it",
            id = other.id,
            to = to_flag(url),
        ));
    }
    Ok(())
}

/// The job of this content: an open or finished one is taken up, one that came to nothing is not.
async fn submit(
    coordinator: &mut Coordinator,
    submission: &Submission,
) -> Result<(v1::JobView, bool), Failure> {
    for number in 1..=TRIES_MAX {
        let request = format!("run-{}-{number}", submission.content());
        let answer = coordinator.submit(submission.request(request)).await?;
        let view = coordinator.get(&answer.job).await?;
        let came_to_nothing = view.end.as_ref().is_some_and(|end| is_worth_another_try(&end.kind));
        if answer.created || !came_to_nothing {
            return Ok((view, answer.created));
        }
    }
    Err(Failure::Input(format!(
        "--state: the job came to nothing {TRIES_MAX} times here; use another directory"
    )))
}

/// Writes the results and prints them; the exit code is by ending.
fn tell(args: &RunArgs, submission: &Submission, places: &Places, view: &v1::JobView) -> Result<u8, Failure> {
    let written = match exit_code(view) {
        // There is nothing to report on a job that was refused.
        EXIT_BAD_INPUT => Ok(Vec::new()),
        _ => results::write(&places.results(args, &submission.name, &view.id), view),
    };
    let told = follow::conclude(view, written.as_deref().unwrap_or_default(), args.output);
    let told = told.map_err(|failure| match failure {
        Failure::Input(message) => Failure::Input(format!("{}: {message}", args.job.display())),
        other => other,
    });
    written.and(told)
}

/// Removes a temporary state directory that nobody will want to look into; `code` is the job's
/// ending, if it has one.
fn tidy(args: &RunArgs, places: &Places, code: Option<u8>, told: &Result<u8, Failure>) {
    let is_done_with = match told {
        // Whether anybody read the result or not.
        Ok(_) | Err(Failure::ReaderGone) => code == Some(0),
        Err(failure) => matches!(failure, Failure::Input(_) | Failure::Unable(_)),
    };
    match (places.temporary && !args.keep, is_done_with, told) {
        (true, true, _) => places.remove(),
        // The message to come says where.
        (_, _, Err(Failure::Interrupted(_))) => {}
        _ if places.temporary => say(&format!("state and logs are kept in {}", places.state.display())),
        (_, false, Err(_)) => say(&format!("logs are in {}", places.state.join("logs").display())),
        _ => {}
    }
}
