//! Which compiler a revision gets: rules on the release it descends from.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a build finds its source in the container; debug information names files below it.
pub const SOURCE_DIR: &str = "/src";

/// A kernel release `vX.Y[.Z]`, without release candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl FromStr for Release {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a release of the form vX.Y or vX.Y.Z");
        let rest = text.strip_prefix('v').ok_or_else(refuse)?;
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<u32> = rest
            .split('.')
            .map(|part| if plain(part) { part.parse().ok() } else { None })
            .collect::<Option<_>>()
            .ok_or_else(refuse)?;
        match parts[..] {
            [major, minor] => Ok(Release { major, minor, patch: 0 }),
            [major, minor, patch] => Ok(Release { major, minor, patch }),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for Release {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> String {
        release.to_string()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// One rule: from `since` on, `image` builds the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The oldest release this rule serves; absent: any.
    #[serde(default)]
    pub since: Option<Release>,
    /// The name of the container image.
    pub image: String,
}

/// The rules of a farm, asked in order of falling `since`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Takes rules in any order.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.since));
        Rules(rules)
    }

    /// The image for a revision whose newest reachable release is `release`; `None` when no
    /// rule serves it. A revision without any release counts as newer than all: it usually is
    /// a repository without tags.
    pub fn choose(&self, release: Option<Release>) -> Option<&str> {
        let serves = |rule: &&Rule| match (rule.since, release) {
            (None, _) | (Some(_), None) => true,
            (Some(since), Some(release)) => release >= since,
        };
        self.0.iter().find(serves).map(|rule| rule.image.as_str())
    }
}

impl Default for Rules {
    /// The images that `scripts/toolchain` makes: gcc 12 for what is newer than the
    /// revisions gcc 10 is known to build cleanly (v6.6), gcc 10 for the rest. What is not newer
    /// than v4.18 wants an older compiler than either.
    fn default() -> Self {
        let rule = |since: Option<&str>, image: &str| Rule {
            since: since.map(|text| text.parse().expect("a literal release")),
            image: image.into(),
        };
        Rules::new(vec![rule(Some("v4.19"), "kulprit/gcc-10"), rule(Some("v6.7"), "kulprit/gcc-12")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rule_that_serves_wins() {
        let rules = Rules::new(vec![
            Rule { since: None, image: "old".into() },
            Rule { since: Some("v6.1".parse().unwrap()), image: "new".into() },
        ]);
        for (release, image) in
            [(Some("v5.19"), "old"), (Some("v6.1"), "new"), (Some("v6.1.3"), "new"), (None, "new")]
        {
            let release = release.map(|text| text.parse().unwrap());
            assert_eq!(rules.choose(release), Some(image), "{release:?}");
        }
    }

    #[test]
    fn the_default_rules_serve_what_their_compilers_can_build() {
        for (release, image) in [
            ("v4.18.20", None),
            ("v4.19", Some("kulprit/gcc-10")),
            ("v6.6.90", Some("kulprit/gcc-10")),
            ("v6.7", Some("kulprit/gcc-12")),
        ] {
            assert_eq!(Rules::default().choose(Some(release.parse().unwrap())), image, "{release}");
        }
    }

    #[test]
    fn releases_are_tags_without_candidates() {
        for bad in ["v6.1-rc3", "6.1", "v6", "v6.1.2.3", "next-20230101", "v6.x", "v+6.1"] {
            assert!(bad.parse::<Release>().is_err(), "{bad}");
        }
        assert_eq!("v6.1.12".parse::<Release>().unwrap().to_string(), "v6.1.12");
    }
}
