//! `kulprit audit`: a second opinion on a bisection log, formed in `kulprit_common::audit`.

use super::args::AuditArgs;
use super::bisect::print;
use super::failure::Failure;
use kulprit_common::audit::{self, Parser};
use std::fs::File;
use std::io::Read;

/// Bytes of a log that are read; the longest known have some hundred thousand.
const LOG_BYTES_MAX: u64 = 256 << 20;

pub fn audit(args: &AuditArgs) -> Result<u8, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Input(format!("{}: {error}", args.log.display()));
    let mut source: Box<dyn Read> = if args.log.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(&args.log).map_err(|error| wrong(&error))?)
    };
    let mut parser = Parser::default();
    let mut buffer = [0; 64 << 10];
    let mut room = LOG_BYTES_MAX;
    loop {
        let read = source.read(&mut buffer).map_err(|error| wrong(&error))?;
        if read == 0 || room == 0 {
            break;
        }
        parser.feed(&buffer[..read]);
        room = room.saturating_sub(read as u64);
    }
    let opinion = audit::audit(&parser.finish())
        .ok_or_else(|| wrong(&"is not a bisection log: no line of it is known"))?;
    let value = serde_json::to_value(&opinion).map_err(|error| Failure::internal("write JSON", error))?;
    print(args.output, || audit::text(&opinion), || value)?;
    Ok(0)
}
