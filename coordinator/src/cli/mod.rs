//! The `kulprit` command: what people type, and what they see. With a farm it talks gRPC and nothing else;
//! `simulate`, `parse`, `audit` and `bisect exec` need none.
//!
//! `args` says what can be typed; a command's module does it; `story` and `tables` render, purely.

// What cannot be written must not end a search in a panic.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod agents;
mod args;
mod artifacts;
mod audit;
mod bisect;
mod ca;
mod client;
mod credentials;
mod doctor;
mod ending;
mod exec;
mod failure;
mod follow;
mod json;
mod manual;
mod parse;
mod progress;
mod results;
mod run;
mod say;
mod screen;
mod signals;
mod simulate;
mod story;
mod submission;
mod tables;
mod watching;

use args::{
    AgentCommand, ArtifactCommand, BisectCommand, CaCommand, Cli, Command, MemberCommand, TokenCommand,
};
use clap::Parser as _;
use failure::Failure;
use kulprit_common::access::Role;
use std::process::ExitCode;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread: children are tied to the thread that starts them, and this one lives as long
    // as the process.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::internal("start the runtime", error).report(),
    };
    let ended = runtime.block_on(dispatch(cli.command));
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

async fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Bisect { command } => match command {
            BisectCommand::Exec(args) => exec::exec(args).await,
            BisectCommand::Run { .. } => Err(bisect::run()),
            BisectCommand::Start(args) => bisect::start(args).await,
            BisectCommand::Watch(args) => bisect::watch(args).await,
            BisectCommand::List(args) => bisect::list(args).await,
            BisectCommand::Show(args) => bisect::show(args).await,
            BisectCommand::Log(args) => bisect::log(args).await,
            BisectCommand::Overrule(args) => bisect::overrule(args).await,
            BisectCommand::Release(args) => bisect::release(args).await,
            BisectCommand::Cancel(args) => bisect::cancel(args).await,
        },
        Command::Agent { command } => match command {
            AgentCommand::List(args) => agents::list(args).await,
            AgentCommand::Quarantine(args) => agents::quarantine(args).await,
            AgentCommand::Drain(args) => agents::drain(args).await,
            AgentCommand::Release(args) => agents::release(args).await,
            AgentCommand::Revoke(args) => access::revoke(Role::Agent, args).await,
        },
        Command::Artifact { command } => match command {
            ArtifactCommand::List(args) => artifacts::list(args).await,
            ArtifactCommand::Get(args) => artifacts::get(args).await,
            ArtifactCommand::Verify(args) => artifacts::verify(args).await,
            ArtifactCommand::Gc(args) => artifacts::gc(args).await,
        },
        Command::Operator { command: MemberCommand::Revoke(args) } => {
            access::revoke(Role::Operator, args).await
        }
        Command::Viewer { command: MemberCommand::Revoke(args) } => access::revoke(Role::Viewer, args).await,
        Command::Token { command } => match command {
            TokenCommand::Create(args) => access::create(args).await,
            TokenCommand::List(args) => access::list(args).await,
            TokenCommand::Revoke(args) => access::revoke_token(args).await,
        },
        Command::Join(args) => access::join(args).await,
        Command::Whoami(args) => access::whoami(args),
        Command::Ca { command } => match command {
            CaCommand::Init(args) => ca::init(&args),
            CaCommand::Issue(args) => ca::issue_one(&args),
        },
        Command::Simulate(args) => simulate::simulate(args).await,
        Command::Audit(args) => audit::audit(&args),
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Parse(args) => parse::parse(&args),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::pages(&dir),
    }
}
