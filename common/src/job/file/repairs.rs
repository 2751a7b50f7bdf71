//! The lists `[[backports]]` and `[[configs]]`, of the job file and of the farm's own file.

use super::{JobFileError, checks, kconfig};
use crate::job::{Backport, Repairs, SwitchedOff};
use serde::Deserialize;

/// More known fixes, or rules, nobody keeps by hand.
const ENTRIES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackport {
    fix: Option<String>,
    title: Option<String>,
    breaks: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSwitchedOff {
    #[serde(default)]
    disable: Vec<String>,
    before: Option<String>,
}

/// Reads a farm's file, which holds these two lists and nothing else.
pub fn farm(text: &str) -> Result<Repairs, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        backports: Option<Vec<RawBackport>>,
        configs: Option<Vec<RawSwitchedOff>>,
    }
    let File { backports, configs } = toml::from_str(text).map_err(|error| error.to_string())?;
    check_raw(backports, configs).map_err(|error| error.to_string())
}

/// Holds lists from the wire to the rules of the file.
pub(super) fn check(repairs: &Repairs) -> Result<(), JobFileError> {
    for (i, backport) in numbered("backports", repairs.backports.as_deref().unwrap_or_default())? {
        check_backport(i, backport)?;
    }
    for (i, rule) in numbered("configs", repairs.configs.as_deref().unwrap_or_default())? {
        check_symbols(i, &rule.disable)?;
    }
    Ok(())
}

pub(super) fn check_raw(
    backports: Option<Vec<RawBackport>>,
    configs: Option<Vec<RawSwitchedOff>>,
) -> Result<Repairs, JobFileError> {
    let backports = backports.map(|list| list.into_iter().enumerate().map(backport).collect());
    let configs = configs.map(|list| list.into_iter().enumerate().map(rule).collect());
    let repairs = Repairs { backports: backports.transpose()?, configs: configs.transpose()? };
    check(&repairs)?;
    Ok(repairs)
}

fn backport((i, raw): (usize, RawBackport)) -> Result<Backport, JobFileError> {
    let fix = raw.fix.ok_or_else(|| JobFileError::Missing {
        field: format!("backports[{i}].fix"),
        help: "name the commit that mends the breakage".into(),
    })?;
    Ok(Backport { fix, title: raw.title, breaks: raw.breaks, is_farms: false })
}

fn rule((i, raw): (usize, RawSwitchedOff)) -> Result<SwitchedOff, JobFileError> {
    const HELP: &str = "name the first release that is to have the symbols, such as v5.10";
    let field = format!("configs[{i}].before");
    let Some(before) = raw.before else {
        return Err(JobFileError::Missing { field, help: HELP.into() });
    };
    let refused = |problem: String| JobFileError::value(&field, format!("is wrong: {problem}"), HELP);
    Ok(SwitchedOff { disable: raw.disable, before: before.parse().map_err(refused)? })
}

fn numbered<'a, T>(field: &str, list: &'a [T]) -> Result<impl Iterator<Item = (usize, &'a T)>, JobFileError> {
    if list.len() > ENTRIES_MAX {
        let problem = format!("has {} entries", list.len());
        return Err(JobFileError::value(field, problem, format!("at most {ENTRIES_MAX} are allowed")));
    }
    Ok(list.iter().enumerate())
}

fn check_backport(i: usize, backport: &Backport) -> Result<(), JobFileError> {
    checks::revision(&format!("backports[{i}].fix"), backport.fix.clone())?;
    if let Some(breaks) = &backport.breaks {
        checks::revision(&format!("backports[{i}].breaks"), breaks.clone())?;
    }
    if let Some(title) = &backport.title {
        checks::plain_texts(&format!("backports[{i}].title"), vec![title.clone()])?;
    }
    Ok(())
}

fn check_symbols(i: usize, symbols: &[String]) -> Result<(), JobFileError> {
    let field = format!("configs[{i}].disable");
    const HELP: &str = "list symbols by their whole names, such as [\"CONFIG_KCSAN\"]";
    if symbols.is_empty() {
        return Err(JobFileError::Missing { field, help: HELP.into() });
    }
    for (_, symbol) in numbered(&field, symbols)? {
        if !symbol.strip_prefix("CONFIG_").is_some_and(kconfig::is_name) {
            return Err(JobFileError::value(&field, format!("has {symbol:?}"), HELP));
        }
    }
    Ok(())
}
