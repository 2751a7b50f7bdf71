//! What this boot is to do, as the agent wrote it into the initramfs.

use std::time::Duration;

const PATH: &str = "/kulprit/plan";

pub struct Plan {
    /// Proves to the agent that a result line is ours.
    pub nonce: String,
    /// The same for lines in the kernel's log, which the reproducer can read.
    pub marker: String,
    pub settle: Duration,
    pub reproducer: Duration,
    pub linger: Duration,
    /// Whether the reproducer is a script.
    pub script: bool,
    /// Whether a busybox came along.
    pub busybox: bool,
    pub args: Vec<String>,
}

impl Plan {
    /// Reads the plan and removes it, so that the reproducer finds no nonce to forge results with.
    pub fn take() -> Result<Plan, String> {
        let text = std::fs::read_to_string(PATH).map_err(|error| error.to_string())?;
        std::fs::remove_file(PATH).map_err(|error| error.to_string())?;
        parse(&text)
    }
}

fn parse(text: &str) -> Result<Plan, String> {
    let mut plan = Plan {
        nonce: String::new(),
        marker: String::new(),
        settle: Duration::ZERO,
        reproducer: Duration::ZERO,
        linger: Duration::ZERO,
        script: false,
        busybox: false,
        args: Vec::new(),
    };
    for line in text.lines() {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("no `=` in `{line}`"))?;
        match key {
            "nonce" => plan.nonce = value.to_owned(),
            "marker" => plan.marker = value.to_owned(),
            "settle_ms" => plan.settle = milliseconds(key, value)?,
            "reproducer_ms" => plan.reproducer = milliseconds(key, value)?,
            "linger_ms" => plan.linger = milliseconds(key, value)?,
            "script" => plan.script = value == "yes",
            "busybox" => plan.busybox = value == "yes",
            "arg" => plan.args.push(unescape(value)),
            _ => return Err(format!("unknown key `{key}`")),
        }
    }
    if plan.nonce.is_empty() || plan.marker.is_empty() {
        return Err("no nonce".to_owned());
    }
    Ok(plan)
}

fn milliseconds(key: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse().map_err(|_| format!("{key} is not a number: `{value}`"))?;
    Ok(Duration::from_millis(number))
}

/// Undoes the agent's escapes: `\n` is a line break and `\\` a backslash.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}
