//! The loop of a search with a command: hands out what is wanted to free worktrees, takes what
//! the runs said, and says so.

use super::super::args::{ExecArgs, Format};
use super::super::failure::Failure;
use super::super::say::say;
use super::super::signals::Signals;
use super::attempt::{Attempt, Ended, Show, Urge};
use super::program::Program;
use super::readers::is_read;
use super::worktrees::{Worktree, Worktrees};
use kulprit_common::command::{Ending, Exit, Search, Step, Want};
use kulprit_common::id::RevisionId;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it came out.
pub enum Concluded {
    Ended(Ending),
    /// The command said that the search must stop.
    Aborted {
        revision: RevisionId,
        how: String,
    },
}

pub struct Crew {
    search: Search,
    worktrees: Worktrees,
    jobs: NonZeroUsize,
    program: Program,
    show: Show,
    /// Somebody reads our standard error.
    heard: bool,
    log: Option<PathBuf>,
    good: RevisionId,
    free: Vec<Worktree>,
    busy: Vec<Busy>,
    running: JoinSet<Finished>,
    /// Runs started of each revision.
    started: BTreeMap<RevisionId, u32>,
    /// What is being looked at was said of these.
    announced: BTreeSet<RevisionId>,
    /// The command has been seen to be there.
    runnable: bool,
}

struct Busy {
    revision: RevisionId,
    run: u32,
    urge: watch::Sender<Urge>,
}

type Finished = (RevisionId, u32, Worktree, anyhow::Result<Ended>);

impl Crew {
    pub fn new(
        search: Search,
        worktrees: Worktrees,
        jobs: NonZeroUsize,
        program: Program,
        args: &ExecArgs,
    ) -> Self {
        let show = match (jobs.get(), args.output.format) {
            (1, Format::Table) => Show::AsIs,
            (1, Format::Json) => Show::ToErrors,
            _ => Show::Prefixed,
        };
        let good = search.good();
        Crew {
            search,
            worktrees,
            jobs,
            program,
            show,
            heard: true,
            log: args.log.clone(),
            good,
            free: Vec::new(),
            busy: Vec::new(),
            running: JoinSet::new(),
            started: BTreeMap::new(),
            announced: BTreeSet::new(),
            runnable: false,
        }
    }

    /// Works to the end. However that comes, no process and no worktree is left.
    pub async fn work(mut self, signals: &mut Signals) -> Result<(Search, Concluded), Failure> {
        let worked = self.search_on(signals).await;
        self.urge_all(Urge::Stop);
        while !self.running.is_empty() {
            tokio::select! {
                _ = self.running.join_next() => {}
                () = signals.next() => self.urge_all(Urge::Kill),
            }
        }
        let concluded = worked?;
        let ending = match &concluded {
            Concluded::Ended(ending) => Some(ending),
            Concluded::Aborted { .. } => None,
        };
        self.write_log(ending)?;
        Ok((self.search, concluded))
    }

    async fn search_on(&mut self, signals: &mut Signals) -> Result<Concluded, Failure> {
        self.write_log(None)?;
        loop {
            match self.search.step() {
                Step::Done(ending) => return Ok(Concluded::Ended(ending)),
                Step::Run(wants) => self.hand_out(&wants).await?,
            }
            let finished = tokio::select! {
                finished = self.running.join_next() => finished,
                () = signals.next() => return Err(Failure::Interrupted(
                    "interrupted: all runs are ended and the worktrees removed; the same command starts anew"
                        .into(),
                )),
            };
            let finished = match finished {
                Some(Ok(finished)) => finished,
                Some(Err(error)) => return Err(Failure::internal("run the command", error)),
                None => return Err(Failure::Internal(anyhow::anyhow!("go on: nothing is running"))),
            };
            if let Some(concluded) = self.take(finished)? {
                return Ok(concluded);
            }
        }
    }

