//! One report's lines to a crash: chooses the rule, the frame and the titles.

use super::Crash;
use super::damage;
use super::helpers::is_helper;
use super::line::Line;
use super::oops::Compiled;
use super::rules::{Rule, Source, Through};
use super::stack::{self, Section};
use super::stall;
use super::title::{NO_FRAME, fill, names_of, settle};

/// Frames and files that a crash carries: enough to compare two stacks.
const FRAMES_MAX: usize = 32;
const FILES_MAX: usize = 32;
/// Report text that a crash carries.
const REPORT_BYTES_MAX: usize = 64 * 1024;
/// Ends the text of a report that had more lines than are kept.
const CUT: &str = "[the report goes on and was cut here]\n";

/// A report as the console gave it; the first line is the oops line.
pub(super) struct Report<'a> {
    pub lines: &'a [Line],
    pub candidates: &'a [&'static Compiled],
    pub suppressed: bool,
    pub panicked: bool,
    /// There were more lines than are kept.
    pub cut: bool,
}

/// Names and describes the crash; `None` if the lines after the lead show that it was none.
pub(super) fn crash(report: &Report) -> Option<Crash> {
    let lead = report.lines.first()?;
    let choice = choose(report)?;
    let sections = stack::sections(report.lines.iter().map(|line| line.text.as_str()));
    let named = name(&choice, report, &sections);
    let rule = choice.rule.rule;

    let mut titles = titles(&choice, &named, origin(report.lines, &sections).as_deref());
    let title = titles.remove(0);
    titles.sort();
    let frameless = named.frame.is_none() && rule.title.contains("{frame}");
    let trace_lost = rule.needs_trace && !damage::traced(report.lines, &sections);
    let last_line = report.lines.last().map_or(lead.number, |line| line.number);
    Some(Crash {
        title,
        alt_titles: titles,
        frame: named.frame.as_deref().map(|frame| names_of(frame).swap_remove(0)),
        frames: named.frames,
        files: files(lead, &sections),
        corrupted: frameless
            || trace_lost
            || choice.incomplete
            || rule.fragment
            || damage::damaged(report.lines, &sections),
        suppressed: report.suppressed,
        panicked: report.panicked,
        first_line: lead.number,
        last_line,
        report: text(report.lines, report.cut),
    })
}

