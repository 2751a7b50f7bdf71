//! The work on a configuration: least sets, budgets, nothing that was not seen.

mod farm_support;

use farm_support::{Dice, Faults, World, commit_id, job};
use kulprit_common::config_work::{ConfigWork, changed};
use kulprit_common::farm::fact::{Configured, Fact};
use kulprit_common::farm::item::ItemKey;
use kulprit_common::job::{ConfigBase, ConfigWish, Fragment, Job, KernelBuild, Runs};
use std::collections::BTreeSet;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const TITLE: &str = "WARNING in f";

fn config(symbols: &[String]) -> String {
    symbols.iter().map(|symbol| format!("{symbol}=y\n")).collect()
}

fn kernel(symbols: &[String]) -> KernelBuild {
    KernelBuild { config: ConfigBase::File(config(symbols)), ..job().kernel }
}

fn numbered(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("CONFIG_S{number}")).collect()
}

fn towards(baseline: &str, steps_max: u32) -> ConfigWish {
    let baseline = Fragment { name: "base".into(), text: baseline.into() };
    ConfigWish { drop_instrumentation: false, baseline: Some(baseline), steps_max }
}

fn off(fragment: &Option<Fragment>) -> BTreeSet<String> {
    let changed = fragment.iter().flat_map(changed);
    changed.filter_map(|line| line.strip_suffix("=n").map(str::to_owned)).collect()
}

/// Works until all is done; what was asked, and with which answer.
fn drive(
    mut work: ConfigWork,
    shows: impl Fn(&BTreeSet<String>) -> bool,
) -> (Option<Fragment>, Vec<(Option<Fragment>, bool)>) {
    let mut asked = Vec::new();
    while let Some(fragment) = work.next() {
        let answer = shows(&off(&Some(fragment.clone())));
        asked.push((Some(fragment), answer));
        work.record(answer);
    }
    assert_eq!(work.result().tried as usize, asked.len());
    (work.result().fragment, asked)
}

#[test]
fn what_a_crash_needs_is_what_is_left() {
    let mut within = 0;
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let symbols = numbered(1 + dice.roll(60));
        let percent = [0, 5, 30, 100][dice.roll(4) as usize];
        let needed: BTreeSet<String> = symbols.iter().filter(|_| dice.chance(percent)).cloned().collect();
        let budget = [3, 20, 200, 100_000][dice.roll(4) as usize];
        let work = ConfigWork::new(&kernel(&symbols), &towards("CONFIG_OTHER=\"x\"\n", budget), TITLE, &[]);
        let (fragment, asked) = drive(work, |off| off.is_disjoint(&needed));
        assert!(asked.len() <= budget as usize, "seed {seed}");
        let off = off(&fragment);
        assert!(off.is_disjoint(&needed), "seed {seed}");
        if asked.len() < budget as usize {
            within += 1;
            assert_eq!(off.len() + needed.len(), symbols.len(), "seed {seed}");
        }
    }
    assert!(within > 150, "{within}");
}

#[test]
fn nothing_is_settled_on_that_was_not_seen_to_crash() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let symbols = numbered(1 + dice.roll(25));
        let percent = 1 + dice.roll(99);
        let wish = towards("CONFIG_NEW=y\n", 1 + dice.roll(150) as u32);
        // An answer that hangs on the set and on nothing else, and follows no rule.
        let shows = |off: &BTreeSet<String>| {
            let mixed = off
                .iter()
                .flat_map(|it| it.bytes())
                .fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            Dice(mixed).chance(percent)
        };
        let new = || ConfigWork::new(&kernel(&symbols), &wish, TITLE, &[]);
        let (fragment, asked) = drive(new(), shows);
        assert!(fragment.is_none() || asked.contains(&(fragment.clone(), true)), "seed {seed}");
        let distinct: BTreeSet<String> =
            asked.iter().flat_map(|(it, _)| it).map(|it| it.text.clone()).collect();
        assert_eq!(distinct.len(), asked.len(), "seed {seed}: a kernel was asked for twice");
        // Begun anew in the middle, the same answers lead the same way.
        let mut again = new();
        for (fragment, answer) in &asked {
            assert_eq!(again.next(), *fragment, "seed {seed}");
            again.record(*answer);
        }
        assert_eq!((again.next(), again.result().fragment), (None, fragment), "seed {seed}");
    }
}

#[test]
fn instrumentation_that_the_crash_needs_is_not_touched() {
    let symbols: Vec<String> =
        ["KASAN", "KCOV", "PROVE_LOCKING", "A"].map(|name| format!("CONFIG_{name}")).into();
    for (drop, baseline, expected) in [
        (true, None, vec!["KCOV", "PROVE_LOCKING"]),
        (true, Some("CONFIG_B=3\n"), vec!["A", "KCOV", "PROVE_LOCKING"]),
        (false, Some("CONFIG_KCOV=y\n"), vec!["A", "PROVE_LOCKING"]),
        (false, None, vec![]),
    ] {
        let wish = ConfigWish { drop_instrumentation: drop, ..towards(baseline.unwrap_or_default(), 20) };
        let wish = ConfigWish { baseline: wish.baseline.filter(|_| baseline.is_some()), ..wish };
        let work = ConfigWork::new(&kernel(&symbols), &wish, "KASAN: slab-use-after-free Read in f", &[]);
        let (fragment, asked) = drive(work, |_| true);
        let expected: BTreeSet<String> = expected.iter().map(|name| format!("CONFIG_{name}")).collect();
        assert_eq!(off(&fragment), expected, "{drop} {baseline:?}");
        assert!(asked.len() <= 2);
    }
}

