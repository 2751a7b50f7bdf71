//! One line of a bisection log, by the forms that were in use since 2019.

use super::log::{Run, Word};
use crate::id::RevisionId;

/// More revisions than any repository has.
const REVISIONS_MAX: u64 = 1 << 40;

/// What a line says. `C` in the comments is a full commit id.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    Cause(Option<RevisionId>),
    Fix(Option<RevisionId>),
    Release(&'a str),
    Head,
    Testing(RevisionId),
    Compiler(&'a str),
    Signature(&'a str),
    BuildFailed(&'a str),
    AllRuns(Run),
    OneRun(Run),
    /// How many runs those of `all runs` are; our own logs say so.
    HowMany(u32),
    Range(Vec<RevisionId>),
    Verdict(Word, Option<RevisionId>),
    Left(u64),
    /// `[C] subject`
    Picked(RevisionId, &'a str),
    FirstBad(RevisionId),
    FirstBadSubject(RevisionId, &'a str),
    Inconclusive,
    /// A commit id alone.
    Suspect(RevisionId),
    UntestedParent(RevisionId),
    CulpritSignature(&'a str),
    ParentSignature(&'a str),
    Times {
        total: Option<f64>,
        build: Option<f64>,
        test: Option<f64>,
    },
    Error(&'a str),
    NotReproduced,
    OldestReleaseHasBug,
    NotFixed,
    CrashTitle(&'a str),
    Merge,
    /// A line of a diffstat, or of git's raw format.
    File(&'a str),
    /// A line of a commit's message.
    Message(&'a str),
    Known,
    Unknown,
}

/// Reads a line without its end.
pub fn read(line: &str) -> Line<'_> {
    let line = line.trim_end();
    headers(line)
        .or_else(|| tests(line))
        .or_else(|| git(line))
        .or_else(|| closing(line))
        .or_else(|| shown(line))
        .unwrap_or(Line::Unknown)
}

fn headers(line: &str) -> Option<Line<'_>> {
    let id = |rest: &str| rest.split_whitespace().find_map(|word| word.parse().ok());
    if let Some(rest) = line.strip_prefix("bisecting cause commit") {
        return Some(Line::Cause(id(rest)));
    }
    if let Some(rest) = line.strip_prefix("bisecting fixing commit") {
        return Some(Line::Fix(id(rest)));
    }
    if let Some(rest) = line.strip_prefix("testing release ") {
        return Some(Line::Release(rest.trim()));
    }
    if line.starts_with("testing current HEAD") {
        return Some(Line::Head);
    }
    let known = ["building syzkaller on ", "ensuring issue is reproducible"];
    (known.iter().any(|known| line.starts_with(known)) || line.contains(" starts bisection "))
        .then_some(Line::Known)
}

fn tests(line: &str) -> Option<Line<'_>> {
    if let Some(rest) = line.strip_prefix("testing commit ") {
        return first_id(rest).map(|(id, _)| Line::Testing(id));
    }
    if let Some(rest) = line.strip_prefix("compiler: ") {
        return Some(Line::Compiler(rest));
    }
    if let Some(rest) = line.strip_prefix("kernel signature: ") {
        return Some(Line::Signature(rest.trim()));
    }
    if let Some(rest) = line.strip_prefix("failed building ") {
        return Some(Line::BuildFailed(
            first_id(rest).map_or(rest, |(_, rest)| rest.trim_start_matches(':').trim()),
        ));
    }
    if let Some(rest) = line.strip_prefix("all runs: ") {
        return Some(Line::AllRuns(run(rest)));
    }
    if let Some(rest) = line.strip_prefix("# in ") {
        let count = rest.strip_suffix(" runs").or_else(|| rest.strip_suffix(" run"))?;
        return count.parse().ok().filter(|&count| count > 0).map(Line::HowMany);
    }
    let rest = line.strip_prefix("run #")?;
    let (number, rest) = rest.split_once(':')?;
    number.bytes().all(|digit| digit.is_ascii_digit()).then(|| Line::OneRun(run(rest)))
}

fn run(text: &str) -> Run {
    let text = text.trim();
    let behind = |start: &str| text.strip_prefix(start).map(|rest| rest.trim().to_owned());
    if text == "OK" {
        return Run::Ok;
    }
    behind("crashed:")
        .map(Run::Crashed)
        .or_else(|| behind("boot failed:").map(Run::BootFailed))
        .or_else(|| behind("basic kernel testing failed:").map(Run::TestFailed))
        .or_else(|| {
            behind("infra problem").map(|rest| Run::Infra(rest.trim_start_matches(':').trim().into()))
        })
        .unwrap_or_else(|| Run::Unknown(text.into()))
}

fn git(line: &str) -> Option<Line<'_>> {
    let command = line.strip_prefix("# ").unwrap_or(line);
    if let Some(rest) = command.strip_prefix("git bisect ") {
        let ids = || -> Vec<RevisionId> {
            rest.split_whitespace().filter_map(|word| word.trim_matches('\'').parse().ok()).collect()
        };
        let word = match rest.split_whitespace().next()? {
            "start" => return Some(Line::Range(ids())),
            "good" | "old" => Word::Good,
            "bad" | "new" => Word::Bad,
            "skip" => Word::Skip,
            _ => return None,
        };
        return Some(Line::Verdict(word, ids().first().copied()));
    }
    if let Some(rest) = line.strip_prefix("Bisecting: ") {
        let number = rest.split_whitespace().next().and_then(|word| word.parse().ok());
        let number = number.filter(|left| *left < REVISIONS_MAX);
        return Some(number.map_or(Line::Known, Line::Left));
    }
    if let Some((id, rest)) = line.strip_prefix('[').and_then(first_id) {
        return rest.strip_prefix(']').map(|subject| Line::Picked(id, subject.trim()));
    }
    let (id, rest) = first_id(line)?;
    match rest.trim() {
        "is the first bad commit" | "is the first new commit" | "is the first good commit" => {
            Some(Line::FirstBad(id))
        }
        "" => Some(Line::Suspect(id)),
        _ => None,
    }
}

fn closing(line: &str) -> Option<Line<'_>> {
    let behind = |start: &str| line.strip_prefix(start).map(str::trim);
    if let Some(rest) = behind("first bad commit:").or(behind("first good commit:")) {
        return first_id(rest).map(|(id, subject)| Line::FirstBadSubject(id, subject.trim()));
    }
    if let Some(rest) = behind("parent commit ") {
        return first_id(rest).map(|(id, _)| Line::UntestedParent(id));
    }
    if let Some(rest) = behind("culprit signature:") {
        return Some(Line::CulpritSignature(rest));
    }
    if let Some(rest) = line.strip_prefix("parent ").and_then(|rest| rest.trim().strip_prefix("signature:")) {
        return Some(Line::ParentSignature(rest.trim()));
    }
    if line.starts_with("revisions tested: ") {
        let after = |key: &str| duration(line.split_once(key)?.1);
        let (total, build, test) = (after("total time: "), after("build: "), after("test: "));
        return Some(Line::Times { total, build, test });
    }
    if let Some(rest) = behind("error:") {
        let never = rest.contains("wasn't reproduced") || rest.contains("did not reproduce");
        return Some(if never { Line::NotReproduced } else { Line::Error(rest) });
    }
    if let Some(title) = behind("crash:") {
        return Some(Line::CrashTitle(title));
    }
    if line.contains("first bad commit could be any of") || line.starts_with("bisection is inconclusive") {
        return Some(Line::Inconclusive);
    }
    if line.contains("wasn't reproduced on the original commit") {
        return Some(Line::NotReproduced);
    }
    if line.starts_with("oldest tested release already had the bug") {
        return Some(Line::OldestReleaseHasBug);
    }
    if line.starts_with("crash still not fixed") || line.starts_with("the crash still happens on HEAD") {
        return Some(Line::NotFixed);
    }
    let known =
        ["recipients (", "cc: [", "reproducer is flaky", "We cannot bisect more", "There are only 'skip'"];
    known.iter().any(|known| line.starts_with(known)).then_some(Line::Known)
}

/// The blamed commit as `git show` prints it.
fn shown(line: &str) -> Option<Line<'_>> {
    if line.starts_with("Merge: ") {
        return Some(Line::Merge);
    }
    if let Some(message) = line.strip_prefix("    ") {
        return Some(Line::Message(message));
    }
    if line.starts_with(':') {
        return line.split_once('\t').map(|(_, path)| Line::File(path.trim()));
    }
    let (path, changes) = line.strip_prefix(' ')?.split_once(" | ")?;
    let counted = changes.trim().starts_with(|first: char| first.is_ascii_digit() || first == 'B');
    counted.then(|| Line::File(path.trim()))
}

fn first_id(text: &str) -> Option<(RevisionId, &str)> {
    let id = text.get(..40)?.parse().ok()?;
    let rest = &text[40..];
    (!rest.starts_with(|next: char| next.is_ascii_hexdigit())).then_some((id, rest))
}

/// Seconds of `5h22m36.6s`.
fn duration(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || "hms.µnu".contains(c))).unwrap_or(text.len());
    let (mut seconds, mut number) = (0.0, String::new());
    for c in text[..end].chars() {
        let unit = match c {
            'h' => 3600.0,
            'm' => 60.0,
            's' => 1.0,
            _ => {
                number.push(c);
                continue;
            }
        };
        seconds += unit * number.parse::<f64>().ok()?;
        number.clear();
    }
    (end > 0 && number.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("5h22m36.6s (build", Some(19_356.6)),
            ("58m49.9s", Some(3_529.9)),
            ("12s,", Some(12.0)),
            ("", None),
            ("many", None),
            ("5x", None),
        ] {
            assert_eq!(duration(text), seconds, "{text}");
        }
    }

    #[test]
    fn forms_of_all_years_are_known() {
        let id = "d40b9fdee6dc819d8fc35f70c345cbe0394cde4c";
        let revision: RevisionId = id.parse().expect("an id");
        for (line, read_as) in [
            (format!("testing commit {id} with gcc (GCC) 8.1.0"), Line::Testing(revision)),
            (format!("testing commit {id} gcc"), Line::Testing(revision)),
            (format!("testing commit {id}0 gcc"), Line::Unknown),
            (format!("# git bisect bad {id}"), Line::Verdict(Word::Bad, Some(revision))),
            ("Bisecting: 1 revision left to test after this (roughly 1 step)".into(), Line::Left(1)),
            (format!("[{id}] mm: a subject"), Line::Picked(revision, "mm: a subject")),
            (format!("{id} is the first bad commit"), Line::FirstBad(revision)),
            (format!("first good commit: {id} x y"), Line::FirstBadSubject(revision, "x y")),
            ("all runs: OK".into(), Line::AllRuns(Run::Ok)),
            ("# in 3 runs".into(), Line::HowMany(3)),
            ("# in 1 run".into(), Line::HowMany(1)),
            ("# in 0 runs".into(), Line::Unknown),
            ("# in no run".into(), Line::Unknown),
            ("run #3: boot failed: x in y".into(), Line::OneRun(Run::BootFailed("x in y".into()))),
            ("run #3: infra problem: gone".into(), Line::OneRun(Run::Infra("gone".into()))),
            (" mm/memory.c | 34 +++--".into(), Line::File("mm/memory.c")),
            (":040000 040000 50f5 688f M\tfs".into(), Line::File("fs")),
            ("    testing commit of the mail".into(), Line::Message("testing commit of the mail")),
            (format!("parent  signature: {id}"), Line::ParentSignature(id)),
            ("\u{fffd}\u{0}".into(), Line::Unknown),
        ] {
            assert_eq!(read(&line), read_as, "{line}");
        }
    }
}
