//! `kulprit doctor --farm`: a farm that runs, seen from here, with what to do where something is wrong.

use super::{Check, Status, reach};
use crate::cli::args::To;
use crate::cli::client::Coordinator;
use crate::cli::credentials;
use crate::cli::failure::Failure;
use crate::cli::tables::now_ms;
use kulprit_common::time::render_duration;
use kulprit_proto::v1;
use std::time::Duration;

/// Beyond it times in listings mislead; beyond the other, certificates may be refused.
const CLOCK_OFF: Duration = Duration::from_secs(5);
const CLOCK_WRONG: Duration = Duration::from_secs(120);
/// A certificate is renewed at two thirds of its life; with less than a tenth left nobody did.
const LIFE_LEFT_PERCENT: u32 = 10;
/// A journal is read whole at each start of the coordinator, at some 100 MiB in a second.
const JOURNAL_BYTES_LARGE: u64 = 4 << 30;

/// All that can be seen; without a coordinator there is nothing but that.
pub async fn checks(to: &To) -> Vec<Check> {
    let (seen, addresses) = futures::join!(look(to), reach::addresses(to));
    let mut checks = seen.unwrap_or_else(|failure| vec![out_of_reach(&failure)]);
    // Behind what is said of the coordinator that was found.
    checks.splice(1..1, addresses);
    checks
}

async fn look(to: &To) -> Result<Vec<Check>, Failure> {
    let mut coordinator = Coordinator::dial(to).await?;
    let before = now_ms();
    let status = coordinator.status().await?;
    let after = now_ms();
    let agents = coordinator.agents().await?;
    let mut checks = vec![Check::new(
        "coordinator",
        Status::Ok,
        format!("{}, up for {}", coordinator.url(), span(status.now_ms.saturating_sub(status.started_ms))),
        "",
    )];
    checks.push(clock(before, status.now_ms, after));
    checks.extend(own_certificate(to, coordinator.url()));
    checks.extend(its_certificate(&status));
    checks.push(versions(&status));
    checks.push(store(&status));
    checks.extend(reach::artifacts(to, &status.artifacts_url).await);
    checks.push(disk(&status));
    checks.push(journal(&status));
    checks.push(crew(&agents));
    checks.extend(agents.iter().filter_map(|it| agent(it, &status)));
    Ok(checks)
}

fn out_of_reach(failure: &Failure) -> Check {
    let hint = "look whether kulprit-coordinator runs there (its log, or `systemctl status`), whether a firewall is \
                between, and whether --coordinator and --credentials name the right ones";
    Check::new("coordinator", Status::Failed, failure.why(), hint)
}

fn clock(before: u64, there: u64, after: u64) -> Check {
    let here = before.midpoint(after);
    let apart = Duration::from_millis(there.abs_diff(here));
    // What the call took cannot be told from a difference.
    let apart_at_least = apart.saturating_sub(Duration::from_millis(after.saturating_sub(before) / 2));
    let which = if there > here { "behind" } else { "ahead of" };
    let (status, hint) = match apart_at_least {
        off if off > CLOCK_WRONG => (Status::Failed, "certificates may be refused: set the clocks, by NTP"),
        off if off > CLOCK_OFF => (Status::Warning, "set the clocks, by NTP"),
        _ => (Status::Ok, ""),
    };
    let detail = match status {
        Status::Ok => format!("{} ms from the coordinator's", apart.as_millis()),
        Status::Warning | Status::Failed => {
            format!("this machine's is {} {which} the coordinator's", render_duration(apart))
        }
    };
    Check::new("clock", status, detail, hint)
}

fn own_certificate(to: &To, url: &str) -> Option<Check> {
    if !url.starts_with("https://") {
        return None;
    }
    let credentials = credentials::open(to).ok()?.current();
    let until = u64::try_from(credentials.validity.until.as_millis()).unwrap_or(u64::MAX);
    let life = credentials.validity.life();
    let hint =
        "it is renewed whenever it is used: look whether the coordinator issues certificates, or join again";
    Some(certificate(&format!("certificate of {}", credentials.member), until, now_ms(), life, hint))
}

