//! The coordinator's process: puts the parts together, and takes them apart at the end.

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand as _};
use kulprit_common::farm::{Config, Farm};
use kulprit_common::job::Repairs;
use kulprit_common::toolchain::{Rule, Rules};
use kulprit_coordinator::backup;
use kulprit_coordinator::door::gate::Gate;
use kulprit_coordinator::door::keys::Keys;
use kulprit_coordinator::driver::{self, Clock, Driver};
use kulprit_coordinator::failpoint;
use kulprit_coordinator::git::{Credentials, Mirrors};
use kulprit_coordinator::hands::Hands;
use kulprit_coordinator::journal::Place;
use kulprit_coordinator::keeper::Keeper;
use kulprit_coordinator::logs::Logs;
use kulprit_coordinator::opening::{self, Opened, Port};
use kulprit_coordinator::process;
use kulprit_coordinator::ready::Ready;
use kulprit_coordinator::server::{ArtifactsAt, Room, Services};
use kulprit_coordinator::serving::{self, TlsArgs};
use kulprit_coordinator::source::Sources;
use kulprit_coordinator::storing::{self, StoreArgs, without_password};
use kulprit_coordinator::symbols::Symbols;
use kulprit_coordinator::telemetry::Ops;
use kulprit_observe::logging::LogArgs;
use kulprit_observe::{manual, traces};
use kulprit_proto::supervisor;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A live log is for watching; the whole one is an artifact.
const LOG_BYTES_MAX: u64 = 32 << 20;
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How long each port is let finish what it has in hand.
const GRACE: Duration = Duration::from_secs(3);
const GRACE_AFTER_FAILURE: Duration = Duration::from_millis(300);

/// Coordinates bisections: picks revisions, hands work to agents, keeps what they find.
#[derive(Debug, Parser)]
#[command(name = "kulprit-coordinator", version = kulprit_proto::VERSION)]
struct Args {
    /// Directory for the journal, mirrors, logs and (by default) artifacts
    #[arg(long, env = "KULPRIT_STATE", value_name = "DIR")]
    state: PathBuf,
    /// Keep the journal in this PostgreSQL database, postgres://USER@HOST/DATABASE?sslmode=verify-full,
    /// in which other coordinators may stand by to take over; a password comes from the file that
    /// PGPASSFILE names, or from PGPASSWORD [default: a file in --state]
    #[arg(long, env = "KULPRIT_JOURNAL", value_name = "URL")]
    journal: Option<String>,
    /// Address for agents and operators. TLS is spoken once there is a CA (`kulprit ca init`);
    /// without one, plaintext on loopback
    #[arg(long, env = "KULPRIT_LISTEN", default_value = "127.0.0.1:7453", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Address of the artifact endpoint
    #[arg(
        long,
        env = "KULPRIT_LISTEN_ARTIFACTS",
        default_value = "127.0.0.1:7454",
        value_name = "ADDR:PORT"
    )]
    listen_artifacts: SocketAddr,
    /// Address of /healthz, /readyz and /metrics, over plain HTTP and without certificates, so
    /// better on loopback or a network of your own [default: not served]
    #[arg(long, env = "KULPRIT_LISTEN_OPS", value_name = "ADDR:PORT")]
    listen_ops: Option<SocketAddr>,
    #[command(flatten)]
    store: StoreArgs,
    /// Directory for git mirrors, shared by all jobs [default: STATE/mirrors]
    #[arg(long, env = "KULPRIT_MIRRORS", value_name = "DIR")]
    mirrors: Option<PathBuf>,
    /// TOML file with [[repository]] logins: url, user, password. They are used here and nowhere
    /// else: agents get such a repository's source from the coordinator
    #[arg(long, env = "KULPRIT_GIT_CREDENTIALS", value_name = "FILE")]
    git_credentials: Option<PathBuf>,
    /// Free disk below which no new job is taken, in MiB
    #[arg(long, env = "KULPRIT_COORDINATOR_DISK_MIN_MIB", default_value_t = 256, value_name = "MIB")]
    disk_min_mib: u64,
    /// TOML file with [[toolchain]] rules: since = "v6.7", image = "kulprit/gcc-12"
    #[arg(long, env = "KULPRIT_TOOLCHAINS", value_name = "FILE")]
    toolchains: Option<PathBuf>,
    /// TOML file with the farm's [[backports]] and [[configs]], for jobs without their own
    #[arg(long, env = "KULPRIT_REPAIRS", value_name = "FILE")]
    repairs: Option<PathBuf>,
    /// Of all runs, how many in a hundred another agent makes again, to find agents whose runs are
    /// not to be believed; 0 for none
    #[arg(
        long,
        env = "KULPRIT_SECOND_LOOK_PERCENT",
        default_value_t = 5,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    second_look_percent: u32,
    #[command(flatten)]
    tls: TlsArgs,
    /// File to write the addresses to once everything is served
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
    /// End when the parent process ends
    #[arg(long, hide = true)]
    tied_to_parent: bool,
}

