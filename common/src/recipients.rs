//! Who should hear of a finding: people of the culprit's commit, then maintainers.
//!
//! `scripts/get_maintainer.pl` is run elsewhere; here its output is read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Addresses of one message; a list longer than this would go to nobody's filter but spam's.
const RECIPIENTS_MAX: usize = 100;
/// The longest address that mail can carry.
const EMAIL_BYTES_MAX: usize = 254;
/// With more people than this a commit needs no maintainers besides.
const PEOPLE_ENOUGH: usize = 2;
/// The list that everything is sent to, and that nobody reads for one's own subsystem.
const EVERYTHING_LIST: &str = "linux-kernel@vger.kernel.org";
/// Trailers whose people wrote the commit or vouched for it.
const VOUCHING: &[&str] = &["signed-off-by", "reviewed-by", "acked-by", "tested-by"];
/// Roles that `get_maintainer.pl` gives to those who answer for code.
const ANSWERING: &[&str] =
    &["maintainer", "supporter", "open list", "subscriber list", "moderated list", "odd fixer"];
const READING: &[&str] = &["reviewer"];

/// One address, with the name that belongs to it if one was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    pub name: String,
    pub email: String,
}

impl Mailbox {
    /// Reads `Name <a@b>`, `"Last, First" <a@b>`, `a@b (Name)` or `a@b`, and ignores what follows,
    /// such as `# v5.10+`. `None` if there is no address that mail could carry.
    pub fn parse(text: &str) -> Option<Mailbox> {
        let text = text.trim();
        if let Some((name, rest)) = split_name(text) {
            let (email, _) = rest.split_once('>')?;
            return Some(Mailbox { name: unquoted(name), email: address(email)? });
        }
        let (email, comment) = match text.split_once('(') {
            Some((email, comment)) => (email, comment.split(')').next().unwrap_or_default()),
            None => (text.split_whitespace().next()?, ""),
        };
        Some(Mailbox { name: unquoted(comment), email: address(email)? })
    }

    /// Addresses are the same whatever the case; few hosts keep to the letter of their first part.
    fn is(&self, other: &Mailbox) -> bool {
        self.email.eq_ignore_ascii_case(&other.email)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.email)
    }
}

/// What stands before and after the `<` that opens the address: one inside quotes opens none.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            '<' if !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unquoted(name: &str) -> String {
    let name = name.trim();
    let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    inner.unwrap_or(name).replace("\\\"", "\"").replace("\\\\", "\\").trim().to_owned()
}

/// The address, if it has the shape of one: nothing that could break out of a header or a command line.
fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, host) = text.rsplit_once('@')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let host_like = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let sound = !local.is_empty()
        && !local.starts_with('-')
        && local.chars().all(plain)
        && !host.is_empty()
        && !host.starts_with(['.', '-'])
        && !host.ends_with('.')
        && host.chars().all(host_like)
        && text.len() <= EMAIL_BYTES_MAX;
    sound.then(|| text.to_owned())
}

/// Who gets a message, sorted by address, nobody twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipients {
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
}

impl Recipients {
    /// The author of a commit (`Name <a@b>`) and those of its trailers who wrote or vouched for it.
    pub fn of_commit(author: &str, message: &str) -> Recipients {
        let mut recipients = Recipients::default();
        let trailers = trailers(message);
        let people = trailers.iter().filter(|(key, _)| VOUCHING.contains(&key.to_ascii_lowercase().as_str()));
        let texts = std::iter::once(author).chain(people.map(|(_, value)| value.as_str()));
        texts.filter_map(Mailbox::parse).for_each(|mailbox| recipients.add_to(mailbox));
        recipients
    }

    /// Says whether so few people stand in the commit that its files' maintainers are to be asked for.
    pub fn needs_maintainers(&self) -> bool {
        self.to.len() <= PEOPLE_ENOUGH
    }

