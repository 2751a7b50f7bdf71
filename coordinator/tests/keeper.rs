//! What the keeper of the store removes, and what it leaves to the coordinator after this one.

use futures::TryStreamExt as _;
use kulprit_common::access::Principal;
use kulprit_common::farm::{Config, Farm};
use kulprit_common::retention::Retention;
use kulprit_coordinator::artifacts::Store;
use kulprit_coordinator::driver::{self, Clock, Driver};
use kulprit_coordinator::git::Mirrors;
use kulprit_coordinator::hands::Hands;
use kulprit_coordinator::journal::Journal;
use kulprit_coordinator::keeper::{Asked, GcError, Keeper};
use kulprit_coordinator::symbols::Symbols;
use kulprit_coordinator::telemetry::FIGURES;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const STORED: u8 = 10;

async fn stored(store: &Store) -> usize {
    store.list().try_collect::<Vec<_>>().await.expect("it can be listed").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_no_longer_removes_nothing_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let store = Arc::new(Store::open(&at("artifacts").to_string_lossy()).expect("it opens"));
    for number in 0..STORED {
        store.put(vec![number].into()).await.expect("it is stored");
    }
    let journal = Journal::open(&at("journal.sqlite"), |_| {}).await.expect("it opens");
    let clock = Clock::start();
    let (farm, first) = Farm::restore(Config::default(), [], clock.now());
    let (handle, ends) = driver::channel();
    let symbols = Symbols::new(store.clone(), at("symbols"));
    let hands = Hands::new(Mirrors::new(at("mirrors")), symbols, handle.clone());
    let (stop, stopped) = watch::channel(false);
    let driving = tokio::spawn(Driver::new(farm, clock, journal, hands, ends).run(first, stopped));

    let keeper = Keeper::new(store.clone(), handle, Retention::default(), Duration::ZERO);
    let retention = Retention { bytes_max: Some(0), ..Retention::default() };
    let asked = Asked { retention, dry_run: false, by: Principal::Local };
    // Nobody listens yet: it tells of one that went, and waits to tell of another.
    let (tell, mut gone) = mpsc::channel(1);
    let going = tokio::spawn(async move { keeper.gc(asked, &tell).await });
    while stored(&store).await > usize::from(STORED) - 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(true);
    driving.await.expect("no panic").expect("it ends in order");
    let mut told = 0;
    while gone.recv().await.is_some() {
        told += 1;
    }
    let ended = going.await.expect("no panic");
    assert!(matches!(ended, Err(GcError::Stopped(_))), "{:?}", ended.map(|_| "it went on"));
    assert_eq!((told, stored(&store).await), (2, usize::from(STORED) - 2));
    let figures = FIGURES.book.text();
    for line in [
        "kulprit_artifacts_removed_total 2",
        "kulprit_artifacts_removed_bytes_total 2",
        "kulprit_artifacts{needed=\"no\"} 10",
        "kulprit_artifacts_bytes{needed=\"no\"} 10",
        "kulprit_artifacts{needed=\"yes\"} 0",
    ] {
        assert!(figures.lines().any(|it| it == line), "{line}: {figures}");
    }
}
