//! An hour of work under faults: what nothing shorter shows is whether anything leaks, and whether
//! rare mixtures of faults ever change an answer. `scripts/soak` runs it.

mod farm;
mod soak_bed;

use soak_bed::{Soak, faults, samples};
use std::time::{Duration, Instant};

/// Jobs that are open at any time, while there is time left for new ones.
const OPEN: usize = 2;

#[test]
#[ignore = "takes an hour: scripts/soak"]
fn jobs_end_right_and_nothing_leaks_under_faults() {
    let Some(_) = farm::history() else { return };
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |it| it.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let minutes = number("KULPRIT_SOAK_MINUTES", 60);
    let seed = number("KULPRIT_SEED", 1);
    println!("soak: {minutes} minutes, KULPRIT_SEED={seed}");
    let mut soak = Soak::start(seed);
    soak.warm_up();
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    // A job takes a few minutes; the last ones are to see most of their faults.
    let last_submission = end - Duration::from_secs(3 * minutes.min(60));
    let mut next_sample = Instant::now();
    while Instant::now() < end {
        soak.break_something();
        soak.mend();
        soak.look_at_jobs();
        if Instant::now() < last_submission {
            soak.keep_open(OPEN);
        }
        if Instant::now() >= next_sample {
            soak.sample();
            next_sample = Instant::now() + Duration::from_secs(30);
        }
        soak.breathe();
    }
    println!("soak: no more faults");
    soak.bring_everything_up();
    farm::wait_for("the last jobs", Duration::from_secs(25 * 60), || {
        soak.look_at_jobs();
        soak.open() == 0
    });
    soak.sample();
    let (samples, happened) = soak.finish();
    print!("{}", samples::table(&samples, &happened));
    samples::must_be_flat(&samples);
    let missing = faults::missing(&happened);
    // In a shorter one the dice may leave some out.
    assert!(minutes < 30 || missing.is_empty(), "never happened: {missing:?}");
}