    /// Adds whom `scripts/get_maintainer.pl` names: who answers for code to To, reviewers to Cc, and
    /// the list for everything to Cc where another list stands in To.
    pub fn add_maintainers(&mut self, output: &str) {
        let named: Vec<(Mailbox, Role)> = output.lines().filter_map(maintainer).collect();
        let other_list = named.iter().any(|(it, role)| *role == Role::List && !is_everything(it));
        for (mailbox, role) in named {
            let everything = is_everything(&mailbox) && other_list;
            match role {
                Role::Answering | Role::List if !everything => self.add_to(mailbox),
                Role::Answering | Role::List | Role::Reading => self.add_cc(mailbox),
            }
        }
    }

    fn add_to(&mut self, mailbox: Mailbox) {
        self.cc.retain(|other| !other.is(&mailbox));
        insert(&mut self.to, mailbox);
    }

    fn add_cc(&mut self, mailbox: Mailbox) {
        if !self.to.iter().any(|other| other.is(&mailbox)) {
            insert(&mut self.cc, mailbox);
        }
    }
}

/// Addresses as the log shows them: `["a@b" "c@d"]`.
pub fn quoted(list: &[Mailbox]) -> String {
    let all: Vec<String> = list.iter().map(|mailbox| format!("\"{mailbox}\"")).collect();
    format!("[{}]", all.join(" "))
}

fn insert(list: &mut Vec<Mailbox>, mailbox: Mailbox) {
    if let Some(known) = list.iter_mut().find(|other| other.is(&mailbox)) {
        if known.name.is_empty() {
            known.name = mailbox.name;
        }
    } else if list.len() < RECIPIENTS_MAX {
        let at = list.partition_point(|other| other.email < mailbox.email);
        list.insert(at, mailbox);
    }
}

fn is_everything(mailbox: &Mailbox) -> bool {
    mailbox.email.eq_ignore_ascii_case(EVERYTHING_LIST)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Answering,
    List,
    Reading,
}

/// A line such as `A <a@b> (maintainer:BLOCK LAYER,commit_signer:1/2=50%)`.
fn maintainer(line: &str) -> Option<(Mailbox, Role)> {
    let line = line.trim().strip_suffix(')')?;
    // A name may have parentheses of its own; roles stand behind the address.
    let behind_address = split_name(line).and_then(|(name, rest)| Some(name.len() + 1 + rest.find('>')? + 1));
    let (who, roles) = match behind_address {
        Some(end) => (&line[..end], line[end..].strip_prefix(" (")?),
        None => line.split_once(" (")?,
    };
    let has =
        |wanted: &[&str]| roles.split(',').any(|role| wanted.iter().any(|it| role.trim().starts_with(it)));
    let role = if roles.contains("list") && has(ANSWERING) {
        Role::List
    } else if has(ANSWERING) {
        Role::Answering
    } else if has(READING) {
        Role::Reading
    } else {
        return None;
    };
    Some((Mailbox::parse(who)?, role))
}

/// Keys and values of the trailers that end a commit message, last paragraph first.
///
/// Kernel commits often have a blank line between two blocks of them, so every paragraph from the end
/// counts that holds nothing else. The first is the subject, whatever it looks like.
fn trailers(message: &str) -> Vec<(String, String)> {
    let message = message.split("\n---\n").next().unwrap_or_default();
    let lines: Vec<&str> = message.lines().map(str::trim_end).collect();
    let paragraphs: Vec<&[&str]> =
        lines.split(|line| line.is_empty()).filter(|paragraph| !paragraph.is_empty()).skip(1).collect();
    paragraphs.into_iter().rev().map_while(trailers_of).flatten().collect()
}

