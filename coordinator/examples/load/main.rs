//! What a farm of a thousand agents asks of one coordinator: a real coordinator process, and agents
//! that speak real gRPC over mutual TLS, each over a connection of its own, and pretend to build and
//! boot.
//!
//! `load --help` says what can be changed; `scripts/bench-farm` runs it and writes docs/scale.md.

mod agent;
mod ceilings;
mod figures;
mod history;
mod kernels;
mod place;

use agent::{Agent, Crowd};
use anyhow::{Context as _, ensure};
use clap::Parser;
use figures::{Figures, Usage};
use history::History;
use place::Place;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loads a coordinator as a large farm would, and prints what it takes
#[derive(Debug, Parser)]
struct Args {
    /// Agents, each with its own certificate and connection
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,
    /// Slots of an agent while work flows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// Slots of an agent while completions are counted
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots_at_once: u32,
    /// What an item takes in the mean while work flows, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    work_ms: u64,
    /// Jobs open at a time
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: u32,
    /// Seconds of each phase
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// Items that are to be in the journal before the restart is timed
    #[arg(long, default_value_t = 100_000)]
    items: u64,
    /// Print a table in Markdown instead of JSON
    #[arg(long)]
    table: bool,
    /// Directory for state and the repository; emptied by each run
    #[arg(long)]
    dir: PathBuf,
    /// Keep the journal in this PostgreSQL database, which is empty and belongs to the load
    #[arg(long, value_name = "URL")]
    journal: Option<String>,
    /// Directory of the programs under test
    #[arg(long)]
    programs: PathBuf,
}

/// What agents need to be there, all of them.
const JOINING: Duration = Duration::from_secs(120);
/// The jobs that filled the queue must be taken up first.
const WARMING: Duration = Duration::from_secs(10);
/// Filling the journal to the wanted number of items must come to an end.
const FILLING: Duration = Duration::from_secs(20 * 60);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Runtime::new().context("start the runtime")?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    kulprit_coordinator::process::raise_file_limit();
    let phase = Duration::from_secs(args.seconds);
    let mut figures = Figures::default();
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir).context("empty --dir")?;
    }
    std::fs::create_dir_all(&args.dir).context("make --dir")?;

    say("ceilings");
    figures.ceilings = Some(ceilings::measure(&args.dir, args.journal.as_deref()).await?);

    say("a repository, a farm and its agents");
    let history = Arc::new(History::make(&args.dir)?);
    let place = Place::new(&args.dir, &args.programs, args.journal)?;
    let coordinator = place.start().await?;
    let mut crowd = Crowd::new(history.clone());
    for index in 0..args.agents {
        crowd.add(Agent::new(&place, index)?);
    }
    crowd.set(args.slots, Duration::from_millis(args.work_ms));
    crowd.start();
    let jobs = tokio::spawn(place::keep_open(place.clone(), history.clone(), args.jobs));
    crowd.wait_until_here(JOINING).await?;
    tokio::time::sleep(WARMING).await;

    say("work flows");
    crowd.forget();
    let usage = Usage::of(coordinator.id())?;
    tokio::time::sleep(phase).await;
    figures.flow = Some(figures::Flow::new(&crowd.take(), usage.since(coordinator.id())?, phase));

    say("completions as fast as they go");
    crowd.set(args.slots_at_once, Duration::ZERO);
    tokio::time::sleep(WARMING).await;
    crowd.forget();
    let usage = Usage::of(coordinator.id())?;
    tokio::time::sleep(phase).await;
    figures.rush = Some(figures::Rush::new(&crowd.take(), usage.since(coordinator.id())?, phase));

    say("filling the journal");
    let start = Instant::now();
    while crowd.completed_in_all() < args.items {
        ensure!(start.elapsed() < FILLING, "only {} items after {FILLING:?}", crowd.completed_in_all());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answers = place.answers(&history).await?;
    ensure!(answers.wrong == 0, "wrong answers: {answers:?}");
    figures.answers = Some(answers);

    say("restart");
    crowd.set(args.slots, Duration::from_millis(args.work_ms));
    coordinator.kill().await?;
    let items = crowd.completed_in_all();
    crowd.forget();
    let start = Instant::now();
    let coordinator = place.start().await?;
    let served = start.elapsed();
    let granted = crowd.first_grant(JOINING).await?;
    figures.restart = Some(figures::Restart {
        items,
        journal_bytes: place.journal_bytes().await?,
        served,
        granted: granted.saturating_duration_since(start),
        rss_mib: figures::rss_mib(coordinator.id())?,
    });
    jobs.abort();
    match args.table {
        true => print!("{}", figures.table()),
        false => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("load: {what}");
}
