//! What a look at a revision costs here, by what the job's builds and runs have taken so far.

use super::Farm;
use super::item::ItemKey;
use super::jobs::JobState;
use crate::bisect::Costs;
use crate::outcome::Product;

/// Fewer say nothing: the first build of all is a cold one.
const BUILDS_MIN: usize = 3;
/// A kernel that exists still has to be fetched.
const REVISIT_S: f64 = 1.0;

impl Farm {
    /// Nothing as long as too little was measured.
    pub(super) fn costs(&self, state: &JobState) -> Option<Costs> {
        let products = state.recorded.iter().map(|(_, key)| (key, self.products.get(key)));
        let (mut builds, mut runs) = (Vec::new(), Vec::new());
        for (key, product) in products {
            match (key, product) {
                (ItemKey::Build(_), Some(Product::Build(build))) => builds.push(build.duration_ms),
                (ItemKey::Run(..), Some(Product::Run(run))) => runs.push(run.duration_ms),
                _ => {}
            }
        }
        if builds.len() < BUILDS_MIN {
            return None;
        }
        let (build_s, run_s) = (median_s(builds)?, median_s(runs)?);
        Some(Costs { build_s, revisit_s: REVISIT_S, visit_s: run_s, runs_per_visit: 1 })
    }
}

/// At least a millisecond: what costs nothing would be worth any number of looks.
fn median_s(mut durations_ms: Vec<u64>) -> Option<f64> {
    durations_ms.sort_unstable();
    let median = *durations_ms.get(durations_ms.len() / 2)?;
    Some(median.max(1) as f64 / 1000.0)
}
