//! The `kulprit` command; `kulprit_coordinator::cli` is what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    kulprit_coordinator::cli::main()
}
