//! What trials came to, for people.

use kulprit_common::simulate::{Ending, Report};
use std::fmt::Write as _;

/// The trials in a few lines: endings, and what they cost.
pub fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    let total = reports.len();
    for (name, ending) in [
        ("culprit", Ending::Culprit),
        ("suspects", Ending::Suspects),
        ("not reproduced", Ending::NotReproduced),
        ("good end is bad", Ending::GoodEndIsBad),
        ("blocked", Ending::Blocked),
    ] {
        let count = reports.iter().filter(|report| report.ending == ending).count();
        if count > 0 {
            let _ = writeln!(text, "{name:<16} {count:>6} of {total}");
        }
    }
    let known: Vec<&Report> = reports.iter().filter(|report| report.truth.is_some()).collect();
    if !known.is_empty() {
        let right =
            known.iter().filter(|report| report.culprit.is_some() && report.culprit == report.truth).count();
        let wrong =
            known.iter().filter(|report| report.culprit.is_some() && report.culprit != report.truth).count();
        let resolvable = known.iter().filter(|report| report.resolvable == Some(true)).count();
        let _ = writeln!(
            text,
            "right            {right:>6}   wrong {wrong}   resolvable by revisions alone {resolvable}"
        );
    }
    let mut walls: Vec<f64> = reports.iter().map(|report| report.wall_s / 3600.0).collect();
    walls.sort_by(f64::total_cmp);
    let quantile =
        |share: f64| walls.get(((total.max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(0.0);
    let mean = |value: &dyn Fn(&Report) -> f64| reports.iter().map(value).sum::<f64>() / total.max(1) as f64;
    let _ = writeln!(
        text,
        "hours            {:>6.2}   median; 95 in 100 within {:.2}",
        quantile(0.5),
        quantile(0.95)
    );
    let _ = writeln!(
        text,
        "mean of a trial  {:>6.1}   runs, {:.1} builds, {:.1} visits",
        mean(&|report| f64::from(report.runs)),
        mean(&|report| f64::from(report.builds)),
        mean(&|report| f64::from(report.visits)),
    );
    let longest = reports.iter().map(|report| report.choose_ms_max).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "a choice         {:>6.1}   ms in the mean, {longest:.1} at most",
        mean(&|report| report.choose_ms_mean)
    );
    text
}
