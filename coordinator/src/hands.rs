//! What the farm asks for that takes time: git, symbols. Each answer comes back as an event.

use crate::driver::{Handle, Reply};
use crate::git::{Field, GitError, Mirror, Mirrors};
use crate::symbols::Symbols;
use crate::telemetry::attempts;
use kulprit_common::crash::{self, Functions};
use kulprit_common::farm::Farm;
use kulprit_common::farm::action::{Action, Answer, CrashAt};
use kulprit_common::farm::event::{Culprit, Described, Event, Traced, Trouble};
use kulprit_common::farm::fact::Resolution;
use kulprit_common::id::{JobId, RevisionId};
use kulprit_common::job::{Backport, Mode};
use kulprit_common::patch::{KnownFix, Order};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the server of a repository is asked that a job under way cannot do without.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The same for what only makes it better; a report waits for 15 minutes.
const PATIENCE_FOR_MORE: Duration = Duration::from_secs(10 * 60);
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Hands {
    mirrors: Mirrors,
    symbols: Symbols,
    driver: Handle,
    replies: Vec<(Reply, Option<Answer>)>,
}

impl Hands {
    pub fn new(mirrors: Mirrors, symbols: Symbols, driver: Handle) -> Self {
        Hands { mirrors, symbols, driver, replies: Vec::new() }
    }

    /// Keeps an answer back until what it acknowledges is durable.
    pub fn reply_later(&mut self, reply: Reply, answer: Option<Answer>) {
        self.replies.push((reply, answer));
    }

    pub fn send_replies(&mut self) {
        for (reply, answer) in self.replies.drain(..) {
            // Whoever asked may have gone meanwhile; the fact stands.
            let _ = reply.send(answer);
        }
    }

    /// Starts what an action asks for.
    pub fn take(&self, action: Action) {
        match action {
            Action::Resolve { job, repository, bad, good, mode, backports } => self.spawn(
                move |mirrors| {
                    let mirror = open(mirrors, &repository)?;
                    let resolution = resolve(&mirror, &bad, good, mode)?;
                    Ok(Resolution { fixes: known_fixes(&mirror, &backports)?, ..resolution })
                },
                |result| Event::Resolved { job, result: result.map(Box::new) },
            ),
            Action::LoadHistory { job, repository, good, bad } => self.spawn_on(
                Place { job: job.clone(), repository, commits: vec![good, bad] },
                move |mirror| mirror.history(&good, &bad).map_err(|error| trouble(&error, "bad")),
                |result| Event::HistoryLoaded { job, result: result.map(Box::new) },
            ),
            Action::Identify { job, repository, revision } => self.spawn_on(
                Place { job: job.clone(), repository, commits: vec![revision] },
                move |mirror| mirror.resolve(&revision.to_string()).map_err(|error| of_repository(&error)),
                move |result| Event::Identified { job, revision, result },
            ),
            Action::Patch { job, repository, name, order } => self.spawn_on(
                Place { job: job.clone(), repository, commits: commits_of(&order) },
                move |mirror| mirror.patched(&order).map_err(|error| of_repository(&error)),
                move |result| Event::Patched { job, name, result: result.unwrap_or_else(|it| Err(why(it))) },
            ),
            Action::Trace { job, repository, revision, commits, crash, frames } => {
                let (symbols, reach) = (self.symbols.clone(), self.reach());
                tokio::spawn(async move {
                    let explained = symbols.explain(crash.report, crash.vmlinux).await;
                    let lines = explained.note.is_none().then_some(explained.report);
                    let place = Place { job: job.clone(), repository, commits: vec![revision] };
                    let read = move |mirror: &Mirror| {
                        trace(mirror, &revision, &commits, lines, &frames)
                            .map_err(|error| of_repository(&error))
                    };
                    let traced = reach.read(place, PATIENCE_FOR_MORE, read).await.unwrap_or_else(|why| {
                        tracing::warn!(%job, ?why, "the search goes on without where the crash happened");
                        Traced::default()
                    });
                    reach.driver.notify(Event::Traced { job, traced }).await;
                });
            }
            Action::Describe { job, repository, culprit, crash } => {
                let (symbols, reach) = (self.symbols.clone(), self.reach());
                tokio::spawn(async move {
                    let place = |revision| Place { job: job.clone(), repository, commits: vec![revision] };
                    let described = describe(&reach, symbols, culprit.map(place), crash).await;
                    reach.driver.notify(Event::Described { job, described }).await;
                });
            }
            Action::Lost(lost) => attempts::lost(&lost),
            Action::Record(_) | Action::Answer(_) => {
                unreachable!("the driver keeps facts and answers to itself")
            }
        }
    }