fn its_certificate(status: &v1::FarmStatusResponse) -> Option<Check> {
    let (from, until) = (status.certificate_from_ms?, status.certificate_until_ms?);
    let life = Duration::from_millis(until.saturating_sub(from));
    let hint = "put a new one where --tls-cert and --tls-key point; one of the farm's own CA renews itself, so look \
                into the coordinator's log";
    Some(certificate("coordinator's certificate", until, status.now_ms, life, hint))
}

fn certificate(name: &str, until_ms: u64, now: u64, life: Duration, hint: &str) -> Check {
    let left = Duration::from_millis(until_ms.saturating_sub(now));
    let detail = format!("{} left", span(until_ms.saturating_sub(now)));
    match left {
        left if left.is_zero() => Check::new(name, Status::Failed, "it has expired", hint),
        left if left * 100 < life * LIFE_LEFT_PERCENT => Check::new(name, Status::Warning, detail, hint),
        _ => Check::new(name, Status::Ok, detail, ""),
    }
}

fn versions(status: &v1::FarmStatusResponse) -> Check {
    let own = kulprit_proto::VERSION;
    match status.version == own {
        true => Check::new("versions", Status::Ok, own, ""),
        false => Check::new(
            "versions",
            Status::Warning,
            format!("the coordinator is {}, this program {own}", status.version),
            "install the same version here; calls that one of them does not know are refused",
        ),
    }
}

fn store(status: &v1::FarmStatusResponse) -> Check {
    match status.store_problem.as_str() {
        "" => Check::new("artifact store", Status::Ok, &status.store, ""),
        problem => Check::new(
            "artifact store",
            Status::Failed,
            format!("{}: {problem}", status.store),
            "mend the store, or the coordinator's credentials for it; attempts are tried again by themselves",
        ),
    }
}

fn disk(status: &v1::FarmStatusResponse) -> Check {
    let (free, least) = (status.disk_free_mib, status.disk_min_mib);
    let detail = format!("{free} MiB free on the coordinator, {least} MiB needed");
    let hint = "make room in the coordinator's --state: jobs are refused below --disk-min-mib";
    match free {
        free if free < least => Check::new("coordinator's disk", Status::Failed, detail, hint),
        free if free / 4 < least => Check::new("coordinator's disk", Status::Warning, detail, hint),
        _ => Check::new("coordinator's disk", Status::Ok, detail, ""),
    }
}

fn journal(status: &v1::FarmStatusResponse) -> Check {
    let detail = format!("{} MiB", status.journal_bytes.div_ceil(1 << 20));
    match status.journal_bytes > JOURNAL_BYTES_LARGE {
        true => {
            Check::new("journal", Status::Warning, detail, "a restart takes long: it is read whole each time")
        }
        false => Check::new("journal", Status::Ok, detail, ""),
    }
}

/// Whether there is anybody to do the work.
fn crew(agents: &[v1::AgentView]) -> Check {
    let online: Vec<_> = agents.iter().filter(|it| it.state == "online").collect();
    let slots: usize = online.iter().map(|it| it.slots.len()).sum();
    let busy = online.iter().flat_map(|it| &it.slots).filter(|slot| slot.work.is_some()).count();
    let lost = match agents.iter().filter(|it| it.state == "lost").count() {
        0 => String::new(),
        lost => format!(" and {lost} lost"),
    };
    let detail = format!("{} online{lost}, {busy} of {slots} slots busy", online.len());
    let builds = online.iter().any(|it| !it.cannot_build);
    let boots = online.iter().any(|it| !it.cannot_boot);
    let hint = match (online.is_empty(), builds, boots) {
        (true, ..) => "start an agent: `kulprit-agent --check` on its machine says what that lacks",
        (false, false, _) => "none of them can build: see what each says below",
        (false, true, false) => "none of them can boot guests: see what each says below",
        (false, true, true) => return Check::new("agents", Status::Ok, detail, ""),
    };
    Check::new("agents", Status::Failed, detail, hint)
}