fn main() -> ExitCode {
    manual::print_if_asked(command);
    let args = match asked() {
        Ok(Asked::Serve(args)) => *args,
        Ok(Asked::Other(command)) => return with_runtime(backup::run(command)),
        Err(error) => error.exit(),
    };
    args.log.start();
    if args.tied_to_parent {
        process::die_with_parent();
    }
    with_runtime(run(args))
}

enum Asked {
    Serve(Box<Args>),
    Other(backup::Command),
}

/// Without a subcommand it serves; a subcommand needs nothing of what serving does.
fn command() -> clap::Command {
    let command = backup::Command::augment_subcommands(Args::command());
    let command = command.subcommand_required(false).arg_required_else_help(false);
    command.subcommand_negates_reqs(true).args_conflicts_with_subcommands(true)
}

fn asked() -> Result<Asked, clap::Error> {
    let matches = command().try_get_matches()?;
    match matches.subcommand() {
        Some(_) => backup::Command::from_arg_matches(&matches).map(Asked::Other),
        None => Args::from_arg_matches(&matches).map(|args| Asked::Serve(Box::new(args))),
    }
}

fn with_runtime(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return process::fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    let ending = runtime.block_on(work);
    // A git operation that hangs in the network must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ending {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => process::fail(&error),
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let keys = args.tls.keys(&args.state)?;
    for (flag, address) in [("--listen", args.listen), ("--listen-artifacts", args.listen_artifacts)] {
        serving::check_address(flag, address, keys.as_ref(), &args.state)?;
    }
    process::raise_file_limit();
    std::fs::create_dir_all(&args.state).with_context(|| format!("create {}", args.state.display()))?;
    let place = Place::new(args.journal.as_deref(), &args.state)?;
    let ops = Arc::new(Ops::new(args.state.clone(), place.clone()));
    let ops_at = serve_ops(args.listen_ops, &ops).await?;
    traces::start("kulprit-coordinator", kulprit_proto::VERSION, &process::hostname())?;
    // What can be refused is refused now, and not when it is this one's turn to lead.
    let config = Config {
        host: process::hostname(),
        version: Some(failpoint::version().parse().map_err(anyhow::Error::msg)?),
        rules: rules(args.toolchains.as_deref())?,
        repairs: repairs(args.repairs.as_deref())?,
        second_looks: f64::from(args.second_look_percent) / 100.0,
        ..Config::default()
    };
    let mirrors = Mirrors::new(args.mirrors.clone().unwrap_or_else(|| args.state.join("mirrors")));
    let mirrors = match &args.git_credentials {
        Some(path) => mirrors.with_credentials(Credentials::open(path.clone())?),
        None => mirrors,
    };
    let (handle, ends) = driver::channel();
    let gate = Gate::new(handle.roll());
    let port = Port { flag: "--listen", address: args.listen, keys: keys.as_ref(), gate: &gate };
    let Some(opened) = opening::open(&args.state, &place, port, &ops).await? else {
        return Ok(());
    };
    let journal = opened.journal.clone();
    let ended =
        serve(args, Parts { keys, place, ops, ops_at, gate, config, mirrors }, (handle, ends), opened);
    let ended = ended.await;
    if ended.is_err() {
        opening::give_up(&journal).await;
    }
    ended
}

/// What is made before the journal is opened.
struct Parts {
    keys: Option<Arc<Keys>>,
    place: Place,
    ops: Arc<Ops>,
    ops_at: Option<SocketAddr>,
    gate: Gate,
    config: Config,
    mirrors: Mirrors,
}

