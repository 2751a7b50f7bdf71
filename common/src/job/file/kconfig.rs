//! Looks whether a text is a kernel config, line by line, as strictly as kconfig reads one.
//!
//! kconfig itself only warns about a line it cannot read and goes on without it; a search on
//! such a kernel answers a question nobody asked.

use super::{Input, JobFileError};

/// The text of a config file or fragment, if every line of it can be read.
pub(super) fn check(input: &Input, bytes: Vec<u8>) -> Result<String, JobFileError> {
    let text = String::from_utf8(bytes).map_err(|_| {
        JobFileError::content(input, "is not a text", "name a kernel config, such as a .config")
    })?;
    let mut symbols = 0;
    for (i, line) in text.lines().enumerate() {
        match read(line) {
            Ok(Line::Symbol) => symbols += 1,
            Ok(Line::Nothing) => {}
            Err(problem) => {
                let (field, path) = (input.field.clone(), input.path.clone());
                return Err(JobFileError::ConfigLine { field, path, line: i + 1, problem });
            }
        }
    }
    if symbols == 0 {
        return Err(JobFileError::content(
            input,
            "sets no symbol",
            "name a kernel config, such as a .config",
        ));
    }
    Ok(text)
}

enum Line {
    Symbol,
    Nothing,
}

fn read(line: &str) -> Result<Line, String> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if let Some(comment) = line.strip_prefix('#') {
        return Ok(if is_unset(comment) { Line::Symbol } else { Line::Nothing });
    }
    if line.trim().is_empty() {
        return Ok(Line::Nothing);
    }
    let Some(rest) = line.strip_prefix("CONFIG_") else {
        return Err(format!("{} does not start with CONFIG_ or #", quote(line)));
    };
    let Some((name, value)) = rest.split_once('=') else {
        return Err(format!("{} has no '='", quote(line)));
    };
    if !is_name(name) {
        return Err(format!("{} is not the name of a symbol", quote(&format!("CONFIG_{name}"))));
    }
    if !is_value(value) {
        return Err(format!("{} is not y, m, n, a number or a text in double quotes", quote(value)));
    }
    Ok(Line::Symbol)
}

fn is_unset(comment: &str) -> bool {
    let name = comment.strip_prefix(" CONFIG_").and_then(|rest| rest.strip_suffix(" is not set"));
    name.is_some_and(is_name)
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// y, m, n · a number, decimal or hex (kconfig takes hex without its 0x too) · a quoted text.
fn is_value(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(value, "y" | "m" | "n") || is_number || is_quoted(value)
}

fn is_quoted(value: &str) -> bool {
    let Some(rest) = value.strip_prefix('"') else { return false };
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1 == rest.len(),
            _ => {}
        }
    }
    false
}

/// Enough of a line to recognise it.
fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let short: String = text.chars().take(CHARS_MAX).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_kconfig_reads_them() {
        for good in [
            "",
            "  ",
            "# comment",
            "#",
            "CONFIG_A=y",
            "CONFIG_A=m",
            "CONFIG_A=n",
            "CONFIG_64BIT=y",
            "CONFIG_A=\"\"",
            "CONFIG_A=\"a \\\" b\"",
            "CONFIG_A=-1",
            "CONFIG_A=0x1000000",
            "CONFIG_A=y\r",
            "# CONFIG_A is not set",
        ] {
            assert!(read(good).is_ok(), "{good:?}");
        }
        for bad in [
            "CONFIG_A",
            "CONFIG_A=",
            "CONFIG_A=yes",
            "CONFIG_A=\"open",
            "CONFIG_A=\"a\" b",
            "CONFIG_=y",
            "A=y",
            " CONFIG_A=y",
            "CONFIG A=y",
            "<<<<<<< HEAD",
            "CONFIG_A=y # why",
            "\0",
            "CONFIG_A=0x",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