#[test]
fn what_is_off_for_old_releases_stays_off() {
    let wish = towards("CONFIG_B=y\nCONFIG_C=y\n", 20);
    let work = ConfigWork::new(&kernel(&numbered(1)), &wish, TITLE, &["CONFIG_B".into()]);
    let (fragment, _) = drive(work, |_| true);
    let changed = fragment.iter().flat_map(changed).collect::<Vec<_>>();
    assert_eq!(changed, ["CONFIG_C=y", "CONFIG_S0=n"]);
}

const NEEDS: &[&str] = &["CONFIG_UBSAN", "CONFIG_S3", "CONFIG_S11"];

/// A farm whose crash needs some symbols, with work on the configuration asked for.
fn work_in(seed: u64, agents: usize, faults: Faults, steps_max: u32) -> (World, Configured) {
    let mut world = World::new(seed, 40, agents, Faults { needs: NEEDS, ..faults });
    let mut symbols = numbered(16);
    symbols.extend(["KASAN", "UBSAN", "KCOV", "DEBUG_LIST"].map(|name| format!("CONFIG_{name}")));
    let wish = ConfigWish { drop_instrumentation: true, ..towards("CONFIG_S0=y\n", steps_max) };
    let id = world.submit_job("request", Job { kernel: kernel(&symbols), config_work: wish, ..job() });
    world.run(DAY);
    let (_, end) = world.job(&id).ended.expect("every job ends");
    assert_eq!(end.culprit, Some(commit_id(world.culprit)), "seed {seed}: {end:?}");
    let settled: Vec<&Configured> = world
        .facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Configured { configured, .. } => Some(configured),
            _ => None,
        })
        .collect();
    assert_eq!(settled.len(), 1, "seed {seed}: the work is done once");
    let settled = settled[0].clone();
    (world, settled)
}

#[test]
fn a_farm_goes_on_with_what_the_crash_needs() {
    for seed in 0..30 {
        let faults = Faults { restart_permille: 15, lost: 5, delay_ms: 500, ..Faults::default() };
        let faults = if seed % 3 == 0 { Faults::default() } else { faults };
        let (world, settled) = work_in(seed, 1 + seed as usize % 4, faults, 200);
        let off = off(&settled.worked.fragment);
        assert_eq!(off.len(), 16 - 3 + 3, "seed {seed}: {off:?}");
        assert!(NEEDS.iter().all(|symbol| !off.contains(*symbol)), "seed {seed}: {off:?}");
        for (item, times) in &world.recorded {
            assert_eq!(*times, 1, "seed {seed}: {item} was counted {times} times");
        }
        let id = "1".parse().expect("an id");
        let rendered = world.farm.rendered(&id).expect("ended");
        assert!(rendered.log.contains("configuration: 16 symbols changed"), "{}", rendered.log);
        let json: serde_json::Value = serde_json::from_str(&rendered.json).expect("it is JSON");
        assert_eq!(json["configuration"]["kernels"], settled.worked.tried, "seed {seed}");
        assert_eq!(json["configuration"]["changed"].as_array().map(Vec::len), Some(16), "seed {seed}");
        let builds = settled.items.iter().filter(|key| matches!(key, ItemKey::Build(_))).count();
        assert_eq!(builds, settled.worked.tried as usize, "seed {seed}: {settled:?}");
    }
}

#[test]
fn a_budget_is_kept_and_the_culprit_found() {
    for steps_max in [1, 4, 9] {
        let (_, settled) = work_in(7, 2, Faults::default(), steps_max);
        assert!(settled.worked.tried <= steps_max, "{settled:?}");
        assert!(NEEDS.iter().all(|symbol| !off(&settled.worked.fragment).contains(*symbol)));
    }
}

/// Which runs of a kernel are silent hangs on their numbers alone, so how many agents there are, and
/// in which order their answers come, must not show in what is settled on.
#[test]
fn the_order_of_arrival_does_not_change_what_is_settled_on() {
    let mut repeated = 0;
    for seed in 0..12 {
        let flaky = Faults { silent: 40 + 3 * seed, ..Faults::default() };
        let storm = Faults { lost: 5, repeated: 5, delay_ms: 3000, restart_permille: 10, ..flaky };
        let (_, alone) = work_in(seed, 1, flaky, 200);
        for (agents, faults) in [(2, flaky), (5, flaky), (3, storm)] {
            let (_, settled) = work_in(seed, agents, faults, 200);
            assert_eq!(settled.worked, alone.worked, "seed {seed}, {agents} agents");
        }
        repeated += alone.items.iter().filter(|item| matches!(item, ItemKey::Run(_, 2..))).count();
    }
    assert!(repeated > 12, "no run was silent: {repeated}");
}

/// The search judges the bad end by as many runs and no more; what the work takes beyond them
/// would be evidence that the search never sees.
#[test]
fn no_kernel_gets_more_runs_than_the_search_would_give_it() {
    let mut longest = 0;
    for (first_max, agents) in [(2, 1), (3, 4), (5, 8), (20, 8)] {
        let faults = Faults { silent: 50, needs: NEEDS, ..Faults::default() };
        let mut world = World::new(5, 40, agents, faults);
        let wish = ConfigWish { drop_instrumentation: true, ..towards("CONFIG_S0=y\n", 40) };
        let runs = Runs { first_max, ..Runs::default() };
        let job = Job { kernel: kernel(&numbered(16)), config_work: wish, runs, ..job() };
        world.submit_job("request", job);
        world.run(DAY);
        let settled = world.facts.iter().find_map(|fact| match fact {
            Fact::Configured { configured, .. } => Some(configured),
            _ => None,
        });
        let Some(settled) = settled else { continue };
        for item in &settled.items {
            if let ItemKey::Run(_, index) = item {
                assert!(*index < first_max.max(2), "run {index} of at most {first_max}");
                longest = longest.max(*index);
            }
        }
    }
    assert!(longest > 2, "{longest}");
}
