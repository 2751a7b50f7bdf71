//! `kulprit agent …`.

use super::args::{AgentListArgs, AgentQuarantineArgs, AgentReleaseArgs};
use super::bisect::print;
use super::client::Coordinator;
use super::failure::Failure;
use super::{json, tables};
use serde_json::json;

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

pub async fn release(args: AgentReleaseArgs) -> Result<u8, Failure> {
    let name = args.name.to_string();
    Coordinator::dial(&args.to).await?.agent_release(&name).await?;
    print(args.output, || format!("agent {name} may work again\n"), || json!({ "released": name }))?;
    Ok(0)
}
