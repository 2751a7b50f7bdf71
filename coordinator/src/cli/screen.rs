//! Shows a job that is being followed: bars on a terminal, a line per event elsewhere.
//!
//! Everything goes to standard error; standard output is for results.

use super::say::say;
use super::story::{Event, Story, job_line, pulse, seconds, slot_lines};
use super::tables::now_ms;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kulprit_proto::v1;
use std::cell::Cell;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How often the times on the screen move on.
pub const TICK: Duration = Duration::from_millis(500);

/// Without bars nothing is silent for longer: a search that does not speak looks dead.
const PULSE_EVERY: Duration = Duration::from_secs(60);

pub struct Screen {
    story: Story,
    started: Instant,
    /// When the last line was said.
    spoke: Cell<Instant>,
    latest: Option<v1::WatchUpdate>,
    bars: Option<Bars>,
    colour: bool,
}

struct Bars {
    all: MultiProgress,
    job: ProgressBar,
    slots: Vec<ProgressBar>,
}

impl Screen {
    pub fn new() -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let bars = terminal.then(Bars::new);
        let now = Instant::now();
        Screen { story: Story::default(), started: now, spoke: Cell::new(now), latest: None, bars, colour }
    }

    /// Tells what is new and redraws.
    pub fn show(&mut self, update: v1::WatchUpdate) {
        for event in self.story.tell(&update) {
            match (&event, self.bars.is_some()) {
                // The bars show these already.
                (Event::Work(_) | Event::Waiting(_), true) => {}
                (Event::Stage(text) | Event::Work(text) | Event::Waiting(text) | Event::Agent(text), _) => {
                    self.say(text);
                }
                (Event::Verdict { state, text }, _) => self.say(&self.painted(state, text)),
            }
        }
        self.latest = Some(update);
        self.tick();
    }

    /// Prints a line above the bars.
    pub fn say(&self, line: &str) {
        self.spoke.set(Instant::now());
        let line = format!("[{}] {line}", seconds(self.started.elapsed()));
        match &self.bars {
            Some(bars) => {
                // A terminal that has gone away is noticed by the signal, not here.
                let _ = bars.all.println(line);
            }
            None => say(&line),
        }
    }

    /// Moves the times on, or says that all is still alive.
    pub fn tick(&mut self) {
        if let Some(line) = self.due(Instant::now(), now_ms()) {
            self.say(&line);
        }
        let (Some(bars), Some(update)) = (&mut self.bars, &self.latest) else { return };
        let now = now_ms();
        if let Some(job) = &update.job {
            let elapsed = Duration::from_millis(now.saturating_sub(job.submitted_ms));
            bars.draw(&job_line(job, elapsed), &slot_lines(&update.agents, now));
        }
    }

    /// A sign of life, where none was seen for long.
    fn due(&self, now: Instant, now_ms: u64) -> Option<String> {
        let is_due = self.bars.is_none() && now.duration_since(self.spoke.get()) >= PULSE_EVERY;
        let update = self.latest.as_ref().filter(|_| is_due)?;
        update.job.as_ref().map(|job| pulse(job, &update.agents, now_ms))
    }

    /// Takes the bars away.
    pub fn close(self) {
        if let Some(bars) = self.bars {
            // Nothing is lost where the terminal has gone.
            let _ = bars.all.clear();
        }
    }

    fn painted(&self, state: &str, text: &str) -> String {
        let code = match state {
            "bad" => "31",
            "good" => "32",
            _ => "33",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        let job = all.add(ProgressBar::new_spinner());
        job.set_style(style("{spinner} {wide_msg}"));
        job.enable_steady_tick(Duration::from_millis(125));
        Bars { all, job, slots: Vec::new() }
    }

    fn draw(&mut self, job: &str, slots: &[String]) {
        self.job.set_message(job.to_owned());
        while self.slots.len() > slots.len() {
            if let Some(bar) = self.slots.pop() {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
        }
        while self.slots.len() < slots.len() {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(style("  {wide_msg}"));
            self.slots.push(bar);
        }
        for (bar, line) in self.slots.iter().zip(slots) {
            bar.set_message(line.clone());
            bar.tick();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a literal template")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bars_a_minute_is_never_silent() {
        let mut screen = Screen { bars: None, ..Screen::new() };
        let minute_on = |screen: &Screen, seconds| screen.spoke.get() + Duration::from_secs(seconds);
        assert_eq!(screen.due(minute_on(&screen, 60), 0), None, "nothing is known yet");
        let job = v1::JobView { stage: "resolving".into(), ..Default::default() };
        screen.latest = Some(v1::WatchUpdate { job: Some(job), ..Default::default() });
        assert_eq!(screen.due(minute_on(&screen, 59), 0), None);
        assert_eq!(screen.due(minute_on(&screen, 60), 0), Some("fetching the repository".into()));
        screen.say("something else");
        assert_eq!(screen.due(minute_on(&screen, 59), 0), None);
    }
}
