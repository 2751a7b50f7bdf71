//! What a person following a job is told: events, and the lines of how things stand.
//!
//! Pure: updates and the time come in, text goes out.

use kulprit_common::time::render_duration;
use kulprit_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Slots beyond these are counted, not shown.
const SLOT_LINES_MAX: usize = 12;

/// Something that happened since the last update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Stage(String),
    Verdict { state: String, text: String },
    Work(String),
    Waiting(String),
    Agent(String),
}

/// What has been told already.
#[derive(Debug, Default)]
pub struct Story {
    stage: String,
    detail: String,
    verdicts: BTreeSet<(String, String, String, u32, u32)>,
    attempts: BTreeSet<u64>,
    /// Attempts that were said to wait.
    waiting: BTreeSet<u64>,
    booting: BTreeSet<String>,
    agents: BTreeMap<String, String>,
}

impl Story {
    /// What is new in an update.
    pub fn tell(&mut self, update: &v1::WatchUpdate) -> Vec<Event> {
        let mut events = Vec::new();
        self.tell_agents(&update.agents, &mut events);
        let Some(job) = &update.job else { return events };
        self.tell_verdicts(job, &mut events);
        if job.stage != self.stage {
            self.stage.clone_from(&job.stage);
            let suspects = job.suspects_left.map(|left| format!(", {}", suspects(left))).unwrap_or_default();
            events.push(Event::Stage(format!("{}{suspects}", stage_words(&job.stage))));
        }
        if job.detail != self.detail {
            self.detail.clone_from(&job.detail);
            if !job.detail.is_empty() {
                events.push(Event::Waiting(job.detail.clone()));
            }
        }
        events
    }

    fn tell_verdicts(&mut self, job: &v1::JobView, events: &mut Vec<Event>) {
        for view in job.revisions.iter().filter(|view| is_verdict(&view.state)) {
            let key = (
                view.revision.clone(),
                view.role.clone(),
                view.state.clone(),
                view.runs_done,
                view.runs_target,
            );
            if self.verdicts.insert(key) {
                events.push(Event::Verdict { state: view.state.clone(), text: verdict_line(view) });
            }
        }
    }

    fn tell_agents(&mut self, agents: &[v1::AgentView], events: &mut Vec<Event>) {
        for agent in agents {
            let before = self.agents.insert(agent.id.clone(), agent.state.clone());
            if before.as_ref() != Some(&agent.state) {
                events.extend(agent_words(agent, before.is_none()).map(Event::Agent));
            }
            for slot in agent.slots.iter().filter_map(|slot| slot.work.as_ref()) {
                if self.attempts.insert(slot.attempt) && self.is_worth_a_line(slot) {
                    events.push(Event::Work(format!("{}: {}", agent.id, start_words(slot))));
                }
                events.extend(self.tell_waits(slot).map(|said| Event::Work(format!("{}: {said}", agent.id))));
            }
        }
    }

    /// That work in hand stands still, and that it goes on.
    fn tell_waits(&mut self, work: &v1::SlotWork) -> Option<String> {
        let changed = match work.activity.starts_with("waiting") {
            true => self.waiting.insert(work.attempt),
            false => self.waiting.remove(&work.attempt),
        };
        changed.then(|| one_line(&work.activity))
    }

    /// Ten runs of a kernel are one event, not ten.
    fn is_worth_a_line(&mut self, work: &v1::SlotWork) -> bool {
        match work.item.strip_prefix("run:").and_then(|rest| rest.split(':').next()) {
            Some(kernel) => self.booting.insert(kernel.to_owned()),
            None => true,
        }
    }
}

/// One line: stage, suspects left, verdicts so far, what it waits for.
pub fn job_line(job: &v1::JobView, elapsed: Duration) -> String {
    let mut parts = vec![stage_words(&job.stage).to_owned()];
    parts.extend(job.suspects_left.map(suspects));
    let of = |state: &str| job.revisions.iter().filter(|view| view.state == state).count();
    let counts: Vec<String> = ["bad", "good", "skip"]
        .iter()
        .map(|state| (of(state), state))
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    if !counts.is_empty() {
        parts.push(counts.join(", "));
    }
    parts.push(seconds(elapsed));
    if !job.detail.is_empty() {
        parts.push(one_line(&job.detail));
    }
    parts.join(" · ")
}

/// One line per slot, those with work first.
pub fn slot_lines(agents: &[v1::AgentView], now_ms: u64) -> Vec<String> {
    let width = agents.iter().map(|agent| agent.id.chars().count()).max().unwrap_or(0);
    let present = agents.iter().filter(|agent| agent.state != "lost" || agents.len() <= SLOT_LINES_MAX);
    let mut lines: Vec<(bool, String)> = Vec::new();
    for agent in present {
        if agent.state == "lost" {
            lines.push((true, format!("{:width$}  lost", agent.id)));
            continue;
        }
        for slot in &agent.slots {
            let (idle, words) = match &slot.work {
                Some(work) => (false, format!("{} · {}", work_words(work), since(work.since_ms, now_ms))),
                None if agent.state == "online" => (true, idle_words(agent)),
                None => (true, agent.state.clone()),
            };
            lines.push((idle, format!("{:width$}  {words}", agent.id)));
        }
    }
    // Few enough keep their places, which reads more calmly.
    if lines.len() > SLOT_LINES_MAX {
        lines.sort_by_key(|(idle, _)| *idle);
    }
    let hidden = lines.len().saturating_sub(SLOT_LINES_MAX);
    let mut shown: Vec<String> = lines.into_iter().take(SLOT_LINES_MAX).map(|(_, line)| line).collect();
    if hidden > 0 {
        shown.push(format!("and {hidden} more slots"));
    }
    shown
}

