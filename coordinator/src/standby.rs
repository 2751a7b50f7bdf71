//! A coordinator that waits its turn: it turns everybody away, and takes over where the one that leads
//! goes silent or gives the lead up.

use crate::door::listen::Listening;
use crate::journal::{Candidate, JournalError, LOOK_EVERY, Lead, Standing};
use crate::telemetry::Ops;
use crate::{process, serving};
use anyhow::Context as _;
use kulprit_proto::supervisor::{self, Pulse};
use tokio::sync::watch;

/// How a standby ends what it says while another leads, and all is well.
pub const LEADS: &str = "leads the farm";

/// Waits until this coordinator leads; `None` where it was told to end before.
pub async fn wait(
    candidate: Candidate,
    listening: &mut Listening,
    ops: &Ops,
) -> anyhow::Result<Option<Box<Lead>>> {
    let (say, said) = watch::channel(String::new());
    let (stop, stopped) = watch::channel(false);
    let mut news = said.clone();
    let mut looking = tokio::spawn(look(candidate, say));
    let refusing = serving::refuse_all(listening, said, stopped);
    let mut refusing = std::pin::pin!(refusing);
    let mut pulse = Pulse::wanted();
    let lead = loop {
        tokio::select! {
            looked = &mut looking => break looked.context("look who leads")??,
            refused = &mut refusing => {
                refused?;
                anyhow::bail!("serve as a standby: the port was closed");
            }
            Ok(()) = news.changed() => {
                let why = news.borrow_and_update().clone();
                tracing::info!("{why}");
                supervisor::ready(&why);
                ops.stands_by(why);
            }
            signal = process::terminated() => {
                tracing::info!(signal, "ending");
                looking.abort();
                return Ok(None);
            }
            () = pulse.beat() => {}
        }
    };
    ops.starts();
    stop.send_replace(true);
    // Whoever does not take the hint is turned away with its connection.
    let _ = tokio::time::timeout(LOOK_EVERY, refusing).await;
    Ok(Some(lead))
}

/// Looks who leads until nobody does; says why it waits, where that is news.
async fn look(mut candidate: Candidate, say: watch::Sender<String>) -> Result<Box<Lead>, JournalError> {
    loop {
        let why = match candidate.look().await? {
            Standing::Leads(lead) => return Ok(lead),
            Standing::StandsBy(name) => format!("standing by: {name} {LEADS}"),
            Standing::OutOfReach(why) => format!("standing by: the database does not answer ({why})"),
        };
        say.send_if_modified(|said| {
            let is_news = *said != why;
            *said = why;
            is_news
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
