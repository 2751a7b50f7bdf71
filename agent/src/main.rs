//! The agent's process: cleans up after an earlier life, finds out what the machine can do,
//! and runs the loop.

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use kulprit_agent::artifacts::Artifacts;
use kulprit_agent::boot::QemuConfig;
use kulprit_agent::build::SharedCcache;
use kulprit_agent::config::{Args, Sizing};
use kulprit_agent::container::Engine;
use kulprit_agent::disk_guard::{self, Marks, Places};
use kulprit_agent::guests::Guests;
use kulprit_agent::health::{self, Booting};
use kulprit_agent::preemption::Watch;
use kulprit_agent::slots::Slots;
use kulprit_agent::source::Supply;
use kulprit_agent::sync::{self, Agent, Ended, Stop};
use kulprit_agent::telemetry::{Contact, FIGURES, Ops};
use kulprit_agent::work::Bench;
use kulprit_agent::{boot, check, contact, engine_cleanup, process};
use kulprit_common::id::{AgentId, Session};
use kulprit_observe::figures::Count as _;
use kulprit_observe::{manual, traces};
use kulprit_proto::MESSAGE_BYTES_MAX;
use kulprit_proto::tls;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the machine is looked at anew.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the runtime may take to end what is left of it.
const LET_GO: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    manual::print_if_asked(Args::command);
    let args = Args::parse();
    args.log.start();
    if args.tied_to_parent {
        process::die_with_parent();
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return process::fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    if args.check {
        let able = runtime.block_on(check::run(&args));
        return if able { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let ended = runtime.block_on(run(args));
    runtime.shutdown_timeout(LET_GO);
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Refused(why)) => {
            eprintln!("error: failed to work for the farm: {why}");
            ExitCode::FAILURE
        }
        Ok(Ended::Superseded) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: another agent with this name is at work; give this one another --name"
            );
            ExitCode::FAILURE
        }
        Err(error) => process::fail(&error),
    }
}

async fn run(args: Args) -> anyhow::Result<Ended> {
    std::fs::create_dir_all(&args.state).with_context(|| format!("create {}", args.state.display()))?;
    let ops = Arc::new(Ops::default());
    serve_ops(args.listen_ops, &ops).await?;
    let _lock = process::lock(&args.state.join("agent.lock"))?;
    say_whether_capped();
    let session = Session(process::start_number(&args.state.join("session")));
    let contact::Contact { id, link, wallet } = contact::make(&args).await?;
    if let Some(wallet) = &wallet {
        tokio::spawn(tls::keep_current(link.clone(), wallet.clone()));
    }
    traces::start("kulprit-agent", kulprit_proto::VERSION, id.as_str())?;
    let retry_max = sync::retry_max(&link);
    let client = AgentsClient::new(link)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (cores, memory_mib) = health::machine();
    let sizing = args.sizing(cores, memory_mib);
    let qemu = args.qemu_config();
    let booting = health::booting(&args, &qemu).await;

    let (engine, unreached) = split(health::engine(&id, session).await);
    clean_up(&args, engine.as_ref()).await;
    let cache = args.cache.clone().unwrap_or_else(|| args.state.join("cache"));
    std::fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let artifacts = Artifacts::open(args.state.join("artifacts"), args.kernel_cache_mib << 20, wallet)
        .map_err(|infra| anyhow::anyhow!("open the cache of artifacts: {}", infra.reason))?
        .signed_by(client.clone(), id.clone());
    let accelerator = booting.accelerator.unwrap_or(boot::Accelerator::Tcg);
    let bench = Arc::new(Bench {
        engine: RwLock::new(engine),
        qemu: RwLock::new(QemuConfig { accelerator, ..qemu }),
        artifacts,
        shared_ccache: SharedCcache::open(&args.shared_ccache)?,
        supply: Supply::new(args.source, id.clone(), client.clone()),
        slots: Slots::default(),
        guests: Guests::default(),
        sizing,
        state: args.state.clone(),
        cache,
    });

    keep_room(&args, &bench).await;
    let engine = bench.engine();
    let engine = engine.as_ref().ok_or(unreached.as_str());
    let (say, info) = watch::channel(health::look(&args, &sizing, engine, &booting).await);
    tokio::spawn(keep_looking(args.clone(), (id.clone(), session), sizing, booting, bench.clone(), say));
    let (tell, stop) = watch::channel(Stop::No);
    tokio::spawn(listen_for_signals(tell.clone()));
    if let Some(cloud) = args.preemption.cloud() {
        let watch = Watch::new(cloud, &args.metadata_url).context("watch for preemption")?;
        tokio::spawn(leave_on_notice(watch, tell));
    }
    tracing::info!(agent = %id, slots = sizing.slots, coordinator = args.coordinator, "at work");
    let drain = args.drain();
    let contact = Contact::default();
    ops.begins(contact.clone(), info.clone(), sizing, (args.state.clone(), bench.cache.clone()));
    let ended = sync::run(Agent { id, session, client, retry_max, bench, info, stop, drain, contact }).await;
    traces::finish().await;
    Ok(ended)
}