/// One agent; `None` for one that was shut out.
fn agent(it: &v1::AgentView, status: &v1::FarmStatusResponse) -> Option<Check> {
    let name = format!("agent {}", it.id);
    let ago = |at: u64| format!("{} ago", span(status.now_ms.saturating_sub(at)));
    let heard = match it.last_sync_ms {
        Some(at) => format!("heard {}", ago(at)),
        None => format!("not heard since the coordinator started {}", ago(status.started_ms)),
    };
    let because = |what: String| if it.reason.is_empty() { what } else { format!("{what}: {}", it.reason) };
    let (status, detail, hint) = match it.state.as_str() {
        "revoked" => return None,
        "lost" => (
            Status::Warning,
            because(format!("lost, {heard}")),
            format!("start it again; if it is gone for good, `kulprit agent revoke {}`", it.id),
        ),
        "quarantined" => (
            Status::Failed,
            because("quarantined".into()),
            format!("mend the machine, then `kulprit agent release {}`", it.id),
        ),
        "draining" => (
            Status::Warning,
            because("draining".into()),
            "it ends when it has finished what it holds; start it again where that is not meant".into(),
        ),
        _ if !it.problems.is_empty() => (
            Status::Failed,
            it.problems.join("; "),
            "`kulprit-agent --check` on its machine says more".into(),
        ),
        _ if it.version != status.version => (
            Status::Warning,
            format!("kulprit {}, and the coordinator {}", it.version, status.version),
            "upgrade the older one; agents one minor version behind are served".into(),
        ),
        _ => (Status::Ok, format!("kulprit {}, {}, {heard}", it.version, it.host), String::new()),
    };
    Some(Check::new(&name, status, detail, hint))
}

/// Milliseconds, in words that are no more precise than is of use.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    render_duration(Duration::from_secs(if seconds < 3600 { seconds } else { seconds / 60 * 60 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_less_what_the_call_took() {
        for (before, there, after, status) in [
            (1_000, 1_040, 1_060, Status::Ok),
            (1_000, 9_000, 1_010, Status::Warning),
            (400_000, 1_000, 400_010, Status::Failed),
            // A call of half a minute says nothing of 10 s.
            (0, 25_000, 30_000, Status::Ok),
        ] {
            assert_eq!(clock(before, there, after).status, status, "{before} {there} {after}");
        }
        assert!(clock(0, 8_000, 0).detail.contains("this machine's is 8s behind"));
    }

    #[test]
    fn certificates_are_told_of_before_they_end() {
        let of = |left: u64| certificate("it", 1_000_000 + left, 1_000_000, Duration::from_secs(100), "join");
        assert_eq!(of(50_000).status, Status::Ok);
        assert_eq!((of(9_000).status, of(9_000).hint.as_str()), (Status::Warning, "join"));
        assert_eq!(of(0).status, Status::Failed);
    }

    #[test]
    fn each_agents_state_comes_with_what_to_do() {
        let status = v1::FarmStatusResponse { version: "0.2.0".into(), ..Default::default() };
        let of = |state: &str, change: fn(&mut v1::AgentView)| {
            let mut it = v1::AgentView {
                id: "a1".into(),
                state: state.into(),
                version: "0.2.0".into(),
                ..Default::default()
            };
            change(&mut it);
            agent(&it, &status)
        };
        assert_eq!(of("revoked", |_| {}), None);
        for (state, change, expected, words) in [
            ("online", (|_| {}) as fn(&mut v1::AgentView), Status::Ok, ""),
            ("online", |it| it.version = "0.1.0".into(), Status::Warning, "upgrade"),
            ("online", |it| it.problems.push("low on disk".into()), Status::Failed, "--check"),
            ("lost", |_| {}, Status::Warning, "kulprit agent revoke a1"),
            ("quarantined", |it| it.reason = "odd".into(), Status::Failed, "kulprit agent release a1"),
            ("draining", |_| {}, Status::Warning, "it ends"),
        ] {
            let check = of(state, change).expect("it is told of");
            assert!(check.status == expected && check.hint.contains(words), "{check:?}");
        }
    }

    #[test]
    fn a_farm_without_hands_is_told_of() {
        let online = |cannot_build, cannot_boot| v1::AgentView {
            state: "online".into(),
            cannot_build,
            cannot_boot,
            ..Default::default()
        };
        for (agents, status) in [
            (vec![], Status::Failed),
            (vec![online(true, false)], Status::Failed),
            (vec![online(false, true)], Status::Failed),
            (vec![online(false, true), online(true, false)], Status::Ok),
        ] {
            assert_eq!(crew(&agents).status, status, "{agents:?}");
        }
    }
}
