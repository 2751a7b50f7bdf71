//! The keys of the job file and what each takes; finds unknown keys and wrong types, with
//! their lines. The values themselves are looked at in `checks`.

use super::JobFileError;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A key, as `section.key`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub takes: Takes,
}

#[derive(Clone, Copy, Debug)]
pub enum Takes {
    Table,
    /// A list of sections, each with the keys of `section.key`.
    Tables,
    /// A quoted string, and what it says.
    Text(&'static str),
    /// A list of quoted strings.
    Texts,
    /// true or false.
    Flag,
    /// A whole number from `min` to `max`.
    Number {
        min: u32,
        max: u32,
        unit: &'static str,
    },
}

impl Takes {
    pub(super) fn must_be(self) -> String {
        match self {
            Takes::Table => "a section in brackets".into(),
            Takes::Tables => "a list of sections, each in double brackets".into(),
            Takes::Text(what) => format!("{what}, in quotes"),
            Takes::Texts => "a list of strings, such as [\"one\", \"two\"]".into(),
            Takes::Flag => "true or false, without quotes".into(),
            Takes::Number { min, max, unit: "" } => format!("a whole number from {min} to {max}"),
            Takes::Number { min, max, unit } => format!("a whole number of {unit} from {min} to {max}"),
        }
    }
}

const fn key(name: &'static str, takes: Takes) -> Key {
    Key { name, takes }
}

const fn number(name: &'static str, min: u32, max: u32, unit: &'static str) -> Key {
    Key { name, takes: Takes::Number { min, max, unit } }
}

/// Every key there is; the manual has a row for each (a test holds it to that).
pub const KEYS: &[Key] = &[
    key("name", Takes::Text("a name for people")),
    key("repository", Takes::Text("a path or URL of a git repository")),
    key("bad", Takes::Text("a revision")),
    key("good", Takes::Text("a revision")),
    key("mode", Takes::Text("cause, fix, build or boot")),
    key("toolchain", Takes::Text("auto or the name of an image")),
    key("config", Takes::Table),
    key("config.make_target", Takes::Text("a make target such as defconfig")),
    key("config.file", Takes::Text("the path of a .config")),
    key("config.fragments", Takes::Texts),
    key("config.arch", Takes::Text("an architecture")),
    key("config.make_args", Takes::Texts),
    key("reproducer", Takes::Table),
    key("reproducer.c_source", Takes::Text("the path of a C file")),
    key("reproducer.script", Takes::Text("the path of a script")),
    key("reproducer.binary", Takes::Text("the path of a static executable")),
    key("reproducer.args", Takes::Texts),
    key("reproducer.cflags", Takes::Texts),
    key("target", Takes::Table),
    key("target.title", Takes::Text("a crash title")),
    key("runs", Takes::Table),
    number("runs.max", 1, 100, ""),
    number("runs.first_max", 1, 100, ""),
    key("timeouts", Takes::Table),
    number("timeouts.build_s", 10, 86_400, "seconds"),
    number("timeouts.first_byte_s", 1, 3600, "seconds"),
    number("timeouts.boot_s", 1, 3600, "seconds"),
    number("timeouts.settle_ms", 0, 60_000, "milliseconds"),
    number("timeouts.reproducer_s", 1, 3600, "seconds"),
    number("timeouts.linger_ms", 0, 600_000, "milliseconds"),
    number("timeouts.silence_s", 1, 3600, "seconds"),
    number("timeouts.drain_ms", 0, 60_000, "milliseconds"),
    key("search", Takes::Table),
    key("search.prior", Takes::Text("auto or flat")),
    key("config_work", Takes::Table),
    key("config_work.drop_instrumentation", Takes::Flag),
    key("config_work.baseline", Takes::Text("the path of a .config")),
    number("config_work.steps_max", 1, 200, "kernels"),
    key("machine", Takes::Table),
    number("machine.memory_mib", 32, 65_536, "MiB"),
    number("machine.cpus", 1, 64, ""),
    key("machine.cmdline", Takes::Text("kernel command line arguments")),
    key("backports", Takes::Tables),
    key("backports.fix", Takes::Text("a commit")),
    key("backports.title", Takes::Text("a title for people")),
    key("backports.breaks", Takes::Text("a commit")),
    key("configs", Takes::Tables),
    key("configs.disable", Takes::Texts),
    key("configs.before", Takes::Text("a release such as v5.10")),
];

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Refuses text that is no TOML, and keys that are not in the table.
pub(super) fn check(text: &str) -> Result<(), JobFileError> {
    let document = DeTable::parse(text).map_err(|error| syntax(text, &error))?;
    for (path, span, value) in entries(document.get_ref()) {
        let Some(key) = find(&path) else {
            return Err(JobFileError::UnknownKey {
                hint: hint(&path),
                key: path,
                line: line(text, span.start),
            });
        };
        let is_list_of_tables =
            value.as_array().is_some_and(|list| list.iter().all(|one| one.get_ref().is_table()));
        let fits = match key.takes {
            Takes::Table => value.is_table(),
            Takes::Tables => is_list_of_tables,
            Takes::Text(_) | Takes::Texts | Takes::Flag | Takes::Number { .. } => !value.is_table(),
        };
        if !fits {
            return Err(form(text, key, span.start));
        }
    }
    Ok(())
}

/// Says what serde did not like in the words of the table.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> JobFileError {
    let (Some(at), Ok(document)) = (error.span(), DeTable::parse(text)) else {
        return syntax(text, error);
    };
    let mut named = entries(document.get_ref())
        .into_iter()
        .filter(|(_, span, value)| !value.is_table() && span.start <= at.start && at.start < span.end);
    match named.next_back().and_then(|(path, ..)| find(&path)) {
        Some(key) => form(text, key, at.start),
        None => syntax(text, error),
    }
}

