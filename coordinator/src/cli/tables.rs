//! Tables for people, as pure functions.

use super::json::mode;
use super::story::{one_line, revision_words, since, work_words};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use kulprit_proto::v1;
use std::time::SystemTime;

/// The wall clock in the unit of the protocol.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub fn jobs(jobs: &[v1::JobView], now_ms: u64) -> String {
    if jobs.is_empty() {
        return "there are no jobs\n".into();
    }
    let mut table = table(["JOB", "NAME", "MODE", "STATE", "SUSPECTS", "TIME", "RESULT"]);
    for job in jobs {
        let state = if job.end.is_some() { "ended" } else { &job.stage };
        let suspects = job.suspects_left.map(|left| left.to_string()).unwrap_or_default();
        let result = match &job.end {
            Some(end) => result_words(end),
            None => one_line(&job.detail),
        };
        let time = since(job.submitted_ms, job.ended_ms.unwrap_or(now_ms));
        table.add_row([&job.id, &one_line(&job.name), mode(job.mode), state, &suspects, &time, &result]);
    }
    render(&table)
}

fn result_words(end: &v1::JobEnd) -> String {
    match end.culprit.get(..12) {
        Some(culprit) => format!("culprit {culprit}"),
        None if end.message.is_empty() => end.kind.clone(),
        None => format!("{}: {}", end.kind, one_line(&end.message)),
    }
}

/// A job in full.
pub fn job(view: &v1::JobView, now_ms: u64) -> String {
    let mut text = format!("job {} · {}\n", view.id, one_line(&view.name));
    let mut say = |key: &str, value: &str| {
        text.push_str(format!("  {key:12}{value}").trim_end());
        text.push('\n');
    };
    say("repository", &one_line(&view.repository));
    say("mode", mode(view.mode));
    say("state", if view.end.is_some() { "ended" } else { &view.stage });
    if !view.detail.is_empty() {
        say("", &one_line(&view.detail));
    }
    if let Some(left) = view.suspects_left {
        say("suspects", &left.to_string());
    }
    say("work", &format!("{} builds, {} runs", view.builds, view.runs));
    say("time", &since(view.submitted_ms, view.ended_ms.unwrap_or(now_ms)));
    if let Some(end) = &view.end {
        say("ending", &result_words(end));
        if !end.field.is_empty() {
            say("field", &end.field);
        }
    }
    if !view.revisions.is_empty() {
        text.push_str("\nrevisions:\n");
        for revision in &view.revisions {
            text.push_str(&format!("  {:8} {}\n", revision.state, revision_words(revision)));
        }
    }
    text.push_str(&given_up(view, now_ms));
    // A job that came to nothing has its ending once more as its summary.
    let is_new = |summary: &str| view.end.as_ref().is_none_or(|end| summary != result_words(end));
    if !view.summary.trim().is_empty() && is_new(view.summary.trim()) {
        text.push_str(&format!("\n{}\n", view.summary.trim_end()));
    }
    text
}

/// What a job gave up, and how it is tried again.
fn given_up(view: &v1::JobView, now_ms: u64) -> String {
    if view.given_up.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nin quarantine:\n");
    for it in &view.given_up {
        let revision = it.revision.as_deref().and_then(|id| id.get(..12)).map(|id| format!(" {id}"));
        let failed = it.since_ms.map(|at| {
            let (times, agents) = (it.failures, it.agents.join(", "));
            format!("failed {times} times, last {} ago, on {agents}: ", since(at, now_ms))
        });
        let (revision, failed) = (revision.unwrap_or_default(), failed.unwrap_or_default());
        let words = format!("{}{revision} {failed}{}", it.item, it.reason);
        text.push_str(&format!("  {}\n", one_line(&words)));
    }
    text.push_str(&format!("  to have it tried again: kulprit bisect release {} REV|ITEM\n", view.id));
    text
}

/// Why an agent is given nothing, and for how long.
fn quarantine_words(agent: &v1::AgentView, now_ms: u64) -> Option<String> {
    let since_ms = agent.quarantined_ms?;
    let until = match agent.quarantined_until_ms {
        Some(until) => format!("for {} more", since(now_ms, until)),
        None => "until it is released".into(),
    };
    Some(format!("in quarantine for {}, {until}: {}", since(since_ms, now_ms), agent.reason))
}

