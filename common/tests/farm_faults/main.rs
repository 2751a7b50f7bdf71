//! The farm under faults: thousands of worlds in virtual time, each from its seed alone.
//!
//! `KULPRIT_SEED=n` replays one world and prints its last happenings; `KULPRIT_SEEDS=a..b` tries
//! others than the usual ones.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it is timed, and told what to replay"
)]

mod agent;
mod coordinator;
#[path = "../farm_support/dice.rs"]
mod dice;
mod evidence;
mod hands;
mod journal;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "../farm_support/kernels.rs"]
mod kernels;
mod looks;
mod noise;
mod operator;
mod plan;
mod promises;
mod stats;
mod trace;
mod trouble;
mod work;
mod world;

use dice::Dice;
use stats::Stats;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use trace::Trace;
use world::World;

const SEEDS: u64 = 2500;
const THREADS: usize = 2;

/// What a full round of worlds has to come upon.
const MUST_HAPPEN: &[&str] = &[
    "agent dies",
    "agent forgets what it holds",
    "agent has no room",
    "agent is cut off",
    "agent is low on disk",
    "agent is preempted",
    "agent is stopped",
    "agent is taken away before it is drained",
    "agent out of contact stops its work",
    "agent superseded",
    "agent vanishes",
    "answer too old to work by",
    "completion is a duplicate",
    "completion is stale",
    "coordinator dies among its answers",
    "coordinator dies before it answers",
    "coordinator dies before it writes",
    "coordinator dies idle",
    "coordinator dies with a batch torn",
    "coordinator is stopped",
    "coordinator restarts",
    "half of the agents are cut off",
    "honest agents beside a noisy one",
    "item is quarantined",
    "job ends blocked",
    "job ends cancelled",
    "job ends with suspects",
    "job ends with the culprit",
    "job says that agents have not spoken yet",
    "job says that all slots are taken",
    "job says that it retries",
    "job says that no agent has the memory",
    "job says that no agent boots guests",
    "job says that no agent is there",
    "job says what is wrong with agents",
    "job works",
    "noisy agent is found",
    "old coordinator cannot answer",
    "old coordinator cannot write",
    "operator cancels",
    "operator lets an agent go on",
    "operator overrules",
    "operator releases an item",
    "operator sets an agent aside",
    "standby takes over",
    "verdict is reached without a noisy agent's runs",
    "wall clock jumps",
];

#[test]
fn a_farm_under_faults_keeps_its_promises() {
    let number = |text: &str| text.trim().parse::<u64>().expect("KULPRIT_SEED and KULPRIT_SEEDS are numbers");
    if let Ok(seed) = std::env::var("KULPRIT_SEED") {
        return replay(number(&seed));
    }
    let seeds = match std::env::var("KULPRIT_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("KULPRIT_SEEDS is a range: 0..2500");
            number(first)..number(end)
        }
        Err(_) => 0..SEEDS,
    };
    let usual = seeds == (0..SEEDS);
    let (started, worlds) = (Instant::now(), seeds.end - seeds.start);
    let stats = match run_all(seeds) {
        Ok(stats) => stats,
        Err(seed) => {
            replay(seed);
            panic!("seed {seed} failed, and does not again: it depends on more than its seed");
        }
    };
    let took = started.elapsed().as_secs_f64();
    println!(
        "{worlds} worlds, {:.0} h of virtual time, {:.1} s: {:.0} worlds/s, {:.0} happenings/s, {:.0} events/s",
        stats.lasted_ms as f64 / 3.6e6,
        took,
        worlds as f64 / took,
        stats.happenings as f64 / took,
        stats.handled as f64 / took,
    );
    stats.seen.iter().for_each(|(what, times)| println!("{times:>9} {what}"));
    for what in MUST_HAPPEN.iter().filter(|_| usual) {
        assert!(stats.seen.contains_key(what), "it never happened that {what}");
    }
}

/// The first seed that fails, if any does.
fn run_all(seeds: Range<u64>) -> Result<Stats, u64> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let total = Mutex::new(Stats::default());
    let work = || {
        let mut stats = Stats::default();
        while failed.load(Ordering::Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let mut world = World::new(seed, Trace::default());
            match catch_unwind(AssertUnwindSafe(|| world.run())) {
                Ok(()) => stats.add(&world.stats),
                Err(_) => _ = failed.fetch_min(seed, Ordering::Relaxed),
            }
        }
        total.lock().expect("nobody panics with it").add(&stats);
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| _ = scope.spawn(work));
    });
    match failed.into_inner() {
        u64::MAX => Ok(total.into_inner().expect("nobody panics with it")),
        seed => Err(seed),
    }
}

/// The same world once more, with its last happenings if it fails.
fn replay(seed: u64) {
    let mut world = World::new(seed, Trace::on());
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = result {
        world.trace.print();
        eprintln!("{:?}", world.plan);
        eprintln!("KULPRIT_SEED={seed} cargo test -p kulprit-common --test farm_faults");
        std::panic::resume_unwind(panic);
    }
    println!("seed {seed} keeps its promises");
}
