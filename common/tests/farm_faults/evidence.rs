//! Evidence is what an agent truly saw, counted once.

use crate::kernels::index_of;
use crate::plan::Plan;
use kulprit_common::bisect::Role;
use kulprit_common::farm::fact::Judged;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::Attempt;
use kulprit_common::outcome::{AttemptEnd, Infra, Outcome, Product};
use kulprit_common::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Evidence {
    /// What attempts truly came to.
    worked: BTreeMap<Attempt, Vec<(usize, ItemKey, AttemptEnd)>>,
    /// What the journal says items yielded.
    finished: BTreeMap<ItemKey, Product>,
}

impl Evidence {
    pub fn worked(&mut self, agent: usize, attempt: Attempt, item: &ItemKey, end: &AttemptEnd) {
        self.worked.entry(attempt).or_default().push((agent, item.clone(), end.clone()));
    }

    /// With no other job open, a new one looks into its image again.
    pub fn forget_toolchains(&mut self) {
        self.finished.retain(|key, _| !matches!(key, ItemKey::Toolchain(_)));
    }

    pub fn finished(&mut self, item: &ItemKey, attempt: Attempt, product: &Product) {
        let is_so = |(_, of, end): &(usize, ItemKey, AttemptEnd)| {
            of == item && matches!(end, AttemptEnd::Done(it) if it == product)
        };
        let seen = self.worked.get(&attempt).is_some_and(|ends| ends.iter().any(is_so));
        assert!(seen, "{item} yielded what no agent saw in {attempt}");
        let before = self.finished.insert(item.clone(), product.clone());
        assert!(before.is_none(), "{item} was finished twice");
    }

    pub fn failed(&self, attempt: Attempt, infra: &Infra) {
        let is_so = |end: &AttemptEnd| matches!(end, AttemptEnd::Infra(it) if it == infra);
        let seen = self.worked.get(&attempt).is_some_and(|ends| ends.iter().any(|(_, _, end)| is_so(end)));
        assert!(seen, "{attempt} failed, and did not");
    }

    /// A verdict rests on runs that were made, each counted once, and on nothing else.
    pub fn judged(&self, plan: &Plan, judged: &Judged) {
        let (judgement, runs) = (&judged.judgement, &judged.runs);
        let distinct: BTreeSet<&ItemKey> = runs.iter().collect();
        let counts = judgement.counts;
        assert_eq!(distinct.len(), runs.len(), "a run stands in a verdict twice: {judged:?}");
        // A verdict falls as soon as it can, and the runs behind it may have come in together with
        // more. Equal kernels share their runs, so it may rest on another revision's.
        if plan.kernels.idle == 0 {
            assert!(counts.total() as usize <= runs.len(), "a run was counted twice: {judged:?}");
        }
        let mut shown = 0;
        for key in judged.build.iter().chain(runs) {
            let product = self.finished.get(key);
            assert!(product.is_some(), "a verdict rests on {key}, which is not finished");
            let Some(Product::Run(run)) = product else { continue };
            shown += usize::from(!matches!(run.outcome, Outcome::Ok));
        }
        if plan.kernels.idle == 0 {
            let quiet = runs.len() - shown;
            let seen = counts.target as usize <= shown && counts.ok as usize <= quiet;
            assert!(seen, "more was counted than was seen: {judged:?}");
        }
        let is_revert = matches!(judgement.role, Role::Revert(_));
        let bad = !is_revert && index_of(&judgement.revision) >= plan.culprit;
        match judgement.verdict {
            Verdict::Good => assert!(!bad, "a bad revision was found good: {judged:?}"),
            Verdict::Bad => assert!(bad || is_revert, "a good revision was found bad: {judged:?}"),
            // A revert may be refused by git.
            Verdict::Skip => {
                let other = plan.noise.is_some() && counts.other + counts.failed > 0;
                assert!(judged.unavailable.is_some() || other, "nothing says why: {judged:?}");
                assert!(is_revert || plan.may_give_up(), "it was given up for no fault: {judged:?}");
            }
        }
    }
}
