//! The command line that resumes an interrupted run.

use super::super::args::{Format, RunArgs};
use super::places::Places;
use std::path::Path;

pub fn message(args: &RunArgs, places: &Places) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "kulprit".into());
    let command = command(&program, args, &places.state);
    format!(
        "interrupted; nothing is running any more. To resume:\n  {command}\nTo drop it, remove that directory."
    )
}

/// The same command with its state named.
fn command(program: &str, args: &RunArgs, state: &Path) -> String {
    let mut words = vec![program.to_owned(), "run".into(), text(&args.job), "--state".into(), text(state)];
    words.extend(["--agents".into(), args.agents.to_string()]);
    for (flag, path) in [("--cache", &args.cache), ("--out", &args.out), ("--repairs", &args.repairs)] {
        words.extend(path.iter().flat_map(|path| [flag.to_owned(), text(path)]));
    }
    words.extend(args.slot_cores.iter().flat_map(|cores| ["--slot-cores".to_owned(), cores.to_string()]));
    words.extend(args.keep.then(|| "--keep".to_owned()));
    if args.output.format == Format::Json {
        words.extend(["-o".to_owned(), "json".into()]);
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// As a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser as _;

    /// What clap makes of the words alone, whatever the environment says of the cache.
    fn args(words: &[&str]) -> RunArgs {
        let typed_cache = words.contains(&"--cache");
        match Cli::try_parse_from(words).expect("valid").command {
            Command::Run(args) => RunArgs { cache: args.cache.filter(|_| typed_cache), ..args },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_is_what_was_typed_with_the_state_named() {
        for (typed, expected) in [
            (&["kulprit", "run", "job.toml"][..], "kulprit run job.toml --state /var/tmp/k-1 --agents 2"),
            (
                &["kulprit", "run", "my job.toml", "--agents", "4", "--out", "it's", "-o", "json"],
                r"kulprit run 'my job.toml' --state /var/tmp/k-1 --agents 4 --out 'it'\''s' -o json",
            ),
            (
                &["kulprit", "run", "j", "--slot-cores", "3", "--cache", "/c", "--keep", "--repairs", "r"],
                "kulprit run j --state /var/tmp/k-1 --agents 2 --cache /c --repairs r --slot-cores 3 --keep",
            ),
        ] {
            assert_eq!(command("kulprit", &args(typed), Path::new("/var/tmp/k-1")), expected);
        }
    }
}
