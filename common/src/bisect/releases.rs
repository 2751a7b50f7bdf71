//! The walk over release tags, back to one without the crash.

use crate::id::RevisionId;
use crate::toolchain::Release;
use crate::verdict::Verdict;

/// A tag and the revision it names.
pub(super) type Tag = (String, RevisionId);

/// Where the walk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// These are still to be judged, newest first.
    Open(Vec<Tag>),
    /// The range is between these; without `bad`, up to the bad end itself.
    Found {
        good: RevisionId,
        bad: Option<RevisionId>,
    },
    OldestIsBad(Tag),
    /// No tag could be judged Good, and the oldest one is not Bad.
    Unjudged,
    NoTags,
}

/// The tags worth testing, newest first: the two newest sub-releases, then releases ever
/// more sparsely, and always the oldest (DOMAIN.md §1, "Which tags").
pub(super) fn select(tags: &[Tag], bad: RevisionId) -> Vec<Tag> {
    let parsed = |tag: &&Tag| tag.0.parse::<Release>().ok().filter(|_| tag.1 != bad);
    let major = |tag: &&Tag| parsed(tag).is_some_and(|release| release.patch == 0);
    let minor = |tag: &&Tag| parsed(tag).is_some_and(|release| release.patch > 0);
    let mut picked: Vec<Tag> = tags.iter().filter(minor).take(2).cloned().collect();
    let releases: Vec<&Tag> = tags.iter().filter(major).collect();
    let mut at = 0;
    while at < releases.len() {
        picked.push(releases[at].clone());
        let next = at
            + if at < 3 {
                1
            } else if at < 11 {
                2
            } else {
                3
            };
        at = if next >= releases.len() && at + 1 < releases.len() { releases.len() - 1 } else { next };
    }
    picked
}

/// Reads the walk off the verdicts: the newest Good one ends it, and only tags between it
/// and the oldest Bad one before it still matter.
pub(super) fn walk(tags: &[Tag], verdict: impl Fn(&RevisionId) -> Option<Verdict>) -> Walk {
    let verdicts: Vec<Option<Verdict>> = tags.iter().map(|(_, revision)| verdict(revision)).collect();
    let good = verdicts.iter().position(|&verdict| verdict == Some(Verdict::Good));
    let end = good.unwrap_or(tags.len());
    let bad = verdicts[..end].iter().rposition(|&verdict| verdict == Some(Verdict::Bad));
    let begin = bad.map_or(0, |bad| bad + 1);
    let open: Vec<Tag> =
        (begin..end).filter(|&at| verdicts[at].is_none()).map(|at| tags[at].clone()).collect();
    match (good, bad) {
        _ if !open.is_empty() => Walk::Open(open),
        (Some(good), bad) => Walk::Found { good: tags[good].1, bad: bad.map(|bad| tags[bad].1) },
        (None, Some(bad)) if bad + 1 == tags.len() => Walk::OldestIsBad(tags[bad].clone()),
        (None, _) if tags.is_empty() => Walk::NoTags,
        (None, _) => Walk::Unjudged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(n: u8) -> RevisionId {
        RevisionId::from_bytes([n; 20])
    }

    fn tags(names: &[&str]) -> Vec<Tag> {
        (1..).zip(names).map(|(n, name)| (name.to_string(), revision(n))).collect()
    }

    #[test]
    fn tags_thin_out_with_age_and_end_with_the_oldest() {
        let names: Vec<String> = (0..20).map(|n| format!("v5.{}", 20 - n)).collect();
        let mut all = vec!["v5.20.3", "v5.20.2", "v5.20.1", "next-2020"];
        all.extend(names.iter().map(String::as_str));
        let picked = select(&tags(&all), revision(0));
        let picked: Vec<&str> = picked.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(
            picked.join(" "),
            "v5.20.3 v5.20.2 v5.20 v5.19 v5.18 v5.17 v5.15 v5.13 v5.11 v5.9 v5.6 v5.3 v5.1"
        );
        assert_eq!(select(&tags(&["v5.1"]), revision(1)), []);
    }

    #[test]
    fn the_walk_ends_between_the_newest_good_and_the_oldest_bad() {
        use Verdict::{Bad, Good, Skip};
        let tags = tags(&["v5.4", "v5.3", "v5.2", "v5.1"]);
        let found = |good: u8, bad: Option<u8>| Walk::Found { good: revision(good), bad: bad.map(revision) };
        for (verdicts, expected) in [
            ([None, None, None, None], Walk::Open(tags.clone())),
            ([Some(Bad), None, Some(Good), None], Walk::Open(tags[1..2].to_vec())),
            ([None, Some(Bad), Some(Good), None], found(3, Some(2))),
            ([Some(Bad), Some(Skip), Some(Good), None], found(3, Some(1))),
            ([Some(Skip), Some(Skip), Some(Skip), Some(Good)], found(4, None)),
            ([Some(Bad), Some(Bad), Some(Bad), Some(Bad)], Walk::OldestIsBad(tags[3].clone())),
            ([Some(Bad), Some(Skip), Some(Skip), Some(Skip)], Walk::Unjudged),
        ] {
            let verdict = |id: &RevisionId| verdicts[usize::from(id.as_bytes()[0]) - 1];
            assert_eq!(walk(&tags, verdict), expected, "{verdicts:?}");
        }
        assert_eq!(walk(&[], |_| None), Walk::NoTags);
    }
}
