//! Log lines on standard error, for people or for machines.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For machines: one JSON object to a line
    Json,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct LogArgs {
    /// Form of the log on standard error; KULPRIT_LOG says how much of it (info, debug, ...)
    #[arg(long, env = "KULPRIT_LOG_FORMAT", value_enum, default_value = "text", value_name = "FORM")]
    log_format: Format,
    /// What --log-format json was called
    #[arg(long, env = "KULPRIT_LOG_JSON", hide = true)]
    log_json: bool,
}

impl LogArgs {
    /// Logs from now on; `KULPRIT_LOG` filters (`info`, `debug`, `kulprit_agent=trace`).
    pub fn start(&self) {
        let filter = EnvFilter::try_from_env("KULPRIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_json {
            true => lines.json().init(),
            false if self.log_format == Format::Json => lines.json().init(),
            false => lines.with_ansi(false).init(),
        }
    }
}
