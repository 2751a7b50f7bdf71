//! What keeps revisions of a long range building and booting: fixes that they lack, and symbols
//! that old ones cannot bear. A job's own lists stand in place of the farm's.

use crate::toolchain::Release;
use serde::{Deserialize, Serialize};

/// The lists, as a job or a farm has them; absent ones are another's to give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    pub backports: Option<Vec<Backport>>,
    pub configs: Option<Vec<SwitchedOff>>,
}

/// A fix that is put into revisions which do not contain it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backport {
    /// The commit, by any name git knows.
    pub fix: String,
    /// For people; absent, the commit's subject.
    pub title: Option<String>,
    /// The commit that broke what is fixed: revisions without it need no fix.
    pub breaks: Option<String>,
    /// Of the farm's list: a repository without the commit has no use for it.
    pub is_farms: bool,
}

/// Symbols that are switched off where the range reaches below a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedOff {
    pub disable: Vec<String>,
    pub before: Release,
}

impl Repairs {
    /// Takes from the farm's lists what the job has not.
    pub fn or_farms(self, farm: &Repairs) -> Repairs {
        let marked = |list: &Vec<Backport>| {
            list.iter().map(|backport| Backport { is_farms: true, ..backport.clone() }).collect()
        };
        Repairs {
            backports: self.backports.or_else(|| farm.backports.as_ref().map(marked)),
            configs: self.configs.or_else(|| farm.configs.clone()),
        }
    }

    pub fn backports(&self) -> &[Backport] {
        self.backports.as_deref().unwrap_or_default()
    }

    /// What is switched off in a range whose older end descends from `release`; without one it
    /// counts as newer than all, as for the toolchain.
    pub fn switched_off(&self, release: Option<Release>) -> impl Iterator<Item = &SwitchedOff> {
        let rules = self.configs.as_deref().unwrap_or_default();
        rules.iter().filter(move |rule| release.is_some_and(|release| release < rule.before))
    }
}
