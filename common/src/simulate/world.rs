//! A world as its file describes it, and what is said about a kernel in it.

use super::scenario::Family;
use crate::bisect::Costs;
use crate::crash::{Crash, Target};
use crate::job::Mode;
use serde::{Deserialize, Serialize};

/// What is searched for, what things cost, and who answers.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub mode: Mode,
    /// Index of the end that shows the crash; absent, the last commit.
    pub bad: Option<u32>,
    pub good: Option<u32>,
    /// Absent only where a scenario makes its own.
    pub crash: Option<Target>,
    pub costs: Costs,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A program and its arguments.
    Oracle(Vec<String>),
    /// A built-in family; `tail` is the share of culprits in the newest hundredth.
    Scenario { family: Family, tail: f64 },
}

/// A world file that cannot be used; it names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidWorld {
    pub field: String,
    pub message: String,
}

/// Asks for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    pub index: u32,
    /// Counts up for each kernel.
    pub run: u32,
    /// The commit that is reverted on top of `index`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert: Option<u32>,
}

/// What was seen in one run, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Said {
    Ok,
    /// As described as the crash that is searched for.
    Crashed(Target),
    BootFailed {
        #[serde(default)]
        title: Option<String>,
    },
    BuildFailed {
        #[serde(default)]
        message: Option<String>,
    },
    Infra {
        #[serde(default)]
        reason: Option<String>,
    },
    RevertConflict,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Answer {
    #[serde(flatten)]
    pub said: Said,
    /// Equal ones are equal kernels.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    bad: Option<u32>,
    #[serde(default)]
    good: Option<u32>,
    #[serde(default)]
    crash: Option<Target>,
    #[serde(default)]
    build_s: Option<f64>,
    #[serde(default)]
    visit_s: Option<f64>,
    #[serde(default)]
    revisit_s: Option<f64>,
    #[serde(default)]
    runs_per_visit: Option<u32>,
    #[serde(default)]
    oracle: Option<Vec<String>>,
    #[serde(default)]
    scenario: Option<String>,
    #[serde(default)]
    tail: Option<f64>,
}

impl World {
    /// Reads a world file (JSON).
    pub fn parse(text: &str) -> Result<Self, InvalidWorld> {
        let file: File =
            serde_json::from_str(text).map_err(|error| invalid("the file", error.to_string()))?;
        let mode = match file.mode.as_deref() {
            None | Some("cause") => Mode::Cause,
            Some("fix") => Mode::Fix,
            Some(other) => {
                return Err(invalid("mode", format!("{other:?} is neither \"cause\" nor \"fix\"")));
            }
        };
        let costs = costs(&file)?;
        let source = source(&file)?;
        if file.crash.is_none() && matches!(source, Source::Oracle(_)) {
            return Err(invalid("crash", "is missing; give at least its title".into()));
        }
        if mode == Mode::Fix && (file.good.is_none() || matches!(source, Source::Scenario { .. })) {
            return Err(invalid(
                "mode",
                "\"fix\" needs an oracle, and in `good` the revision without the crash".into(),
            ));
        }
        Ok(World { mode, bad: file.bad, good: file.good, crash: file.crash, costs, source })
    }
}

fn costs(file: &File) -> Result<Costs, InvalidWorld> {
    let usual = Costs::default();
    let seconds = |field: &str, given: Option<f64>, usual: f64| match given.unwrap_or(usual) {
        value if value.is_finite() && value >= 0.0 => Ok(value),
        value => Err(invalid(field, format!("{value} is not a number of seconds"))),
    };
    let runs_per_visit = file.runs_per_visit.unwrap_or(usual.runs_per_visit);
    if !(1..=10_000).contains(&runs_per_visit) {
        return Err(invalid("runs_per_visit", format!("{runs_per_visit} is not between 1 and 10000")));
    }
    Ok(Costs {
        build_s: seconds("build_s", file.build_s, usual.build_s)?,
        visit_s: seconds("visit_s", file.visit_s, usual.visit_s)?,
        revisit_s: seconds("revisit_s", file.revisit_s, usual.revisit_s)?,
        runs_per_visit,
    })
}

fn source(file: &File) -> Result<Source, InvalidWorld> {
    let tail = file.tail.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&tail) {
        return Err(invalid("tail", format!("{tail} is not between 0 and 1")));
    }
    match (&file.oracle, &file.scenario) {
        (Some(command), None) if command.is_empty() => Err(invalid("oracle", "names no program".into())),
        (Some(command), None) => Ok(Source::Oracle(command.clone())),
        (None, Some(name)) => {
            let family = name.parse().map_err(|message| invalid("scenario", message))?;
            Ok(Source::Scenario { family, tail })
        }
        (Some(_), Some(_)) => Err(invalid("oracle", "stands beside `scenario`; give one of them".into())),
        (None, None) => Err(invalid("oracle", "is missing; give it, or `scenario`".into())),
    }
}

fn invalid(field: &str, message: String) -> InvalidWorld {
    InvalidWorld { field: field.into(), message }
}

/// A crash of which no more is known than a world tells.
pub(super) fn crash(told: &Target) -> Crash {
    Crash {
        alt_titles: told.alt_titles.clone(),
        frame: told.frames.first().cloned(),
        frames: told.frames.clone(),
        files: told.files.clone(),
        ..Crash::titled(&told.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_read() {
        let world = World::parse(
            r#"{"mode":"cause","bad":9,"good":null,"crash":{"title":"WARNING in f","files":["a.c"]},
                "build_s":5,"visit_s":6,"runs_per_visit":7,"revisit_s":8,"oracle":["python3","w.py"],"note":"kept"}"#,
        )
        .expect("a world");
        assert_eq!(world.costs, Costs { build_s: 5.0, visit_s: 6.0, revisit_s: 8.0, runs_per_visit: 7 });
        assert_eq!((world.bad, world.good), (Some(9), None));
        assert_eq!(world.source, Source::Oracle(vec!["python3".into(), "w.py".into()]));
    }

    #[test]
    fn a_mistake_names_its_field() {
        for (text, expected) in [
            (r#"{"scenario":"S9"}"#, "scenario: \"S9\" is none of S0, S1, S2, S3, S4, N0, N1"),
            (r#"{"oracle":["x"]}"#, "crash: is missing; give at least its title"),
            (r#"{"crash":{"title":"a"}}"#, "oracle: is missing; give it, or `scenario`"),
            (r#"{"scenario":"S1","oracle":["x"]}"#, "oracle: stands beside `scenario`; give one of them"),
            (r#"{"scenario":"S1","build_s":-1}"#, "build_s: -1 is not a number of seconds"),
            (r#"{"scenario":"S1","runs_per_visit":0}"#, "runs_per_visit: 0 is not between 1 and 10000"),
            (r#"{"scenario":"S1","mode":"both"}"#, "mode: \"both\" is neither \"cause\" nor \"fix\""),
        ] {
            assert_eq!(World::parse(text).expect_err(text).to_string(), expected);
        }
    }

    #[test]
    fn answers_are_read() {
        let answer = |text: &str| serde_json::from_str::<Answer>(text).expect(text);
        assert_eq!(answer(r#"{"outcome":"ok","fingerprint":"ab"}"#).fingerprint.as_deref(), Some("ab"));
        assert_eq!(
            answer(r#"{"outcome":"boot-failed","title":""}"#).said,
            Said::BootFailed { title: Some(String::new()) }
        );
        assert_eq!(answer(r#"{"outcome":"revert-conflict"}"#).said, Said::RevertConflict);
    }
}
