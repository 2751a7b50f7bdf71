//! Delta debugging: which of many changes cannot be made. What is not proven needless is kept.

use std::collections::BTreeMap;

/// Finds a small set of numbers without which the crash is gone.
#[derive(Clone, Debug)]
pub(super) struct Reduction {
    /// With only these left unchanged the crash was seen; at first all are.
    needed: Vec<usize>,
    /// Into how many pieces `needed` is cut, and which try is next: each piece alone, then all
    /// but each.
    pieces: usize,
    at: usize,
    /// What was tried, so that nothing is tried twice.
    answers: BTreeMap<Vec<usize>, bool>,
    asks: Option<Vec<usize>>,
}

impl Reduction {
    pub fn new(units: usize) -> Reduction {
        let mut reduction = Reduction {
            needed: (0..units).collect(),
            pieces: units.clamp(1, 2),
            at: 0,
            answers: BTreeMap::new(),
            asks: None,
        };
        // Often none is needed, and then one kernel is all it takes.
        if units > 0 {
            reduction.asks = Some(Vec::new());
        }
        reduction
    }

    pub fn needed(&self) -> &[usize] {
        &self.needed
    }

    /// What is to stay unchanged in the next kernel.
    pub fn asks(&self) -> Option<&[usize]> {
        self.asks.as_deref()
    }

    pub fn record(&mut self, shows: bool) {
        let Some(asked) = self.asks.take() else { return };
        self.answers.insert(asked.clone(), shows);
        match (asked.is_empty(), shows) {
            (true, true) => self.needed.clear(),
            // The first question stands outside the order of pieces.
            (true, false) => {}
            (false, _) => self.take(asked, shows),
        }
        while let Some(set) = self.candidate() {
            if set.len() == self.needed.len() {
                self.at += 1;
                continue;
            }
            match self.answers.get(&set) {
                Some(&shows) => self.take(set, shows),
                None => {
                    self.asks = Some(set);
                    return;
                }
            }
        }
    }

    fn take(&mut self, set: Vec<usize>, shows: bool) {
        if !shows {
            self.at += 1;
            return;
        }
        let alone = self.at < self.pieces;
        self.pieces = if alone { 2 } else { self.pieces.saturating_sub(1).max(2) }.min(set.len().max(1));
        (self.needed, self.at) = (set, 0);
    }

    /// The next set to look at; nothing when no single one can be spared any more.
    fn candidate(&mut self) -> Option<Vec<usize>> {
        let len = self.needed.len();
        if len == 0 {
            return None;
        }
        if self.at >= 2 * self.pieces {
            if self.pieces >= len {
                return None;
            }
            (self.pieces, self.at) = ((2 * self.pieces).min(len), 0);
        }
        let number = self.at % self.pieces;
        let piece = len * number / self.pieces..len * (number + 1) / self.pieces;
        let alone = self.at < self.pieces;
        let kept = self.needed.iter().enumerate().filter(|(place, _)| piece.contains(place) == alone);
        Some(kept.map(|(_, &unit)| unit).collect())
    }
}
