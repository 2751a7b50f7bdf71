//! `kulprit agent …`.

use super::args::{AgentDrainArgs, AgentListArgs, AgentQuarantineArgs, AgentReleaseArgs};
use super::bisect::print;
use super::client::Coordinator;
use super::failure::Failure;
use super::{json, tables};
use kulprit_proto::v1;
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two looks at an agent that is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn list(args: AgentListArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let agents = coordinator.agents().await?;
    print(args.output, || tables::agents(&agents, tables::now_ms()), || json::agents(&agents))?;
    Ok(0)
}

pub async fn quarantine(args: AgentQuarantineArgs) -> Result<u8, Failure> {
    let name = args.name.to_string();
    Coordinator::dial(&args.to).await?.agent_quarantine(&name, &args.reason).await?;
    let text = || format!("agent {name} gets no more work until `kulprit agent release {name}`\n");
    print(args.output, text, || json!({ "quarantined": name, "reason": args.reason }))?;
    Ok(0)
}

/// What it holds it finishes; who calls this may then switch the machine off.
pub async fn drain(args: AgentDrainArgs) -> Result<u8, Failure> {
    let (name, start) = (args.name.to_string(), Instant::now());
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let gets_nothing = |agent: v1::AgentView| is_aside(&agent) || agent.state == "revoked";
    let set_aside = !find(&mut coordinator, &name).await?.is_some_and(gets_nothing);
    if set_aside {
        coordinator.agent_quarantine(&name, &args.reason).await?;
    }
    let state = loop {
        let agent = find(&mut coordinator, &name).await?;
        // What one that was heard before a restart holds is known once it has spoken, or is not waited for.
        let known = agent.as_ref().filter(|agent| !agent.awaited);
        let left = known.map(held);
        if let (Some(agent), Some(0)) = (known, left) {
            break agent.state.clone();
        }
        if start.elapsed() >= args.limit {
            let left = left.map_or("what is not known".to_owned(), |left| format!("{left} in hand"));
            return Err(Failure::Internal(anyhow::anyhow!(
                "drain agent {name}: it gets nothing more, but has {left} still, with --limit over"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let is = if state == "lost" { "is lost and holds nothing" } else { "holds nothing" };
    let text = || format!("agent {name} {is}, until `kulprit agent release {name}`\n");
    print(args.output, text, || json!({ "drained": name, "set_aside": set_aside, "state": state }))?;
    Ok(0)
}

async fn find(coordinator: &mut Coordinator, name: &str) -> Result<Option<v1::AgentView>, Failure> {
    Ok(coordinator.agents().await?.into_iter().find(|agent| agent.id == name))
}

/// An operator said so; a quarantine that ends by itself is none to build on.
fn is_aside(agent: &v1::AgentView) -> bool {
    agent.quarantined_ms.is_some() && agent.quarantined_until_ms.is_none() && !agent.reason.is_empty()
}

fn held(agent: &v1::AgentView) -> usize {
    agent.slots.iter().filter(|slot| slot.work.is_some()).count()
}

pub async fn release(args: AgentReleaseArgs) -> Result<u8, Failure> {
    let name = args.name.to_string();
    Coordinator::dial(&args.to).await?.agent_release(&name).await?;
    print(args.output, || format!("agent {name} may work again\n"), || json!({ "released": name }))?;
    Ok(0)
}