/// Serves until it is told to end, or something fails.
async fn serve(
    args: Args,
    parts: Parts,
    (handle, ends): (driver::Handle, driver::Ends),
    opened: Opened,
) -> anyhow::Result<()> {
    let Parts { keys, place, ops, ops_at, gate, config, mirrors } = parts;
    let Opened { journal, facts, grpc } = opened;
    let clock = Clock::start();
    let lease_ms = u64::try_from(config.lease_ttl.as_millis()).unwrap_or(u64::MAX);
    let (farm, first) = Farm::restore(config, facts, clock.now());

    let storing::Opened { store, url, suspects } = args.store.open(&args.state)?;
    let store_name = without_password(&url);
    storing::try_out(&store, &store_name).await?;
    let logs = Logs::open(args.state.join("logs"), LOG_BYTES_MAX).context("open the live logs")?;
    let sources = Sources::open(mirrors.clone(), store.clone(), args.state.join("source"))
        .context("open what is packed for agents")?;

    tokio::spawn(prune_logs(logs.clone()));
    let (stop, stopped) = watch::channel(false);
    let symbols = Symbols::new(store.clone(), args.state.join("symbols"));
    let hands = Hands::new(mirrors, symbols, handle.clone());
    // Made before anybody is served: it publishes who is shut out.
    let driver = Driver::new(farm, clock, journal, hands, ends);
    let grpc = match grpc {
        Some(grpc) => grpc,
        None => {
            let keys = keys.as_ref();
            Port { flag: "--listen", address: args.listen, keys, gate: &gate }.open().await?
        }
    };
    let at = args.listen_artifacts;
    let http =
        serving::listen("--listen-artifacts", at, keys.as_ref(), &["h2", "http/1.1"], gate.clone()).await?;
    let (http_at, grpc_at) = (http.address, grpc.address);
    let artifacts = match (!store.presigns(), &keys) {
        (false, _) => ArtifactsAt::Url(without_password(&url)),
        (true, None) => ArtifactsAt::Url(format!("http://{http_at}/")),
        (true, Some(_)) => ArtifactsAt::Port(http_at.port()),
    };
    let keeper = Keeper::new(store.clone(), handle.clone(), args.store.retention(), args.store.young());
    let room = Room { state: args.state.clone(), free_mib_min: args.disk_min_mib };
    let asking = handle.clone();
    let services = Services {
        driver: handle.clone(),
        store: store.clone(),
        sources: Arc::new(sources),
        keeper: keeper.clone(),
        logs,
        artifacts,
        lease_ms,
        keys: keys.clone(),
        room,
        journal: place.clone(),
        store_name,
        started: std::time::Instant::now(),
        met: Arc::default(),
    };

    let driving = tokio::spawn(driver.run(first, stopped.clone()));
    tokio::spawn(gate.clone().sweep());
    let scheme = if keys.is_some() { "https" } else { "http" };
    if let Some(keys) = keys {
        tokio::spawn(keys.keep_current(gate.clone()));
    }
    let serving_http = tokio::spawn(serving::http(http, store, gate.clone(), stopped.clone()));
    let serving_grpc = tokio::spawn(serving::grpc(grpc, services, gate, ops.phase(), stopped.clone()));
    // The answer comes once the driver has done what the journal left to do. Without one it has
    // failed, and says so when it is waited for.
    if asking.ask(|_, _| ()).await.is_ok() {
        ops.serves(handle);
        tokio::spawn(keeper.clone().keep());
        tokio::spawn(keeper.mend(suspects));
        if let Some(path) = &args.ready_file {
            let (grpc, artifacts) = (format!("{scheme}://{grpc_at}"), format!("{scheme}://{http_at}"));
            let ops = ops_at.map(|at| format!("http://{at}"));
            Ready { grpc, artifacts, ops, pid: std::process::id() }.write(path)?;
        }
        supervisor::ready(&format!("serving {scheme} on {grpc_at}"));
        tracing::info!(scheme, %grpc_at, %http_at, ops_at = ops_at.map(tracing::field::display), state = %args.state.display(), "serving");
    }

    let ended = wait_for_the_end(stop, &ops, driving, serving_grpc, serving_http).await;
    traces::finish().await;
    ended
}

