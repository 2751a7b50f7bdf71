//! Arguments of what lets in and shuts out: `ca`, `token`, `join`, `revoke`.

use super::{Output, To};
use clap::{Args, Subcommand};
use kulprit_common::access::Role;
use kulprit_common::id::AgentId;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make the farm's private CA, and the first operator's credentials
    Init(CaInitArgs),
    /// Issue credentials on the coordinator's machine, for whoever can read the CA's key
    Issue(CaIssueArgs),
}

const CA_INIT_EXAMPLES: &str = "\
Example, on the coordinator's machine, as the user that the coordinator runs as:
  kulprit ca init --state /var/lib/kulprit --coordinator https://farm.example.org:7453
  kulprit-coordinator --state /var/lib/kulprit --listen 0.0.0.0:7453 --listen-artifacts 0.0.0.0:7454
  kulprit token create --role agent";

#[derive(Debug, Args)]
#[command(after_help = CA_INIT_EXAMPLES)]
pub struct CaInitArgs {
    /// The coordinator's state directory
    #[arg(long, env = "KULPRIT_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// Name of the first operator [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub operator: Option<AgentId>,
    /// The coordinator's address, for later commands of this operator
    #[arg(long, env = "KULPRIT_COORDINATOR", default_value = "https://localhost:7453", value_name = "URL")]
    pub coordinator: String,
    /// Directory for the operator's credentials [default: XDG_CONFIG_HOME/kulprit or ~/.config/kulprit]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CaIssueArgs {
    /// The coordinator's state directory
    #[arg(long, env = "KULPRIT_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// What the credentials are for
    #[arg(long, value_parser = role, default_value = "operator", value_name = "agent|operator|viewer")]
    pub role: Role,
    /// The member's name [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentId>,
    /// The coordinator's address, for later commands
    #[arg(long, env = "KULPRIT_COORDINATOR", default_value = "https://localhost:7453", value_name = "URL")]
    pub coordinator: String,
    /// Directory for the credentials [default: XDG_CONFIG_HOME/kulprit or ~/.config/kulprit]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token that lets one machine or person join, once
    Create(TokenCreateArgs),
    /// List tokens: who made them, who used them
    List(TokenListArgs),
    /// Take a token back before it is used
    Revoke(TokenRevokeArgs),
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  kulprit token create --role agent --labels zone=eu,arch=amd64
  kulprit token create --role viewer --ttl 10m
  kulprit token create --role agent --name builder-3     lets builder-3 join anew, with a new key

The token goes to standard output alone. Give it to an agent as KULPRIT_JOIN or --join-file, to a
person for `kulprit join`.";

#[derive(Debug, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub struct TokenCreateArgs {
    /// What it lets in
    #[arg(long, value_parser = role, value_name = "agent|operator|viewer")]
    pub role: Role,
    /// Only for a member of this name, which may have joined before
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentId>,
    /// KEY or KEY=VALUE, shown with the agent; with commas
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// How long it is valid: 90s, 10m, 2h, 1d; at most 7d
    #[arg(long, value_parser = duration, default_value = "1h", value_name = "TIME")]
    pub ttl: Duration,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct TokenListArgs {
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct TokenRevokeArgs {
    /// The token's id, as `kulprit token list` shows it
    pub id: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It stays shut out until it joins with a token made with --name NAME. What an agent holds \
    is given to others once its lease has run out, 42 s at most."
)]
pub struct RevokeArgs {
    /// The member's name
    pub name: AgentId,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Shut one out, at once
    Revoke(RevokeArgs),
}

const JOIN_EXAMPLES: &str = "\
Examples:
  kulprit join --coordinator https://farm.example.org:7453 kulprit1-…
  pass show farm | kulprit join --coordinator https://farm.example.org:7453 -

The private key is made here and stays here. Agents join by `kulprit-agent --join`.";

#[derive(Debug, Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub struct JoinArgs {
    /// What `kulprit token create` printed; - reads it from standard input
    #[arg(env = "KULPRIT_JOIN", hide_env_values = true)]
    pub token: String,
    /// The coordinator's address
    #[arg(long, env = "KULPRIT_COORDINATOR", value_name = "URL")]
    pub coordinator: String,
    /// Your name in the farm [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentId>,
    /// Directory for your credentials [default: XDG_CONFIG_HOME/kulprit or ~/.config/kulprit]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Reads the files alone and asks no coordinator.\nExit codes: 0, or 2 where there are none, or they have expired."
)]
pub struct WhoamiArgs {
    /// Directory of the credentials [default: XDG_CONFIG_HOME/kulprit or ~/.config/kulprit]
    #[arg(long, env = "KULPRIT_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|_| "is not agent, operator or viewer".into())
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "is not a time such as 90s, 10m, 2h or 1d".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("1d", Some(86_400)),
            ("1", None),
            ("", None),
            ("h", None),
            ("-1s", None),
            ("1 h", None),
            ("99999999999999999999s", None),
            ("1µ", None),
        ] {
            assert_eq!(duration(text).ok().map(|it| it.as_secs()), seconds, "{text}");
        }
    }
}
