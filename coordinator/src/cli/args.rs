//! What can be typed: commands, flags with their units and defaults, examples.

mod access;
mod artifact;

pub use access::{
    CaCommand, CaInitArgs, CaIssueArgs, JoinArgs, MemberCommand, RevokeArgs, TokenCommand, TokenCreateArgs,
    TokenListArgs, TokenRevokeArgs, WhoamiArgs,
};

pub use artifact::{ArtifactCommand, ArtifactGcArgs, ArtifactGetArgs, ArtifactListArgs, ArtifactVerifyArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use kulprit_common::command::{CONFIDENCE_MAX, Repetition};
use kulprit_common::id::AgentId;
use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0    the culprit was found and certified (other commands: done)
  1    internal error, or the coordinator cannot be reached
  2    bad input: the job file, an option, a revision, an unknown job
  3    suspects only
  4    not reproduced, or the bad end does not build or boot
  5    the good end is bad, the oldest release has the bug, or it is not fixed
  6    blocked by something outside the kernel, or cancelled
  130  interrupted";

const TOP_EXAMPLES: &str = "\
Examples:
  kulprit doctor                      see whether this machine can build and boot
  kulprit run job.toml                search on this machine, with two agents
  kulprit bisect start job.toml       hand the job to a coordinator that is running
  kulprit bisect watch JOB            follow it
  kulprit bisect exec --good v1 -- make test    any repository, any command: no kernel needed

Files: docs/job-file.md describes job files, docs/results.md what comes out.
NO_COLOR is respected; progress bars are drawn on a terminal only.";

/// Finds the commit that broke (or fixed) a Linux kernel, and says how sure it is.
#[derive(Debug, Parser)]
#[command(name = "kulprit", version = kulprit_proto::VERSION, after_help = TOP_EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job on this machine: a coordinator and agents of its own, gone when it is done
    Run(RunArgs),
    /// Submit, follow and read jobs of a coordinator; or bisect with a command, without one
    #[command(subcommand_required = true)]
    Bisect {
        #[command(subcommand)]
        command: BisectCommand,
    },
    /// See the agents of a coordinator, set them aside or let them work again, and shut them out
    #[command(subcommand_required = true)]
    Agent {
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// See, fetch, verify and remove what a farm has stored: kernels, consoles, logs
    #[command(subcommand_required = true)]
    Artifact {
        #[command(subcommand)]
        command: ArtifactCommand,
    },
    /// Search in virtual time: forecast what a search costs, or measure a policy
    Simulate(SimulateArgs),
    /// Judge somebody else's bisection by its log: which verdicts to doubt, and whether to believe it
    Audit(AuditArgs),
    /// Shut operators out
    #[command(subcommand_required = true)]
    Operator {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Shut viewers out
    #[command(subcommand_required = true)]
    Viewer {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Make, list and take back the tokens that let machines and people join
    #[command(subcommand_required = true)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Join a farm as an operator or viewer
    Join(JoinArgs),
    /// Say which member of which farm your credentials make you, and for how long
    Whoami(WhoamiArgs),
    /// Set up the farm's private CA, on the coordinator's machine
    #[command(subcommand_required = true)]
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Check what this machine needs to build and boot kernels, or a farm that runs, and say what to do
    Doctor(DoctorArgs),
    /// Find the crashes in console logs: titles, functions and files to blame, reports
    Parse(ParseArgs),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  kulprit completions bash > /etc/bash_completion.d/kulprit")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages
    #[command(after_help = "Example:\n  kulprit man /usr/local/share/man/man1")]
    Man {
        /// Directory for the pages; made if absent
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum BisectCommand {
    /// Bisect any repository with a command, as `git bisect run` does: no coordinator, no kernel
    Exec(ExecArgs),
    /// Not a command: says that `exec` is meant
    #[command(hide = true, disable_help_flag = true)]
    Run {
        /// Whatever follows
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Submit a job
    Start(StartArgs),
    /// Follow a job to its end; the exit code is by ending
    Watch(WatchArgs),
    /// List jobs, newest first
    List(ListArgs),
    /// Show a job: its state, its revisions, and its result once there is one
    Show(ShowArgs),
    /// Print a job's bisection log, its git replay text, or the log of a build or run
    Log(LogArgs),
    /// Say what a revision is, whatever its runs say, or take that back; the search goes on, also of an ended job
    Overrule(OverruleArgs),
    /// Have what a job gave up tried again; the search goes on, also of an ended job
    Release(ReleaseArgs),
    /// End a job before it is done
    Cancel(CancelArgs),
}

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List agents and what their slots do
    List(AgentListArgs),
    /// Give an agent nothing more until it is released; what it holds it finishes
    Quarantine(AgentQuarantineArgs),
    /// Set an agent aside, as quarantine does, and wait until it holds nothing any more
    Drain(AgentDrainArgs),
    /// Let an agent in quarantine work again, however it came there
    Release(AgentReleaseArgs),
    /// Shut an agent out, at once
    Revoke(RevokeArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: one JSON value on standard output
    Json,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value = "table", value_name = "FORM")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct To {
    /// The coordinator's address: https://HOST:PORT, or http:// on this machine; with commas, those of
    /// all that may take over from one another [default: the one joined, else http://127.0.0.1:7453]
    #[arg(long, env = "KULPRIT_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// Directory of your credentials [default: XDG_CONFIG_HOME/kulprit or ~/.config/kulprit]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  kulprit run job.toml
  kulprit run job.toml --agents 4 --slot-cores 8 --out result
  kulprit run job.toml --state /srv/search     the same command again goes on, or shows the result
  kulprit run job.toml -o json | jq -r .finding.revision

Settings of the agents that have no flag here are taken from the environment, such as
KULPRIT_ACCELERATOR=tcg, KULPRIT_QEMU and KULPRIT_DISK_MIN_MIB; see `kulprit-agent --help`.
Ctrl-C stops everything within 10 s and prints the command that resumes.";

#[derive(Clone, Debug, Args)]
#[command(after_help = format!("{RUN_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct RunArgs {
    /// The job file (TOML)
    #[arg(value_name = "JOB.toml")]
    pub job: PathBuf,
    /// Directory for journal, work trees and logs; kept, and taken up again by the next run
    /// [default: a temporary one, removed when the culprit is found]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Agents to start, each with one slot
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub agents: u32,
    /// Directory for what runs share: git mirrors, compiler caches
    /// [default: XDG_CACHE_HOME/kulprit or ~/.cache/kulprit]
    #[arg(long, env = "KULPRIT_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Directory for summary, log, replay text and JSON
    /// [default: STATE/results/ID; without --state ./kulprit-NAME-ID]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Cores of one slot; an agent uses idle ones besides [default: the agent's, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub slot_cores: Option<u32>,
    /// TOML file with [[backports]] and [[configs]], for a job file without its own lists
    #[arg(long, env = "KULPRIT_REPAIRS", value_name = "FILE")]
    pub repairs: Option<PathBuf>,
    /// Keep the temporary state directory, whatever the ending
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = format!("Example:\n  kulprit bisect start job.toml --watch\n\n{EXIT_CODES}"))]
pub struct StartArgs {
    /// The job file (TOML)
    #[arg(value_name = "JOB.toml")]
    pub job: PathBuf,
    /// Follow the job to its end; the exit code is by ending
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct WatchArgs {
    /// The job's id
    pub job: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The job's id
    pub job: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

const EXEC_EXAMPLES: &str = "\
Examples:
  kulprit bisect exec --good v1.2 -- make test
  kulprit bisect exec --good v1.2 --bad main --jobs 8 -- sh -c 'make -j4 && ./flaky-test'
  kulprit bisect exec --good v1.2 --jobs 1 --confidence 0.99 --log steps.txt -- ./check

The command's exit codes are those of `git bisect run`: 0 good, 125 skip, other codes up to 127
bad, anything else stops the search. It runs at the top of a worktree of its own, without
standard input, with KULPRIT_REVISION and KULPRIT_RUN (0, 1, ...) in its environment. Files that
are not committed are not there: name them by absolute paths.

With --jobs 1 nothing is run twice unless --confidence or --runs ask for it, so a command that
never wavers costs what it costs with git. With more jobs the search makes sure.

Exit codes:
  0    the first bad commit was found
  1    internal error
  2    bad input: an option, a revision, the command
  3    suspects only
  4    the command never fails at the bad end, or skips it
  5    the command fails at the good end
  6    the command stopped the search
  130  interrupted";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES)]
pub struct ExecArgs {
    /// The repository; its checkout, index and branches are left alone
    #[arg(long, default_value = ".", value_name = "PATH")]
    pub repo: PathBuf,
    /// A revision where the command passes
    #[arg(long, value_name = "REV")]
    pub good: String,
    /// A revision where it fails, which descends from the good one
    #[arg(long, default_value = "HEAD", value_name = "REV")]
    pub bad: String,
    /// Worktrees in which the command runs at the same time [default: the processors, 2 to 4]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Runs after which a revision that never failed counts as good: auto, or a number
    #[arg(long, default_value = "auto", value_name = "N", value_parser = repetition)]
    pub runs: Repetition,
    /// Go on until the answer is this likely, 0.5 to 0.99 [default: 0.99; with one job or one
    /// run whatever comes out]
    #[arg(long, value_name = "P", value_parser = confidence)]
    pub confidence: Option<f64>,
    /// Say in the end why each revision was run, and what that taught
    #[arg(long)]
    pub explain: bool,
    /// Write the steps as `git bisect log` does, for `git bisect replay`
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The command and its arguments; a shell only where you name one
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub output: Output,
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let number: Option<usize> = text.parse().ok().filter(|number| (1..=256).contains(number));
    number.and_then(NonZeroUsize::new).ok_or("expected a number from 1 to 256".into())
}

fn repetition(text: &str) -> Result<Repetition, String> {
    let number = || text.parse().ok().filter(|number| (1..=1000).contains(number));
    match text {
        "auto" => Ok(Repetition::Auto),
        _ => number()
            .and_then(NonZeroU32::new)
            .map(Repetition::Exactly)
            .ok_or("expected auto or a number from 1 to 1000".into()),
    }
}

fn confidence(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| (0.5..=CONFIDENCE_MAX).contains(number))
        .ok_or(format!("expected a probability from 0.5 to {CONFIDENCE_MAX}"))
}

const LOG_EXAMPLES: &str = "\
Examples:
  kulprit bisect log JOB --follow
  kulprit bisect log JOB --replay > replay.txt && git bisect replay replay.txt
  kulprit bisect log JOB --plot > posterior.svg
  kulprit bisect log JOB --attempt 100000003 --follow    the id is in `kulprit agent list`";

#[derive(Debug, Args)]
#[command(after_help = LOG_EXAMPLES)]
pub struct LogArgs {
    /// The job's id
    pub job: String,
    /// Go on printing what is added, until the end
    #[arg(short, long, conflicts_with = "replay")]
    pub follow: bool,
    /// Print the text for `git bisect replay` instead
    #[arg(long)]
    pub replay: bool,
    /// Print a plot of how the suspects became fewer, as SVG, instead
    #[arg(long, conflicts_with_all = ["replay", "follow"])]
    pub plot: bool,
    /// Print the build log or console of this attempt instead
    #[arg(long, value_name = "ID", conflicts_with_all = ["replay", "plot"])]
    pub attempt: Option<String>,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kulprit bisect overrule 12 3f2c9e1a7b good\n  kulprit bisect overrule 12 3f2c9e1a7b unsay"
)]
pub struct OverruleArgs {
    /// The job's id
    pub job: String,
    /// A commit between the ends, by at least 7 digits of its id, the good end, or a release tag that was tried
    pub revision: String,
    /// What it is
    pub word: Word,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Word {
    /// Free of the crash
    Good,
    /// Shows the crash (for a fix: still shows it)
    Bad,
    /// Says nothing: do not go by its runs
    Skip,
    /// Take back what was said of it
    Unsay,
}

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job's id
    pub job: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kulprit bisect release 12 3f2c9e1a7b\n  kulprit bisect release 12 toolchain:kulprit/gcc-12\n\n\
    `kulprit bisect show JOB` lists what is in quarantine, and why."
)]
pub struct ReleaseArgs {
    /// The job's id
    pub job: String,
    /// An item's name, or a revision: at least 7 digits of its id, or the job's own name for it
    #[arg(value_name = "REV|ITEM")]
    pub what: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kulprit agent quarantine eu-7 --reason 'its disk is to be changed'")]
pub struct AgentQuarantineArgs {
    /// The agent's name
    pub name: AgentId,
    /// Why, for `agent list`
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kulprit agent drain eu-7 --reason 'a new kernel' && ssh eu-7 reboot\n\n\
    An agent that an operator had set aside keeps the reason of then. `kulprit agent release NAME` ends it.")]
pub struct AgentDrainArgs {
    /// The agent's name
    pub name: AgentId,
    /// Why, for `agent list`
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// How long to wait: 90s, 10m, 2h, 1d
    #[arg(long, value_parser = access::duration, default_value = "2h", value_name = "TIME")]
    pub limit: Duration,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct AgentReleaseArgs {
    /// The agent's name
    pub name: AgentId,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct AgentListArgs {
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

const SIMULATE_EXAMPLES: &str = "\
Examples:
  kulprit simulate --history graph.tsv.gz --world world.json --agents 8 --trials 100
  kulprit simulate --repo linux --good v6.1 --bad v6.2 --world world.json -o json
  echo '{\"scenario\":\"S2\"}' > world.json     a built-in family; docs/simulate.md has them all";

#[derive(Debug, Args)]
#[command(after_help = SIMULATE_EXAMPLES)]
pub struct SimulateArgs {
    /// A recorded commit graph (tab-separated, may be gzipped)
    #[arg(long, value_name = "FILE", required_unless_present = "repo", conflicts_with = "repo")]
    pub history: Option<PathBuf>,
    /// A git repository to read the graph from
    #[arg(long, value_name = "PATH", requires_all = ["good", "bad"])]
    pub repo: Option<PathBuf>,
    /// With --repo: the good end; the graph is what --bad has and it has not
    #[arg(long, value_name = "REV", requires = "repo")]
    pub good: Option<String>,
    /// With --repo: the bad end
    #[arg(long, value_name = "REV", requires = "repo")]
    pub bad: Option<String>,
    /// What is searched for, what things cost, and who answers (JSON)
    #[arg(long, value_name = "WORLD.json")]
    pub world: PathBuf,
    /// Agents that work at the same time
    #[arg(long, default_value = "1", value_name = "N", value_parser = agents)]
    pub agents: NonZeroUsize,
    /// Whose rules decide
    #[arg(long, value_enum, default_value = "kulprit", value_name = "NAME")]
    pub policy: PolicyName,
    /// The same seed gives the same trials
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// How many searches to run, on all processors at once
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub trials: u32,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kulprit audit bisect.txt\n  curl -s URL | kulprit audit - -o json | jq .belief\n\n\
    Reads logs of syzbot since 2019 and of kulprit, whole or cut off.\n\
    Exit codes: 0 whatever it says of the log, 2 where no line is one of a bisection log."
)]
pub struct AuditArgs {
    /// The log; - for standard input
    pub log: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// The engine of this program
    Kulprit,
    /// Ten runs a revision and any crash is bad, as the reference does
    Syzkaller,
    /// Plain bisection with one run a revision
    Git,
    /// The reference's verdicts on even sections, one for each agent
    NthSection,
}

fn agents(text: &str) -> Result<NonZeroUsize, String> {
    let number: Option<usize> = text.parse().ok().filter(|number| (1..=1024).contains(number));
    number.and_then(NonZeroUsize::new).ok_or("expected a number from 1 to 1024".into())
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kulprit doctor\n  kulprit doctor job.toml --state /srv/search -o json\n\n\
    Exit codes: 0 where nothing failed (warnings are allowed), 1 where something did."
)]
pub struct DoctorArgs {
    /// A job file to check as well
    #[arg(value_name = "JOB.toml")]
    pub job: Option<PathBuf>,
    /// Check a farm that runs instead of this machine: its coordinator, store and agents
    #[arg(long, conflicts_with_all = ["job", "state"])]
    pub farm: bool,
    /// Directory where state would be kept [default: where `kulprit run` makes its temporary ones]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Directory for what runs share [default: XDG_CACHE_HOME/kulprit or ~/.cache/kulprit]
    #[arg(long, env = "KULPRIT_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

const PARSE_EXAMPLES: &str = "\
Examples:
  kulprit parse console.txt
  dmesg | kulprit parse -
  kulprit parse -o json *.log | jq -r '.crashes[0].title'
  kulprit parse --vmlinux build/vmlinux --source-root /src/linux console.txt

With -o json there is one object per file, each on a line of its own; docs/cli.md lists the keys.
Exit codes: 0 whether or not there is a crash, 1 internal error, 2 a file cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = PARSE_EXAMPLES)]
pub struct ParseArgs {
    /// Console logs, or reports taken from them; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The kernel that printed them (ELF, plain or zstd): reports get source lines
    #[arg(long, value_name = "FILE")]
    pub vmlinux: Option<PathBuf>,
    /// Where that kernel's sources lay when it was built [default: taken from its debug information]
    #[arg(long, value_name = "DIR", requires = "vmlinux")]
    pub source_root: Option<PathBuf>,
    /// Directory to look for that kernel's modules in [default: the one that FILE of --vmlinux is in]
    #[arg(long, value_name = "DIR", requires = "vmlinux")]
    pub modules: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_has_help() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            for below in command.get_subcommands() {
                assert!(below.get_about().is_some(), "{path} {}", below.get_name());
                check(below, &format!("{path} {}", below.get_name()));
            }
        }
        check(&Cli::command(), "kulprit");
    }
}
