//! Versions of the two ends, and which agents a coordinator still serves.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// Whether a coordinator of this version gives work to such an agent: to one that is a minor
    /// version behind, and to any newer one, which hands back what it cannot read.
    pub fn serves(self, agent: Version) -> bool {
        (agent.major, agent.minor.saturating_add(1)) >= (self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads `1.2.3`; what follows a `-` or `+` is left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is no version such as 1.2.3");
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Result<Vec<u32>, _> = numbers.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([major, minor, patch]) => Ok(Version { major: *major, minor: *minor, patch: *patch }),
            Ok(_) | Err(_) => Err(bad()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_behind_is_served() {
        for (coordinator, agent, served) in [
            ("0.3.0", "0.3.9", true),
            ("0.3.5", "0.2.0", true),
            ("0.3.0", "0.1.9", false),
            ("0.3.0", "0.4.0", true),
            ("1.0.0", "0.9.0", false),
            ("1.1.0", "1.0.0-rc1", true),
            ("1.0.0", "2.0.0", true),
            ("0.0.0", "0.0.0", true),
        ] {
            let [coordinator, agent]: [Version; 2] = [coordinator, agent].map(|it| it.parse().unwrap());
            assert_eq!(coordinator.serves(agent), served, "{agent} at {coordinator}");
        }
        for text in ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.2.x", "-1.2.3"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