async fn serve_ops(address: Option<SocketAddr>, ops: &Arc<Ops>) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let listener = kulprit_observe::ops::bind("--listen-ops", address).await?;
    let address = listener.local_addr().context("read the address of --listen-ops")?;
    tracing::info!(%address, "figures are served");
    tokio::spawn(kulprit_observe::ops::serve(listener, ops.clone()));
    Ok(())
}

/// Takes the agent's place among the control groups, before it starts anything that would be in the way.
fn say_whether_capped() {
    match boot::memory_groups() {
        Ok(below) => tracing::info!(below = %below.display(), "guests' memory is capped"),
        Err(why) => tracing::warn!(why, "guests' memory is not capped: {}", boot::CAPPED_BY),
    }
}

/// Removes what an earlier life left: containers, guests, files.
async fn clean_up(args: &Args, engine: Option<&Engine>) {
    let scratch = args.state.join("scratch");
    match engine {
        Some(engine) => match engine_cleanup::at_start(engine, &scratch).await {
            Ok(left) if left.containers + left.files > 0 => {
                tracing::info!(left.containers, left.files, "removed what an earlier life left");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "could not remove what an earlier life left"),
        },
        // Containers are removed once the engine is back.
        None => {
            let _ = kulprit_agent::untrusted::remove(&scratch);
        }
    }
}

async fn keep_looking(
    args: Args,
    (id, session): (AgentId, Session),
    sizing: Sizing,
    mut booting: Booting,
    bench: Arc<Bench>,
    say: watch::Sender<kulprit_common::farm::event::AgentInfo>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = bench.guests.trouble(), if booting.problem.is_none() => {}
        }
        let mut unreached = String::new();
        if bench.engine().is_none() {
            let engine;
            (engine, unreached) = split(health::engine(&id, session).await);
            bench.set_engine(engine);
        }
        let engine = bench.engine();
        clean_up_containers(engine.as_ref()).await;
        keep_room(&args, &bench).await;
        let engine = engine.as_ref().ok_or(unreached.as_str());
        if bench.guests.are_in_trouble() {
            // Said first: nothing is booted here until the canary has spoken.
            booting.problem.get_or_insert_with(|| health::GUESTS_FAIL.into());
            say.send_replace(health::look(&args, &sizing, engine, &booting).await);
            booting.problem = health::canary_again(&bench.qemu()).await;
            if booting.problem.is_none() {
                bench.guests.recovered();
            }
        } else if booting.accelerator.is_none() {
            booting = health::booting(&args, &bench.qemu()).await;
            if let Some(accelerator) = booting.accelerator {
                tracing::info!(accelerator = accelerator.as_str(), "guests can be booted now");
                bench.set_accelerator(accelerator);
            }
        }
        if say.send(health::look(&args, &sizing, engine, &booting).await).is_err() {
            return;
        }
    }
}

/// Removes what is old and unused where a disk runs low.
async fn keep_room(args: &Args, bench: &Arc<Bench>) {
    let (marks, bench) = (Marks::above(args.disk_min_mib), bench.clone());
    let cleaned = tokio::task::spawn_blocking(move || {
        let places = Places {
            state: &bench.state,
            cache: &bench.cache,
            artifacts: bench.artifacts.cache(),
            slots: &bench.slots,
            slots_used: bench.sizing.slots,
        };
        disk_guard::make_room(&places, marks)
    });
    match cleaned.await {
        Ok(removed) if !removed.is_empty() => {
            let bytes = removed.iter().map(|it| it.bytes).sum::<u64>();
            FIGURES.removed.add(&[], bytes);
            let mib = bytes >> 20;
            tracing::warn!(
                things = removed.len(),
                mib,
                "the disk ran low: removed what was not used for longest"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "making room on the disk did not come to an end"),
    }
}

/// The engine, or why there is none.
fn split(connected: Result<Engine, String>) -> (Option<Engine>, String) {
    match connected {
        Ok(engine) => (Some(engine), String::new()),
        Err(why) => (None, why),
    }
}

async fn clean_up_containers(engine: Option<&Engine>) {
    let Some(engine) = engine else { return };
    match engine.remove_leftovers().await {
        Ok(0) => {}
        Ok(containers) => tracing::info!(containers, "removed what an earlier life left"),
        Err(error) => tracing::warn!(%error, "could not remove what an earlier life left"),
    }
}

/// The first signal drains, the second one lets go at once.
async fn listen_for_signals(tell: watch::Sender<Stop>) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return tracing::error!("cannot listen for signals");
    };
    for next in [Stop::Drain, Stop::Now] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!(?next, "told to stop");
        raise(&tell, next);
    }
    // Keeps the channel open until the loop has ended.
    tell.closed().await;
}

async fn leave_on_notice(watch: Watch, tell: watch::Sender<Stop>) {
    let notice = watch.notice().await;
    tracing::warn!(notice, "this machine will be taken away: letting go of all work");
    raise(&tell, Stop::Leave);
    tell.closed().await;
}

fn raise(tell: &watch::Sender<Stop>, to: Stop) {
    tell.send_if_modified(|stop| {
        let higher = to > *stop;
        *stop = to.max(*stop);
        higher
    });
}