    /// Does the work where it may take its time. Should it panic, which is a bug of ours, the
    /// job ends with the reason rather than waiting for ever.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mirrors) -> Result<T, Trouble> + Send + 'static,
        event: impl FnOnce(Result<T, Trouble>) -> Event + Send + 'static,
    ) {
        let (mirrors, driver) = (self.mirrors.clone(), self.driver.clone());
        tokio::spawn(async move {
            let result = blocking(move || work(&mirrors)).await;
            driver.notify(event(result)).await;
        });
    }

    /// The same on the repository of a job that is under way, which cannot go on without.
    fn spawn_on<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Mirror) -> Result<T, Trouble> + Send + 'static,
        event: impl FnOnce(Result<T, Trouble>) -> Event + Send + 'static,
    ) {
        let reach = self.reach();
        tokio::spawn(async move {
            let result = reach.read(place, PATIENCE, work).await;
            reach.driver.notify(event(result)).await;
        });
    }

    fn reach(&self) -> Reach {
        Reach { mirrors: self.mirrors.clone(), driver: self.driver.clone() }
    }
}

/// A repository that a job under way was resolved in, and what of it is asked about.
struct Place {
    job: JobId,
    repository: String,
    commits: Vec<RevisionId>,
}

/// The way to repositories of jobs under way.
struct Reach {
    mirrors: Mirrors,
    driver: Handle,
}

impl Reach {
    /// As the first fetch left it: a job's range must not move while it is searched. Where another
    /// coordinator did that fetch, its server may be away now, and is asked until it answers.
    async fn read<T: Send + 'static>(
        &self,
        place: Place,
        patience: Duration,
        work: impl FnOnce(&Mirror) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let Place { job, repository, commits } = place;
        let (until, mut wait) = (Instant::now() + patience, WAIT_FIRST);
        let mirror = loop {
            let (mirrors, repository, commits) = (self.mirrors.clone(), repository.clone(), commits.clone());
            let mut progress = |line: String| tracing::info!("{line}");
            let open = move || Ok(mirrors.reopen(&repository, &commits, &mut progress));
            match blocking(open).await? {
                Ok(mirror) => break mirror,
                Err(error) if error.may_pass() && Instant::now() < until && self.is_open(&job).await => {
                    tracing::warn!(%job, %error, wait_s = wait.as_secs(), "the repository is asked for again");
                }
                Err(error) => return Err(of_repository(&error)),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        };
        blocking(move || work(&mirror)).await
    }

    async fn is_open(&self, job: &JobId) -> bool {
        let job = job.clone();
        let look = move |farm: &Farm, _| farm.is_under_way(&job);
        self.driver.ask(look).await.unwrap_or(false)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a git operation did not come to an end");
        Err(Trouble::Failed(format!("finish reading the repository: {error}")))
    })
}

/// All that can be had for a report; what cannot leaves a note.
async fn describe(
    reach: &Reach,
    symbols: Symbols,
    culprit: Option<Place>,
    crash: Option<CrashAt>,
) -> Described {
    let mut described = Described::default();
    if let Some(place) = culprit {
        let revisions = place.commits.clone();
        let read =
            move |mirror: &Mirror| revisions.iter().map(|it| read_culprit(mirror, it)).next().transpose();
        match reach.read(place, PATIENCE_FOR_MORE, read).await {
            Ok(culprit) => described.culprit = culprit,
            Err(trouble) => described.notes.push(format!("the commit could not be read: {}", why(trouble))),
        }
        let is_vast = |it: &Culprit| it.patch.is_none() && it.details.parents.len() <= 1;
        if described.culprit.as_ref().is_some_and(is_vast) {
            described.notes.push("the commit changes too many files to be shown".into());
        }
    }
    if let Some(CrashAt { report, vmlinux }) = crash {
        let explained = symbols.explain(report, vmlinux).await;
        described.report = Some(explained.report);
        described.notes.extend(explained.note);
    }
    described
}

/// Where a crash happened: by its source lines, or by which of the touched files define the functions
/// of its stack.
fn trace(
    mirror: &Mirror,
    revision: &RevisionId,
    commits: &[RevisionId],
    lines: Option<String>,
    frames: &[String],
) -> Result<Traced, GitError> {
    let touched = mirror.touched(commits)?;
    let crash = lines.and_then(|report| crash::parse(report.as_bytes()).into_iter().next());
    let mut files = crash.map(|crash| crash.files).unwrap_or_default();
    if files.is_empty() {
        let paths: BTreeSet<&str> = touched.iter().flatten().map(String::as_str).collect();
        let functions = Functions::new(frames.iter().map(String::as_str));
        files = mirror.defining(revision, paths.into_iter(), &functions)?;
    }
    Ok(Traced { files, touched })
}

