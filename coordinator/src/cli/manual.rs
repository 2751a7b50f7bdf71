//! Shell completions and man pages, made from the definitions that the help is made from.

use super::args::Cli;
use super::failure::Failure;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::path::Path;

pub fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kulprit", &mut script);
    io::stdout().write_all(&script).map_err(Failure::output)?;
    Ok(0)
}

/// Writes a page for every command: `kulprit.1`, `kulprit-run.1`, ….
pub fn pages(dir: &Path) -> Result<u8, Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Failure::Input(format!("DIR {}: {error}", dir.display())))?;
    Ok(0)
}
