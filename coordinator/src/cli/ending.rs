//! Exit codes by ending.

use kulprit_common::report::ending::{EXIT_BAD_INPUT, EXIT_INTERNAL};
use kulprit_proto::v1;

/// The exit code for a job that has ended.
///
/// The report knows best: listings have fewer names than there are findings.
pub fn exit_code(view: &v1::JobView) -> u8 {
    let report: Option<serde_json::Value> = serde_json::from_str(&view.json).ok();
    let said = report.as_ref().and_then(|report| report.get("finding")?.get("exit_code")?.as_u64());
    match said.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => code,
        None => by_kind(view.end.as_ref().map_or("", |end| end.kind.as_str())),
    }
}

/// An ending this version has no name for is a newer coordinator's; that is no success.
pub fn by_kind(kind: &str) -> u8 {
    match kind {
        "culprit" => 0,
        "invalid" => EXIT_BAD_INPUT,
        "suspects" => 3,
        "not-reproduced" | "bad-end-broken" => 4,
        "good-end-is-bad" | "oldest-release-has-bug" | "not-fixed" => 5,
        "blocked" | "cancelled" => 6,
        _ => EXIT_INTERNAL,
    }
}

/// Whether submitting the same job once more is worth it: the cause may be mended by now.
pub fn is_worth_another_try(kind: &str) -> bool {
    matches!(kind, "invalid" | "blocked" | "cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: &str, json: &str) -> v1::JobView {
        let end = v1::JobEnd { kind: kind.into(), ..Default::default() };
        v1::JobView { end: Some(end), json: json.into(), ..Default::default() }
    }

    #[test]
    fn every_ending_has_its_code() {
        for (kind, json, code) in [
            ("culprit", "", 0),
            ("culprit", r#"{"finding":{"exit_code":0}}"#, 0),
            ("invalid", r#"{"finding":null}"#, 2),
            ("suspects", "not JSON", 3),
            ("not-reproduced", "{}", 4),
            ("bad-end-broken", "", 4),
            ("blocked", r#"{"finding":{"exit_code":4}}"#, 4),
            ("good-end-is-bad", "", 5),
            ("oldest-release-has-bug", "", 5),
            ("not-fixed", "", 5),
            ("blocked", r#"{"finding":{"exit_code":70000}}"#, 6),
            ("cancelled", "", 6),
            ("something-newer", "[]", 1),
            ("", "", 1),
        ] {
            assert_eq!(exit_code(&ended(kind, json)), code, "{kind} {json}");
        }
        assert_eq!(exit_code(&v1::JobView::default()), 1);
    }
}