fn why(trouble: Trouble) -> String {
    match trouble {
        Trouble::Invalid { message: why, .. } | Trouble::Failed(why) => why,
    }
}

fn open(mirrors: &Mirrors, repository: &str) -> Result<Mirror, Trouble> {
    let mut progress = |line: String| tracing::info!("{line}");
    mirrors.open(repository, &mut progress).map_err(|error| of_repository(&error))
}

fn read_culprit(mirror: &Mirror, revision: &RevisionId) -> Result<Culprit, Trouble> {
    let details = mirror.details(revision).map_err(|error| of_repository(&error))?;
    Ok(Culprit { details, patch: mirror.patch(revision).map_err(|error| of_repository(&error))? })
}

/// What must be at hand for an order to be carried out. Known fixes were found when the job was
/// resolved.
fn commits_of(order: &Order) -> Vec<RevisionId> {
    let fixes = order.fixes.iter().flat_map(|known| known.breaks.into_iter().chain([known.fix]));
    [order.revision].into_iter().chain(order.revert).chain(fixes).collect()
}

fn resolve(mirror: &Mirror, bad: &str, good: Option<String>, mode: Mode) -> Result<Resolution, Trouble> {
    let find = |rev: &str, field: &'static str| mirror.resolve(rev).map_err(|error| trouble(&error, field));
    let bad = find(bad, "bad")?;
    let good = match (good, mode) {
        (Some(good), _) => Some(find(&good, "good")?),
        (None, Mode::Fix) => Some(mirror.head().map_err(|error| trouble(&error, "good"))?),
        (None, Mode::Cause) => None,
    };
    if let Some(good) = &good {
        let (older, newer) = match mode {
            Mode::Cause => (good, &bad),
            Mode::Fix => (&bad, good),
        };
        mirror.check_range(&older.id, &newer.id).map_err(|error| trouble(&error, "bad"))?;
        return Ok(Resolution { bad, good: Some(good.clone()), releases: Vec::new(), fixes: Vec::new() });
    }
    let releases = mirror.releases(&bad.id).map_err(|error| trouble(&error, "bad"))?;
    // The bad end itself is tested as such.
    let releases: Vec<_> = releases.into_iter().filter(|release| release.revision.id != bad.id).collect();
    if releases.is_empty() {
        let message =
            "is missing, and the repository has no release tag (vX.Y) before the bad end to walk back to";
        return Err(Trouble::Invalid { field: "good".into(), message: message.into() });
    }
    Ok(Resolution { bad, good: None, releases, fixes: Vec::new() })
}

/// The commits of the known fixes. What the farm's list names and this repository has not is of
/// no use here; in a job's own list it is a mistake.
fn known_fixes(mirror: &Mirror, backports: &[Backport]) -> Result<Vec<KnownFix>, Trouble> {
    let mut fixes = Vec::new();
    for (i, backport) in backports.iter().enumerate() {
        let find = |rev: &String, key: &str| match mirror.name(rev) {
            Ok(found) => Ok(Some(found)),
            Err(error) if backport.is_farms && error.field() == Some(Field::Revision) => Ok(None),
            Err(error) => Err(trouble(&error, &format!("backports[{i}].{key}"))),
        };
        let Some((fix, subject)) = find(&backport.fix, "fix")? else { continue };
        let breaks = match &backport.breaks {
            None => None,
            Some(rev) => match find(rev, "breaks")? {
                Some((breaks, _)) => Some(breaks),
                None => continue,
            },
        };
        fixes.push(KnownFix { fix, breaks, title: backport.title.clone().unwrap_or(subject) });
    }
    Ok(fixes)
}

fn of_repository(error: &GitError) -> Trouble {
    trouble(error, "repository")
}

/// Names the field to mend, where the person who wrote the job file can.
fn trouble(error: &GitError, revision_field: &str) -> Trouble {
    let field = match error.field() {
        Some(Field::Repository) => "repository",
        Some(Field::Good) => "good",
        Some(Field::Revision) => revision_field,
        None => return Trouble::Failed(format!("failed to {error}")),
    };
    Trouble::Invalid { field: field.into(), message: error.to_string() }
}