/// The trailers of one paragraph, with the lines that go on with them folded in; `None` if it is prose.
/// Maintainers leave notes between them in brackets, which may take several lines:
/// `[me: fixed up a conflict]`.
fn trailers_of(paragraph: &[&str]) -> Option<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut in_note = false;
    for line in paragraph {
        if in_note || line.starts_with('[') {
            in_note = !line.ends_with(']');
        } else if line.starts_with("(cherry picked from") {
            // git's own mark, which names no person.
        } else if line.starts_with([' ', '\t']) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = Mailbox::parse(text);
            let found = found.as_ref().map(|it| (it.name.as_str(), it.email.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("A Person <a@b.org>", Some(("A Person", "a@b.org")));
        check("\"Last, First <x>\" <a@b.org> # v5.10+", Some(("Last, First <x>", "a@b.org")));
        check("a.b+c@d.e (A Person)", Some(("A Person", "a.b+c@d.e")));
        check("  <a@b>  ", Some(("", "a@b")));
        check("a@b.org", Some(("", "a@b.org")));
        check("stable@vger.kernel.org # 5.4+", Some(("", "stable@vger.kernel.org")));
        check("a@b\nBcc: c@d", Some(("", "a@b")));
        for bad in [
            "",
            "nobody",
            "a@",
            "@b",
            "A <a b@c>",
            "A <a@b",
            "-x@y",
            "A <a@b\nBcc: c@d>",
            "a@.b",
            "<\"a\"@b>",
            "é@b",
        ] {
            check(bad, None);
        }
        check(&format!("{}@b", "a".repeat(300)), None);
    }

    #[test]
    fn people_of_a_commit() {
        let message = "mm: add it\n\nAs said in\n\n    Signed-off-by: Quoted <quoted@x.org>\n\nit is so.\n\nFixes: 123 (\"x\")\nReported-by: R <r@x.org>\nSigned-off-by: A <a@x.org>\n[b: reworded]\nReviewed-by: B <b@x.org>\nAcked-By: \"C, D\" <c@x.org>\n\nTested-by: A again <A@x.org>\nCc: stable@vger.kernel.org\n";
        let recipients = Recipients::of_commit("Author <author@x.org>", message);
        assert_eq!(quoted(&recipients.to), r#"["A@x.org" "author@x.org" "b@x.org" "c@x.org"]"#);
        assert!(recipients.cc.is_empty() && !recipients.needs_maintainers());
        assert!(Recipients::of_commit("A <a@b>", "no trailers: here").needs_maintainers());
        assert_eq!(Recipients::of_commit("", ""), Recipients::default());
    }

    #[test]
    fn trailers_go_on_and_prose_has_none() {
        let check = |message: &str, expected: &str| {
            assert_eq!(quoted(&Recipients::of_commit("", message).to), expected, "{message}");
        };
        check("Signed-off-by: Subject <s@x.org>\n", "[]");
        check(
            "s\n\nb\n\nCc: stable@x.org # 5.4\nTested-by: Tess\n <tess@x.org> # on arm\n[cat: fixed\nup: and\n more]\nSigned-off-by: Cat <cat@x.org>\n",
            r#"["cat@x.org" "tess@x.org"]"#,
        );
        check(
            "s\n\nAcked-by: Q <q@x.org>\n\nThis is prose.\n\nSigned-off-by: D <d@x.org>\n",
            r#"["d@x.org"]"#,
        );
    }

    #[test]
    fn maintainers_are_added() {
        let output = "\
Jens Axboe <axboe@kernel.dk> (maintainer:BLOCK LAYER,commit_signer:1/2=50%)
\"Last, First\" <last@x.org> (supporter:THING)
Rev Iewer <rev@x.org> (reviewer:THING)
Once <once@x.org> (commit_signer:1/2=50%)
\"Par Enthesis (Firm)\" <par@x.org> (maintainer:NETWORKING [MPTCP] (old))
linux-block@vger.kernel.org (open list:BLOCK LAYER)
Linux-Kernel@vger.kernel.org (open list)
nonsense
";
        let mut recipients = Recipients::of_commit("Rev <REV@x.org>", "");
        recipients.add_maintainers(output);
        assert_eq!(
            quoted(&recipients.to),
            r#"["REV@x.org" "axboe@kernel.dk" "last@x.org" "linux-block@vger.kernel.org" "par@x.org"]"#
        );
        assert_eq!(quoted(&recipients.cc), r#"["Linux-Kernel@vger.kernel.org"]"#);
        let mut alone = Recipients::default();
        alone.add_maintainers("linux-kernel@vger.kernel.org (open list)\nR <r@x.org> (reviewer:THING)\n");
        assert_eq!(quoted(&alone.to), r#"["linux-kernel@vger.kernel.org"]"#);
        assert_eq!(quoted(&alone.cc), r#"["r@x.org"]"#);
        alone.add_maintainers("R <R@x.org> (maintainer:THING)\n");
        assert_eq!(quoted(&alone.cc), "[]");
    }
}
