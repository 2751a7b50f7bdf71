//! `kulprit agent …`.

use super::args::AgentListArgs;
use super::bisect::print;
use super::client::Coordinator;
use super::failure::Failure;
use super::{json, tables};

pub async fn list(args: AgentListArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let agents = coordinator.agents().await?;
    print(args.output, || tables::agents(&agents, tables::now_ms()), || json::agents(&agents))?;
    Ok(0)
}
