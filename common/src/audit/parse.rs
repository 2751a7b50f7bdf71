//! The log's grammar: lines to values, one after the other, whatever the bytes.

use super::line::{self, Line};
use super::log::{ALL_RUNS, ALL_RUNS_MAX, Close, Kind, Log, Published, Role, Run, Test, Word};
use crate::id::RevisionId;

/// What is kept of a line, of the crash report, and of tests: more is no log of a bisection, and
/// each test is weighed against each other.
const LINE_BYTES_MAX: usize = 16 << 10;
const REPORT_BYTES_MAX: usize = 256 << 10;
const TESTS_MAX: usize = 400;
const LISTED_MAX: usize = 10_000;

/// Reads a log as it comes.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    line: usize,
    /// By the header.
    kind: Option<Kind>,
    log: Draft,
    /// For the next test.
    role: Option<Role>,
    left: Option<u64>,
    picked: Option<(RevisionId, String)>,
    place: Place,
}

/// Which part of the log a line stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Tests,
    /// After the list of suspects was announced.
    Suspects,
    /// The blamed commit, as git shows it.
    Shown,
    Report,
}

#[derive(Debug, Default)]
struct Draft {
    start: Option<RevisionId>,
    range: Option<(RevisionId, RevisionId)>,
    tests: Vec<Test>,
    published: Published,
    suspects: Vec<RevisionId>,
    untested_parent: Option<RevisionId>,
    culprit_signature: Option<String>,
    parent_signatures: Vec<String>,
    close: Option<Close>,
    times: (Option<f64>, Option<f64>, Option<f64>),
    crash: Option<String>,
    report: String,
    recognised: usize,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.rest.len());
            self.rest.extend(&text[..text.len().min(room)]);
            if ended {
                self.end_line();
            }
        }
    }

    pub fn finish(mut self) -> Log {
        if !self.rest.is_empty() {
            self.end_line();
        }
        let draft = self.log;
        let kind = self.kind.unwrap_or_else(|| guess(&draft.tests));
        let close = draft.close.unwrap_or(match draft.published.revision {
            Some(_) => Close::Culprit,
            None => Close::Truncated,
        });
        Log {
            kind,
            start: draft.start,
            range: draft.range,
            tests: draft.tests,
            published: draft.published,
            suspects: draft.suspects,
            untested_parent: draft.untested_parent,
            culprit_signature: draft.culprit_signature,
            parent_signatures: draft.parent_signatures,
            close,
            total_s: draft.times.0,
            build_s: draft.times.1,
            test_s: draft.times.2,
            crash: draft.crash,
            report: draft.report,
            recognised: draft.recognised,
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.rest);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\r');
        self.line += 1;
        if self.place == Place::Report {
            if self.log.report.len() + text.len() < REPORT_BYTES_MAX {
                self.log.report.push_str(text);
                self.log.report.push('\n');
            }
            return;
        }
        let line = line::read(text);
        let shown = matches!(line, Line::Merge | Line::File(_) | Line::Message(_));
        self.log.recognised += usize::from(line != Line::Unknown && !shown);
        if !self.take_test(&line) {
            self.take_closing(line);
        }
    }

    /// Lines of the search; says whether it was one.
    fn take_test(&mut self, line: &Line<'_>) -> bool {
        match line {
            Line::Cause(id) => (self.kind, self.log.start) = (Some(Kind::Cause), *id),
            Line::Fix(id) => (self.kind, self.log.start) = (Some(Kind::Fix), *id),
            Line::Release(tag) => self.role = Some(Role::Release((*tag).to_owned())),
            Line::Head => self.role = Some(Role::Head),
            Line::Testing(id) => self.begin(*id),
            Line::Compiler(text) => self.last(|test| test.compiler = Some((*text).to_owned())),
            Line::Signature(text) => self.last(|test| test.signature = Some((*text).to_owned())),
            Line::BuildFailed(text) => self.last(|test| test.build_failed = Some((*text).to_owned())),
            Line::AllRuns(run) => self.last(|test| test.runs.push((run.clone(), ALL_RUNS))),
            Line::HowMany(count) => self.last(|test| {
                if let [(_, times)] = test.runs.as_mut_slice() {
                    *times = (*count).min(ALL_RUNS_MAX);
                }
            }),
            Line::OneRun(run) => self.last(|test| match test.runs.last_mut() {
                Some((last, times)) if last == run => *times += 1,
                Some(_) | None => test.runs.push((run.clone(), 1)),
            }),
            Line::Range(ids) => {
                self.place = Place::Tests;
                if let [newer, older, ..] = ids[..] {
                    self.log.range = Some((newer, older));
                }
            }
            Line::Verdict(word, id) => self.judge(*word, *id),
            Line::Left(left) => self.left = Some(*left),
            Line::Picked(id, subject) => self.picked = Some((*id, (*subject).to_owned())),
            _ => return false,
        }
        true
    }

    fn begin(&mut self, revision: RevisionId) {
        if self.log.tests.len() >= TESTS_MAX {
            return;
        }
        let subject = self.picked.take().filter(|(id, _)| *id == revision).map(|(_, subject)| subject);
        let left = self.left.take();
        let role = match self.role.take() {
            Some(role) => role,
            None if self.log.published.revision.is_some() => Role::Parent,
            None if self.log.range.is_some() || left.is_some() => Role::Step,
            None if self.log.tests.is_empty() => Role::Start,
            None => Role::Step,
        };
        self.log.tests.push(Test {
            line: self.line,
            role,
            revision,
            subject,
            left,
            compiler: None,
            signature: None,
            build_failed: None,
            runs: Vec::new(),
            word: None,
        });
    }

    fn last(&mut self, change: impl FnOnce(&mut Test)) {
        if let Some(test) = self.log.tests.last_mut() {
            change(test);
        }
    }

    fn judge(&mut self, word: Word, id: Option<RevisionId>) {
        if self.log.range.is_none() && self.log.tests.is_empty() {
            return;
        }
        let last = self.log.tests.last().map(|test| test.revision);
        let Some(id) = id.or(last) else { return };
        let own = self.log.tests.iter_mut().rev().find(|test| test.revision == id && test.role == Role::Step);
        match own {
            Some(test) => test.word = Some(word),
            // A verdict that was known without another test.
            None if self.log.range.is_some() => {
                self.role = Some(Role::Step);
                self.begin(id);
                self.last(|test| test.word = Some(word));
            }
            None => {}
        }
    }

    fn take_closing(&mut self, line: Line<'_>) {
        let log = &mut self.log;
        match line {
            Line::FirstBad(id) => {
                log.published.revision = Some(id);
                log.close = Some(Close::Culprit);
                self.place = Place::Shown;
            }
            Line::FirstBadSubject(id, subject) => {
                log.published.revision = Some(id);
                log.published.subject = subject.to_owned();
                log.close = Some(Close::Culprit);
                self.place = Place::Tests;
            }
            Line::Inconclusive => {
                log.close = Some(Close::Inconclusive);
                self.place = Place::Suspects;
            }
            Line::Suspect(id) if self.place == Place::Suspects && log.suspects.len() < LISTED_MAX => {
                log.suspects.push(id);
            }
            Line::UntestedParent(id) => log.untested_parent = Some(id),
            Line::CulpritSignature(text) => log.culprit_signature = Some(text.to_owned()),
            Line::ParentSignature(text) => log.parent_signatures.push(text.to_owned()),
            Line::Times { total, build, test } => log.times = (total, build, test),
            Line::Error(text) if log.published.revision.is_none() => {
                log.close = Some(Close::Error(text.to_owned()));
            }
            Line::NotReproduced => log.close = Some(Close::NotReproduced),
            Line::OldestReleaseHasBug => log.close = Some(Close::OldestReleaseHasBug),
            Line::NotFixed => log.close = Some(Close::NotFixed),
            Line::CrashTitle(title) => {
                log.crash = Some(title.to_owned());
                self.place = Place::Report;
            }
            Line::Merge => log.published.merge |= self.place == Place::Shown,
            Line::File(path) if self.place == Place::Shown && log.published.files.len() < LISTED_MAX => {
                log.published.files.push(path.to_owned());
            }
            Line::Message(text) if self.place == Place::Shown && log.published.subject.is_empty() => {
                log.published.subject = text.trim().to_owned();
            }
            _ => {}
        }
    }
}

/// Without a header: where runs without a crash are called bad, a fix was searched for.
fn guess(tests: &[Test]) -> Kind {
    let all_ok = |test: &&Test| test.total() > 0 && test.ok() == test.total();
    let called = |word| tests.iter().filter(all_ok).filter(|test| test.word == Some(word)).count();
    let is_ok = |run: &Run| *run == Run::Ok;
    let first_is_ok = tests.first().is_some_and(|test| test.runs.iter().all(|(run, _)| is_ok(run)));
    if called(Word::Bad) > called(Word::Good) && !(tests.len() == 1 && first_is_ok) {
        Kind::Fix
    } else {
        Kind::Cause
    }
}
