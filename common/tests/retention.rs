//! What may go from the store, against the plain words of the promise.

use kulprit_common::id::Digest;
use kulprit_common::retention::{Retention, Stored, YOUNG, expendable};
use kulprit_common::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;

fn world() -> impl Strategy<Value = (Vec<(Stored, bool)>, Retention, Timestamp)> {
    let one = (0u64..500, 0u64..1000 * HOUR_MS, any::<bool>());
    let retention = (proptest::option::of(0u64..800), proptest::option::of(0u64..5000));
    (proptest::collection::vec(one, 0..40), retention, 0u64..1200 * HOUR_MS).prop_map(
        |(objects, (hours, bytes_max), now)| {
            let object = |(index, (size, modified, needed)): (usize, (u64, u64, bool))| {
                let digest = Digest::of(format!("{index}").as_bytes());
                (Stored { digest, size, modified: Timestamp(modified) }, needed)
            };
            let age_max = hours.map(|hours| Duration::from_secs(hours * 3600));
            let objects = objects.into_iter().enumerate().map(object).collect();
            (objects, Retention { age_max, bytes_max }, Timestamp(now))
        },
    )
}

proptest! {
    #[test]
    fn what_goes_may_go_and_what_must_go_goes((objects, retention, now) in world()) {
        let stored: Vec<Stored> = objects.iter().map(|(it, _)| *it).collect();
        let needed: BTreeSet<Digest> = objects.iter().filter(|(_, needed)| *needed).map(|(it, _)| it.digest).collect();
        let gone = expendable(now, &stored, &retention, YOUNG, |digest| needed.contains(digest));
        let digests: BTreeSet<Digest> = gone.iter().map(|it| it.digest).collect();
        prop_assert_eq!(digests.len(), gone.len(), "once each");
        let is_free = |it: &Stored| !needed.contains(&it.digest) && now.since(it.modified) >= YOUNG;
        prop_assert!(gone.iter().all(is_free), "neither what is needed nor what is young");
        prop_assert!(gone.is_sorted_by_key(|it| it.modified));
        if retention.is_unlimited() {
            prop_assert!(gone.is_empty());
        }
        let left: Vec<&Stored> = stored.iter().filter(|it| !digests.contains(&it.digest)).collect();
        if let Some(age_max) = retention.age_max {
            prop_assert!(!left.iter().any(|it| is_free(it) && now.since(it.modified) > age_max), "nothing too old is left");
        }
        let bytes: u64 = left.iter().map(|it| it.size).sum();
        if let Some(max) = retention.bytes_max {
            prop_assert!(bytes <= max || !left.iter().any(|it| is_free(it)), "small enough, or nothing more may go");
        }
        // No more goes than has to: without the last of those that are not too old, it would be too much.
        let young_enough = |it: &&Stored| retention.age_max.is_none_or(|max| now.since(it.modified) <= max);
        if let Some(last) = gone.iter().rfind(young_enough) {
            prop_assert!(bytes + last.size > retention.bytes_max.expect("age does not say so"));
        }
    }
}
