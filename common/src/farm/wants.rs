//! What a job wants of the farm, and in which order.

use super::item::{ItemKey, Work};
use crate::id::RevisionId;
use std::collections::BTreeMap;

/// Items a job wants, with what making them takes.
#[derive(Default)]
pub(super) struct Wants {
    pub items: BTreeMap<ItemKey, Want>,
    added: u32,
}

pub(super) struct Want {
    /// Absent where the queue has it.
    pub making: Option<Making>,
    /// Lower comes first.
    pub rank: (u32, u32),
    /// Whether its kernel's runs are to be spread over the agents rather than kept together.
    pub spread: bool,
}

/// What making an item takes, and what it is called.
pub(super) struct Making {
    pub work: Work,
    pub title: String,
    /// Whose evidence it is, where it is one's.
    pub revision: Option<RevisionId>,
}

impl Wants {
    pub fn add(&mut self, key: ItemKey, work: Work, title: String) {
        self.put(key, Some(Making { work, title, revision: None }));
    }

    /// Of an item that tells of one revision.
    pub fn add_for(&mut self, revision: RevisionId, key: ItemKey, work: Work, title: String) {
        self.put(key, Some(Making { work, title, revision: Some(revision) }));
    }

    /// Of an item that is in the queue.
    pub fn keep(&mut self, key: ItemKey) {
        self.put(key, None);
    }

    fn put(&mut self, key: ItemKey, making: Option<Making>) {
        let rank = (0, self.added);
        self.added += 1;
        self.items.entry(key).or_insert(Want { making, rank, spread: false });
    }

    /// Orders the runs for a certificate: run by run through all members, to and fro. So what changes
    /// with time or from agent to agent meets all of them alike.
    pub fn interleave(&mut self) {
        let mut members: BTreeMap<_, u32> = BTreeMap::new();
        let mut runs: Vec<(&ItemKey, &mut Want)> =
            self.items.iter_mut().filter(|(key, _)| matches!(key, ItemKey::Run(..))).collect();
        runs.sort_by_key(|(_, want)| want.rank);
        for (key, _) in &runs {
            let ItemKey::Run(kernel, _) = key else { continue };
            let next = u32::try_from(members.len()).unwrap_or(u32::MAX);
            members.entry(*kernel).or_insert(next);
        }
        let last = u32::try_from(members.len()).unwrap_or(u32::MAX).saturating_sub(1);
        for (key, want) in runs {
            let ItemKey::Run(kernel, index) = key else { continue };
            let member = members[kernel];
            want.rank = (*index, if index % 2 == 0 { member } else { last - member });
            want.spread = true;
        }
    }

    /// The items, first those that are to be taken up first.
    pub fn in_order(self) -> Vec<(ItemKey, Want)> {
        let mut items: Vec<_> = self.items.into_iter().collect();
        items.sort_by_key(|(_, want)| want.rank);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    #[test]
    fn a_certificates_runs_go_to_and_fro_between_its_members() {
        let mut wants = Wants::default();
        let kernel = |name: &str| Digest::of(name.as_bytes());
        wants.add(ItemKey::Toolchain("gcc".into()), Work::Toolchain { image: "gcc".into() }, String::new());
        for name in ["culprit", "parent"] {
            for index in 0..3 {
                let work = Work::Toolchain { image: String::new() };
                wants.add(ItemKey::Run(kernel(name), index), work, String::new());
            }
        }
        wants.interleave();
        let order: Vec<ItemKey> = wants.in_order().into_iter().map(|(key, _)| key).collect();
        let run = |name, index| ItemKey::Run(kernel(name), index);
        let runs: Vec<ItemKey> = order.into_iter().filter(|key| matches!(key, ItemKey::Run(..))).collect();
        let expected = [
            run("culprit", 0),
            run("parent", 0),
            run("parent", 1),
            run("culprit", 1),
            run("culprit", 2),
            run("parent", 2),
        ];
        assert_eq!(runs, expected);
    }
}
