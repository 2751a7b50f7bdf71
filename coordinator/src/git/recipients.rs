//! Who is to hear of a culprit: its author and the people in its trailers.

use kulprit_common::report::CommitDetails;

/// The trailers whose people answer for a commit.
const TRAILERS: [&str; 4] = ["signed-off-by", "reviewed-by", "acked-by", "tested-by"];

/// The author first, then the people of the trailers in their order, each address once.
pub fn recipients(details: &CommitDetails) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let trailers = trailers(&details.message);
    let named = trailers
        .iter()
        .filter(|(key, _)| TRAILERS.iter().any(|wanted| key.eq_ignore_ascii_case(wanted)))
        .map(|(_, value)| value.as_str());
    std::iter::once(details.author.as_str())
        .chain(named)
        .filter_map(parse_person)
        .filter(|(_, address)| seen.insert(address.to_lowercase()))
        .map(|(name, address)| if name.is_empty() { address } else { format!("{name} <{address}>") })
        .collect()
}

/// The trailers at the end of a message, continuation lines folded in.
///
/// Kernel commits often have a blank line between two blocks of them, so every trailing
/// paragraph counts that holds nothing else.
fn trailers(message: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = message.lines().map(str::trim_end).collect();
    let mut found = Vec::new();
    // The first paragraph is the subject, whatever it looks like.
    for paragraph in lines.split(|line| line.is_empty()).filter(|p| !p.is_empty()).skip(1) {
        match block(paragraph) {
            Some(block) => found.extend(block),
            None => found.clear(),
        }
    }
    found
}

/// The trailers of a paragraph, or `None` when it is prose.
fn block(paragraph: &[&str]) -> Option<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut note = false;
    for line in paragraph {
        let continues = line.starts_with([' ', '\t']);
        // Maintainers leave notes in brackets: `[me: fixed up a conflict]`.
        if line.starts_with('[') || (note && continues) {
            note = !line.ends_with(']');
            continue;
        }
        if note {
            note = !line.ends_with(']');
        } else if continues {
            let (_, value) = found.last_mut()?;
            value.push(' ');
            value.push_str(line.trim());
        } else {
            let (key, value) = line.split_once(':')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if key.is_empty() || !key.chars().all(plain) {
                return None;
            }
            found.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    Some(found)
}

/// Splits `Name <address> # remark` or a bare address; `None` when there is no address.
fn parse_person(text: &str) -> Option<(String, String)> {
    let (name, address) = match text.split_once('<') {
        Some((name, rest)) => (name.trim(), rest.split_once('>')?.0.trim()),
        None => ("", text.split_whitespace().next()?),
    };
    let (local, domain) = address.rsplit_once('@')?;
    let bare = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    if !bare(local) || !bare(domain) || name.contains(char::is_control) {
        return None;
    }
    Some((name.to_owned(), address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kulprit_common::id::RevisionId;

    fn check(message: &str, expected: &[&str]) {
        let details = CommitDetails {
            revision: RevisionId::from_bytes([0; 20]),
            parents: vec![],
            author: "Ann Author <ann@example.org>".into(),
            date: String::new(),
            subject: String::new(),
            message: message.into(),
            files: vec![],
        };
        let mut wanted = vec!["Ann Author <ann@example.org>"];
        wanted.extend(expected);
        assert_eq!(recipients(&details), wanted, "{message}");
    }

    #[test]
    fn trailers_name_people_once() {
        check("subject\n\nbody\n", &[]);
        check(
            "s\n\nb\n\nSigned-off-by: Ann <ANN@example.org>\nReviewed-by: \"R, Bob\" <bob@x.org>\nacked-by: bob@x.org\n",
            &["\"R, Bob\" <bob@x.org>"],
        );
        check(
            "s\n\nCc: stable@x.org # 5.4\nTested-by: Tess\n <tess@x.org> # on arm\n[cat: fixed\n up]\nSigned-off-by: Cat <cat@x.org>\n",
            &["Tess <tess@x.org>", "Cat <cat@x.org>"],
        );
    }

    #[test]
    fn two_blocks_count_and_prose_does_not() {
        check(
            "s\n\nAcked-by: Quoted <q@x.org>\n\nThis is prose.\n\nLink: https://x.org/1\n\nSigned-off-by: Dan <dan@x.org>\n",
            &["Dan <dan@x.org>"],
        );
        check("Signed-off-by: Subject <s@x.org>\n", &[]);
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        check(
            "s\n\nAcked-by: Nobody\nTested-by: A <a b@x.org>\nReviewed-by: E <@x.org>\nAcked-by: F <f@x.org\n",
            &[],
        );
    }
}