    /// Ends what is no longer wanted, and starts what is as far as there is room.
    async fn hand_out(&mut self, wants: &[Want]) -> Result<(), Failure> {
        self.announced.retain(|revision| wants.iter().any(|want| want.revision == *revision));
        for busy in &self.busy {
            if !wants.iter().any(|want| want.revision == busy.revision) {
                busy.urge.send_replace(Urge::Stop);
            }
        }
        // One run of each first; where room is left, several of one at the same time.
        for most in 1..=self.jobs.get() {
            for want in wants {
                let under_way = self.busy.iter().filter(|busy| busy.revision == want.revision).count();
                let open = (want.runs as usize)
                    .saturating_sub(self.search.tally(&want.revision).total() as usize + under_way);
                if self.busy.len() < self.jobs.get() && open > 0 && under_way < most {
                    self.start(want.revision).await?;
                }
            }
        }
        Ok(())
    }

    async fn start(&mut self, revision: RevisionId) -> Result<(), Failure> {
        if self.announced.insert(revision) {
            say(self.search.announce(&revision).trim_end_matches('\n'));
        }
        let there = self.free.iter().position(|worktree| worktree.at == Some(revision));
        let worktree = match there.or(self.free.len().checked_sub(1)) {
            Some(at) => self.free.swap_remove(at),
            None => self.worktrees.add(&revision).await?,
        };
        let started = self.started.entry(revision).or_default();
        let run = *started;
        *started += 1;
        let (urge, urged) = watch::channel(Urge::GoOn);
        let attempt = Attempt {
            worktree,
            revision,
            run,
            command: self.program.words.clone(),
            show: self.show,
            heard: self.heard,
            urge: urged,
            probe: (!self.runnable).then_some(self.good),
        };
        self.busy.push(Busy { revision, run, urge });
        self.running.spawn(async move {
            let (worktree, ended) = attempt.make().await;
            (revision, run, worktree, ended)
        });
        Ok(())
    }

    /// Takes what a run said; some of it ends the search.
    fn take(&mut self, finished: Finished) -> Result<Option<Concluded>, Failure> {
        let (revision, run, worktree, ended) = finished;
        self.busy.retain(|busy| (busy.revision, busy.run) != (revision, run));
        self.free.push(worktree);
        if !self.is_believable()? {
            return Ok(None);
        }
        let aborted = |how: String| Ok(Some(Concluded::Aborted { revision, how }));
        let code = match ended? {
            Ended::Dropped => return Ok(None),
            Ended::Killed(signal) => return aborted(format!("was killed by signal {signal}")),
            Ended::Unrunnable(code) => return Err(self.program.unrunnable(code, &self.good)),
            Ended::Code(code) => code,
        };
        self.runnable = true;
        let exit = Exit::of_code(code);
        if exit == Exit::Abort {
            return aborted(format!("exited with {code}"));
        }
        self.search.record(revision, exit);
        self.say(&revision, exit, code);
        self.write_log(None)?;
        Ok(None)
    }

    /// A command that shares our streams may have failed because nobody reads them any more:
    /// such a run is made again, without them. Without a reader of results there is nothing to do.
    fn is_believable(&mut self) -> Result<bool, Failure> {
        if !is_read(std::io::stdout()) {
            return Err(Failure::ReaderGone);
        }
        let was_heard = self.heard;
        self.heard = is_read(std::io::stderr());
        Ok(self.show == Show::Prefixed || self.heard || !was_heard)
    }

    fn say(&self, revision: &RevisionId, exit: Exit, code: i32) {
        let tally = self.search.tally(revision);
        let said = match exit {
            Exit::Good => "passed".into(),
            Exit::Skip => "skipped".into(),
            Exit::Bad | Exit::Abort => format!("failed (exit code {code})"),
        };
        let so_far = match tally.total() {
            1 => String::new(),
            total => format!("; {} of {total} runs failed", tally.bad),
        };
        say(&format!("{} {said}{so_far}", revision.short()));
    }

    fn urge_all(&self, urge: Urge) {
        for busy in &self.busy {
            busy.urge.send_replace(urge);
        }
    }

    fn write_log(&self, ending: Option<&Ending>) -> Result<(), Failure> {
        let Some(path) = &self.log else { return Ok(()) };
        std::fs::write(path, self.search.replay(ending))
            .map_err(|error| Failure::Input(format!("--log: {}: {error}", path.display())))
    }
}