type Entry<'d, 'i> = (String, Range<usize>, &'d DeValue<'i>);

/// The keys of the document and of its sections, with the span from the key to the value's end.
fn entries<'d, 'i>(document: &'d DeTable<'i>) -> Vec<Entry<'d, 'i>> {
    let mut entries = Vec::new();
    for (key, value) in document.iter() {
        let section = key.get_ref().to_string();
        entries.push((section.clone(), key.span().start..value.span().end, value.get_ref()));
        let listed = value.get_ref().as_array().into_iter().flatten();
        let listed = listed.filter_map(|one| one.get_ref().as_table());
        let tables = value.get_ref().as_table().into_iter().chain(listed);
        for (key, value) in tables.flat_map(|table| table.iter()) {
            let path = format!("{section}.{}", key.get_ref());
            entries.push((path, key.span().start..value.span().end, value.get_ref()));
        }
    }
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

fn form(text: &str, key: &Key, at: usize) -> JobFileError {
    JobFileError::Form { field: key.name.into(), line: line(text, at), must_be: key.takes.must_be() }
}

fn syntax(text: &str, error: &toml::de::Error) -> JobFileError {
    let at = error.span().map_or(0, |span| span.start);
    JobFileError::Syntax { line: line(text, at), problem: error.message().replace('\n', ", ") }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

fn hint(unknown: &str) -> String {
    match nearest(unknown) {
        Some(known) => format!("did you mean {known}?"),
        None => "remove it, or see docs/job-file.md for the keys there are".into(),
    }
}

/// The known key that is spelled most like `unknown`; one in the same section comes first.
fn nearest(unknown: &str) -> Option<&'static str> {
    let (section, last) = split(unknown);
    let far = last.chars().count() / 3 + 1;
    KEYS.iter()
        .map(|key| {
            let (known_section, known_last) = split(key.name);
            ((edits(last, known_last), known_section != section), key.name)
        })
        .filter(|((edits, _), _)| *edits <= far)
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, name)| name)
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or(("", name))
}

/// Levenshtein's distance: how many letters to put in, take out or change.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_across_sections() {
        for (unknown, known) in [
            ("runs.maxx", Some("runs.max")),
            ("repositry", Some("repository")),
            ("memory_mib", Some("machine.memory_mib")),
            ("machin", Some("machine")),
            ("timeouts.boots_s", Some("timeouts.boot_s")),
            ("colour", None),
        ] {
            assert_eq!(nearest(unknown), known, "{unknown}");
        }
    }
}
