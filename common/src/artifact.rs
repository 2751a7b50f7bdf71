//! What is stored by digest.

use crate::id::Digest;
use serde::{Deserialize, Serialize};

/// A stored value: its name is the SHA-256 of its bytes, and its reader verifies that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Artifact {
    pub digest: Digest,
    pub size: u64,
}

/// The path of an artifact below the store's root: two levels, so that no directory grows without bound.
pub fn path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("sha256/{}/{hex}", &hex[..2])
}

/// What a store's answer says in a field of its error, such as `Code`: the first line, if people can read it.
pub fn error_field<'a>(answer: &'a str, field: &str) -> Option<&'a str> {
    let (_, after) = answer.split_once(&format!("<{field}>"))?;
    let (value, _) = after.split_once(&format!("</{field}>"))?;
    let line = value.lines().next()?.trim();
    let is_plain = !line.is_empty() && line.len() <= ERROR_BYTES_MAX && !line.contains(char::is_control);
    is_plain.then_some(line)
}

/// Of a field of an error: clouds say what is wrong in a sentence.
const ERROR_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_of_an_error_is_found_or_left() {
        let azure = "\u{feff}<?xml version=\"1.0\"?>\n<Error><Code>ContainerNotFound</Code><Message>The specified \
                     container does not exist.\nRequestId:1</Message></Error>";
        assert_eq!(error_field(azure, "Code"), Some("ContainerNotFound"));
        assert_eq!(error_field(azure, "Message"), Some("The specified container does not exist."));
        let long = format!("<Code>{}</Code>", "x".repeat(ERROR_BYTES_MAX + 1));
        for odd in ["", "<Code>", "</Code><Code>", "<Code></Code>", "<Code>\u{1b}[2J</Code>", &long] {
            assert_eq!(error_field(odd, "Code"), None, "{odd:?}");
        }
    }
}
