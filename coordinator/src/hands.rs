//! What the farm asks for that takes time: git, symbols. Each answer comes back as an event.

use crate::driver::{Handle, Reply};
use crate::git::{Field, GitError, Mirror, Mirrors};
use crate::symbols::Symbols;
use kulprit_common::crash::{self, Functions};
use kulprit_common::farm::action::{Action, Answer, CrashAt};
use kulprit_common::farm::event::{Culprit, Described, Event, Traced, Trouble};
use kulprit_common::farm::fact::Resolution;
use kulprit_common::id::RevisionId;
use kulprit_common::job::{Backport, Mode};
use kulprit_common::patch::KnownFix;
use std::collections::BTreeSet;

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
            Action::LoadHistory { job, repository, good, bad } => self.spawn(
                move |mirrors| {
                    let mirror = reopen(mirrors, &repository)?;
                    mirror.history(&good, &bad).map_err(|error| trouble(&error, "bad"))
                },
                |result| Event::HistoryLoaded { job, result: result.map(Box::new) },
            ),
            Action::Identify { job, repository, revision } => self.spawn(
                move |mirrors| {
                    let mirror = reopen(mirrors, &repository)?;
                    mirror.resolve(&revision.to_string()).map_err(|error| trouble(&error, "repository"))
                },
                move |result| Event::Identified { job, revision, result },
            ),
            Action::Patch { job, repository, name, order } => self.spawn(
                move |mirrors| {
                    let mirror = reopen(mirrors, &repository)?;
                    mirror.patched(&order).map_err(|error| trouble(&error, "repository"))
                },
                move |result| Event::Patched { job, name, result: result.unwrap_or_else(|it| Err(why(it))) },
            ),
            Action::Trace { job, repository, revision, commits, crash, frames } => {
                let (mirrors, symbols, driver) =
                    (self.mirrors.clone(), self.symbols.clone(), self.driver.clone());
                tokio::spawn(async move {
                    let explained = symbols.explain(crash.report, crash.vmlinux).await;
                    let lines = explained.note.is_none().then_some(explained.report);
                    let read = move |mirrors: &Mirrors| {
                        trace(&reopen(mirrors, &repository)?, &revision, &commits, lines, &frames)
                            .map_err(|error| trouble(&error, "repository"))
                    };
                    let traced = with_git(mirrors, read).await.unwrap_or_else(|why| {
                        tracing::warn!(%job, ?why, "the search goes on without where the crash happened");
                        Traced::default()
                    });
                    driver.notify(Event::Traced { job, traced }).await;
                });
            }
            Action::Describe { job, repository, culprit, crash } => {
                let (mirrors, symbols, driver) =
                    (self.mirrors.clone(), self.symbols.clone(), self.driver.clone());
                tokio::spawn(async move {
                    let described = describe(mirrors, symbols, repository, culprit, crash).await;
                    driver.notify(Event::Described { job, described }).await;
                });
            }
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
            let result = with_git(mirrors, work).await;
            driver.notify(event(result)).await;
        });
    }
}

async fn with_git<T: Send + 'static>(
    mirrors: Mirrors,
    work: impl FnOnce(&Mirrors) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(move || work(&mirrors)).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a git operation did not come to an end");
        Err(Trouble::Failed(format!("finish reading the repository: {error}")))
    })
}

/// All that can be had for a report; what cannot leaves a note.
async fn describe(
    mirrors: Mirrors,
    symbols: Symbols,
    repository: String,
    culprit: Option<RevisionId>,
    crash: Option<CrashAt>,
) -> Described {
    let mut described = Described::default();
    if let Some(revision) = culprit {
        let read = move |mirrors: &Mirrors| {
            let mirror = reopen(mirrors, &repository)?;
            let of = |error: GitError| trouble(&error, "repository");
            let details = mirror.details(&revision).map_err(of)?;
            Ok(Culprit { details, patch: mirror.patch(&revision).map_err(of)? })
        };
        match with_git(mirrors, read).await {
            Ok(culprit) => described.culprit = Some(culprit),
            Err(trouble) => described.notes.push(format!("the commit could not be read: {}", why(trouble))),
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
    mirrors.open(repository, &mut progress).map_err(|error| trouble(&error, "repository"))
}

/// As the first fetch left it: a job's range must not move while it is searched.
fn reopen(mirrors: &Mirrors, repository: &str) -> Result<Mirror, Trouble> {
    mirrors.reopen(repository).map_err(|error| trouble(&error, "repository"))
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