/// What everybody does, on one line: for those who see no bars.
pub fn pulse(job: &v1::JobView, agents: &[v1::AgentView], now_ms: u64) -> String {
    let mut parts = Vec::new();
    for agent in agents.iter().filter(|agent| agent.state != "lost") {
        for work in agent.slots.iter().filter_map(|slot| slot.work.as_ref()) {
            let doing = if work.activity.is_empty() { title(work) } else { one_line(&work.activity) };
            parts.push(format!("{} {doing} for {}", agent.id, since(work.since_ms, now_ms)));
        }
        if agent.slots.iter().all(|slot| slot.work.is_none()) {
            let state = if agent.state == "online" { idle_words(agent) } else { agent.state.clone() };
            parts.push(format!("{} {state}", agent.id));
        }
    }
    let hidden = parts.len().saturating_sub(SLOT_LINES_MAX);
    parts.truncate(SLOT_LINES_MAX);
    if hidden > 0 {
        parts.push(format!("and {hidden} more"));
    }
    parts.extend((!job.detail.is_empty()).then(|| one_line(&job.detail)));
    if parts.is_empty() { stage_words(&job.stage).to_owned() } else { parts.join("; ") }
}

fn idle_words(agent: &v1::AgentView) -> String {
    match agent.problems.first() {
        Some(problem) => format!("idle · {}", one_line(problem)),
        None => "idle".into(),
    }
}

/// `bad   1a2b3c4d5e6f  3 of 3 runs crashed  [search] mm: subject`.
pub fn verdict_line(view: &v1::RevisionView) -> String {
    format!("{:5} {}", view.state, revision_words(view))
}

/// A revision without its state.
pub fn revision_words(view: &v1::RevisionView) -> String {
    let (done, wanted, target) = (view.runs_done, view.runs_wanted, view.runs_target);
    let runs = match (is_verdict(&view.state), done) {
        (true, 0) => "no runs".to_owned(),
        (true, 1) => format!("{target} of 1 run crashed"),
        (true, _) => format!("{target} of {done} runs crashed"),
        (false, _) => format!("{done} of {wanted} runs done"),
    };
    // The name of a kernel that is no revision says nothing to people.
    let revision = view.reverts.as_ref().unwrap_or(&view.revision);
    format!("{}  {runs:20}  [{}] {}", short(revision), view.role, one_line(&view.subject))
}

/// What a slot does at the moment.
pub fn work_words(work: &v1::SlotWork) -> String {
    match work.activity.as_str() {
        "" => title(work),
        activity => format!("{} · {}", one_line(activity), title(work)),
    }
}

/// What a slot has begun, whatever its first step is.
fn start_words(work: &v1::SlotWork) -> String {
    let title = title(work);
    match work.item.split(':').next() {
        Some("build") => format!("building {title}"),
        Some("run") => {
            format!("booting {}", title.rsplit_once(" run ").map_or(title.as_str(), |(kernel, _)| kernel))
        }
        _ => title,
    }
}

/// An item's title without the job's id.
fn title(work: &v1::SlotWork) -> String {
    let own = match work.title.strip_prefix("job ").and_then(|rest| rest.split_once(' ')) {
        Some((_, rest)) => rest,
        None if work.title.is_empty() => work.item.as_str(),
        None => work.title.as_str(),
    };
    one_line(own)
}

fn agent_words(agent: &v1::AgentView, is_first: bool) -> Option<String> {
    let id = &agent.id;
    match (agent.state.as_str(), is_first) {
        ("lost", true) => None,
        ("online", true) => {
            let slots = agent.slots.len();
            let runs = match agent.accelerator.as_str() {
                "" => match agent.problems.first() {
                    Some(problem) => format!("boots no guests: {}", one_line(problem)),
                    None => "boots no guests".to_owned(),
                },
                accelerator => format!("guests under {accelerator}"),
            };
            Some(format!("{id} joined: {slots} {}, {runs}", if slots == 1 { "slot" } else { "slots" }))
        }
        ("online", false) => Some(format!("{id} is back")),
        (state, _) if agent.reason.is_empty() => Some(format!("{id} is {state}")),
        (state, _) => Some(format!("{id} is {state}: {}", one_line(&agent.reason))),
    }
}

fn stage_words(stage: &str) -> &str {
    match stage {
        "resolving" => "fetching the repository",
        "preparing" => "preparing the toolchain and the reproducer",
        "loading-history" => "loading the history",
        "certifying" => "certifying the culprit",
        "reporting" => "writing the report",
        other => other,
    }
}

fn is_verdict(state: &str) -> bool {
    matches!(state, "good" | "bad" | "skip")
}

fn suspects(left: u64) -> String {
    format!("{left} {} left", if left == 1 { "suspect" } else { "suspects" })
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

/// The time from `then_ms` to `now_ms`, which another machine's clock may have put the other way round.
pub fn since(then_ms: u64, now_ms: u64) -> String {
    seconds(Duration::from_millis(now_ms.saturating_sub(then_ms)))
}

/// `1m23s`.
pub fn seconds(duration: Duration) -> String {
    render_duration(Duration::from_secs(duration.as_secs()))
}

/// Text of others on one line, without what a terminal would obey.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
