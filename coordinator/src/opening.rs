//! How a coordinator comes to its journal: at once where it is a file, and where it is in a database
//! once this coordinator leads, with everybody turned away on the port until then.

use crate::door::gate::Gate;
use crate::door::keys::Keys;
use crate::door::listen::Listening;
use crate::journal::{Candidate, Journal, Place, StoredFact};
use crate::telemetry::Ops;
use crate::{process, serving, standby};
use anyhow::bail;
use kulprit_common::farm::fact::Fact;
use kulprit_proto::journal as wire;
use kulprit_proto::supervisor::Pulse;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The port for gRPC.
#[derive(Clone, Copy)]
pub struct Port<'a> {
    pub flag: &'static str,
    pub address: SocketAddr,
    pub keys: Option<&'a Arc<Keys>>,
    pub gate: &'a Gate,
}

impl Port<'_> {
    pub async fn open(&self) -> anyhow::Result<Listening> {
        serving::listen(self.flag, self.address, self.keys, &["h2"], self.gate.clone()).await
    }

    /// How people reach it: by the host's name, where all of its addresses are listened on.
    fn name(&self) -> String {
        let scheme = if self.keys.is_some() { "https" } else { "http" };
        match self.address.ip().is_unspecified() {
            true => format!("{scheme}://{}:{}", process::hostname(), self.address.port()),
            false => format!("{scheme}://{}", self.address),
        }
    }
}

/// The journal and what it says.
pub struct Opened {
    pub journal: Journal,
    pub facts: Vec<Fact>,
    /// The port, where others were turned away on it so far.
    pub grpc: Option<Listening>,
}

/// Opens the journal, once it is this coordinator's turn; `None` where it was told to end before.
pub async fn open(state: &Path, place: &Place, port: Port<'_>, ops: &Ops) -> anyhow::Result<Option<Opened>> {
    let mut reading = Reading::default();
    let each = |stored| reading.take(&stored);
    let (journal, grpc) = match place {
        Place::File(path) => (Journal::open(path, each).await?, None),
        Place::Database(database) => {
            let candidate = Candidate::new(database.clone(), state, port.name())?;
            let mut grpc = port.open().await?;
            let Some(lead) = standby::wait(candidate, &mut grpc, ops).await? else { return Ok(None) };
            // The supervisor was told that this one is ready to stand by, and listens since.
            (Pulse::wanted().during(Journal::lead(lead, each)).await?, Some(grpc))
        }
    };
    match reading.broken {
        Some(why) => {
            give_up(&journal).await;
            bail!("read the journal in {place}: {why}; was it written by a newer kulprit?")
        }
        None => Ok(Some(Opened { journal, facts: reading.facts, grpc })),
    }
}

/// Lets a coordinator lead that can, where this one has found that it cannot.
pub async fn give_up(journal: &Journal) {
    // Closed already, or broken: then it holds nothing more.
    let _ = journal.close().await;
}

#[derive(Default)]
struct Reading {
    facts: Vec<Fact>,
    broken: Option<String>,
}

impl Reading {
    fn take(&mut self, stored: &StoredFact) {
        match wire::decode(&stored.body) {
            Ok(fact) => self.facts.push(fact),
            Err(error) => {
                self.broken.get_or_insert(format!("fact {} ({}): {error}", stored.seq, stored.kind));
            }
        }
    }
}
