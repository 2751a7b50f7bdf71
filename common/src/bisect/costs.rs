//! What it takes to look at a revision, in seconds; only the proportions matter to the choice.

/// Costs of a visit: an agent goes to a revision, builds it unless somebody has, and runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    pub build_s: f64,
    /// Instead of `build_s` where the kernel exists.
    pub revisit_s: f64,
    /// For each started batch of up to `runs_per_visit` runs.
    pub visit_s: f64,
    pub runs_per_visit: u32,
}

impl Default for Costs {
    /// Of the bisections that are logged (DOMAIN.md §3).
    fn default() -> Self {
        Costs { build_s: 457.0, revisit_s: 20.0, visit_s: 520.0, runs_per_visit: 10 }
    }
}

impl Costs {
    /// Of a farm that hands out single runs: a tenth of a batch each.
    pub fn run_by_run() -> Self {
        Costs { visit_s: 52.0, runs_per_visit: 1, ..Costs::default() }
    }

    pub(super) fn visit(&self, built: bool, runs: u32) -> f64 {
        let batches = runs.max(1).div_ceil(self.runs_per_visit.max(1));
        let build_s = if built { self.revisit_s } else { self.build_s };
        build_s + self.visit_s * f64::from(batches)
    }

    /// A total that fills the batches which `more` runs start.
    pub(super) fn whole_batches(&self, more: u32) -> u32 {
        more.max(1).next_multiple_of(self.runs_per_visit.max(1))
    }
}
