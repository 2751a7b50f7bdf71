//! The steps on one scale: how many commits of the range each contains.
//!
//! git says how many revisions are left after a step, so how many commits it contains follows
//! from how many were suspected before. On a graph the numbers are of different sets of
//! ancestors; as every step divides what is left by then, a line divides just so.

use super::log::{Kind, Log, Role, Test, Word};

/// Without git's numbers, a range is taken for as long as its steps can halve it.
const STEPS_MAX: u32 = 40;

#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Commits in the range.
    pub size: u64,
    /// By test, how many of them it contains; nothing where that cannot be told.
    pub places: Vec<Option<u64>>,
    /// What the log's own verdicts leave: more than the first, up to the second.
    pub left: (u64, u64),
}

impl Scale {
    pub fn new(log: &Log) -> Option<Scale> {
        let older = log.range.map(|(_, older)| older);
        // A log that lost its head may still have steps.
        if older.is_none() && log.steps().next().is_none() {
            return None;
        }
        let first = log.steps().find_map(|(_, test)| test.left);
        let steps = u32::try_from(log.steps().count()).unwrap_or(STEPS_MAX).min(STEPS_MAX);
        let size = first.map_or(1 << steps, |left| left.saturating_mul(2).saturating_add(2)).max(1);
        let mut scale = Scale { size, places: vec![None; log.tests.len()], left: (0, size) };
        for (at, test) in log.steps() {
            scale.step(at, test);
        }
        let culprit = scale.left.1;
        for (at, test) in log.tests.iter().enumerate() {
            scale.places[at] = match (&test.role, log.kind) {
                (Role::Step, _) => scale.places[at],
                (Role::Parent, _) => Some(culprit.saturating_sub(1)),
                (_, _) if Some(test.revision) == older => Some(0),
                (Role::Start | Role::Head, _) => Some(scale.size),
                // The walk went back to the first good one: what it judged before is newer.
                (Role::Release(_), Kind::Cause) if !test.crashes().is_empty() => Some(scale.size),
                (Role::Release(_), _) => None,
            };
        }
        Some(scale)
    }

    fn step(&mut self, at: usize, test: &Test) {
        let (mut low, mut high) = self.left;
        if let Some(left) = test.left.filter(|left| left + 1 >= high - low && (*left, high - low) != (0, 1)) {
            // The estimate was too small: there are more commits below the newer end.
            let more = (left + 1).saturating_mul(2).saturating_sub(high - low);
            let places = self.places.iter_mut().flatten();
            places.filter(|place| **place >= high).for_each(|place| *place = place.saturating_add(more));
            high = high.saturating_add(more);
            self.size = self.size.saturating_add(more);
        }
        let suspected = high - low;
        let contains = match test.left {
            Some(left) => suspected.saturating_sub(left + 1),
            None => suspected / 2,
        };
        let place = (low + contains.max(1)).min(high);
        self.places[at] = Some(place);
        match test.word {
            Some(Word::Good) if place < high => low = place,
            Some(Word::Bad) => high = place,
            Some(Word::Good | Word::Skip) | None => {}
        }
        self.left = (low, high);
    }
}
