//! Every index of the queue says what walking through all items says, whatever was done to them.

use super::*;
use crate::farm::census::Purpose;
use crate::id::{Attempt, Digest, Session};
use crate::outcome::{Infra, InfraClass};

const WORLDS: u64 = 200;
const STEPS: u32 = 120;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn job(number: u64) -> JobId {
    number.to_string().parse().expect("a number is a job id")
}

fn agent(number: u64) -> AgentId {
    format!("agent-{number}").parse().expect("a name")
}

fn key(number: u64) -> ItemKey {
    match number % 3 {
        0 => ItemKey::Toolchain(format!("image {number}")),
        1 => ItemKey::Build(Digest::of(&number.to_le_bytes())),
        _ => ItemKey::Run(Digest::of(b"kernel"), number as u32),
    }
}

fn state(dice: &mut Dice) -> State {
    match dice.roll(5) {
        0 | 1 => State::Ready,
        2 => State::Quarantined("by chance".into()),
        _ => State::Leased(Lease {
            attempt: Attempt(dice.roll(1000)),
            agent: agent(dice.roll(3)),
            session: Session(1),
            slot: 0,
            granted: Timestamp(0),
            until: Timestamp(dice.roll(50)),
            activity: String::new(),
        }),
    }
}

fn failure(dice: &mut Dice) -> Failure {
    let infra = Infra { class: InfraClass::Qemu, reason: "by chance".into() };
    Failure { agent: agent(dice.roll(3)), at: Timestamp(0), retry_from: Timestamp(dice.roll(50)), infra }
}

fn item(dice: &mut Dice, number: u64) -> Item {
    Item {
        work: Work::Toolchain { image: "gcc".into() },
        title: String::new(),
        wanted_by: (0..3).filter(|_| dice.roll(2) == 0).map(job).collect(),
        purpose: Purpose { job: job(0), revision: None },
        made: Timestamp(0),
        ready_since: Timestamp(0),
        state: state(dice),
        failures: (0..dice.roll(3)).map(|_| failure(dice)).collect(),
        number,
        spread: false,
    }
}

fn step(items: &mut Items, dice: &mut Dice, number: u64) {
    let key = key(dice.roll(8));
    match dice.roll(8) {
        0 | 1 => items.put(key, item(dice, number)),
        2 => _ = items.remove(&key),
        3 => items.set_state(&key, state(dice)),
        4 => {
            let (job, leaves) = (job(dice.roll(3)), dice.roll(2) == 0);
            items.change(&key, |item| {
                _ = if leaves { item.wanted_by.remove(&job) } else { item.wanted_by.insert(job) };
            });
        }
        5 => items.renew(&agent(dice.roll(3)), Timestamp(dice.roll(50))),
        6 => items.hear(&key, Timestamp(dice.roll(50)), "at it"),
        _ => _ = items.free_due(Timestamp(dice.roll(20))),
    }
}

fn check(items: &Items) {
    let all = || items.all.iter();
    assert!(all().all(|(_, item)| item.is_of_use()), "one is kept that nobody wants or holds");
    for agent in (0..3).map(agent) {
        let mut held: Vec<&ItemKey> = all()
            .filter(|(_, item)| item.lease().is_some_and(|lease| lease.agent == agent))
            .map(|(key, _)| key)
            .collect();
        held.sort();
        assert!(items.held_by(&agent).map(|(key, ..)| key).eq(held), "held by {agent}");
    }
    let leases = || all().filter_map(|(key, item)| Some((key, item, item.lease()?)));
    assert_eq!(items.first_due(), leases().map(|(.., lease)| lease.until).min());
    assert_eq!(items.until.len(), leases().count());
    for job in (0..3).map(job) {
        assert_eq!(
            items.in_hand(&job),
            leases().filter(|(_, item, _)| item.wanted_by.contains(&job)).count()
        );
        let mut ready: Vec<(Need, u64, &ItemKey)> = all()
            .filter(|(_, item)| matches!(item.state, State::Ready) && item.wanted_by.contains(&job))
            .map(|(key, item)| (Need::of(key, &item.work), item.number, key))
            .collect();
        ready.sort();
        let queued = items.ready().iter().flat_map(|(need, queues)| {
            let queue = queues.get(&job).into_iter().flatten();
            queue.map(|(number, key)| (need.clone(), *number, key))
        });
        assert!(queued.eq(ready), "ready for {job}");
    }
    assert!(
        items.ready().values().all(|queues| !queues.is_empty() && queues.values().all(|it| !it.is_empty()))
    );
    let retries =
        |now| all().filter(|(_, item)| item.is_wanted()).filter_map(move |(_, item)| item.next_retry(now));
    for now in [0, 20, 40].map(Timestamp) {
        assert_eq!(items.next_retry(now), retries(now).min());
    }
}

#[test]
fn indexes_say_what_a_walk_through_all_says() {
    for seed in 0..WORLDS {
        let (mut items, mut dice) = (Items::default(), Dice(seed));
        for number in 0..STEPS {
            step(&mut items, &mut dice, u64::from(number));
            check(&items);
        }
    }
}

#[test]
fn whoever_is_given_or_loses_something_is_looked_at_again() {
    let mut dice = Dice(1);
    let lease = |to: u64| {
        State::Leased(Lease {
            attempt: Attempt(1),
            agent: agent(to),
            session: Session(1),
            slot: 0,
            granted: Timestamp(0),
            until: Timestamp(10),
            activity: String::new(),
        })
    };
    let mut items = Items::default();
    let wanted = Item { wanted_by: BTreeSet::from([job(1)]), state: State::Ready, ..item(&mut dice, 1) };
    items.put(key(1), wanted);
    assert!(items.take_news().is_empty());
    items.set_state(&key(1), lease(2));
    assert_eq!(items.take_news(), BTreeSet::from([agent(2)]), "it was given something");
    items.renew(&agent(2), Timestamp(20));
    assert!(items.take_news().is_empty(), "a renewal is no news");
    items.change(&key(1), |item| _ = item.wanted_by.pop_first());
    assert_eq!(items.take_news(), BTreeSet::from([agent(2)]), "nobody wants it any more");
    let lost = items.free_due(Timestamp(20));
    assert_eq!(lost, [Lost { item: key(1), attempt: Attempt(1), at: Timestamp(20), how: Loss::RanOut }]);
    assert_eq!(items.take_news(), BTreeSet::from([agent(2)]), "its lease ran out");
    assert!(items.get(&key(1)).is_none(), "and it is forgotten");
}
