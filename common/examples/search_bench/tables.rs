//! Records as lines of tables.

use crate::measure::Record;

pub const LINE_HEAD: &str = "| family | agents | trials | right of resolvable | right of all | wrong | truth listed | runs | hours: median, 95 % | visits | choice, ms: mean, most | claimed ≥ 0.99, of these wrong |
|---|---|---|---|---|---|---|---|---|---|---|---|";

/// One line; of N0 and N1 "resolvable" are those whose good end can be run, and all.
pub fn line(name: &str, agents: usize, records: &[Record]) -> String {
    let share = |test: &dyn Fn(&Record) -> bool| mean(records, |record| f64::from(u8::from(test(record))));
    let counted: Vec<&Record> = records.iter().filter(|record| record.resolvable).collect();
    let right = counted.iter().filter(|record| record.right).count();
    let (low, high) = wilson(right, counted.len());
    let claims: Vec<&Record> = records.iter().filter(|record| record.claimed >= 0.99).collect();
    let listed =
        if name.starts_with('N') { "–".into() } else { format!("{:.3}", share(&|record| record.listed)) };
    format!(
        "| {name} | {agents} | {} | {:.3} [{low:.3}, {high:.3}] of {} | {:.3} | {:.3} | {listed} | {:.0} | {:.2}, {:.1} | {:.1} | {:.1}, {:.0} | {}, {} |",
        records.len(),
        right as f64 / counted.len().max(1) as f64,
        counted.len(),
        share(&|record| record.right),
        share(&|record| record.wrong),
        mean(records, |record| f64::from(record.runs)),
        quantile(records, 0.5, |record| record.wall_h),
        quantile(records, 0.95, |record| record.wall_h),
        mean(records, |record| f64::from(record.visits)),
        mean(records, |record| record.choose_ms_mean),
        records.iter().map(|record| record.choose_ms_max).fold(0.0, f64::max),
        claims.len(),
        claims.iter().filter(|record| !record.claim_right).count(),
    )
}

pub fn mean(records: &[Record], value: impl Fn(&Record) -> f64) -> f64 {
    records.iter().map(value).sum::<f64>() / records.len().max(1) as f64
}

pub fn quantile(records: &[Record], share: f64, value: impl Fn(&Record) -> f64) -> f64 {
    let mut values: Vec<f64> = records.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get((values.len().saturating_sub(1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The 95 % interval of a share (Wilson 1927).
pub fn wilson(right: usize, of: usize) -> (f64, f64) {
    let (n, z) = (of.max(1) as f64, 1.96f64);
    let share = right as f64 / n;
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}