/// The title and then its alternatives, for every name that the function goes by.
fn titles(choice: &Choice, named: &Named, origin: Option<&str>) -> Vec<String> {
    let rule = choice.rule.rule;
    let names = named.frame.as_deref().map_or_else(|| vec![NO_FRAME.to_owned()], names_of);
    let mut titles: Vec<String> = Vec::new();
    for template in std::iter::once(&rule.title).chain(rule.alts) {
        if template.contains("{origin}") && origin.is_none() {
            continue;
        }
        for function in &names {
            let title = fill(template, |group| match group {
                "frame" => Some(function.clone()),
                "origin" => origin.map(str::to_owned),
                _ => choice.groups.iter().find(|(key, _)| *key == group).map(|(_, value)| value.clone()),
            });
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
    }
    titles
}

/// Who allocated memory that was read before it was written.
fn origin(lines: &[Line], sections: &[Section]) -> Option<String> {
    let created = lines.iter().position(|line| line.text.trim() == "Uninit was created at:")?;
    let section = sections.iter().find(|section| section.begin > created)?;
    let frame = section.frames.iter().find(|frame| !is_helper(&frame.function, Through::Allocation))?;
    Some(frame.function.clone())
}

/// The rule that names the crash, with what its patterns captured.
struct Choice {
    rule: &'static Compiled,
    groups: Vec<(&'static str, String)>,
    /// The report should have had more lines.
    incomplete: bool,
}

fn choose(report: &Report) -> Option<Choice> {
    let lead = &report.lines[0].text;
    let mut incomplete = false;
    for &rule in report.candidates {
        let Some(groups) = captures(&rule.lead, lead) else { continue };
        let Some(pattern) = &rule.then else {
            return Some(Choice { rule, groups, incomplete });
        };
        if let Some(found) = report.lines[1..].iter().find_map(|line| captures(pattern, &line.text)) {
            let groups = groups.into_iter().chain(found).collect();
            return Some(Choice { rule, groups, incomplete });
        }
        incomplete |= !rule.rule.then_decides;
    }
    // Nothing complete: the lead alone still says what it was.
    let rule = report.candidates.iter().find(|c| !c.rule.then_decides)?;
    let groups = captures(&rule.lead, lead)?;
    let groups = groups.into_iter().filter(|(name, _)| *name != "frame").collect();
    Some(Choice { rule, groups, incomplete })
}

/// Groups that capture a function, perhaps with an offset.
const FUNCTIONS: &[&str] = &["frame", "other"];

fn function(text: &str) -> String {
    stack::plain(text.split("+0x").next().unwrap_or(text))
}

fn captures(pattern: &'static regex::Regex, text: &str) -> Option<Vec<(&'static str, String)>> {
    let found = pattern.captures(text)?;
    let named = pattern.capture_names().flatten();
    let value = |name: &str| {
        let text = found.name(name)?.as_str();
        Some(if FUNCTIONS.contains(&name) { function(text) } else { settle(text) })
    };
    Some(named.filter_map(|name| Some((name, value(name)?))).collect())
}

/// Who is to blame, and the stack that shows it.
#[derive(Default)]
struct Named {
    frame: Option<String>,
    frames: Vec<String>,
}

fn name(choice: &Choice, report: &Report, sections: &[Section]) -> Named {
    let rule = choice.rule.rule;
    let mut named = Named { frame: None, frames: first_stack(rule, sections) };
    for source in rule.sources {
        let frame = match source {
            Source::Text => told(choice, report, sections),
            Source::Stack if damage::mixed(report.lines, sections) => None,
            Source::Stack => blamed(rule, sections, 0),
            Source::Backtrace if damage::mixed(report.lines, sections) => None,
            Source::Backtrace => {
                let heading = report.lines.iter().position(|line| line.text.trim() == "stack backtrace:");
                heading.and_then(|at| blamed(rule, sections, at))
            }
            Source::Entry => sections.first().and_then(|section| stall::entry(&section.frames)),
            Source::Interrupted => stall::stalled_at(sections).map(|(function, section)| {
                named.frames = useful(rule, stall::interrupted(&section.frames).iter());
                function
            }),
        };
        if frame.is_some() {
            named.frame = frame;
            break;
        }
    }
    named
}

/// The first function worth naming that the oops line, or a follow-up line before the stack, tells.
fn told(choice: &Choice, report: &Report, sections: &[Section]) -> Option<String> {
    let worth = |name: &String| is_name(name) && !is_helper(name, choice.rule.rule.through);
    let frame_of =
        |groups: Vec<(&'static str, String)>| groups.into_iter().find(|(name, _)| *name == "frame");
    let of_lead = choice.groups.iter().find(|(name, _)| *name == "frame").map(|(_, frame)| frame.clone());
    of_lead.filter(worth).or_else(|| {
        let pattern = choice.rule.then.as_ref()?;
        let end = sections.first().map_or(report.lines.len(), |section| section.begin);
        let before_stack = report.lines.get(1..end)?.iter();
        before_stack.filter_map(|line| Some(frame_of(captures(pattern, &line.text)?)?.1)).find(worth)
    })
}

/// The first function worth naming in the first stack that begins at or after line `from`.
fn blamed(rule: &Rule, sections: &[Section], from: usize) -> Option<String> {
    let mut candidates = sections.iter().filter(|section| section.end >= from);
    let first = candidates.next()?;
    let second = if first.has_trace { None } else { candidates.next() };
    [Some(first), second].into_iter().flatten().find_map(|section| {
        let frame = section.frames.iter().find(|frame| !is_helper(&frame.function, rule.through))?;
        Some(frame.function.clone())
    })
}

fn first_stack(rule: &Rule, sections: &[Section]) -> Vec<String> {
    let section = sections.iter().find(|section| section.has_trace).or(sections.first());
    section.map_or_else(Vec::new, |section| useful(rule, section.frames.iter()))
}

fn useful<'a>(rule: &Rule, frames: impl Iterator<Item = &'a stack::Frame>) -> Vec<String> {
    let useful = frames.filter(|frame| !is_helper(&frame.function, rule.through));
    let mut names: Vec<String> = useful.map(|frame| frame.function.clone()).take(FRAMES_MAX + 1).collect();
    names.dedup();
    names.truncate(FRAMES_MAX);
    names
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !text.contains('/')
}

/// Source files named by the oops line (`at mm/slab.c:12`) and by symbolised frames worth naming.
fn files(lead: &Line, sections: &[Section]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    let of_lead = lead.text.split_whitespace().filter_map(|word| {
        let (path, number) = word.trim_end_matches('!').split_once(':')?;
        let number = number.split(':').next()?;
        let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let source = [".c", ".h", ".S", ".rs"].iter().any(|end| path.ends_with(end));
        (numbered && source && path.contains('/')).then(|| path.trim_start_matches("./").to_owned())
    });
    let worth = sections.iter().flat_map(|s| &s.frames).filter(|f| !is_helper(&f.function, Through::Nothing));
    let of_frames = worth.filter_map(|frame| frame.file.clone());
    for file in of_lead.chain(of_frames) {
        if files.len() < FILES_MAX && !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

fn text(lines: &[Line], cut: bool) -> String {
    let mut report = String::new();
    for line in lines {
        if report.len() + line.text.len() + 1 + CUT.len() > REPORT_BYTES_MAX {
            return report + CUT;
        }
        report.push_str(&line.text);
        report.push('\n');
    }
    if cut { report + CUT } else { report }
}
