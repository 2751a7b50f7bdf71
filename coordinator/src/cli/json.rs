//! Views as JSON: keys are stable, times are milliseconds (since 1970, or durations).

use super::ending::exit_code;
use kulprit_proto::v1;
use serde_json::{Map, Value, json};

/// The result document of docs/results.md, with `progress` and `ending` added.
pub fn job(view: &v1::JobView) -> Value {
    let mut keys = match serde_json::from_str(&view.json) {
        Ok(Value::Object(keys)) => keys,
        // A coordinator that renders nothing yet: at least say which job it is.
        _ => Map::from_iter([("job".to_owned(), identity(view))]),
    };
    keys.insert("progress".into(), progress(view));
    keys.insert("ending".into(), ending(view));
    Value::Object(keys)
}

pub fn jobs(views: &[v1::JobView]) -> Value {
    let one = |view: &v1::JobView| json!({ "job": identity(view), "progress": progress(view), "ending": ending(view) });
    Value::Array(views.iter().map(one).collect())
}

fn identity(view: &v1::JobView) -> Value {
    json!({ "id": view.id, "name": view.name, "mode": mode(view.mode), "repository": view.repository })
}

fn progress(view: &v1::JobView) -> Value {
    let revision = |it: &v1::RevisionView| {
        json!({
            "revision": it.revision,
            "subject": it.subject,
            "role": it.role,
            "reverts": it.reverts,
            "state": it.state,
            "runs_done": it.runs_done,
            "runs_wanted": it.runs_wanted,
            "runs_target": it.runs_target,
        })
    };
    json!({
        "stage": view.stage,
        "detail": view.detail,
        "submitted_ms": view.submitted_ms,
        "ended_ms": view.ended_ms,
        "suspects_left": view.suspects_left,
        "builds": view.builds,
        "runs": view.runs,
        "revisions": view.revisions.iter().map(revision).collect::<Vec<_>>(),
        "quarantined": view.given_up.iter().map(given_up).collect::<Vec<_>>(),
    })
}

fn given_up(it: &v1::GivenUp) -> Value {
    json!({
        "item": it.item,
        "revision": it.revision,
        "reason": it.reason,
        "since_ms": it.since_ms,
        "failures": it.failures,
        "agents": it.agents,
    })
}

fn ending(view: &v1::JobView) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match &view.end {
        None => Value::Null,
        Some(end) => json!({
            "kind": end.kind,
            "exit_code": exit_code(view),
            "culprit": some(&end.culprit),
            "message": end.message,
            "field": some(&end.field),
        }),
    }
}

pub fn agents(agents: &[v1::AgentView]) -> Value {
    let slot = |slot: &v1::SlotView| {
        let work = slot.work.as_ref().map(|work| {
            json!({
                "attempt": format!("{:x}", work.attempt),
                "item": work.item,
                "title": work.title,
                "activity": work.activity,
                "since_ms": work.since_ms,
            })
        });
        json!({ "cores": slot.cores, "memory_mib": slot.memory_mib, "work": work })
    };
    let agent = |agent: &v1::AgentView| {
        json!({
            "id": agent.id,
            "host": agent.host,
            "version": agent.version,
            "accelerator": agent.accelerator,
            "state": agent.state,
            "reason": agent.reason,
            "quarantined_ms": agent.quarantined_ms,
            "quarantined_until_ms": agent.quarantined_until_ms,
            "last_sync_ms": agent.last_sync_ms,
            "awaited": agent.awaited,
            "slots": agent.slots.iter().map(slot).collect::<Vec<_>>(),
            "problems": agent.problems,
            "labels": agent.labels,
            "can_build": !agent.cannot_build,
            "can_boot": !agent.cannot_boot,
        })
    };
    Value::Array(agents.iter().map(agent).collect())
}

pub fn mode(mode: i32) -> &'static str {
    match v1::Mode::try_from(mode) {
        Ok(v1::Mode::Cause) => "cause",
        Ok(v1::Mode::Fix) => "fix",
        Ok(v1::Mode::Build) => "build",
        Ok(v1::Mode::Boot) => "boot",
        Ok(v1::Mode::Unspecified) | Err(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_its_result_with_more_keys() {
        let end = v1::JobEnd { kind: "culprit".into(), culprit: "ab".into(), ..Default::default() };
        let json = r#"{"version":1,"finding":{"kind":"culprit","exit_code":0}}"#.into();
        let view = v1::JobView { id: "j".into(), json, end: Some(end), mode: 1, ..Default::default() };
        let value = job(&view);
        assert_eq!(value["version"], 1);
        assert_eq!(value["finding"]["kind"], "culprit");
        assert_eq!(value["ending"]["culprit"], "ab");
        assert_eq!(value["ending"]["exit_code"], 0);
        assert_eq!(value["ending"]["field"], Value::Null);
        assert_eq!(value["progress"]["revisions"], json!([]));
    }

    #[test]
    fn a_job_without_renderings_is_named_at_least() {
        let view = v1::JobView { id: "j".into(), mode: 77, ..Default::default() };
        assert_eq!(job(&view)["job"]["id"], "j");
        assert_eq!(job(&view)["job"]["mode"], "unknown");
        assert_eq!(job(&view)["ending"], Value::Null);
        assert_eq!(jobs(&[view])[0]["job"]["id"], "j");
    }
}
