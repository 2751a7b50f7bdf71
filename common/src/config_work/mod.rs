//! Makes a configuration smaller while the crash still shows: first without instrumentation
//! that a crash of its kind does not need, then towards a baseline.
//!
//! Who builds and boots is not known here: `next` names what to try, `record` takes whether the
//! crash showed. The answers alone decide, so the same answers lead the same way again.

mod instrumentation;
mod reduction;
mod symbols;

pub use instrumentation::{GROUPS, Group, is_needed};

use crate::job::{ConfigBase, ConfigWish, Fragment, KernelBuild};
use reduction::Reduction;
use std::collections::BTreeSet;
use symbols::{Change, Symbols};

/// A remark names as many symbols.
const NAMED_MAX: usize = 12;
/// Under this name the result stands among a kernel's fragments.
const NAME: &str = "config work";

/// The work on one job's configuration.
#[derive(Clone, Debug)]
pub struct ConfigWork {
    /// What may be changed, one part after the other.
    parts: Vec<Part>,
    /// The part in hand; as many as there are when all is done.
    at: usize,
    budget: u32,
    tried: u32,
}

/// Changes that are tried against each other.
#[derive(Clone, Debug)]
struct Part {
    /// Each is made as a whole or not at all.
    units: Vec<Vec<Change>>,
    reduction: Reduction,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worked {
    /// To be put behind all others; absent where nothing can be done without.
    pub fragment: Option<Fragment>,
    pub tried: u32,
}

impl Worked {
    /// For people, where anything was tried.
    pub fn remark(&self) -> Option<String> {
        let kernels = if self.tried == 1 { "kernel" } else { "kernels" };
        let Some(fragment) = &self.fragment else {
            return (self.tried > 0)
                .then(|| format!("configuration: nothing could be dropped, {} {kernels} tried", self.tried));
        };
        let symbols = changed(fragment);
        let more = symbols.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = symbols[..symbols.len().min(NAMED_MAX)].join(", ");
        Some(format!(
            "configuration: {} symbols changed in all kernels, after {} {kernels} tried: {named}{more}",
            symbols.len(),
            self.tried
        ))
    }
}

impl ConfigWork {
    /// `kernel` shows a crash with this title. Symbols that are `off` stay so.
    pub fn new(kernel: &KernelBuild, wish: &ConfigWish, title: &str, off: &[String]) -> ConfigWork {
        let own = own_symbols(kernel);
        let mut parts = Vec::new();
        let mut settled: BTreeSet<&str> = off.iter().map(String::as_str).collect();
        let mut units = Vec::new();
        for group in GROUPS {
            let needed = is_needed(group, title);
            if needed || wish.drop_instrumentation {
                settled.extend(group.symbols);
            }
            if !needed && wish.drop_instrumentation {
                units.push(own.switched_on(group.symbols));
            }
        }
        units.retain(|unit| !unit.is_empty());
        parts.push(Part::new(units));
        if let Some(baseline) = &wish.baseline {
            let whole = matches!(kernel.config, ConfigBase::File(_));
            let changes = own.changes_to(&Symbols::read([baseline.text.as_str()]), whole);
            let open = changes.into_iter().filter(|change| !settled.contains(change.symbol.as_str()));
            parts.push(Part::new(open.map(|change| vec![change]).collect()));
        }
        let mut work = ConfigWork { parts, at: 0, budget: wish.steps_max, tried: 0 };
        work.go_on();
        work
    }

    /// What to put behind the kernel's fragments and try; nothing when all is done.
    pub fn next(&self) -> Option<Fragment> {
        self.parts.get(self.at)?;
        self.fragment(true)
    }

    /// Takes whether the kernel that `next` named shows the crash.
    pub fn record(&mut self, shows: bool) {
        let Some(part) = self.parts.get_mut(self.at) else { return };
        part.reduction.record(shows);
        self.tried += 1;
        self.go_on();
    }

    /// The smallest configuration that was seen to show the crash so far.
    pub fn result(&self) -> Worked {
        Worked { fragment: self.fragment(false), tried: self.tried }
    }

    /// Takes up the next part where one is done; all are done when the budget is spent.
    fn go_on(&mut self) {
        if self.tried >= self.budget {
            self.at = self.parts.len();
        }
        while self.parts.get(self.at).is_some_and(|part| part.reduction.asks().is_none()) {
            self.at += 1;
        }
    }

    /// All changes that stand; the part in hand `as_asked`, or as it was seen to show the crash.
    fn fragment(&self, as_asked: bool) -> Option<Fragment> {
        let mut changes: Vec<&Change> = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let kept = match part.reduction.asks() {
                Some(asked) if as_asked && number == self.at => asked,
                Some(_) | None => part.reduction.needed(),
            };
            let made = part.units.iter().enumerate().filter(|(unit, _)| kept.binary_search(unit).is_err());
            changes.extend(made.flat_map(|(_, unit)| unit));
        }
        if changes.is_empty() {
            return None;
        }
        changes.sort();
        let text = changes.into_iter().map(Change::line).collect();
        Some(Fragment { name: NAME.into(), text })
    }
}

impl Part {
    fn new(units: Vec<Vec<Change>>) -> Part {
        Part { reduction: Reduction::new(units.len()), units }
    }
}

/// What the job itself says of symbols; what a make target sets is not known here.
fn own_symbols(kernel: &KernelBuild) -> Symbols<'_> {
    let base = match &kernel.config {
        ConfigBase::File(text) => text.as_str(),
        ConfigBase::Target(_) => "",
    };
    Symbols::read(std::iter::once(base).chain(kernel.fragments.iter().map(|it| it.text.as_str())))
}

/// The symbols that a fragment of `ConfigWork` changes, as `CONFIG_A=n`.
pub fn changed(fragment: &Fragment) -> Vec<String> {
    Symbols::read([fragment.text.as_str()]).listed()
}
