//! Shell completions and man pages, made from the definitions that the help is made from.

use super::args::Cli;
use super::failure::Failure;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
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
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let written = std::fs::create_dir_all(dir).and_then(|()| page(&cli, dir));
    written.map_err(|error| Failure::Input(format!("DIR {}: {error}", dir.display())))?;
    Ok(0)
}

/// A command's page and those of the commands below it.
fn page(command: &Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, dir)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = with_synopsis(&String::from_utf8_lossy(&page), &synopsis(command));
    std::fs::write(dir.join(man.get_filename()), page)
}

/// The page's own synopsis does not say which flags take a value.
fn with_synopsis(page: &str, synopsis: &str) -> String {
    const HEAD: &str = ".SH SYNOPSIS\n";
    let Some((before, after)) = page.split_once(HEAD) else { return page.to_owned() };
    let rest = after.find(".SH ").map_or("", |at| &after[at..]);
    format!("{before}{HEAD}{synopsis}\n{rest}")
}

fn synopsis(command: &Command) -> String {
    let shown = || command.get_arguments().filter(|argument| !argument.is_hide_set());
    let flags = shown().filter(|argument| !argument.is_positional()).map(flag);
    let positionals = shown().filter(|argument| argument.is_positional()).map(positional);
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let below = command.get_subcommands().any(|below| !below.is_hide_set());
    let words = std::iter::once(format!("\\fB{}\\fR", escaped(&name)));
    let words = words.chain(flags).chain(below.then(|| "\\fICOMMAND\\fR".to_owned())).chain(positionals);
    words.collect::<Vec<_>>().join(" ")
}

fn flag(argument: &Arg) -> String {
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> =
        short.into_iter().chain(long).map(|name| format!("\\fB{}\\fR", escaped(&name))).collect();
    let value =
        if argument.get_action().takes_values() { format!(" {}", values(argument)) } else { String::new() };
    bracketed(argument, &format!("{}{value}", names.join("|")))
}

fn positional(argument: &Arg) -> String {
    let behind = if argument.is_last_set() { "\\-\\- " } else { "" };
    let more = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    bracketed(argument, &format!("{behind}{}{}", values(argument), if more { "..." } else { "" }))
}

fn values(argument: &Arg) -> String {
    let names = argument.get_value_names().map(|names| names.iter().map(|name| name.to_string()).collect());
    let names: Vec<String> = names.unwrap_or_else(|| vec![argument.get_id().to_string().to_uppercase()]);
    names.iter().map(|name| format!("\\fI{}\\fR", escaped(name))).collect::<Vec<_>>().join(" ")
}

fn bracketed(argument: &Arg, text: &str) -> String {
    if argument.is_required_set() { text.to_owned() } else { format!("[{text}]") }
}

fn escaped(text: &str) -> String {
    text.replace('-', "\\-")
}
