//! The manual page of a program that has no subcommand for it.

use clap::Command;
use clap_mangen::Man;

/// With `--man` alone, prints the page of a program with these arguments, and ends.
pub fn print_if_asked(command: impl FnOnce() -> Command) {
    if std::env::args_os().skip(1).eq(["--man"]) {
        let printed = Man::new(command()).render(&mut std::io::stdout());
        std::process::exit(i32::from(printed.is_err()));
    }
}
