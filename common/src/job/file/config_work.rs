//! The section `[config_work]`: what is to be done about the configuration.

use super::{CONFIG_BYTES_MAX, Input, JobFileError, checks, file_name};
use crate::job::{ConfigWish, Fragment, Job, Mode, Symptom};
use serde::Deserialize;

const BASELINE: &str = "config_work.baseline";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfigWork {
    drop_instrumentation: Option<bool>,
    baseline: Option<String>,
    steps_max: Option<i64>,
}

/// What the section asks for; the baseline is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    drop_instrumentation: bool,
    baseline: Option<String>,
    steps_max: u32,
}

impl RawConfigWork {
    pub fn check(self, mode: Mode, symptom: Symptom) -> Result<Asked, JobFileError> {
        let default = ConfigWish::default();
        let steps_given = self.steps_max.is_some();
        let asked = Asked {
            drop_instrumentation: self.drop_instrumentation.unwrap_or(default.drop_instrumentation),
            baseline: self.baseline.map(|path| checks::path(BASELINE, path)).transpose()?,
            steps_max: checks::number("config_work.steps_max", self.steps_max, default.steps_max)?,
        };
        let is_empty = !asked.drop_instrumentation && asked.baseline.is_none();
        if steps_given && is_empty {
            let help =
                "set config_work.drop_instrumentation = true or name a config_work.baseline, or remove it";
            return Err(JobFileError::value("config_work.steps_max", "has nothing to limit", help));
        }
        goes_with(is_empty, mode, symptom)?;
        Ok(asked)
    }
}

/// The work asks of every kernel whether it shows a crash.
fn goes_with(is_empty: bool, mode: Mode, symptom: Symptom) -> Result<(), JobFileError> {
    if is_empty || symptom == Symptom::Crash {
        return Ok(());
    }
    let problem = format!("has no use with mode = {:?}", symptom.word(mode));
    Err(JobFileError::value("config_work", problem, "remove the section [config_work]"))
}

impl Asked {
    pub fn input(&self) -> Option<Input> {
        let path = self.baseline.clone()?;
        Some(Input { field: BASELINE.into(), path, bytes_max: CONFIG_BYTES_MAX })
    }

    /// `text` is the baseline's.
    pub fn with(self, text: Option<String>) -> ConfigWish {
        let named = self.baseline.zip(text);
        ConfigWish {
            drop_instrumentation: self.drop_instrumentation,
            baseline: named.map(|(path, text)| Fragment { name: file_name(&path), text }),
            steps_max: self.steps_max,
        }
    }
}

/// Holds what came over the wire to the same rules.
pub(super) fn check(job: &Job) -> Result<(), JobFileError> {
    let wish = &job.config_work;
    if let Some(baseline) = &wish.baseline {
        checks::path(BASELINE, baseline.name.clone())?;
        super::wire::config(BASELINE, &baseline.name, &baseline.text)?;
    }
    checks::number("config_work.steps_max", Some(wish.steps_max.into()), wish.steps_max)?;
    goes_with(wish.is_empty(), job.mode, job.symptom)
}