async fn serve_ops(address: Option<SocketAddr>, ops: &Arc<Ops>) -> anyhow::Result<Option<SocketAddr>> {
    let Some(address) = address else { return Ok(None) };
    let listener = kulprit_observe::ops::bind("--listen-ops", address).await?;
    let address = listener.local_addr().context("read the address of --listen-ops")?;
    tokio::spawn(kulprit_observe::ops::serve(listener, ops.clone()));
    Ok(Some(address))
}

/// Live logs are kept for a week; the whole ones are artifacts.
async fn prune_logs(logs: Logs) {
    loop {
        let logs = logs.clone();
        let prune = move || logs.prune(std::time::SystemTime::now(), LOGS_KEPT);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(prune).await {
            tracing::warn!(%error, "old live logs could not be removed");
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}

/// Waits for a signal or for a part to fail, then lets every part finish what it has in hand.
async fn wait_for_the_end(
    stop: watch::Sender<bool>,
    ops: &Ops,
    mut driving: tokio::task::JoinHandle<anyhow::Result<()>>,
    serving_grpc: tokio::task::JoinHandle<anyhow::Result<()>>,
    serving_http: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let failed = tokio::select! {
        signal = process::terminated() => {
            tracing::info!(signal, "ending");
            None
        }
        ended = &mut driving => Some(ended),
    };
    ops.stops();
    supervisor::stopping("ending", 4 * GRACE);
    stop.send_replace(true);
    // Streams of watchers and parked agents are cut rather than waited for; whose driver has failed
    // has nothing more to say.
    let grace = if failed.is_some() { GRACE_AFTER_FAILURE } else { GRACE };
    let _ = tokio::time::timeout(grace, serving_grpc).await;
    let _ = tokio::time::timeout(grace, serving_http).await;
    match failed {
        Some(ended) => ended.context("run the driver")?,
        None => driving.await.context("run the driver")?,
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    toolchain: Vec<Rule>,
}

fn rules(path: Option<&Path>) -> anyhow::Result<Rules> {
    let Some(path) = path else { return Ok(Rules::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let file: RulesFile =
        toml::from_str(&text).with_context(|| format!("read the rules in {}", path.display()))?;
    if file.toolchain.is_empty() {
        bail!("read the rules in {}: there is no [[toolchain]]", path.display());
    }
    if let Some(rule) = file.toolchain.iter().position(|rule| rule.image.trim().is_empty()) {
        bail!("read the rules in {}: toolchain[{rule}].image is empty; name an image", path.display());
    }
    Ok(Rules::new(file.toolchain))
}

fn repairs(path: Option<&Path>) -> anyhow::Result<Repairs> {
    let Some(path) = path else { return Ok(Repairs::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    kulprit_common::job::file::farm_repairs(&text)
        .map_err(|problem| anyhow::anyhow!("read the known breakage in {}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_choose_nothing_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for (text, problem) in [
            ("toolchain = []", "there is no [[toolchain]]"),
            ("[[toolchain]]\nimage = \"a\"\n[[toolchain]]\nimage = \" \"", "toolchain[1].image is empty"),
            ("[[toolchain]]\nimage = \"a\"\nsinse = \"v6.1\"", "read the rules in"),
        ] {
            std::fs::write(file.path(), text).expect("it is written");
            let error = rules(Some(file.path())).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains(problem), "{text}: {error}");
        }
        std::fs::write(file.path(), "[[toolchain]]\nsince = \"v6.1\"\nimage = \"a\"").expect("it is written");
        assert!(rules(Some(file.path())).is_ok());
    }
    #[tokio::test]
    async fn a_port_in_use_names_the_flag() {
        let taken =
            serving::bind("--listen", "127.0.0.1:0".parse().expect("an address")).await.expect("free");
        let address = taken.local_addr().expect("an address");
        let refused = serving::bind("--listen-artifacts", address)
            .await
            .map(|_| ())
            .map_err(|error| format!("{error:#}"));
        let why = refused.expect_err("it is taken");
        assert!(why.contains("--listen-artifacts") && why.contains(&address.to_string()), "{why}");
    }
}