pub fn agents(agents: &[v1::AgentView], now_ms: u64) -> String {
    // Who was shut out before the coordinator started is of use to programs alone.
    let is_past = |agent: &&v1::AgentView| agent.state == "revoked" && agent.last_sync_ms.is_none();
    let agents: Vec<&v1::AgentView> = agents.iter().filter(|agent| !is_past(agent)).collect();
    if agents.is_empty() {
        return "no agent has been heard of\n".into();
    }
    let mut table = table(["AGENT", "HOST", "STATE", "GUESTS", "HEARD", "SLOT", "ATTEMPT", "FOR", "WORK"]);
    for agent in &agents {
        let ago = |at| format!("{} ago", since(at, now_ms));
        let heard = agent.last_sync_ms.map_or_else(|| "not yet".to_owned(), ago);
        let guests = if agent.accelerator.is_empty() { "none" } else { &agent.accelerator };
        let head = [&agent.id, &agent.host, &agent.state, guests, &heard].map(one_line);
        if agent.slots.is_empty() {
            table.add_row(head.clone());
        }
        for (index, slot) in agent.slots.iter().enumerate() {
            let front = if index == 0 { head.clone() } else { Default::default() };
            let slot_words = format!("{} cores, {} MiB", slot.cores, slot.memory_mib);
            let work = match &slot.work {
                Some(work) => [format!("{:x}", work.attempt), since(work.since_ms, now_ms), work_words(work)],
                None => [String::new(), String::new(), "idle".into()],
            };
            table.add_row(front.into_iter().chain([slot_words]).chain(work));
        }
    }
    let mut text = render(&table);
    for agent in &agents {
        let plain = (!agent.reason.is_empty()).then(|| agent.reason.clone());
        let reason = quarantine_words(agent, now_ms).or(plain);
        if !agent.labels.is_empty() {
            text.push_str(&format!("{}: {}\n", agent.id, one_line(&agent.labels.join(", "))));
        }
        for problem in reason.iter().chain(&agent.problems) {
            text.push_str(&format!("{}: {}\n", agent.id, one_line(problem)));
        }
    }
    text
}

/// Columns without lines, as wide as they need to be: made for reading and for `awk` alike.
/// What is stored.
pub fn artifacts(views: &[v1::ArtifactView], now_ms: u64) -> String {
    if views.is_empty() {
        return "there are no artifacts\n".into();
    }
    let mut table = table(["DIGEST", "CONTENT", "SIZE", "AGE", "NEEDED BY JOB"]);
    for view in views {
        let artifact = view.artifact.clone().unwrap_or_default();
        let (digest, size) = (hex::encode(&artifact.digest), size(artifact.size));
        let age = since(view.modified_ms, now_ms);
        table.add_row([&digest, content(&view.content), &size, &age, &view.jobs.join(", ")]);
    }
    render(&table)
}

/// What reading artifacts came to.
pub fn verdicts(whole: u64, wrong: &[v1::ArtifactVerdict]) -> String {
    let mut text = String::new();
    for it in wrong {
        let digest = it.artifact.as_ref().map(|it| hex::encode(&it.digest)).unwrap_or_default();
        let needed = match it.jobs.is_empty() {
            true => String::new(),
            false => format!(", needed by job {}", it.jobs.join(", ")),
        };
        text.push_str(&format!("{}: {digest} ({}{needed})\n", state_word(it.state()), content(&it.content)));
    }
    text + &format!("{whole} whole, {} not\n", wrong.len())
}

pub fn state_word(state: v1::ArtifactState) -> &'static str {
    match state {
        v1::ArtifactState::Whole => "whole",
        v1::ArtifactState::Corrupt => "corrupt",
        v1::ArtifactState::Missing => "missing",
        v1::ArtifactState::Unspecified => "unknown",
    }
}

/// What went, and what there was.
pub fn collected(gone: &[v1::ArtifactView], sums: &v1::ArtifactGone, is_dry: bool) -> String {
    let mut text = String::new();
    for view in gone {
        let artifact = view.artifact.clone().unwrap_or_default();
        let (digest, size) = (hex::encode(&artifact.digest), size(artifact.size));
        text.push_str(&format!("{digest} {} {size}\n", content(&view.content)));
    }
    let bytes = gone.iter().filter_map(|view| view.artifact.as_ref()).map(|it| it.size).sum();
    let verb = if is_dry { "would be removed" } else { "removed" };
    text + &format!(
        "{} of {} artifacts {verb}, {} of {}; open jobs need {}\n",
        gone.len(),
        sums.stored,
        size(bytes),
        size(sums.stored_bytes),
        sums.needed
    )
}

/// What no fact names was stored by an attempt that never said so.
fn content(content: &str) -> &str {
    if content.is_empty() { "unknown" } else { content }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=1_048_575 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

pub fn table<'a>(head: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty().set_header(head);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

pub fn render(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
